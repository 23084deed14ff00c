//! Where a live service has moved away from a cassette.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use http::Request;
use url::form_urlencoded;

use crate::cassette::Cassette;
use crate::json::{Json, Value};
use crate::matching::Seen;
use crate::play::Interaction;
use crate::record::{End, Exchange, Outcome};
use crate::redact::{Redaction, each_id, in_notation_of, plain_id};
use crate::reply::Answer;
use crate::session::is_for_tokens;

/// What a JSON document is made of. The items of an array count as one.
#[derive(Clone, Default)]
struct Shape {
    /// How many values it was made from.
    count: usize,
    kinds: BTreeSet<&'static str>,
    members: BTreeMap<String, Shape>,
    items: Option<Box<Shape>>,
}

impl Shape {
    fn of(json: &Json) -> Self {
        let mut shape = Self::default();
        shape.add(json);
        shape
    }

    fn add(&mut self, json: &Json) {
        self.count += 1;
        match &json.value {
            // The service has it for everything that is not there.
            Value::Null => return,
            Value::Array(items) => {
                for item in items {
                    self.items.get_or_insert_default().add(item);
                }
            }
            Value::Object(members) => {
                for (key, value) in members {
                    self.members.entry(key.clone()).or_default().add(value);
                }
            }
            _ => {}
        }
        self.kinds.insert(json.kind());
    }

    fn kinds(&self) -> String {
        self.kinds.iter().copied().collect::<Vec<_>>().join(" or ")
    }

    /// What is different `live`. An empty array tells nothing of its items.
    fn drift(&self, live: &Self, pointer: &str, out: &mut Vec<String>) {
        // A document that is nothing but null has moved; a field may be null today.
        if pointer.is_empty() && self.kinds.is_empty() != live.kinds.is_empty() {
            let kinds = |shape: &Self| {
                if shape.kinds.is_empty() {
                    "null".into()
                } else {
                    shape.kinds()
                }
            };
            out.push(format!(
                "the whole document: {} in the cassette, {} live",
                kinds(self),
                kinds(live)
            ));
        }
        if self.kinds.is_empty() || live.kinds.is_empty() {
            return;
        }
        if !live.kinds.is_subset(&self.kinds) {
            let place = if pointer.is_empty() {
                "the whole document"
            } else {
                pointer
            };
            out.push(format!(
                "{place}: {} in the cassette, {} live",
                self.kinds(),
                live.kinds()
            ));
            return;
        }
        let inner = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        for (key, value) in &self.members {
            match live.members.get(key) {
                Some(live) => value.drift(live, &inner(key), out),
                // What only some items have need not be there.
                None if value.count == self.count && !value.kinds.is_empty() => {
                    out.push(format!(
                        "{}: missing live ({} in the cassette)",
                        inner(key),
                        value.kinds()
                    ));
                }
                None => {}
            }
        }
        for (key, value) in live
            .members
            .iter()
            .filter(|(key, _)| !self.members.contains_key(*key))
        {
            let kinds = if value.kinds.is_empty() {
                "null".into()
            } else {
                value.kinds()
            };
            out.push(format!("{}: added live ({kinds})", inner(key)));
        }
        if let (Some(items), Some(live)) = (&self.items, &live.items) {
            items.drift(live, &format!("{pointer}/*"), out);
        }
    }
}

/// Compares what came with what is recorded: statuses, and the shape of JSON. Values, and how often a job is polled,
/// do not count.
pub(crate) fn find(cassette: &Cassette, exchanges: Vec<Exchange>) -> Vec<String> {
    // The jobs are others than the recorded ones. Each with its id here and there, by what all notations of that have.
    let mut jobs: HashMap<String, (String, String)> = HashMap::new();
    let mut found = Vec::new();
    // Of each body that was recorded, made once, and only for what is asked for.
    let shapes: Vec<OnceCell<Option<Shape>>> = vec![OnceCell::new(); cassette.interactions.len()];
    let mut count = vec![0; cassette.interactions.len()];
    let mut redaction = Redaction::default();
    for exchange in &exchanges {
        redaction.see_exchange(exchange);
    }
    redaction.assign("");
    let tokens_alone = exchanges
        .iter()
        .all(|exchange| is_for_tokens(exchange.uri.path()));
    // To get a token and to give it back is all that some do.
    let recorded = cassette.interactions.iter().any(|interaction| {
        !interaction
            .expected
            .as_ref()
            .is_some_and(|expected| is_for_tokens(&expected.path))
    });
    if (exchanges.is_empty() || tokens_alone && recorded) && !cassette.interactions.is_empty() {
        found.push("nothing was sent, so nothing could be compared".into());
    }
    for exchange in exchanges {
        let request = recorded_request(&exchange, &jobs);
        let seen = Seen::new(&request);
        if cassette.tokens && seen.is_token_request() {
            continue;
        }
        let live = live_body(&exchange);
        let live_shape = live.as_ref().map(Shape::of);
        let candidates = cassette
            .interactions
            .iter()
            .enumerate()
            .filter(|(_, interaction)| interaction.matches(&seen));
        let closest = candidates
            .map(|(index, interaction)| {
                let recorded = shapes[index]
                    .get_or_init(|| recorded_body(interaction).as_ref().map(Shape::of));
                let drift = drift(
                    interaction,
                    &exchange,
                    [recorded, &live_shape].map(Option::as_ref),
                    &redaction,
                );
                (drift, count[index] >= interaction.times, index)
            })
            .min_by_key(|(drift, used, index)| (drift.len(), *used, *index));
        match closest {
            None => found.push(format!("{}: the cassette has nothing like it", seen.line())),
            Some((drift, _, index)) => {
                let interaction = &cassette.interactions[index];
                count[index] += 1;
                if let Some(live) = live.as_ref().and_then(job)
                    && let Some(recorded) = recorded_body(interaction).as_ref().and_then(job)
                {
                    jobs.insert(plain_id(&live), (live, recorded));
                }
                found.extend(
                    drift
                        .into_iter()
                        .map(|line| format!("{}: {line}", interaction.label)),
                );
            }
        }
    }
    let mut known = BTreeSet::new();
    found
        .into_iter()
        .map(|line| match redaction.scan(line.as_bytes()) {
            Ok(()) => line,
            Err(_) => redaction.shown(&line),
        })
        .filter(|line| known.insert(line.clone()))
        .collect()
}

