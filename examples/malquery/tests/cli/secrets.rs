use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::*;

/// The token, the client secret and the proxy password.
const SECRETS: [&str; 3] = ["t0ken-of-it", "s3cret", "p@ss/w0rd"];
const PROXY: &str = "http://me:p%40ss%2Fw0rd@proxy.example:3128";

/// The forms in which a service may repeat a secret.
fn forms(secret: &str) -> Vec<String> {
    let each = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>();
    let hex = each(&|byte| format!("{byte:02x}"));
    let mut forms = vec![
        secret.to_owned(),
        each(&|byte| format!("%{byte:02x}")),
        each(&|byte| format!("%{byte:02X}")),
        secret.replace('@', "%40").replace('/', "%2F"),
        secret.replace('/', "\\/"),
        each(&|byte| format!("\\u{byte:04x}")),
        each(&|byte| format!("\\u{byte:04X}")),
        hex.to_ascii_uppercase(),
        hex,
        each(&|byte| format!("0x{byte:02x}, ")),
        each(&|byte| format!("%25{byte:02X}")),
        wrapped(secret, "=\n"),
        wrapped(secret, "\r\n    "),
    ];
    for before in ["", "m", "me"] {
        let both = format!("{before}{secret}:::");
        forms.extend([STANDARD.encode(&both), URL_SAFE_NO_PAD.encode(&both)]);
        forms.push(wrapped(&STANDARD.encode(both), "\n"));
    }
    forms
}

fn wrapped(text: &str, between: &str) -> String {
    let (start, end) = text.split_at(5);
    format!("{start}{between}{end}")
}

fn all_forms() -> Vec<String> {
    SECRETS.into_iter().flat_map(forms).collect()
}

#[track_caller]
fn check(text: &str, place: &str) {
    for form in all_forms() {
        let json = serde_json::to_string(&form).unwrap();
        for form in [&*form, json.trim_matches('"')] {
            assert!(!text.contains(form), "{place}: {form} is in\n{text}");
        }
    }
}

/// A service may repeat any secret of the session anywhere.
#[test]
fn a_secret_is_never_shown() {
    let out = folder();
    let tape = in_folder(&out, "tape.json");
    let echo = format!("<{}>", all_forms().join("> <"));
    let errors = json!([{"message": echo, "code": 400, "id": echo}]);
    let odd = json!({"a": echo, &echo: [echo]});
    let meta = |status: &str| {
        json!({
            "reqid": "r-1", "status": status, "trace_id": echo, "powered_by": echo, "odd": odd,
            "hunt_count": 1, "hunt_limit": 2, "hunt_counts": [{"userid": echo, "counter": 1}],
        })
    };
    let sample = json!({
        "sha256": A, "label": echo, "family": echo, "filetype": echo, "filename": echo, "odd": odd,
    });
    let reply = |code, status: &str| {
        let body =
            json!({"meta": meta(status), "resources": [sample], "errors": errors, "odd": odd});
        let mut answer = answer(code, body);
        let id = echo.replace(['\r', '\n'], "");
        answer.1.push(("x-cs-traceid".into(), id));
        answer
    };
    let none = |code| {
        let body = json!({"meta": meta("done"), "resources": [], "errors": errors});
        answer(code, body)
    };
    let done = || reply(200, "done");
    let metadata = format!("metadata {A}");
    for (answers, line) in [
        (vec![done()], "quotas".to_owned()),
        (vec![done()], "quotas --format table".into()),
        (vec![reply(403, "done")], "quotas".into()),
        (vec![none(200)], "fuzzy-search --ascii abc".into()),
        (vec![done()], metadata.clone()),
        (vec![done()], format!("{metadata} --format csv")),
        (vec![done()], format!("{metadata} --format jsonl")),
        (vec![done()], format!("{metadata} --format table")),
        (vec![done()], format!("hunt {RULE}")),
        (vec![done()], "request r-1".into()),
        (vec![reply(200, "failed")], "request r-1".into()),
        (vec![reply(200, "failed")], "request r-1 --wait".into()),
        (vec![reply(200, &echo)], "request r-1 --format table".into()),
        (
            vec![reply(200, &echo), reply(200, &echo), done()],
            "request r-1 --wait".into(),
        ),
    ] {
        let server = Server::with_answers(answers);
        let mut command = server.command(&format!("{line} -v --force --record {tape}"));
        let run = run(command.env("HTTPS_PROXY", PROXY));
        check(&run.stdout, &line);
        check(&run.stderr, &line);
        check(&fs::read_to_string(&tape).unwrap(), &line);
    }
    // A secret in the name of an archive entry is masked, too.
    let archive = replaced(SEVERAL, "greeting.txt", "s3cret-x.txt");
    let target = in_folder(&out, "samples");
    let line = format!("samples r-1 --output {target}.zip --extract {target}");
    let run = Server::with_answers([(200, vec![], archive)]).run(&line);
    assert!(run.stdout.contains("[redacted]-x.txt"), "{}", run.stdout);
    check(&(run.stdout + &run.stderr), &line);
}

