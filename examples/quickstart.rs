//! A first program with malquery: prints the remaining quotas and runs a search.
//!
//! It calls the service with the credentials in FALCON_CLIENT_ID and FALCON_CLIENT_SECRET. Set
//! FALCON_CLOUD too if the account is in a government cloud. A fuzzy search has no documented cost.

use malquery_proto::operations::FuzzySearch;
use malquery_proto::types::{MetaField, Pattern};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = malquery_ureq::from_env()?;

    let quotas = client.quotas()?;
    if let (Some(hunts), Some(downloads)) = (quotas.meta.hunts_left(), quotas.meta.downloads_left())
    {
        println!("{hunts} hunts and {downloads} downloads are left this month");
    }

    let search = FuzzySearch::new([
        Pattern::ascii("CreateRemoteThread")?,
        Pattern::hex("8948208b48")?,
    ])
    .filter_meta([MetaField::Sha256, MetaField::Label, MetaField::Family])
    .limit(10);
    for sample in &client.fuzzy_search(&search)?.resources {
        if let (Some(sha256), Some(label)) = (&sample.sha256, &sample.label) {
            println!(
                "{sha256} {label} {}",
                sample.family.as_deref().unwrap_or("-")
            );
        }
    }
    Ok(())
}