/// The request as it would be of the recorded job.
fn recorded_request(
    exchange: &Exchange,
    jobs: &HashMap<String, (String, String)>,
) -> Request<Vec<u8>> {
    let mut request = Request::new(exchange.body.clone());
    *request.method_mut() = exchange.method.clone();
    *request.headers_mut() = exchange.headers.clone();
    let query = exchange.uri.query().unwrap_or_default();
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| {
            let other = |id: &str| {
                let (live, recorded) = jobs.get(&plain_id(id))?;
                Some(if id == live {
                    recorded.clone()
                } else {
                    in_notation_of(id, recorded)
                })
            };
            (name.into_owned(), each_id(&value, other))
        })
        .collect();
    let mut uri = exchange.uri.path().to_owned();
    if !pairs.is_empty() {
        uri = format!(
            "{uri}?{}",
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish()
        );
    }
    *request.uri_mut() = uri.parse().unwrap_or_else(|_| exchange.uri.clone());
    request
}

fn drift(
    interaction: &Interaction,
    exchange: &Exchange,
    shapes: [Option<&Shape>; 2],
    redaction: &Redaction,
) -> Vec<String> {
    match (&interaction.answer, &exchange.outcome) {
        (_, Outcome::Pending) => Vec::new(),
        (Answer::Fault(_), Outcome::Failed { .. }) => Vec::new(),
        (Answer::Fault(fault), Outcome::Reply { status, .. }) => {
            vec![format!(
                "the fault {fault:?} in the cassette, the status {} live",
                status.as_u16()
            )]
        }
        (Answer::Response { status, .. }, Outcome::Failed { message, .. }) => {
            vec![format!(
                "the status {} in the cassette, no reply live: {}",
                status.as_u16(),
                redaction.shown(message)
            )]
        }
        (Answer::Response { status, .. }, Outcome::Reply { status: live, .. })
            if status != live =>
        {
            vec![format!(
                "the status {} in the cassette, {} live",
                status.as_u16(),
                live.as_u16()
            )]
        }
        (Answer::Response { .. }, Outcome::Reply { .. }) => {
            let mut out = Vec::new();
            match shapes {
                [Some(recorded), Some(live)] => recorded.drift(live, "", &mut out),
                [Some(_), None] if is_whole(exchange) => {
                    out.push("JSON in the cassette, none live".into())
                }
                [None, Some(_)] if !breaks_off(interaction) => {
                    out.push("no JSON in the cassette, JSON live".into())
                }
                _ => {}
            }
            out
        }
    }
}

fn recorded_body(interaction: &Interaction) -> Option<Json> {
    match &interaction.answer {
        Answer::Response {
            body,
            truncate_after: None,
            ..
        } => Json::parse(std::str::from_utf8(body).ok()?).ok(),
        _ => None,
    }
}

fn live_body(exchange: &Exchange) -> Option<Json> {
    match &exchange.outcome {
        Outcome::Reply { body, .. } => Json::parse(std::str::from_utf8(body).ok()?).ok(),
        _ => None,
    }
}

fn breaks_off(interaction: &Interaction) -> bool {
    matches!(
        &interaction.answer,
        Answer::Response {
            truncate_after: Some(_),
            ..
        }
    )
}

fn is_whole(exchange: &Exchange) -> bool {
    matches!(
        &exchange.outcome,
        Outcome::Reply {
            end: End::Whole,
            ..
        }
    )
}

fn job(reply: &Json) -> Option<String> {
    Some(reply.get("meta")?.get("reqid")?.as_str()?.to_owned())
}