fn replaced(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() - old.len() {
        if bytes[at..].starts_with(old.as_bytes()) {
            bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
    }
    bytes
}

/// A secret that is cut off at the edge of a column would not be recognized.
#[cfg(target_os = "linux")]
#[test]
fn a_table_shows_no_half_of_a_secret() {
    for columns in (70..150).step_by(9) {
        let sample =
            json!({"sha256": A, "family": "t0ken-of-it".repeat(9), "filetype": "t0ken-of-it"});
        let server =
            Server::with_answers([answer(200, json!({"meta": {}, "resources": [sample]}))]);
        let (code, shown) = on_terminal(columns, &mut server.command(&format!("metadata {A}")));
        assert!(code == 0 && !shown.contains("t0ke"), "{columns}: {shown}");
    }
}

#[test]
fn an_excerpt_shows_no_half_of_a_secret() {
    let secret = "t0ken-of-it";
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    for form in [secret.to_owned(), hex, STANDARD.encode(secret)] {
        for shown in [form.len() / 2, form.len() - 1] {
            let body = format!("{}{form}{}", ".".repeat(200 - shown), "y".repeat(99));
            let reply = |code| (code, Vec::new(), body.clone().into_bytes());
            for (code, line) in [
                (200, "quotas".into()),
                (403, "quotas".into()),
                (200, format!("download {A} --output {A}")),
            ] {
                let out = folder();
                let server = Server::with_answers([reply(code)]);
                let run = run(server.command(&line).current_dir(&out));
                run.says("....[reda").omits(&form[..shown]);
            }
        }
    }
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    for line in [
        "quotas --base-url https://me:p4ssw0rd@host",
        "--base-url=http://me:p4ssw0rd@127.0.0.1 quotas",
        "quotas --base-url https://p4ss@host",
    ] {
        let run = plain(line);
        assert_eq!(run.code, 2, "{}", run.stderr);
        run.says("--base-url").omits("p4ss");
    }
    // A secret that is too short to be masked causes a warning, or prevents a recording.
    for (options, code) in [("", 0), ("--record tape.json", 2)] {
        let server = Server::with_answers([quotas(9, 9)]);
        let mut command = server.command(&format!("quotas {options}"));
        let run = run(command.env("HTTPS_PROXY", "http://me:p4ss@proxy.example:3128"));
        assert_eq!(run.code, code, "{}", run.stderr);
        run.says("shorter than 6 bytes").omits("p4ss");
    }
}

#[test]
fn a_number_like_a_secret_stays_a_number() {
    let sample = json!({"sha256": A, "filesize": 1234567, "family": "1234567"});
    for format in ["json", "jsonl"] {
        let reply = answer(200, json!({"meta": {}, "resources": [sample]}));
        let server = Server::with_answers([reply]);
        let mut command = server.command(&format!("metadata {A} --format {format}"));
        let run = run(command.env("ALL_PROXY", "socks5://me:1234567@127.0.0.1:1"));
        let mut document = run.json();
        if format == "json" {
            document = document["resources"][0].take();
        }
        assert_eq!(document["filesize"], 1234567);
        assert_eq!(document["family"], "[redacted]");
    }
}
