"""All nine operations and both token endpoints with FalconPy, then with our command line, and what differs.

    falconpy_all.py FOLDER COMMAND [ARG...]

FOLDER holds the corpus of the stand-in and takes what is downloaded; COMMAND runs the malquery command line. Where the
stand-in is, and the credentials, come from the environment. `run.sh` does all that.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from falconpy import MalQuery, OAuth2

FOLDER, COMMAND = Path(sys.argv[1]), sys.argv[2:]
BASE = os.environ["FALCON_BASE_URL"]
AUTH = {"client_id": os.environ["FALCON_CLIENT_ID"], "client_secret": os.environ["FALCON_CLIENT_SECRET"], "base_url": BASE}
# One of each run; not what was asked or found.
VOLATILE = {"query_time", "trace_id", "reqid"}
UNKNOWN = "0" * 64

RULE = 'rule demo { strings: $a = "CrowdStrike" condition: $a }\n'
BAD_RULE = "rule demo {\n  condition: $b\n}\n"
ASCII = [{"type": "ascii", "value": "CrowdStrike"}]
WIDE = [{"type": "wide", "value": "powershell"}, {"type": "ascii", "value": "CrowdStrike"}]
HEX = [{"type": "hex", "value": "8948208b48"}]
OPTIONS = {"filter_meta": ["sha256", "type", "size"], "limit": 2, "min_date": "2024/02/01", "max_size": "1.3 KB"}

samples = {}
for path in sorted((FOLDER / "corpus").rglob("*")):
    if path.is_file() and path.name != "malquery-corpus.json":
        samples[hashlib.sha256(path.read_bytes()).hexdigest()] = path.read_bytes()
hashes = sorted(samples)


def body(answer, status=200):
    """The document of an answer of FalconPy."""
    assert not isinstance(answer, bytes) and answer["status_code"] == status, answer
    return answer["body"]


def job(falcon, answer):
    """Waits for a job as FalconPy's users do: by asking."""
    reqid = body(answer)["meta"]["reqid"]
    seen = []
    while True:
        found = body(falcon.get_request(ids=reqid))
        seen.append(found["meta"]["status"])
        if seen[-1] != "inprogress":
            break
        time.sleep(0.1)
    assert seen[0] == "inprogress" and seen[-1] == "done", seen
    return found


