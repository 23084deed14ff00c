// All nine operations with FalconJS. Prints what it got; `run.py` compares that.
//
//     node with_falconjs.js PACKAGE

const { createHash } = require("node:crypto");
const { FalconClient } = require(process.argv[2]);
const models = require(process.argv[2] + "/dist/models");

const ask = JSON.parse(process.env.ASK);

/** FalconJS knows clouds only, so the fetch that it takes sends its requests to the stand-in. */
const toStandIn = (url, init) => fetch(url.replace("https://api.crowdstrike.com", process.env.FALCON_BASE_URL), init);

const client = (clientSecret) =>
    new FalconClient({ fetchApi: toStandIn, cloud: "us-1", clientId: process.env.FALCON_CLIENT_ID, clientSecret });

async function digest(reply) {
    return createHash("sha256").update(Buffer.from(await reply.raw.arrayBuffer())).digest("hex");
}

async function refused(reply) {
    try {
        await reply;
    } catch (error) {
        return [error.response.status, await error.response.json()];
    }
    throw new Error("the request was not refused");
}

async function main() {
    const falcon = client(process.env.FALCON_CLIENT_SECRET).malquery;

    async function job(submitted) {
        for (;;) {
            const found = await falcon.getMalQueryRequestV1([submitted.meta.reqid]);
            if (found.meta.status !== "inprogress") return models.MalqueryRequestResponseToJSON(found);
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
    }

    const got = {};
    const fuzzy = models.MalqueryFuzzySearchParametersV1FromJSON(ask.fuzzy);
    got.fuzzy = models.MalqueryFuzzySearchResponseToJSON(await falcon.postMalQueryFuzzySearchV1(fuzzy));
    const exact = models.MalqueryExternalExactSearchParametersV1FromJSON(ask.exact);
    got.exact = await job(await falcon.postMalQueryExactSearchV1(exact));
    const hunt = models.MalqueryExternalHuntParametersV1FromJSON(ask.hunt);
    got.hunt = await job(await falcon.postMalQueryHuntV1(hunt));
    const metadata = await falcon.getMalQueryMetadataV1([...ask.hashes, ask.unknown]);
    got.metadata = models.MalquerySampleMetadataResponseToJSON(metadata);
    const submitted = await falcon.postMalQueryEntitiesSamplesMultidownloadV1({ samples: ask.hashes });
    got.multidownload = await job(submitted);
    got.archive = await digest(await falcon.getMalQueryEntitiesSamplesFetchV1Raw({ ids: submitted.meta.reqid }));
    got.download = await digest(await falcon.getMalQueryDownloadV1Raw({ ids: [ask.hashes[0]] }));
    got.quotas = models.MalqueryRateLimitsResponseToJSON(await falcon.getMalQueryQuotasV1());

    const badHunt = models.MalqueryExternalHuntParametersV1FromJSON(ask.bad_hunt);
    const badToken = async () => "Bearer bad";
    const other = client("").malquery;
    other.configuration = Object.create(other.configuration, { accessToken: { value: badToken } });
    got.refused = {
        bad_hunt: await refused(falcon.postMalQueryHuntV1(badHunt)),
        unknown_download: await refused(falcon.getMalQueryDownloadV1([ask.unknown])),
        unknown_archive: await refused(falcon.getMalQueryEntitiesSamplesFetchV1("no-such-job")),
        bad_token: await refused(other.getMalQueryQuotasV1()),
    };
    console.log(JSON.stringify(got));
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
