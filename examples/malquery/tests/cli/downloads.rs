use malquery_test_support::Then;

use crate::support::*;

#[test]
fn downloads_give_files_and_say_what_they_are() {
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    let document = offline(&format!("download {A} --output {target}")).json();
    assert_eq!(document, json!({"path": target, "bytes": 103, "sha256": A}));
    assert_eq!(fs::read(&target).unwrap().len(), 103);
    let target = in_folder(&out, "samples.zip");
    let document = Server::with_cassette()
        .run(&format!("samples {ARCHIVE} --output {target}"))
        .json();
    assert_eq!(document["bytes"], fs::metadata(&target).unwrap().len());
    assert_eq!(names(&out), ["sample.bin", "samples.zip"]);
    let folder = in_folder(&out, "new");
    let line = format!("samples {ARCHIVE} --output {target} --force --extract {folder}");
    let document = Server::with_cassette().run(&line).json();
    assert_eq!(document["contents"]["damaged"], json!([]));
    assert_eq!(document["contents"]["files"].as_array().unwrap().len(), 3);
    assert_eq!(document["bytes"], fs::metadata(&target).unwrap().len());
    assert_eq!(names(&folder).len(), 3);
    assert_eq!(fs::metadata(Path::new(&folder).join(A)).unwrap().len(), 103);
}

#[test]
fn a_wrong_download_leaves_nothing() {
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    for (answer, line, message) in [
        (
            (200, vec![], b"other bytes".to_vec()),
            format!("download {A}"),
            "SHA-256",
        ),
        (
            (200, vec![], b"{\"errors\": []}".to_vec()),
            "samples r-1".into(),
            "zip",
        ),
        (
            refusal(404, "not here"),
            format!("download {A}"),
            "not here",
        ),
    ] {
        let server = Server::with_answers(std::iter::repeat_n(answer, 9));
        let run = server.run(&format!("{line} --output {target} --timeout 9"));
        assert!(run.error(1).contains(message), "{}", run.stderr);
    }
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_broken_download_starts_over() {
    let out = folder();
    let target = in_folder(&out, "samples.zip");
    let replies = [
        ("201 Created", br#"{"access_token": "t"}"#.as_slice(), 21),
        ("200 OK", &SEVERAL[..9], SEVERAL.len()),
        ("200 OK", SEVERAL, SEVERAL.len()),
    ];
    let replies = std::sync::Mutex::new(replies.into_iter());
    let server = malquery_test_support::Server::start(move |_, out| {
        let (status, body, length) = replies.lock().unwrap().next().unwrap();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
        out.write_all(&[head.as_bytes(), body].concat()).unwrap();
        Then::Close
    });
    let run = run(&mut with_credentials(
        &server.url(""),
        &format!("samples r-1 --output {target}"),
    ));
    assert_eq!(run.json()["bytes"], SEVERAL.len());
    assert_eq!(fs::read(&target).unwrap(), SEVERAL);
}

#[test]
fn only_a_whole_file_replaces_with_force() {
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    fs::write(&target, "mine").unwrap();
    let line = format!("download {A} --output {target} --force");
    Server::with_answers([(200, vec![], b"other bytes".to_vec())])
        .run(&line)
        .error(1);
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    offline(&line).json();
    assert_eq!(fs::read(&target).unwrap().len(), 103);
    assert_eq!(names(&out), ["sample.bin"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_need_not_be_unicode() {
    use std::os::unix::ffi::OsStringExt;
    let out = folder();
    let target = out
        .path()
        .join(std::ffi::OsString::from_vec(b"s\xff".to_vec()));
    let run = run(command(&format!("--demo download {A} --output")).arg(&target));
    assert_eq!(run.json()["bytes"], 103);
    assert_eq!(fs::read(&target).unwrap().len(), 103);
}

#[test]
fn a_paid_archive_can_be_fetched_later() {
    let out = folder();
    let target = in_folder(&out, "out");
    let mut answers = collecting(&[A, A], SEVERAL);
    answers.pop();
    answers.push(refusal(403, "no"));
    let server = Server::with_answers(answers);
    let run = server.run(&format!("{COLLECT} --ascii a --output-dir {target}"));
    run.error(4);
    run.says(&format!(
        " samples r-2 --output {target}/samples.zip --extract {target}\n"
    ));
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_padded_sample_does_not_block_others() {
    let out = folder();
    let target = in_folder(&out, "out");
    let server = Server::with_answers(collecting(&[HELLO], BOMB));
    let run = server.run(&format!("{COLLECT} --ascii a --output-dir {target}"));
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    run.says("--max-ratio 1100");
    let other = in_folder(&out, "other");
    let line = format!("extract {target}/samples.zip --output-dir {other} --max-ratio 1100");
    assert_eq!(
        plain(&line).json()["contents"]["files"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(names(&other).len(), 2);
}

#[test]
fn a_file_in_the_way_hints_at_force() {
    let out = folder();
    let target = in_folder(&out, "out");
    fs::create_dir(&target).unwrap();
    fs::write(Path::new(&target).join(HELLO), "other").unwrap();
    let archive = in_folder(&out, "samples.zip");
    fs::write(&archive, SEVERAL).unwrap();
    let line = format!("extract {archive} --output-dir {target}");
    assert!(
        plain(&line)
            .error(1)
            .ends_with("; use --force to replace it")
    );
    let run = plain(&format!("{line} --force"));
    run.says(&format!(
        "the files in {target} are raw, unencrypted samples, which may be malware"
    ));
}

#[test]
fn an_incomplete_archive_is_its_own_error() {
    let out = folder();
    let archive = in_folder(&out, "samples.zip");
    fs::write(&archive, &SEVERAL[..SEVERAL.len() - 30]).unwrap();
    let run = plain(&format!(
        "extract {archive} --output-dir {}",
        in_folder(&out, "out")
    ));
    run.omits("unencrypted malware").error(3);
}

#[test]
fn contents_are_shown_in_all_formats() {
    let out = folder();
    let archive = in_folder(&out, "samples.zip");
    fs::write(&archive, SEVERAL).unwrap();
    let line = format!(
        "extract {archive} --force --output-dir {}",
        in_folder(&out, "out")
    );
    let hashes = plain(&format!("{line} --format sha256")).stdout;
    assert!(
        hashes.lines().count() == 4 && hashes.contains(HELLO),
        "{hashes}"
    );
    let csv = plain(&format!("{line} --format csv")).stdout;
    assert!(csv.contains(&format!("\n{HELLO},,,5,,,,\n")), "{csv}");
}

#[test]
fn an_archive_without_an_entry_is_incomplete() {
    let out = folder();
    let archive = in_folder(&out, "samples.zip");
    let empty = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
    let reply = (200, Vec::new(), empty.clone());
    let server = Server::with_answers([reply]);
    let run = server.run(&format!("samples r-1 --output {archive}"));
    assert_eq!(run.code, 3, "{}", run.stderr);
    run.says("the archive is not complete");
    // The archive is paid for.
    assert_eq!(fs::read(archive).unwrap(), empty);
}