def archive(content):
    """What is in an archive, as Python's zipfile reads it."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return {name: opened.read(name, pwd=b"infected") for name in opened.namelist()}


def with_falconpy():
    falcon = MalQuery(**AUTH)
    answers = {"quotas": body(falcon.get_quotas())}
    answers["fuzzy"] = body(falcon.fuzzy_search(patterns=ASCII, filter_meta="sha256,label", limit=2))
    answers["wide"] = job(falcon, falcon.exact_search(patterns=WIDE))
    answers["hex"] = job(falcon, falcon.exact_search(patterns=HEX))
    answers["exact"] = job(falcon, falcon.exact_search(patterns=ASCII, filter_filetypes=["pdf"], **OPTIONS))
    answers["hunt"] = job(falcon, falcon.hunt(yara_rule=RULE))
    answers["metadata"] = body(falcon.get_metadata(ids=hashes + [UNKNOWN]))
    submitted = falcon.samples_multidownload(samples=hashes)
    answers["multidownload"] = job(falcon, submitted)
    fetched = falcon.get_samples(ids=body(submitted)["meta"]["reqid"])
    assert isinstance(fetched, bytes), fetched
    answers["archive"] = archive(fetched)
    answers["download"] = falcon.get_download(ids=hashes[0])

    # What is refused, FalconPy tells as it was told.
    refused = body(falcon.hunt(yara_rule=BAD_RULE), 400)
    assert "yara_rule does not compile" in refused["errors"][0]["message"], refused
    refused = body(falcon.exact_search(body={"options": [], "patterns": ASCII}), 400)
    assert "Invalid user input" in refused["errors"][0]["message"], refused
    body(falcon.get_download(ids=UNKNOWN), 404)
    body(falcon.get_samples(ids="no-such-job"), 404)
    body(falcon.samples_multidownload(samples=[UNKNOWN]), 404)

    # Both token endpoints by themselves.
    oauth2 = OAuth2(**AUTH)
    token = body(oauth2.token(), 201)["access_token"]
    with_token = MalQuery(access_token=token, base_url=BASE)
    body(with_token.get_quotas())
    body(oauth2.revoke(token=token))
    refused = body(with_token.get_quotas(), 401)
    assert refused["errors"][0]["message"] == "access denied, invalid bearer token", refused
    wrong = OAuth2(client_id=AUTH["client_id"], client_secret="wrong", base_url=BASE)
    refused = body(wrong.token(), 400)
    assert "Failed to generate access token for clientID=" in refused["errors"][0]["message"], refused
    return answers


def malquery(*args):
    """The document of our command line."""
    call = subprocess.run([*COMMAND, "--poll-interval", "0.1", *map(str, args)], capture_output=True, check=False)
    assert call.returncode == 0, (args, call.stderr.decode())
    return json.loads(call.stdout)


def with_malquery():
    rule, fetched, saved = FOLDER / "rule.yar", FOLDER / "samples.zip", FOLDER / "sample"
    rule.write_text(RULE)
    crowdstrike = ["--pattern", "ascii:CrowdStrike"]
    options = ["--meta", "sha256,type,size", "--limit", 2, "--min-date", "2024/02/01", "--max-size", "1.3 KB"]
    answers = {}
    answers["fuzzy"] = malquery("fuzzy-search", *crowdstrike, "--meta", "sha256,label", "--limit", 2)
    answers["wide"] = malquery("exact-search", "--pattern", "wide:powershell", *crowdstrike, "--wait")
    answers["hex"] = malquery("exact-search", "--pattern", "hex:8948208b48", "--wait")
    answers["exact"] = malquery("exact-search", *crowdstrike, "--filetype", "pdf", *options, "--wait")
    answers["hunt"] = malquery("hunt", "--rule", rule, "--wait")
    answers["metadata"] = malquery("metadata", *hashes, UNKNOWN)
    submitted = malquery("multidownload", *hashes)["meta"]["reqid"]
    answers["multidownload"] = malquery("request", submitted, "--wait")
    malquery("samples", submitted, "--output", fetched)
    answers["archive"] = archive(fetched.read_bytes())
    malquery("download", hashes[0], "--output", saved)
    answers["download"] = saved.read_bytes()
    answers["quotas"] = malquery("quotas")
    return answers


def plain(value):
    """A document without what differs from run to run, and without empty errors, which may be missing."""
    if isinstance(value, dict):
        return {
            name: plain(item) for name, item in value.items() if name not in VOLATILE and (name, item) != ("errors", [])
        }
    return [plain(item) for item in value] if isinstance(value, list) else value


theirs, ours = with_falconpy(), with_malquery()
quotas = theirs.pop("quotas"), ours.pop("quotas")

# It found what is there.
matching = {sha256 for sha256, content in samples.items() if b"CrowdStrike" in content}
assert {found["sha256"] for found in theirs["hunt"]["resources"]} == matching
assert len(theirs["wide"]["resources"]) == len(theirs["hex"]["resources"]) == len(theirs["exact"]["resources"]) == 1
assert set(theirs["exact"]["resources"][0]) == {"sha256", "filetype", "filesize"}, theirs["exact"]
assert theirs["fuzzy"]["meta"]["stats"]["total_count"] == 3 and len(theirs["fuzzy"]["resources"]) == 2
assert [found["sha256"] for found in theirs["metadata"]["resources"]] == hashes
assert theirs["archive"] == samples and theirs["download"] == samples[hashes[0]]

# Both got the same.
assert theirs.keys() == ours.keys()
for name in theirs:
    assert plain(theirs[name]) == plain(ours[name]), (name, plain(theirs[name]), plain(ours[name]))

# And both paid for it: a hunt, and a download for each sample.
before, after = (document["meta"] for document in quotas)
assert before.keys() == after.keys()
assert after["hunt_count"] - before["hunt_count"] == 2, (before, after)
assert after["download_count"] - before["download_count"] == 2 * (len(hashes) + 1), (before, after)

print(f"FalconPy and malquery agree on {len(theirs)} answers of {BASE}")
