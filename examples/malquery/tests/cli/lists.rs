use crate::support::*;
use std::io::Write;
use std::process::Stdio;

const LIST: &str = "# indicators of the week\r\n\r\n\
    F599015C08658C5B730D3394CDB55CEE238A8D82508A179B860FC201CDE95E18  invoice.exe\r\n\
    f599015c08658c5b730d3394cdb55cee238a8d82508a179b860fc201cde95e18\r\n\
    0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\r\n";

#[test]
fn a_list_comes_from_file_or_standard_input() {
    let out = folder();
    let list = in_folder(&out, "list");
    fs::write(&list, LIST).unwrap();
    let run = demo(&format!("metadata --from {list}"));
    assert_eq!(run.json()["resources"].as_array().unwrap().len(), 1);
    run.says("not in MalQuery: 0c0c0c0c");
    assert_eq!(run.stderr.lines().last(), Some("in MalQuery: 1 of 2"));

    let mut command = command("--demo metadata --from - --format sha256");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(LIST.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{A}\n"));
}

#[test]
fn bad_lines_are_reported_at_once() {
    let out = folder();
    let list = in_folder(&out, "list");
    let (md5, sha1) = ("d4".repeat(16), "d4".repeat(20));
    fs::write(&list, format!("{LIST}not-a-hash\n{md5}\n{A}\n{sha1}\n")).unwrap();
    let server = Server::with_answers([]);
    let target = in_folder(&out, "out");
    for line in [
        "metadata",
        "multidownload",
        &format!("{COLLECT} --output-dir {target}"),
    ] {
        let run = server.run(&format!("{line} --from {list}"));
        run.error(2);
        run.says(&format!("{list}:6: "))
            .says(&format!("{list}:7: {md5} is an MD5"));
        run.says(&format!("{list}:9: {sha1} is a SHA-1"))
            .omits(&format!("{list}:8"));
    }
    let run = server.run(&format!("metadata {md5}"));
    assert!(
        run.code == 2 && run.stderr.contains("is an MD5"),
        "{}",
        run.stderr
    );
    fs::write(&list, "# nothing\n").unwrap();
    server.run(&format!("metadata --from {list}")).error(2);
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn only_known_samples_are_archived() {
    let out = folder();
    let list = in_folder(&out, "list");
    fs::write(&list, LIST).unwrap();
    let known = answer(200, json!({"meta": {}, "resources": [{"sha256": A}]}));
    let server = Server::with_answers([known, job("r-1", "done")]);
    let run = server.run(&format!("multidownload --from {list}"));
    run.json();
    assert_eq!(run.stderr.lines().last(), Some("in MalQuery: 1 of 2"));
}

#[test]
fn an_incomplete_lookup_does_not_claim_more() {
    let out = folder();
    let (list, target) = (in_folder(&out, "list"), in_folder(&out, "out"));
    fs::write(&list, LIST).unwrap();
    let partly = json!({"meta": {}, "resources": [{"sha256": A}], "errors": [{"message": "busy"}]});
    for line in [
        format!("metadata --from {list}"),
        format!("multidownload --from {list}"),
        format!("{COLLECT} --from {list} --no-extract --output-dir {target}"),
    ] {
        let archive = collecting(&[], SEVERAL).split_off(3);
        let answers = [answer(200, partly.clone())].into_iter().chain(archive);
        let run = Server::with_answers(answers).run(&line);
        // The archive for `collect` does not contain the samples.
        assert_eq!(run.code, if line.starts_with("collect") { 3 } else { 0 });
        run.says("warning: busy\n").says("\nnot found: 0c0c0c0c");
        run.says("\nin MalQuery: at least 1 of 2; the lookup is incomplete, because");
    }
}
