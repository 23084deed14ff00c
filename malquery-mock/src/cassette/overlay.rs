//! Replaces or adds replies in a cassette.

use std::collections::BTreeSet;

use super::{Cassette, Interaction};
use crate::json;
use crate::reply::{self, Fault, Reply};

/// Replaces replies in a cassette, or adds replies to it. Created with [`Cassette::on`].
#[derive(Debug)]
#[must_use = "call `reply` or `fault` to get a cassette"]
pub struct Overlay {
    cassette: Cassette,
    id: String,
    nth: Option<u32>,
    extra: bool,
}

impl Cassette {
    /// Selects the interactions with this id, to replace their replies or add others. Use this to
    /// test how a program handles the failure of a recorded call.
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
    /// Panics if no interaction has this id. The message lists the known ids.
    #[track_caller]
    pub fn on(&self, id: &str) -> Overlay {
        let known: BTreeSet<_> = self.interactions.iter().map(|one| &*one.id).collect();
        if !known.contains(id) {
            let known: Vec<_> = known.into_iter().collect();
            // The ids of a script are empty.
            let hint = match known.concat().is_empty() {
                true => String::new(),
                false => format!("; use one of: {}", known.join(", ")),
            };
            panic!("{} has no interaction {}{hint}", self.name, json::quote(id));
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
    /// Selects only the nth request that the interactions with this id answer. Requests are counted
    /// from 0, in cassette order. Without `nth`, all of these requests are selected, or only the
    /// first one for each interaction if [`extra`](Self::extra) is set.
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = Some(nth);
        self
    }

    /// Adds a reply or fault before the recorded reply, instead of replacing it. Use this to test a
    /// retry.
    pub fn extra(mut self) -> Self {
        self.extra = true;
        self
    }

    /// Returns the cassette with this fault for the selected requests.
    ///
    /// # Panics
    /// Panics if the number set with [`nth`](Self::nth) is too high.
    #[track_caller]
    pub fn fault(self, fault: Fault) -> Cassette {
        self.reply(reply::fault(fault))
    }

    /// Like [`fault`](Self::fault), but with a reply. Ignores the `times` and `repeat_last` of the
    /// reply.
    ///
    /// # Panics
    /// Panics if the number set with [`nth`](Self::nth) is too high.
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
            // With `repeat_last`, the last interaction answers any number of requests.
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
                label: format!("the overlay for {}", one.label),
                reply: reply.clone(),
                ..one.clone()
            };
            let over = if replaces_all { times } else { 1 };
            let used = before.saturating_add(if extra { 0 } else { over });
            // The part that repeats comes last, even if its `times` is 0.
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
                "nth({nth}) is too high: the `times` of {id} in {name} add up to {seen}, and nth \
                 counts from 0"
            );
        }
        cassette.interactions = out.into();
        cassette
    }
}
