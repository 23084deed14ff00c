//! Compares a live service with a cassette.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cassette::matching::{Seen, is_for_tokens};
use crate::cassette::{Cassette, Interaction};
use crate::json::Json;
use crate::record::log::{End, Exchange, Log, Outcome, job};
use crate::record::policy::{Policy, with_jobs};

/// For each path in a document, the types of its non-null values, and the total number of values.
type Shape = BTreeMap<String, (BTreeSet<&'static str>, usize)>;

fn shape(json: &Json) -> Shape {
    let mut shape = Shape::new();
    json.each(&mut String::new(), &mut |place, value| {
        let (kinds, count) = shape.entry(place.to_owned()).or_default();
        *count += 1;
        // The service may write null for a missing value.
        if !matches!(value, Json::Null) {
            kinds.insert(value.kind());
        }
    });
    shape
}

/// Returns the differences in structure between a recorded document and a live one.
fn moved(recorded: &Json, live: &Json) -> Vec<String> {
    let (recorded, live) = (shape(recorded), shape(live));
    let all: BTreeSet<_> = recorded.keys().chain(live.keys()).collect();
    let (mut out, mut done): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for place in all {
        if done.iter().any(|done| place.starts_with(done)) {
            continue;
        }
        let (parent, name) = place.rsplit_once('/').unwrap_or(("", "the whole document"));
        let shown = if place.is_empty() { name } else { place };
        let kinds = |kinds: &BTreeSet<&str>| match kinds.len() {
            0 => "null".into(),
            _ => Vec::from_iter(kinds.iter().copied()).join(" or "),
        };
        match (recorded.get(place), live.get(place)) {
            // A field may be null because it has no value.
            (Some((a, _)), Some((b, _))) if !a.is_empty() && !b.is_empty() => {
                if b.is_subset(a) {
                    continue;
                }
                let (a, b) = (kinds(a), kinds(b));
                out.push(format!(
                    "{shown}: {a} in the cassette, {b} in the live reply"
                ));
            }
            // The items of an empty list are unknown, and an optional field may be missing.
            (Some((a, count)), None)
                if name != "*"
                    && !a.is_empty()
                    && recorded.get(parent).is_some_and(|(_, all)| all == count) =>
            {
                let a = kinds(a);
                out.push(format!("{shown}: not in the reply ({a} in the cassette)"));
            }
            (None, Some((b, _))) if name != "*" => {
                out.push(format!("{shown}: new in the reply ({})", kinds(b)));
            }
            _ => {}
        }
        done.push(format!("{place}/"));
    }
    out
}

/// Compares live exchanges with a cassette, and returns the differences. Compares the status and
/// the JSON structure of each reply, but not how often each request is sent.
pub(crate) fn find(cassette: &Cassette, log: &Log, policy: &Policy) -> Vec<String> {
    let exchanges = &mut log.lock().exchanges;
    let mut policy = policy.clone();
    exchanges.iter_mut().for_each(|one| policy.see(one));
    let is_recorded = |one: &&mut Exchange| !is_for_tokens(one.request.uri().path());
    let mut exchanges = exchanges.iter_mut().filter(is_recorded).peekable();
    let mut found = Vec::new();
    if exchanges.peek().is_none() && !cassette.interactions.is_empty() {
        found.push("no request to MalQuery was sent, so nothing was compared".into());
    }
    // The recorded id of each live job.
    let mut jobs: HashMap<String, String> = HashMap::new();
    let mut count = vec![0; cassette.interactions.len()];
    for exchange in exchanges {
        let live = exchange.json();
        let mut request = exchange.request.clone();
        if let Ok(uri) = with_jobs(request.uri(), &jobs).parse() {
            *request.uri_mut() = uri;
        }
        let seen = Seen::new(&request);
        let matching = cassette.interactions.iter().enumerate();
        let closest = matching
            .filter(|(_, one)| one.matches(&seen))
            .map(|(index, one)| {
                let drift = drift(one, exchange, live.as_ref(), &policy);
                (drift, count[index] >= one.reply.times, index)
            })
            .min_by_key(|(drift, is_used_up, index)| (drift.len(), *is_used_up, *index));
        let Some((drift, _, index)) = closest else {
            found.push(format!("{}: not in the cassette", seen.line()));
            continue;
        };
        count[index] += 1;
        let interaction = &cassette.interactions[index];
        let recorded = recorded_body(interaction);
        if let (Some(live), Some(recorded)) = (job(live.as_ref()), job(recorded.as_ref())) {
            jobs.insert(live.to_owned(), recorded.to_owned());
        }
        let labelled = |line| format!("{}: {line}", interaction.label);
        found.extend(drift.into_iter().map(labelled));
    }
    let mut known = BTreeSet::new();
    let lines = found.iter().map(|line| policy.mask(line).into_owned());
    lines.filter(|line| known.insert(line.clone())).collect()
}

fn drift(one: &Interaction, live: &Exchange, json: Option<&Json>, policy: &Policy) -> Vec<String> {
    let line = match (&one.reply.answer, &live.outcome) {
        (Err(_), Outcome::Failed { .. }) | (_, Outcome::Pending) => return Vec::new(),
        (Ok(recorded), Outcome::Reply(live)) if recorded.status != live.status => {
            let (status, live) = (recorded.status.as_u16(), live.status.as_u16());
            format!("status {status} in the cassette, {live} in the live reply")
        }
        (Ok(recorded), Outcome::Reply(live)) => match (recorded_body(one), json) {
            // Redacts both in the same way before comparing them.
            (Some(a), Some(b)) => return moved(&policy.reply(&a), &policy.reply(b)),
            (Some(_), None) if live.end == End::Whole => {
                "the recorded reply is JSON, but the live reply is not".into()
            }
            (None, Some(_)) if recorded.truncate_after.is_none() => {
                "the live reply is JSON, but the recorded reply is not".into()
            }
            _ => return Vec::new(),
        },
        (Ok(recorded), Outcome::Failed { message, .. }) => {
            let (status, message) = (recorded.status.as_u16(), policy.text(message));
            format!("status {status} in the cassette, but no live reply: {message}")
        }
        (Err(fault), Outcome::Reply(live)) => {
            let status = live.status.as_u16();
            format!("error {fault:?} in the cassette, status {status} in the live reply")
        }
    };
    vec![line]
}

fn recorded_body(interaction: &Interaction) -> Option<Json> {
    let recorded = interaction.reply.answer.as_ref().ok()?;
    Json::of_reply(&recorded.body).filter(|_| recorded.truncate_after.is_none())
}
