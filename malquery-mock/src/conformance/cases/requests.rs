//! Cases that check how the transport sends requests.

use std::thread;
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use super::{
    Case, Outcome, Server, Step, TOKEN, Transport, base, exchange, get, json, pattern, post,
    prepared, reply, same, served, shown, unknown,
};
use crate::conformance::servers::{Seen, contains};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "get-without-a-body",
        consequence: "gateways reject a GET that announces a body, or wait for the body",
        prepare: || served(|_| json(), get_without_a_body),
    },
    Case {
        name: "post-with-its-exact-body",
        consequence: "a search looks for the wrong bytes, or a gateway rejects it with 411",
        prepare: || served(|_| json(), post_with_its_exact_body),
    },
    Case {
        name: "uri-unchanged",
        consequence: "the wrong sample is downloaded",
        prepare: || served(|_| json(), uri_unchanged),
    },
    Case {
        name: "request-headers-unchanged",
        consequence: "the service rejects the token",
        prepare: || served(|_| json(), request_headers_unchanged),
    },
    Case {
        name: "https-is-encrypted",
        consequence: "the token is sent over the network in plain text",
        prepare: || {
            let server = Server::start(|_| json())?;
            let base = base(&format!("https://{}", server.address()));
            prepared(base, move |transport| {
                https_is_encrypted(&server, transport)
            })
        },
    },
    Case {
        name: "post-sent-once",
        consequence: "a hunt is billed twice",
        prepare: || served(answer_gets, post_sent_once),
    },
    Case {
        name: "stale-connection",
        consequence: "the first hunt after a pause ends with an unknown outcome",
        prepare: || {
            let script = |_: &Seen| json().into_iter().chain([Step::Close]).collect();
            served(script, stale_connection)
        },
    },
    Case {
        name: "concurrent-requests",
        consequence: "a thread receives the results of another thread",
        prepare: || {
            served(
                |seen| vec![reply("200 OK", "", &seen.body)],
                concurrent_requests,
            )
        },
    },
];

fn only_request(server: &Server) -> Result<Seen, String> {
    match server.seen().as_slice() {
        [seen] => Ok(seen.clone()),
        seen => Err(format!(
            "`send` was called once, but {} requests arrived",
            seen.len()
        )),
    }
}

fn get_without_a_body(server: &Server, transport: &dyn Transport) -> Outcome {
    exchange(transport, get(&server.base(), ""), 200)?;
    let seen = only_request(server)?;
    if seen.method != "GET" {
        return Err(format!("the GET arrived as {}", seen.method));
    }
    for name in ["content-length", "transfer-encoding"] {
        if !seen.values(name).is_empty() {
            return Err(format!("the GET had a {name} header"));
        }
    }
    if seen.values("host") != [server.address().to_string().as_bytes()] {
        return Err("the host header of the GET was missing, repeated or wrong".into());
    }
    Ok("no body was sent or announced".into())
}

fn post_with_its_exact_body(server: &Server, transport: &dyn Transport) -> Outcome {
    let body = pattern(100_000);
    exchange(transport, post(&server.base(), body.clone()), 200)?;
    let seen = only_request(server)?;
    if seen.method != "POST" {
        return Err(format!("the POST arrived as {}", seen.method));
    }
    same("the body", &seen.body, &body)?;
    if seen.values("content-length") != [body.len().to_string().as_bytes()] {
        return Err("the content-length header of the POST was missing, repeated or wrong".into());
    }
    Ok(format!(
        "{} bytes arrived with the correct content-length",
        body.len()
    ))
}

fn uri_unchanged(server: &Server, transport: &dyn Transport) -> Outcome {
    let request = get(
        &server.base(),
        "?ids=a%2Fb%20c&ids=d&filter=x%3A%27%2A%27+y&z=",
    );
    let target = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    exchange(transport, request, 200)?;
    let seen = only_request(server)?;
    match seen.target == target {
        true => Ok("the path and query arrived unchanged".into()),
        false => Err(format!("{target} arrived as {}", seen.target)),
    }
}

fn request_headers_unchanged(server: &Server, transport: &dyn Transport) -> Outcome {
    let mut request = post(&server.base(), "{}");
    let headers = request.headers_mut();
    let names = [
        (header::USER_AGENT, "a-program/1.0 (test)"),
        (header::ACCEPT_ENCODING, "identity"),
        (HeaderName::from_static("x-repeated"), "one"),
        (HeaderName::from_static("x-repeated"), "two, three"),
    ];
    for (name, value) in names {
        headers.append(name, HeaderValue::from_static(value));
    }
    let headers = headers.clone();
    exchange(transport, request, 200)?;
    let seen = only_request(server)?;
    for name in headers.keys() {
        let sent: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let arrived = seen.values(name.as_str());
        if arrived != sent {
            return Err(format!(
                "the header {name} changed from {} to {}",
                shown(&sent),
                shown(&arrived)
            ));
        }
    }
    Ok(format!("{} headers arrived unchanged", headers.len()))
}

/// Checks that the token is not sent in plain text. The server does not support TLS.
fn https_is_encrypted(server: &Server, transport: &dyn Transport) -> Outcome {
    let base = base(&format!("https://{}", server.address()));
    let result = transport.send(get(&base, ""));
    if contains(&server.raw(), TOKEN.as_bytes()) {
        return Err("a request to an https URL was sent without TLS".into());
    }
    match result {
        Ok(_) => Err("the server does not support TLS, but `send` returned a reply".into()),
        Err(error) => Ok(format!(
            "`send` failed without sending the token in plain text: {error:?}"
        )),
    }
}

/// Answers a GET. Reads a POST and closes the connection.
fn answer_gets(seen: &Seen) -> Vec<Step> {
    match seen.method.as_str() {
        "GET" => json(),
        _ => vec![Step::Close],
    }
}

/// Checks that a POST without a reply is sent once, both as the first request and after a
/// successful GET.
fn post_sent_once(server: &Server, transport: &dyn Transport) -> Outcome {
    let mut last = String::new();
    for used in [false, true] {
        if used {
            exchange(transport, get(&server.base(), ""), 200)?;
        }
        let before = server.seen().len();
        let result = transport.send(post(&server.base(), "{\"hunt\": 1}"));
        let times = server.seen().len() - before;
        if times != 1 {
            return Err(format!("the service received the POST {times} times"));
        }
        last = unknown(result)?;
    }
    Ok(format!("each POST arrived once; {last}"))
}

fn stale_connection(server: &Server, transport: &dyn Transport) -> Outcome {
    exchange(transport, get(&server.base(), ""), 200)?;
    // Wait until the server has closed the connection, so the transport can notice it.
    thread::sleep(Duration::from_millis(200));
    exchange(transport, post(&server.base(), "{}"), 200)
        .map_err(|error| format!("the POST failed after the old connection was closed: {error}"))?;
    Ok("the POST arrived over an open connection".into())
}

fn concurrent_requests(server: &Server, transport: &dyn Transport) -> Outcome {
    let base = server.base();
    let run = |thread: usize| {
        for round in 0..5 {
            let body = format!("thread {thread}, round {round}; ")
                .repeat(500)
                .into_bytes();
            let (_, bytes) = exchange(transport, post(&base, body.clone()), 200)?;
            same("a reply", &bytes, &body)?;
        }
        Ok::<_, String>(())
    };
    let threads = 8;
    let failed = thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads)
            .map(|index| scope.spawn(move || run(index)))
            .collect();
        let ended = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("the transport panicked in a thread".into()))
        });
        ended.filter_map(Result::err).next()
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(format!("{threads} threads received their own replies")),
    }
}
