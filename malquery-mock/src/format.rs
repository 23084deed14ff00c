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
//! # What is recorded
//!
//! A [`Session`](crate::Session) writes what went over its transport, and only what says something the next day,
//! too:
//!
//! - Of a request the headers `accept`, `content-type` and the scheme of `authorization` (`other` for one that is
//!   not known); of a reply
//!   `content-disposition`, `content-length` (not of JSON), `content-type`, `location`,
//!   `x-cs-region` and `x-cs-traceid`. When a reply says when to try again, in whatever way, `retry-after` with the
//!   seconds from then.
//! - A body as `json`, `text` or, of a request, `form` if it is that, else as `base64`. A reply of more than 64 KiB lies in a
//!   file, in the folder beside the cassette that has its name with `.bodies` behind. While it is recorded it is in memory.
//!   `query_time` of a reply is 0, since it is another each time.
//! - A sample or an archive as it came, also with the ids that stand in it. **It is malware**, so the files are readable by
//!   their owner alone. Record from a stand-in, or do not commit it.
//! - A body that was not read to its end, or broke, as what was read of it and `truncate_after`.
//! - An error of the transport as the `error` that is the same to a client; one that is none of them is refused.
//! - Equal exchanges in a row once, with `times`. Trace ids do not count for that.
//!
//! **Secrets are replaced** by their names, such as `[client_secret]` (a number of a reply by 0), and wherever a reply repeats
//! them, but in samples. A secret is
//!
//! - the value of a field that is named like one, in forms, queries, `location` and JSON of any depth: credentials,
//!   tokens, CIDs, API keys, signatures, passwords (`clientSecret`, `x-api-key` and `X-Amz-Signature` are such names);
//! - everything in a reply with a token but what is known to be harmless, such as `token_type`, `expires_in`, `scope`,
//!   `meta` and errors; elsewhere it is looked for unless it may be a word;
//! - what stands in `authorization`, in cookies, in headers that are marked sensitive or named like a secret, and before the
//!   host of a URL;
//! - the payload and the signature of a token that is a JWT.
//!
//! Trace, request and user ids
//! become others of the same shape, the same one throughout the file; those that the service made up are numbered,
//! and a request id that the program brought along is recognised when it brings it again. Ids of less than 8
//! letters and digits stay, but for user ids, which are looked for in texts if they have a digit or an `@`. YARA rules and patterns stay: requests are told apart by them.
//!
//! **Then everything that is to be written is searched** for each of these values, in any case of ASCII letters, plain,
//! URL-encoded, escaped as in JSON, YARA and HTML, hexadecimal (also with spaces, colons or dashes between), in base64 and
//! as wide text, also within each other (up to three of them, and fewer in what is large). If one is found, say in a YARA rule, nothing is written, and
//! the error tells where and what kind of value it is. The same holds for what cannot be searched in good time: a text that
//! is escaped more than 16 times in the same way, or becomes 256 MiB in all when it is decoded. (In samples that is passed over.)
//!
//! **Nothing is written either** for what may hold a secret that is not known: a body that names one and cannot be read, such as
//! JSON that is sent as a form, one that is compressed, one that was not read to its end and has more than half of a secret
//! there, a reply with a token that is no JSON, a text such as `access_token: abc` or
//! `https://user:abc@host` in a string of JSON (but not in a YARA rule or a pattern), a path, a query or a header, also in
//! base64, and whatever has the shape of a JWT.
//!
//! **What is not found:** secrets of less than 4 bytes are replaced where they have a name, and not searched for, as
//! they are part of any text. (Those of less than 8 are not replaced in the midst of a reply, but found there, and then
//! nothing is written.) A secret that nothing names, that is never sent as one, and that is no JWT is a text like any
//! other, and flags such as `true`, the password `infected` and the next word of a sentence as in `access_token: expired`
//! are none. Of two secrets that overlap in a text the second may keep its end. What is compressed, such as the content of a zip, is not searched, and no sample is searched for names. Read
//! a cassette before you commit it.
//!
//! # What stays the same
//!
//! A file of version 1 means to every later version of this crate what it means to this one. What is not in the
//! table of keys gets a name in `features`, or a higher `version`, which this version then refuses by that name.
//!
//! # Which interaction answers a request
//!
//! The first one in the file that agrees with it in all of these and was not played `times` times:
//!
//! - the **method**;
//! - the **path**. The host does not count, and neither does what a base URL puts before `/malquery/` or
//!   `/oauth2/`;
//! - the **query**: the same pairs; the order counts only among those of one name;
//! - the **authorization scheme** (`Bearer`, `Basic`, another or none), unless the recorded request has no `headers`.
//!   Other headers do not count;
//! - the **body**: JSON and forms by their meaning, others by their bytes. A recorded request without a body
//!   answers only requests without one. In a form, a recorded value such as `[client_secret]` (lower case and
//!   underscores in square brackets) stands for any value, and so it does for secrets in queries and JSON.
//!
//! A [`Session`](crate::Session) gives recorded tokens as often as they are asked for: how many a run takes is for the clock
//! to say.
