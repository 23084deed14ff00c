"""All nine operations with FalconPy. Prints what it got; `run.py` compares that."""

import hashlib
import json
import os
import time

from falconpy import MalQuery

ASK = json.loads(os.environ["ASK"])
BASE = os.environ["FALCON_BASE_URL"]
falcon = MalQuery(
    client_id=os.environ["FALCON_CLIENT_ID"], client_secret=os.environ["FALCON_CLIENT_SECRET"], base_url=BASE
)


def body(answer):
    assert not isinstance(answer, bytes) and answer["status_code"] == 200, answer
    return answer["body"]


def refused(answer):
    assert not isinstance(answer, bytes), answer
    return answer["status_code"], answer["body"]


def job(answer):
    """Waits for a job."""
    while True:
        found = body(falcon.get_request(ids=body(answer)["meta"]["reqid"]))
        if found["meta"]["status"] != "inprogress":
            return found
        time.sleep(0.1)


def digest(answer):
    assert isinstance(answer, bytes), answer
    return hashlib.sha256(answer).hexdigest()


got = {"fuzzy": body(falcon.fuzzy_search(body=ASK["fuzzy"]))}
got["exact"] = job(falcon.exact_search(body=ASK["exact"]))
got["hunt"] = job(falcon.hunt(body=ASK["hunt"]))
got["metadata"] = body(falcon.get_metadata(ids=[*ASK["hashes"], ASK["unknown"]]))
submitted = falcon.samples_multidownload(samples=ASK["hashes"])
got["multidownload"] = job(submitted)
got["archive"] = digest(falcon.get_samples(ids=body(submitted)["meta"]["reqid"]))
got["download"] = digest(falcon.get_download(ids=ASK["hashes"][0]))
got["quotas"] = body(falcon.get_quotas())
got["refused"] = {
    "bad_hunt": refused(falcon.hunt(body=ASK["bad_hunt"])),
    "unknown_download": refused(falcon.get_download(ids=ASK["unknown"])),
    "unknown_archive": refused(falcon.get_samples(ids="no-such-job")),
    "bad_token": refused(MalQuery(access_token="bad", base_url=BASE).get_quotas()),
}
print(json.dumps(got))
