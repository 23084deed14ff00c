use std::collections::BTreeSet;

use crate::cassette::Cassette;
use crate::json;
use crate::play::Interaction;
use crate::reply::{Fault, Reply};

/// Replies and faults laid over a cassette: [`Cassette::on`].
#[derive(Debug)]
#[must_use = "say what is to be played: `reply` or `fault`"]
pub struct Overlay {
    cassette: Cassette,
    id: String,
    nth: Option<u32>,
    extra: bool,
}

impl Cassette {
    /// Lays a reply or a fault over the interactions with this id, to see what a program does when one call of a
    /// recorded session goes wrong.
    ///
    /// ```
    /// use malquery_mock::{Cassette, Fault, VirtualClock};
    /// # use malquery_proto::flow::Auth;
    /// # use malquery_proto::{Client, Cloud, Credentials};
    /// # let recorded = r#"{"version": 1, "interactions": [{"id": "quotas",
    /// #     "request": {"method": "GET", "uri": "/malquery/aggregates/quotas/v1"},
    /// #     "response": {"status": 200, "body": {"json": {"meta": {"hunt_limit": 100}}}}}]}"#;
    ///
    /// let cassette = Cassette::parse("quotas.json", recorded)?;
    /// // The connection is reset, and what is recorded comes when the client tries again.
    /// let (mock, guard) = cassette.on("quotas").extra().fault(Fault::Reset).with_tokens().play();
    /// # let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
    /// let client = Client::new(mock, VirtualClock::new(), auth);
    /// assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
    /// guard.finish();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When no interaction has this id. The message names those there are.
    #[track_caller]
    pub fn on(&self, id: &str) -> Overlay {
        if !self
            .interactions
            .iter()
            .any(|interaction| &*interaction.id == id)
        {
            let known: BTreeSet<_> = self
                .interactions
                .iter()
                .map(|interaction| &*interaction.id)
                .collect();
            let known: Vec<_> = known.into_iter().collect();
            panic!(
                "{} has no interaction {}; there are {}",
                self.name,
                json::quote(id),
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
    /// Only for the nth request that these interactions answer, counted from 0. Otherwise for all of them.
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = Some(nth);
        self
    }

    /// In addition to the recorded reply, which comes at the next request: for a program that tries again.
    /// Otherwise in its place.
    pub fn extra(mut self) -> Self {
        self.extra = true;
        self
    }

    /// Plays a fault.
    ///
    /// # Panics
    /// When there is no nth request.
    #[track_caller]
    pub fn fault(self, fault: Fault) -> Cassette {
        self.reply(crate::reply::fault(fault))
    }

    /// Plays a reply, to one request. Its own number of times does not count.
    ///
    /// # Panics
    /// When there is no nth request.
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
        let mut found = false;
        let last = cassette
            .interactions
            .iter()
            .rposition(|interaction| *interaction.id == *id);
        for (index, interaction) in cassette.interactions.iter().enumerate() {
            let first = seen;
            // The last one may answer requests without end.
            let repeats = interaction.repeat_last && Some(index) == last;
            let hit = *interaction.id == *id && {
                seen = seen.saturating_add(interaction.times);
                nth.is_none_or(|nth| (first..seen).contains(&nth) || repeats && nth >= first)
            };
            if !hit {
                out.push(interaction.clone());
                continue;
            }
            found = true;
            let (before, over) = match nth {
                Some(nth) => (nth - first, 1),
                None if extra => (0, 1),
                None => (0, interaction.times),
            };
            let after = interaction
                .times
                .saturating_sub(before)
                .saturating_sub(if extra { 0 } else { over });
            let over_all = nth.is_none() && !extra;
            let laid = Interaction {
                label: format!("what is laid over {}", interaction.label),
                answer: reply.answer.clone(),
                ..interaction.clone()
            };
            // What answers without end is behind the others, also if it need not answer any.
            let rest = [
                (before, interaction, false),
                (over, &laid, over_all && interaction.repeat_last),
                (after, interaction, !over_all && interaction.repeat_last),
            ];
            out.extend(
                rest.into_iter()
                    .filter(|(times, _, repeat_last)| *times > 0 || *repeat_last)
                    .map(|(times, part, repeat_last)| Interaction {
                        times,
                        repeat_last,
                        ..part.clone()
                    }),
            );
        }
        if let (false, Some(nth)) = (found, nth) {
            panic!(
                "{} answers only {seen} requests with {}, so none is number {nth}, counted from 0",
                cassette.name,
                json::quote(&id)
            );
        }
        cassette.interactions = out.into();
        cassette
    }
}
