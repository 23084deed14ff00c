//! Version 1 cassettes, which every later version of this crate must play in the same way.
//!
//! A text file next to each cassette shows the requests (`>`) and the replies (`<`). Add files, but
//! never change one.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::Path;

use http::Request;
use malquery_mock::{Cassette, Mock, MockError};
use malquery_proto::Transport;

/// Formats text as a JSON string, and other bytes in hex.
fn body(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::Value::from(text).to_string(),
        Err(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn bytes(body: &str) -> Vec<u8> {
    match serde_json::from_str::<String>(body) {
        Ok(text) => text.into_bytes(),
        Err(_) => {
            let digits: Vec<_> = body
                .chars()
                .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
                .collect();
            digits
                .chunks(2)
                .map(|pair| pair[0] * 16 + pair[1])
                .collect()
        }
    }
}

fn request(lines: &[&str]) -> Request<Vec<u8>> {
    let (method, uri) = lines[0].split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Vec::new())
        .unwrap();
    for line in &lines[1..] {
        match line.strip_prefix("body ") {
            Some(body) => *request.body_mut() = bytes(body),
            None => {
                let (name, value) = line.split_once(": ").unwrap();
                let name: http::HeaderName = name.parse().unwrap();
                request.headers_mut().append(name, value.parse().unwrap());
            }
        }
    }
    request
}

fn reply(mock: &Mock, request: Request<Vec<u8>>) -> String {
    match mock.send(request) {
        Err(error) => match error.source().and_then(|cause| cause.downcast_ref()) {
            Some(MockError::Fault { fault, .. }) => format!("< fault {fault:?}\n"),
            Some(MockError::Unmatched(_)) => "< no answer\n".into(),
            _ => panic!("{error:?}"),
        },
        Ok(response) => {
            let mut text = format!("< {}\n", response.status().as_u16());
            for (name, value) in response.headers() {
                let _ = writeln!(
                    text,
                    "< {name}: {}",
                    String::from_utf8_lossy(value.as_bytes())
                );
            }
            let mut read = Vec::new();
            let end = response.into_body().read_to_end(&mut read);
            if !read.is_empty() {
                let _ = writeln!(text, "< body {}", body(&read));
            }
            if let Err(error) = end {
                let _ = writeln!(text, "< broken: {:?}", error.kind());
            }
            text
        }
    }
}

#[test]
fn each_file_of_version_1_plays_as_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-v1");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let mock = Cassette::load(&path)
            .unwrap_or_else(|error| panic!("{error}"))
            .transport();
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        let mut played = String::new();
        for block in expected.split("\n\n").filter(|block| !block.is_empty()) {
            let lines: Vec<_> = block
                .lines()
                .filter_map(|line| line.strip_prefix("> "))
                .collect();
            let gap = if played.is_empty() { "" } else { "\n" };
            let _ = write!(
                played,
                "{gap}> {}\n{}",
                lines.join("\n> "),
                reply(&mock, request(&lines))
            );
        }
        assert_eq!(played, expected, "{}", path.display());
    }
    assert_eq!(count, 8);
}
