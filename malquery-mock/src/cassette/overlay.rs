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

    /// Plays a reply to one request, whatever its number of times.
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
        let mut seen = 0_u32;
        let last = cassette.interactions.iter().rposition(|one| *one.id == *id);
        let mut is_found = nth.is_none();
        for (index, one) in cassette.interactions.iter().enumerate() {
            let first = seen;
            if *one.id == *id {
                seen = seen.saturating_add(one.times);
            }
            // The last one may answer requests without end.
            let repeats = one.repeat_last && Some(index) == last;
            let is_hit =
                |nth| (first..seen).contains(&nth) || repeats && nth >= first && *one.id == *id;
            if *one.id != *id || !nth.is_none_or(is_hit) {
                out.push(one.clone());
                continue;
            }
            is_found = true;
            let (before, over) = match nth {
                Some(nth) => (nth - first, 1),
                None => (0, if extra { 1 } else { one.times }),
            };
            let used = before.saturating_add(if extra { 0 } else { over });
            let over_all = nth.is_none() && !extra;
            let mut laid = one.clone();
            laid.label = format!("what is laid over {}", one.label);
            laid.answer = reply.answer.clone();
            // What answers without end comes last, also if it need not answer any.
            for (part, times, repeats) in [
                (one, before, false),
                (&laid, over, over_all && one.repeat_last),
                (
                    one,
                    one.times.saturating_sub(used),
                    !over_all && one.repeat_last,
                ),
            ] {
                if times > 0 || repeats {
                    out.push(Interaction {
                        times,
                        repeat_last: repeats,
                        ..part.clone()
                    });
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
