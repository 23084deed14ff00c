#!/usr/bin/env bash
# CrowdStrike's own Python client, unmodified, and our command line, against one stand-in: both must get the same.
#
#   tests/interop/run.sh [--venv DIR] COMMAND [ARG...]
#
# COMMAND is how to run the malquery command line; it also starts the stand-in, as `COMMAND serve --corpus DIR --port 0`,
# unless the variable SERVER has another command for that, which gets the same options. The virtual environment is made in DIR, and
# kept there for the next time; without --venv it goes with all else.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
falconpy=crowdstrike-falconpy==1.6.6

work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2> /dev/null || true
    rm -rf "$work"
}
trap finish EXIT

venv=$work/venv
if [ "${1-}" = --venv ]; then
    mkdir -p "$2"
    venv=$(cd "$2" && pwd)
    shift 2
fi
[ $# -gt 0 ] || { echo "usage: $0 [--venv DIR] COMMAND [ARG...]" >&2; exit 2; }

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "$falconpy"

# Harmless samples, with what can be known of them.
mkdir -p "$work/corpus/below"
printf 'MZ is not enough to be a program; the word is CrowdStrike' > "$work/corpus/first"
printf 'p\0o\0w\0e\0r\0s\0h\0e\0l\0l\0 in two bytes a character, CrowdStrike in one' > "$work/corpus/below/second"
printf '%%PDF-1.4 with the bytes \x89\x48\x20\x8b\x48 and CrowdStrike' > "$work/corpus/third.pdf"
printf 'nothing to be found' > "$work/corpus/fourth"
touch -d '2024-01-15T12:00:00Z' "$work/corpus/first" "$work/corpus/fourth"
touch -d '2024-02-15T12:00:00Z' "$work/corpus/below/second"
touch -d '2024-03-15T12:00:00Z' "$work/corpus/third.pdf"
cat > "$work/corpus/malquery-corpus.json" << 'END'
{ "path": { "first": { "label": "malware", "family": "Demo" }, "fourth": { "label": "clean" } } }
END

if [ -n "${SERVER-}" ]; then read -ra serve <<< "$SERVER"; else serve=("$@" serve); fi
"${serve[@]}" --corpus "$work/corpus" --port 0 > "$work/server" 2>&1 &
server=$!
for _ in $(seq 300); do
    url=$(sed -n 's/.*\(http:\/\/127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/server" | head -n 1)
    secret=$(sed -n 's/^FALCON_CLIENT_SECRET=//p' "$work/server")
    [ -z "$url" ] || [ -z "$secret" ] || break
    kill -0 "$server" || { cat "$work/server" >&2; exit 1; }
    sleep 0.1
done
export FALCON_BASE_URL=$url FALCON_CLIENT_SECRET=$secret
FALCON_CLIENT_ID=$(sed -n 's/^FALCON_CLIENT_ID=//p' "$work/server")
export FALCON_CLIENT_ID
unset FALCON_CLOUD FALCON_MEMBER_CID

"$venv/bin/python" "$here/falconpy_all.py" "$work" "$@"
