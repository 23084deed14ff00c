#!/usr/bin/env python3
"""Runs CrowdStrike's own clients, unmodified, against the stand-in, and compares what each gets with ours.

    tests/interop/run.py --cache DIR [--skip CLIENT]... COMMAND [ARG...]

COMMAND runs the malquery command line, which is our client and also starts the stand-in, as `COMMAND serve --corpus DIR
--port 0`. The clients are falconpy (PyPI), falconjs (npm) and rusty_falcon (crates.io). They are installed into DIR and
kept there; rusty_falcon takes 5 to 10 minutes to build for the first time.

Each client has a stand-in of its own, so that quotas start from zero, and a script that prints a JSON object with the
documents of all nine operations and the refusals, under the same names.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
FALCONPY, FALCONJS = "crowdstrike-falconpy==1.6.6", "crowdstrike-falcon@0.7.0"
# They differ from run to run.
VOLATILE = {"query_time", "trace_id", "reqid"}

# Harmless samples: path, bytes and the day they were first seen.
SAMPLES = [
    ("first", b"MZ is not enough to be a program; the word is CrowdStrike", "2024/01/15"),
    ("below/second", "powershell".encode("utf-16-le") + b" twice as wide, CrowdStrike not", "2024/02/15"),
    ("third.pdf", b"%PDF-1.4 with the bytes \x89\x48\x20\x8b\x48 and CrowdStrike", "2024/03/15"),
    ("fourth", b"nothing to find", "2024/01/15"),
]
LABELS = {"first": {"label": "malware", "family": "Demo"}, "fourth": {"label": "clean"}}
HASHES = sorted(hashlib.sha256(content).hexdigest() for _, content, _ in SAMPLES)
UNKNOWN = "0" * 64

# What every client asks for.
ASK = {
    "hashes": HASHES,
    "unknown": UNKNOWN,
    "fuzzy": {"patterns": [{"type": "ascii", "value": "CrowdStrike"}], "options": {"filter_meta": ["sha256", "label"], "limit": 2}},
    "exact": {
        "patterns": [{"type": "hex", "value": "8948208b48"}, {"type": "ascii", "value": "CrowdStrike"}],
        "options": {
            "filter_filetypes": ["pdf"],
            "filter_meta": ["sha256", "type", "size"],
            "limit": 2,
            "max_size": "1.3 KB",
            "min_date": "2024/02/01",
        },
    },
    "hunt": {"yara_rule": 'rule demo { strings: $a = "CrowdStrike" condition: $a }\n'},
    "bad_hunt": {"yara_rule": "rule demo {\n  condition: $b\n}\n"},
}


def make_corpus(folder):
    for path, content, day in SAMPLES:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    notes = {path: {**LABELS.get(path, {}), "first_seen": day} for path, _, day in SAMPLES}
    (folder / "malquery-corpus.json").write_text(json.dumps({"path": notes}))


@contextlib.contextmanager
def stand_in(command, corpus):
    """Starts a stand-in; gives the environment of its clients."""
    with tempfile.TemporaryFile("w+") as output:
        serve = [*command, "serve", "--corpus", str(corpus), "--port", "0"]
        server = subprocess.Popen(serve, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                output.seek(0)
                text = output.read()
                url = re.search(r"http://127\.0\.0\.1:\d+", text)
                values = dict(re.findall(r"(FALCON_CLIENT_\w+)=(\S+)", text))
                if url and len(values) == 2:
                    break
                if server.poll() is not None:
                    sys.exit(f"{serve} ended with {server.returncode}\n{text}")
                time.sleep(0.1)
            else:
                sys.exit(f"{serve} printed no address within a minute\n{text}")
            environment = {**os.environ, **values, "FALCON_BASE_URL": url[0], "ASK": json.dumps(ASK)}
            for name in ["FALCON_CLOUD", "FALCON_MEMBER_CID", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]:
                environment.pop(name, None)
            yield environment
        finally:
            server.kill()
            server.wait()


def install(client, cache):
    """Installs a client into the cache; gives the command of its script."""
    folder = cache / client
    folder.mkdir(parents=True, exist_ok=True)
    if client == "falconpy":
        python = folder / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", FALCONPY]
        subprocess.run(pip, check=True)
        return [python, HERE / "with_falconpy.py"]
    if client == "falconjs":
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, FALCONJS]
        subprocess.run(npm, check=True)
        return ["node", HERE / "with_falconjs.js", folder / "node_modules" / "crowdstrike-falcon"]
    # Its workspace and target folder are its own; nothing of ours is built with it.
    package = folder / "package"
    shutil.copytree(HERE / "rusty_falcon", package, dirs_exist_ok=True)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(folder / "target")}
    subprocess.run(["cargo", "build", "--quiet"], cwd=package, env=environment, check=True)
    return [folder / "target" / "debug" / "malquery-interop"]


def run(command, environment):
    call = subprocess.run([*map(str, command)], env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    return json.loads(call.stdout)


def ours(command, environment, folder):
    """The same with our command line."""
    rule, bad_rule, archive, sample = (folder / name for name in ["rule.yar", "bad.yar", "samples.zip", "sample"])
    rule.write_text(ASK["hunt"]["yara_rule"])
    bad_rule.write_text(ASK["bad_hunt"]["yara_rule"])

    def malquery(*args, refused=False):
        line = [*command, "--poll-interval", "0.1", *map(str, args)]
        call = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (call.returncode == 0) != refused, (line, call.stdout, call.stderr)
        return call.stderr if refused else json.loads(call.stdout or "null")

    def options(values):
        names = {"filter_filetypes": "--filetype", "filter_meta": "--meta"}
        for name, value in values.items():
            yield names.get(name, "--" + name.replace("_", "-"))
            yield ",".join(value) if isinstance(value, list) else value

    def search(asked):
        for pattern in asked["patterns"]:
            yield from ["--pattern", f"{pattern['type']}:{pattern['value']}"]
        yield from options(asked["options"])

    got = {}
    got["fuzzy"] = malquery("fuzzy-search", *search(ASK["fuzzy"]))
    got["exact"] = malquery("exact-search", *search(ASK["exact"]), "--wait")
    got["hunt"] = malquery("hunt", "--rule", rule, "--wait")
    got["metadata"] = malquery("metadata", *HASHES, UNKNOWN)
    job = malquery("multidownload", *HASHES)["meta"]["reqid"]
    got["multidownload"] = malquery("request", job, "--wait")
    malquery("samples", job, "--output", archive)
    got["archive"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    malquery("download", HASHES[0], "--output", sample)
    got["download"] = hashlib.sha256(sample.read_bytes()).hexdigest()
    got["quotas"] = malquery("quotas")
    refusals = {
        "bad_hunt": malquery("hunt", "--rule", bad_rule, "--no-check-rule", refused=True),
        "unknown_download": malquery("download", UNKNOWN, "--output", sample.with_name("none"), refused=True),
        "unknown_archive": malquery("samples", "no-such-job", "--output", archive.with_name("none"), refused=True),
    }
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as opened:
        contents = {opened.read(name, pwd=b"infected") for name in opened.namelist()}
        assert opened.namelist() == HASHES and contents == {content for _, content, _ in SAMPLES}
    return got, refusals


def plain(value):
    """A document without what differs from run to run, and without empty lists, which may be missing."""
    if isinstance(value, dict):
        kept = ((name, item) for name, item in value.items() if name not in VOLATILE)
        return {name: plain(item) for name, item in kept if item != []}
    return [plain(item) for item in value] if isinstance(value, list) else value


def check_ours(got):
    """Our client found what the samples hold."""
    matching = [hashlib.sha256(content).hexdigest() for _, content, _ in reversed(SAMPLES) if b"CrowdStrike" in content]
    assert [found["sha256"] for found in got["hunt"]["resources"]] == matching, got["hunt"]
    assert got["hunt"]["meta"]["stats"]["total_count"] == got["fuzzy"]["meta"]["stats"]["total_count"] == 3
    assert len(got["fuzzy"]["resources"]) == 2, got["fuzzy"]
    assert [set(found) - {"samples"} for found in got["exact"]["resources"]] == [{"sha256", "filetype", "filesize"}]
    assert [found["sha256"] for found in got["metadata"]["resources"]] == HASHES
    meta = got["quotas"]["meta"]
    assert (meta["hunt_count"], meta["download_count"]) == (1, len(HASHES) + 1), meta


def compare(client, theirs, our):
    got, refusals = our
    refused = theirs.pop("refused")
    assert theirs.keys() == got.keys(), theirs.keys()
    for name, document in theirs.items():
        # Some clients drop the bytes of samples.
        if document is None and name in ("archive", "download"):
            continue
        assert plain(document) == plain(got[name]), (client, name, plain(document), plain(got[name]))
    assert refused.keys() == {*refusals, "bad_token"}, refused
    statuses = {"bad_hunt": 400, "unknown_download": 404, "unknown_archive": 404, "bad_token": 401}
    for name, (status, document) in refused.items():
        assert status == statuses[name], (client, name, status, document)
        (error,) = document["errors"]
        assert error["code"] == status, (client, name, document)
        message = error["message"].splitlines()[0]
        assert message in refusals.get(name, "access denied, invalid bearer token"), (client, name, message)
    dropped = [name for name in ("archive", "download") if theirs[name] is None]
    print(f"{client}: {len(theirs)} replies and {len(refused)} refusals agree with ours", end="")
    print(f"; it drops the bytes of {' and '.join(dropped)}" if dropped else "", flush=True)


def main():
    clients = ["falconpy", "falconjs", "rusty_falcon"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="the folder for what is installed")
    parser.add_argument("--skip", action="append", default=[], choices=clients, help="a client to leave out")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("the command is missing")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        corpus = folder / "corpus"
        make_corpus(corpus)
        with stand_in(arguments.command, corpus) as environment:
            our = ours(arguments.command, environment, folder)
        check_ours(our[0])
        for client in clients:
            if client in arguments.skip:
                print(f"{client}: SKIPPED by --skip", flush=True)
                continue
            command = install(client, arguments.cache.resolve())
            with stand_in(arguments.command, corpus) as environment:
                compare(client, run(command, environment), our)


main()
