//! Calls all nine operations with rusty_falcon and prints the results, which `run.py` compares.

use std::time::Duration;

use rusty_falcon::apis::Error;
use rusty_falcon::apis::configuration::Configuration;
use rusty_falcon::apis::malquery_api::*;
use rusty_falcon::apis::oauth2_api::oauth2_access_token;
use rusty_falcon::models::MalqueryExternalQueryResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

fn env(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

fn model<T: DeserializeOwned>(json: &Value) -> Result<T, Failure> {
    Ok(serde_json::from_value(json.clone())?)
}

/// Waits for a job.
async fn job(
    falcon: &Configuration,
    submitted: &MalqueryExternalQueryResponse,
) -> Result<Value, Failure> {
    let id = submitted.meta.reqid.clone().ok_or("there is no reqid")?;
    loop {
        let found = get_mal_query_request_v1(falcon, vec![id.clone()]).await?;
        if found.meta.status.as_deref() != Some("inprogress") {
            return Ok(serde_json::to_value(found)?);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the status of an error reply and its document.
fn refused<T, E: Serialize + std::fmt::Debug>(reply: Result<T, Error<E>>) -> Result<Value, Failure> {
    match reply {
        Err(Error::ResponseError(refused)) => Ok(json!([refused.status.as_u16(), refused.entity])),
        Err(other) => Err(other.to_string().into()),
        Ok(_) => Err("the request was not refused".into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let ask: Value = serde_json::from_str(&env("ASK")?)?;
    let hashes: Vec<String> = model(&ask["hashes"])?;
    let unknown: String = model(&ask["unknown"])?;
    let mut falcon = Configuration {
        base_path: env("FALCON_BASE_URL")?,
        ..Configuration::default()
    };
    let (id, secret) = (env("FALCON_CLIENT_ID")?, env("FALCON_CLIENT_SECRET")?);
    let token = oauth2_access_token(&falcon, &id, &secret, None).await?;
    falcon.oauth_access_token = token.access_token;

    let fuzzy = post_mal_query_fuzzy_search_v1(&falcon, model(&ask["fuzzy"])?).await?;
    let exact = post_mal_query_exact_search_v1(&falcon, model(&ask["exact"])?).await?;
    let exact = job(&falcon, &exact).await?;
    let hunt = post_mal_query_hunt_v1(&falcon, model(&ask["hunt"])?).await?;
    let hunt = job(&falcon, &hunt).await?;
    let ids = hashes.iter().chain([&unknown]).cloned().collect();
    let metadata = get_mal_query_metadata_v1(&falcon, ids).await?;
    let samples = model(&json!({ "samples": hashes }))?;
    let submitted = post_mal_query_entities_samples_multidownload_v1(&falcon, samples).await?;
    let multidownload = job(&falcon, &submitted).await?;
    // rusty_falcon discards the bytes.
    let id = submitted.meta.reqid.ok_or("there is no reqid")?;
    get_mal_query_entities_samples_fetch_v1(&falcon, &id).await?;
    get_mal_query_download_v1(&falcon, vec![hashes[0].clone()]).await?;
    let quotas = get_mal_query_quotas_v1(&falcon).await?;

    let bad_token = Configuration {
        oauth_access_token: Some("bad".into()),
        ..falcon.clone()
    };
    let refused = json!({
        "bad_hunt": refused(post_mal_query_hunt_v1(&falcon, model(&ask["bad_hunt"])?).await)?,
        "unknown_download": refused(get_mal_query_download_v1(&falcon, vec![unknown]).await)?,
        "unknown_archive":
            refused(get_mal_query_entities_samples_fetch_v1(&falcon, "no-such-job").await)?,
        "bad_token": refused(get_mal_query_quotas_v1(&bad_token).await)?,
    });
    let got = json!({
        "fuzzy": fuzzy,
        "exact": exact,
        "hunt": hunt,
        "metadata": metadata,
        "multidownload": multidownload,
        "archive": null,
        "download": null,
        "quotas": quotas,
        "refused": refused,
    });
    println!("{got}");
    Ok(())
}
