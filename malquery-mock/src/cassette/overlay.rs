//! Replies and faults that replace parts of a recording.

use std::collections::BTreeSet;

use super::{Cassette, Interaction};
use crate::json;
use crate::reply::{self, Fault, Reply};

/// Replaces replies of a cassette: see [`Cassette::on`].
#[derive(Debug)]
#[must_use = "finish it with `reply` or `fault`"]
pub struct Overlay {
    cassette: Cassette,
    id: String,
    nth: Option<u32>,
    extra: bool,
}

impl Cassette {
    /// Selects the interactions with this id, to replace them with a reply or a fault. Shows what a
    /// program does when one call of a recorded session fails.
    ///
    /// ```
    /// use malquery_mock::{Cassette, Fault};
    /// # let recorded = r#"{"version": 1, "interactions": [{"id": "quotas",
    /// #     "request": {"method": "GET", "uri": "/malquery/aggregates/quotas/v1"},
    /// #     "response": {"status": 200, "body": {"json": {"meta": {"hunt_limit": 100}}}}}]}"#;
    ///
    /// let cassette = Cassette::parse("quotas.json", recorded)?;
    /// // The connection is reset, and the retry gets the recorded reply.
    /// let (client, guard) = cassette.on("quotas").extra().fault(Fault::Reset).client();
    /// assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
    /// guard.finish();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Panics if no interaction has this id. The message lists the ids.
    #[track_caller]
    pub fn on(&self, id: &str) -> Overlay {
        let known: BTreeSet<_> = self.interactions.iter().map(|one| &*one.id).collect();
        if !known.contains(id) {
            let known: Vec<_> = known.into_iter().collect();
            let (name, id) = (&self.name, json::quote(id));
            panic!(
                "{name} has no interaction {id}; there are {}",
                known.join(", ")
            );
        }
        Overlay {
            cassette: self.clone(),
            id: id.into(),
            nth: None,
            extra: false,
        }
    }
}

impl Overlay {
    /// Selects only the nth request that these interactions answer, counted from 0. Unless set, all
    /// of them.
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = Some(nth);
        self
    }

    /// Plays in addition to the recorded reply, which answers the next request: for a program that
    /// retries. Unless set, it plays instead of the recorded reply.
    pub fn extra(mut self) -> Self {
        self.extra = true;
        self
    }

    /// Plays a fault.
    ///
    /// # Panics
    /// Panics if no nth request exists.
    #[track_caller]
    pub fn fault(self, fault: Fault) -> Cassette {
        self.reply(reply::fault(fault))
    }

    /// Plays a reply. Its own `times` and `repeat_last` do not count.
    ///
    /// # Panics
    /// Panics if no nth request exists.
    #[track_caller]
    pub fn reply(self, reply: Reply) -> Cassette {
        let Self {
            mut cassette,
            id,
            nth,
            extra,
        } = self;
        let mut out: Vec<Interaction> = Vec::new();
        let (mut seen, mut is_found) = (0_u32, false);
        let replaces_all = nth.is_none() && !extra;
        let last = cassette.interactions.iter().rposition(|one| *one.id == *id);
        for (index, one) in cassette.interactions.iter().enumerate() {
            if *one.id != *id {
                out.push(one.clone());
                continue;
            }
            let (times, repeats) = (one.reply.times, one.reply.repeat_last);
            // The last one may answer requests without end.
            let is_endless = repeats && Some(index) == last;
            let is_here = |before: &u32| *before < times || is_endless;
            let before = nth.map_or(Some(0), |nth| nth.checked_sub(seen).filter(is_here));
            seen = seen.saturating_add(times);
            is_found |= before.is_some();
            let Some(before) = before else {
                out.push(one.clone());
                continue;
            };
            let laid = Interaction {
                label: format!("what is laid over {}", one.label),
                reply: reply.clone(),
                ..one.clone()
            };
            let over = if replaces_all { times } else { 1 };
            let used = before.saturating_add(if extra { 0 } else { over });
            // What answers without end comes last, also if it need not answer any.
            for (part, times, repeat_last) in [
                (one, before, false),
                (&laid, over, replaces_all && repeats),
                (one, times.saturating_sub(used), !replaces_all && repeats),
            ] {
                if times > 0 || repeat_last {
                    let mut part = part.clone();
                    (part.reply.times, part.reply.repeat_last) = (times, repeat_last);
                    out.push(part);
                }
            }
        }
        if let (false, Some(nth)) = (is_found, nth) {
            let (name, id) = (&cassette.name, json::quote(&id));
            panic!(
                "{name} answers only {seen} requests with {id}, so none is number {nth}, counted from 0"
            );
        }
        cassette.interactions = out.into();
        cassette
    }
}
