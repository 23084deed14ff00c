//! Compares a live service with a cassette.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use http::Request;
use malquery_proto::needles::Needles;
use url::form_urlencoded;

use crate::cassette::matching::{Seen, is_for_tokens};
use crate::cassette::{Cassette, Interaction};
use crate::json::Json;
use crate::record::log::{End, Exchange, Log, Outcome};
use crate::record::policy::{Policy, read_json};

/// The kinds and the number of values at each place of a document. The items of a list share one
/// place.
type Shape = BTreeMap<String, (BTreeSet<&'static str>, usize)>;

fn add(json: &Json, place: &str, shape: &mut Shape) {
    let (kinds, count) = shape.entry(place.to_owned()).or_default();
    *count += 1;
    // The service writes null for everything that is missing.
    if !matches!(json, Json::Null) {
        kinds.insert(json.kind());
    }
    let name = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match json {
        Json::Array(items) => items
            .iter()
            .for_each(|item| add(item, &format!("{place}/*"), shape)),
        Json::Object(members) => members
            .iter()
            .for_each(|(key, value)| add(value, &format!("{place}/{}", name(key)), shape)),
        _ => {}
    }
}

/// Returns what differs in the live document.
fn moved(recorded: &Json, live: &Json) -> Vec<String> {
    let [recorded, live] = [recorded, live].map(|json| {
        let mut shape = Shape::new();
        add(json, "", &mut shape);
        shape
    });
    let all: BTreeSet<_> = recorded.keys().chain(live.keys()).collect();
    let (mut out, mut done): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for place in all {
        if done.iter().any(|done| place.starts_with(done)) {
            continue;
        }
        let (parent, name) = place.rsplit_once('/').unwrap_or(("", "the whole document"));
        let shown = if place.is_empty() { name } else { place };
        let kinds = |shape: &Shape| match shape.get(place) {
            Some((kinds, _)) if kinds.is_empty() => "null".into(),
            found => found
                .map(|(kinds, _)| Vec::from_iter(kinds.clone()).join(" or "))
                .unwrap_or_default(),
        };
        let (before, now) = (kinds(&recorded), kinds(&live));
        let differs = format!("{shown}: {before} in the cassette, {now} live");
        match (recorded.get(place), live.get(place)) {
            (Some((a, _)), Some((b, _))) if !a.is_empty() && !b.is_empty() => {
                if b.is_subset(a) {
                    continue;
                }
                out.push(differs);
            }
            // A null document differs. A null field may be a matter of the day.
            (Some((a, _)), Some((b, _))) if place.is_empty() && a != b => out.push(differs),
            // An empty list shows no items, and a field that only some items have may be missing.
            (Some((a, count)), None)
                if name != "*"
                    && !a.is_empty()
                    && recorded.get(parent).is_some_and(|(_, all)| all == count) =>
            {
                out.push(format!("{shown}: missing live ({before} in the cassette)"));
            }
            (None, Some(_)) if name != "*" => out.push(format!("{shown}: added live ({now})")),
            _ => {}
        }
        done.push(format!("{place}/"));
    }
    out
}

/// Compares live replies with the recording: statuses and the shape of JSON. Values and the number
/// of polls do not count.
pub(crate) fn find(
    cassette: &Cassette,
    log: &Log,
    also: &[String],
    secrets: &Needles,
) -> Vec<String> {
    let mut state = log.lock();
    let exchanges = &mut state.exchanges;
    let mut policy = Policy::new(also, secrets, "");
    let bodies: Vec<Option<Json>> = exchanges.iter_mut().map(live_body).collect();
    for (exchange, body) in exchanges.iter().zip(&bodies) {
        policy.see_request(&exchange.uri, &exchange.headers, &exchange.body);
        body.iter()
            .for_each(|json| policy.see_reply(exchange.uri.path(), json));
    }
    // The live jobs have other ids than the recorded ones.
    let mut jobs: HashMap<String, String> = HashMap::new();
    let mut found = Vec::new();
    let mut count = vec![0; cassette.interactions.len()];
    let is_recorded = |exchange: &Exchange| !is_for_tokens(exchange.uri.path());
    if !exchanges.iter().any(is_recorded) && !cassette.interactions.is_empty() {
        found.push("nothing was sent, so nothing could be compared".into());
    }
    for (exchange, body) in exchanges.iter().zip(&bodies) {
        if !is_recorded(exchange) {
            continue;
        }
        let request = recorded_request(exchange, &jobs);
        let seen = Seen::new(&request);
        // As it would be recorded.
        let live = body.as_ref().map(|json| policy.reply(json));
        let matching = cassette
            .interactions
            .iter()
            .enumerate()
            .filter(|(_, one)| one.matches(&seen));
        let closest = matching
            .map(|(index, one)| {
                let drift = drift(one, exchange, live.as_ref(), &policy);
                (drift, count[index] >= one.reply.times, index)
            })
            .min_by_key(|(drift, is_used_up, index)| (drift.len(), *is_used_up, *index));
        let Some((drift, _, index)) = closest else {
            found.push(format!("{}: the cassette has nothing like it", seen.line()));
            continue;
        };
        let interaction = &cassette.interactions[index];
        count[index] += 1;
        let recorded = recorded_body(interaction);
        if let (Some(live), Some(recorded)) = (job(body.as_ref()), job(recorded.as_ref())) {
            jobs.insert(live, recorded);
        }
        found.extend(
            drift
                .into_iter()
                .map(|line| format!("{}: {line}", interaction.label)),
        );
    }
    let mut known = BTreeSet::new();
    let lines = found.iter().map(|line| policy.mask(line).into_owned());
    lines.filter(|line| known.insert(line.clone())).collect()
}

/// Returns the request with the id of the recorded job.
fn recorded_request(exchange: &Exchange, jobs: &HashMap<String, String>) -> Request<Vec<u8>> {
    let one = |id: &str| jobs.get(id).cloned();
    let recorded = |ids: &str| {
        one(ids).unwrap_or_else(|| {
            let parts = ids
                .split(',')
                .map(|id| one(id).unwrap_or_else(|| id.to_owned()));
            parts.collect::<Vec<_>>().join(",")
        })
    };
    let query = exchange.uri.query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (name, recorded(&value)))
        .collect();
    let mut uri = exchange.uri.path().to_owned();
    if !pairs.is_empty() {
        let mut query = form_urlencoded::Serializer::new(String::new());
        uri = format!("{uri}?{}", query.extend_pairs(pairs).finish());
    }
    let mut request = Request::new(exchange.body.clone());
    *request.method_mut() = exchange.method.clone();
    *request.headers_mut() = exchange.headers.clone();
    *request.uri_mut() = uri.parse().unwrap_or_else(|_| exchange.uri.clone());
    request
}

