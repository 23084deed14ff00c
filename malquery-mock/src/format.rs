//! The format of a cassette file: JSON, for people to read and edit.
//!
//! ```
//! let cassette = malquery_mock::Cassette::parse("example", r#"
//! { "version": 1,
//!   "interactions": [
//!     { "id": "hunt.submit",
//!       "request": {
//!         "method": "POST",
//!         "uri": "https://api.crowdstrike.com/malquery/queries/hunt/v1",
//!         "headers": [["authorization", "Bearer [access_token]"]],
//!         "body": { "json": { "yara_rule": "rule gnu { strings: $a = \"GNU\" condition: $a }" } }
//!       },
//!       "response": {
//!         "status": 200,
//!         "headers": [["content-type", "application/json"]],
//!         "body": { "json": { "meta": { "reqid": "a-job", "status": "done" }, "resources": [] } }
//!       } },
//!     { "id": "hunt.poll",
//!       "request": { "method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job" },
//!       "response": { "status": 200, "body": { "json": { "meta": { "status": "inprogress" } } } },
//!       "times": 2 },
//!     { "id": "hunt.poll",
//!       "request": { "method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job" },
//!       "error": { "kind": "reset" } }
//!   ] }
//! "#)?;
//! # Ok::<(), malquery_mock::CassetteError>(())
//! ```
//!
//! # Keys
//!
//! The file: `version`, which is 1, and `interactions`; optional are `features`, a list of the names of
//! extensions, of which there is none yet, and what tells where it comes from, `recorded_with` and `redaction`.
//!
//! An interaction:
//!
//! | key | value |
//! |---|---|
//! | `id` | a name for messages |
//! | `request` | `method`, `uri`; optional `headers`, `body` |
//! | `response` | `status`; optional `headers`, `body`, and `fault`: `{"truncate_after": 57}` breaks the connection after this many bytes of the body |
//! | `error` | instead of a response: `{"kind": "timeout"}`, or `connect_refused`, `dns`, `tls`, `reset`, `eof` (see [`Fault`](crate::Fault)) |
//! | `times` | how many requests it answers, 1 unless given |
//! | `repeat_last` | `true` lets it answer all requests after those, too, unless a later interaction does |
//!
//! Headers are a list of pairs, `[["accept", "application/json"]]`. A body is exactly one of these, or absent:
//!
//! | key | value |
//! |---|---|
//! | `json` | any JSON. It is sent in its shortest form, with its digits and its order kept |
//! | `text` | a string |
//! | `form` | a list of pairs |
//! | `base64` | a list of lines, with `len` and `sha256` (in lower case) beside it |
//! | `file` | the path of a file in the folder of the cassette or below; `len` and `sha256` may be beside it |
//!
//! Everything else is refused, as are duplicate keys, wrong lengths and hashes, and markers of merge conflicts.
//!
//! # Which interaction answers a request
//!
//! The first one in the file that agrees with it in all of these and was not played `times` times:
//!
//! - the **method**;
//! - the **path**. The host does not count, and neither does what a base URL puts before `/malquery/` or
//!   `/oauth2/`;
//! - the **query**: the same pairs; the order counts only among those of one name;
//! - the **authorization scheme** (`Bearer`, `Basic` or none), unless the recorded request has no `headers`.
//!   Other headers do not count;
//! - the **body**: JSON and forms by their meaning, others by their bytes. A recorded request without a body
//!   answers only requests without one. In a form, a recorded value such as `[client_secret]` (lower case and
//!   underscores in square brackets) stands for any value.
