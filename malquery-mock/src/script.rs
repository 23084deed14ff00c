//! Cassettes built in code.

use crate::cassette::{Cassette, Interaction};
use crate::reply::Reply;

/// Creates a cassette from replies, which answer any requests in order.
///
/// With [`Cassette::client`] or [`Cassette::with_tokens`], token requests are answered
/// automatically. Without either, token requests need replies too.
///
/// ```
/// use malquery_mock::{Fault, reply, script};
///
/// let (client, guard) = script([
///     reply::status(503),
///     reply::fault(Fault::Timeout),
///     reply::quotas().set("meta/hunt_count", 3),
/// ])
/// .client();
/// assert_eq!(client.quotas()?.meta.hunts_left(), Some(97));
/// assert_eq!(guard.clock().waits().len(), 2);
/// guard.finish();
/// # Ok::<(), malquery_proto::client::Error>(())
/// ```
pub fn script(replies: impl IntoIterator<Item = Reply>) -> Cassette {
    let interaction = |(index, reply): (usize, Reply)| Interaction {
        id: "".into(),
        label: format!("reply {} of the script", index + 1),
        expected: None,
        reply,
    };
    Cassette {
        name: "the script".into(),
        interactions: replies.into_iter().enumerate().map(interaction).collect(),
        tokens: false,
    }
}
