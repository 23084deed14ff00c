//! What a user wrote. It takes any client.

use malquery_proto::client::Error;
use malquery_proto::operations::ExactSearch;
use malquery_proto::types::{JobStatus, Pattern, SearchOptions, Sha256};
use malquery_proto::Client;

/// The samples that hold a text.
pub fn find(client: &Client, text: &str) -> Result<Vec<Sha256>, Error> {
    let pattern = Pattern::ascii(text).expect("a pattern");
    let search = ExactSearch::new([pattern]).options(SearchOptions::new().limit(LIMIT));
    let id = client.exact_search(&search)?.id().clone();
    loop {
        let job = client.request(&id)?;
        if job.meta.status == Some(JobStatus::Done) {
            return Ok(job.resources.iter().filter_map(|found| found.sha256).collect());
        }
        let clock = client.clock();
        clock.sleep_until(clock.now().after(std::time::Duration::from_millis(20)));
    }
}

const LIMIT: u32 = 10;
