//! A user's program. It works with any client.

use std::time::Duration;

use malquery_proto::Client;
use malquery_proto::client::Error;
use malquery_proto::operations::ExactSearch;
use malquery_proto::types::{Pattern, Sha256};

/// Returns the samples that contain a text.
pub fn find(client: &Client, text: &str) -> Result<Vec<Sha256>, Error> {
    let pattern = Pattern::ascii(text).expect("a pattern");
    let search = ExactSearch::new([pattern]).limit(LIMIT);
    let job = client.exact_search(&search)?;
    let found = job.poll_every(Duration::from_millis(20)).wait()?;
    Ok(found.into_iter().filter_map(|sample| sample.sha256).collect())
}

const LIMIT: u32 = 10;