fn drift(one: &Interaction, live: &Exchange, json: Option<&Json>, policy: &Policy) -> Vec<String> {
    let mut out = Vec::new();
    match (&one.reply.answer, &live.outcome) {
        (Ok(reply), Outcome::Reply { status, end, .. }) if reply.status == *status => {
            match (recorded_body(one), json) {
                (Some(recorded), Some(live)) => out = moved(&recorded, live),
                (Some(_), None) if *end == End::Whole => {
                    out.push("JSON in the cassette, none live".into());
                }
                (None, Some(_)) if reply.truncate_after.is_none() => {
                    out.push("no JSON in the cassette, JSON live".into());
                }
                _ => {}
            }
        }
        (Ok(reply), Outcome::Reply { status: live, .. }) => {
            let (status, live) = (reply.status.as_u16(), live.as_u16());
            out.push(format!("the status {status} in the cassette, {live} live"));
        }
        (Ok(reply), Outcome::Failed { message, .. }) => {
            let (status, message) = (reply.status.as_u16(), policy.text(message));
            out.push(format!(
                "the status {status} in the cassette, no reply live: {message}"
            ));
        }
        (Err(fault), Outcome::Reply { status, .. }) => {
            let status = status.as_u16();
            out.push(format!(
                "the fault {fault:?} in the cassette, the status {status} live"
            ));
        }
        (Err(_), Outcome::Failed { .. }) | (_, Outcome::Pending) => {}
    }
    out
}

fn recorded_body(interaction: &Interaction) -> Option<Json> {
    let reply = interaction.reply.answer.as_ref().ok()?;
    read_json(&reply.body).filter(|_| reply.truncate_after.is_none())
}

fn live_body(exchange: &mut Exchange) -> Option<Json> {
    match &mut exchange.outcome {
        Outcome::Reply { body, .. } => read_json(&body.bytes().ok()?),
        _ => None,
    }
}

fn job(reply: Option<&Json>) -> Option<String> {
    Some(reply?.get("meta")?.get("reqid")?.as_str()?.to_owned())
}
