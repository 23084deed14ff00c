use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use malquery_proto::types::{Date, Label, Pattern, Sha256};
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::ask::Fields;
use super::super::reply;
use super::scan::{CHUNK, Scan};
use super::source::{SETTLED, Source};
use super::{Corpus, CorpusSample, Entry, Filter, Found};
use crate::digest;

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn ascii(text: &str) -> Pattern {
    Pattern::ascii(text).unwrap()
}

fn hash(bytes: &[u8]) -> Sha256 {
    digest::sha256(bytes).parse().unwrap()
}

fn bytes(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.open().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn contents(found: &Found) -> Vec<Vec<u8>> {
    found.entries.iter().map(bytes).collect()
}

/// Creates a folder with these files, each modified on 2020/06/09.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        write(&folder.path().join(path), bytes);
    }
    folder
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_591_660_800))
        .unwrap();
}

/// Returns whether a file, read in chunks of `chunk` bytes, contains all the patterns.
fn scan(bytes: &[u8], patterns: &[Pattern], chunk: usize) -> bool {
    let mut opened = Source::Memory(bytes.into()).open().unwrap();
    // The rest of another file in the buffer must not be found.
    let mut buffer = patterns.iter().flat_map(Pattern::bytes).collect();
    Scan::with_chunk(patterns, chunk)
        .run(&mut opened, &mut buffer)
        .unwrap()
}

fn naive(bytes: &[u8], patterns: &[Pattern]) -> bool {
    patterns.iter().all(|pattern| {
        let pattern = pattern.bytes();
        bytes.windows(pattern.len()).any(|window| window == pattern)
    })
}

proptest! {
    #[test]
    fn a_search_finds_what_a_naive_one_does(
        files in prop::collection::vec(prop::collection::vec(0u8..3, 0..60), 1..8),
        patterns in prop::collection::vec(prop::collection::vec(0u8..3, 1..7), 1..4),
        chunk in 1usize..20,
    ) {
        let patterns: Vec<_> = patterns.into_iter().map(|p| Pattern::hex_bytes(p).unwrap()).collect();
        let mut expected = Vec::new();
        for file in &files {
            let found = naive(file, &patterns);
            prop_assert_eq!(scan(file, &patterns, chunk), found);
            if found && !expected.contains(file) {
                expected.push(file.clone());
            }
        }
        let found = Corpus::from_bytes(files).search(&patterns, &Filter::default()).unwrap();
        prop_assert_eq!(contents(&found), expected);
    }

    #[test]
    fn texts_are_found_in_their_encoding(before in ".{0,9}", text in "[ -~]{1,9}", wide in ".{1,9}") {
        let file: Vec<u8> = [&before, &wide].iter().flat_map(|text| text.encode_utf16()).flat_map(u16::to_le_bytes)
            .chain(text.bytes()).collect();
        let corpus = Corpus::from_bytes([file]);
        let patterns = [ascii(&text), Pattern::wide(wide).unwrap()];
        prop_assert_eq!(corpus.search(&patterns, &Filter::default()).unwrap().total, 1);
    }
}

#[test]
fn a_pattern_across_two_chunks_is_found() {
    let pattern = *b"needle in a file";
    let patterns = [ascii("needle in a file"), ascii("edle")];
    for edge in [CHUNK, 2 * CHUNK, 3 * CHUNK - pattern.len() + 1] {
        for at in edge - pattern.len() - 1..=edge + 1 {
            let mut file = vec![b'n'; 3 * CHUNK + pattern.len()];
            file[at..at + pattern.len()].copy_from_slice(&pattern);
            assert!(scan(&file, &patterns, CHUNK), "at {at}");
            file[at + pattern.len() - 1] ^= 1;
            assert!(!scan(&file, &patterns, CHUNK), "at {at}");
            // The file ends with the pattern, or one byte before the end of the pattern.
            file[at + pattern.len() - 1] ^= 1;
            assert!(
                scan(&file[..at + pattern.len()], &patterns, CHUNK),
                "at {at}"
            );
            assert!(
                !scan(&file[..at + pattern.len() - 1], &patterns, CHUNK),
                "at {at}"
            );
        }
    }
}

#[test]
fn a_corpus_describes_itself() {
    let empty = folder(&[]);
    let corpus = Corpus::open(empty.path()).unwrap();
    assert!(corpus.is_empty() && corpus.skipped().is_empty());
    let corpus = Corpus::from_bytes([b"one".to_vec(), b"two".to_vec()]);
    assert!(!corpus.is_empty());
    assert_eq!(format!("{corpus:?}"), "Corpus(in memory, 2 samples)");
    let error = Corpus::open(empty.path().join("none")).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        source.downcast_ref::<std::io::Error>().unwrap().kind(),
        std::io::ErrorKind::NotFound
    );
}

#[test]
fn a_content_is_reported_once() {
    let corpus = Corpus::from_bytes([
        CorpusSample::new("a MARK")
            .label(Label::Malware)
            .family("first")
            .first_seen(day("2024/02/29")),
        CorpusSample::new("nothing"),
        CorpusSample::new("a MARK").label(Label::Clean),
        CorpusSample::new("b MARK"),
        CorpusSample::new("c MARK"),
    ]);
    assert_eq!((corpus.len(), corpus.is_empty()), (5, false));
    let options = Filter {
        limit: Some(2),
        ..Filter::default()
    };
    let found = corpus.search(&[ascii("MARK")], &options).unwrap();
    assert_eq!(contents(&found), [b"a MARK", b"b MARK"]);
    assert_eq!(found.total, 3);
    let first = &found.entries[0];
    assert_eq!(first.hashes.sha256, hash(b"a MARK"));
    // The output of sha1sum and md5sum.
    assert_eq!(
        first.hashes.sha1.to_string(),
        "537703579018b24446012771eb570cba2b909077"
    );
    assert_eq!(
        first.hashes.md5.to_string(),
        "1617e953f5d86fdb85700a32aa5a3553"
    );
    assert_eq!((first.size(), first.filetype), (6, "text"));
    assert_eq!(
        (first.label.as_ref(), first.family.as_deref()),
        (Some(&Label::Malware), Some("first"))
    );
    assert_eq!(first.first_seen, day("2024/02/29"));
    assert_eq!(found.entries[1].first_seen, day("1970/01/01"));
    assert!(
        corpus
            .search(&[ascii("mark")], &Filter::default())
            .unwrap()
            .entries
            .is_empty()
    );
}

#[test]
fn filters_narrow_a_search() {
    let corpus = Corpus::from_bytes([
        CorpusSample::new("MARK").first_seen(day("2020/01/01")),
        CorpusSample::new("MARK 2")
            .first_seen(day("2020/01/02"))
            .submitted_by_customer(),
        CorpusSample::new("%PDF-MARK").first_seen(day("2020/01/03")),
    ]);
    let found = |options: Filter| contents(&corpus.search(&[ascii("MARK")], &options).unwrap());
    let newest_first: [&[u8]; 3] = [b"%PDF-MARK", b"MARK 2", b"MARK"];
    assert_eq!(found(Filter::default()), newest_first);
    assert_eq!(
        found(Filter {
            min_date: Some(day("2020/01/02")),
            ..Filter::default()
        }),
        newest_first[..2]
    );
    assert_eq!(
        found(Filter {
            max_date: Some(day("2020/01/02")),
            ..Filter::default()
        }),
        newest_first[1..]
    );
    assert_eq!(
        found(Filter {
            min_size: Some(6),
            ..Filter::default()
        }),
        newest_first[..2]
    );
    assert_eq!(
        found(Filter {
            max_size: Some(6),
            ..Filter::default()
        }),
        newest_first[1..]
    );
    assert_eq!(
        found(Filter {
            filetypes: vec!["PDF".into()],
            ..Filter::default()
        }),
        newest_first[..1]
    );
    assert_eq!(
        found(Filter {
            filetypes: vec!["pdf".into(), "Text".into()],
            ..Filter::default()
        }),
        newest_first
    );
    assert_eq!(
        found(Filter {
            filetypes: vec!["pe32".into()],
            ..Filter::default()
        }),
        [b""; 0]
    );
    assert_eq!(
        found(Filter {
            limit: Some(2),
            ..Filter::default()
        }),
        newest_first[..2]
    );
    assert_eq!(
        found(Filter {
            own_only: true,
            ..Filter::default()
        }),
        newest_first[1..2]
    );
}

#[test]
fn folders_are_searched_but_links_are_not() {
    let folder = folder(&[
        ("b", b"MARK b"),
        ("a/x", b"MARK x"),
        ("a/.hidden/\u{fc}", b"MARK hidden"),
        ("empty", b""),
        ("a/malquery-corpus.json", b"MARK json"),
    ]);
    let root = folder.path();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("..", root.join("a/loop")).unwrap();
        std::os::unix::fs::symlink("b", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", root.join("zero")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        pipe(&root.join("pipe"));
    }
    let corpus = Corpus::open(root).unwrap();
    assert_eq!((corpus.len(), corpus.skipped().len()), (5, 0));
    let found = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    assert_eq!(
        contents(&found),
        [&b"MARK hidden"[..], b"MARK json", b"MARK x", b"MARK b"]
    );
    assert!(found.skipped.is_empty());
    assert!(
        found
            .entries
            .iter()
            .all(|entry| entry.first_seen == day("2020/06/09"))
    );

    let one = Corpus::open(root.join("b")).unwrap();
    assert_eq!(
        one.search(&[ascii("MARK")], &Filter::default())
            .unwrap()
            .total,
        1
    );
    #[cfg(unix)]
    {
        // The path itself may be a link, but only to a file or a folder.
        assert_eq!(
            Corpus::open(root.join("link"))
                .unwrap()
                .search(&[ascii("MARK")], &Filter::default())
                .unwrap()
                .total,
            1
        );
        assert_eq!(Corpus::open(root.join("a/loop")).unwrap().len(), 5);
        let error = Corpus::open(root.join("pipe")).unwrap_err().to_string();
        assert!(
            error.ends_with("pipe: neither a folder nor a regular file"),
            "{error}"
        );
    }
    let error = Corpus::open(root.join("missing")).unwrap_err().to_string();
    assert!(error.ends_with("missing: cannot be read"), "{error}");
}

#[test]
fn a_size_beyond_int32_is_left_out() {
    let corpus = Corpus::from_bytes([CorpusSample::new("MARK")]);
    let mut found = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    let mut sized = |size| {
        found.entries[0].stamp.size = size;
        reply::sample(&found.entries[0], &Fields::default())["filesize"].clone()
    };
    assert_eq!(sized(2_147_483_647), 2_147_483_647);
    assert!(sized(2_147_483_648).is_null());
}

#[test]
fn paths_that_are_gone_are_named() {
    let folder = folder(&[("a/x", b"MARK x"), ("b", b"MARK b"), ("c", b"MARK c")]);
    let at = |name| folder.path().join(name);
    let corpus = Corpus::from_paths([at("b"), at("gone"), at("a")]);
    let found = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    assert_eq!(contents(&found), [b"MARK b", b"MARK x"]);
    let skipped: Vec<_> = corpus.skipped().iter().map(ToString::to_string).collect();
    assert_eq!(skipped.len(), 1);
    assert!(
        skipped[0].starts_with(&at("gone").display().to_string()),
        "{skipped:?}"
    );
}

#[cfg(unix)]
fn pipe(path: &Path) {
    assert!(
        std::process::Command::new("mkfifo")
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn missing_files_do_not_stop_a_search() {
    let folder = folder(&[
        ("a", b"MARK a"),
        ("b", b"MARK b"),
        ("c", b"x MARK"),
        ("d", b"MARK d"),
        ("e", b"MARK e"),
    ]);
    let at = |name| folder.path().join(name);
    let corpus = Corpus::open(folder.path()).unwrap();
    fs::remove_file(at("a")).unwrap();
    fs::remove_file(at("b")).unwrap();
    fs::create_dir(at("b")).unwrap();
    File::options()
        .write(true)
        .open(at("c"))
        .unwrap()
        .set_len(5)
        .unwrap();
    #[cfg(unix)]
    {
        // Opening the pipe would block until another process opens it for writing.
        fs::remove_file(at("d")).unwrap();
        pipe(&at("d"));
    }
    let found = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    assert_eq!(contents(&found).last().unwrap(), b"MARK e");
    let skipped: Vec<_> = found.skipped.iter().map(ToString::to_string).collect();
    assert!(
        skipped[0].starts_with(&at("a").display().to_string()),
        "{skipped:?}"
    );
    assert!(
        skipped[1].ends_with("b: no longer a regular file"),
        "{skipped:?}"
    );
    #[cfg(unix)]
    assert_eq!((found.total, skipped.len()), (1, 3), "{skipped:?}");
    assert!(corpus.find(&hash(b"MARK e")).unwrap().is_ok());

    let gone = folder.path().to_owned();
    drop(folder);
    let error = corpus
        .search(&[ascii("MARK")], &Filter::default())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains(&gone.display().to_string()), "{error}");
    assert!(corpus.find(&hash(b"MARK e")).is_err());
}

#[test]
fn a_changed_file_is_a_new_sample() {
    let folder = folder(&[("a", b"MARK 1"), ("b", b"MARK"), ("c", b"other")]);
    let corpus = Corpus::open(folder.path()).unwrap();
    let before = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    let entry = &before.entries[0];
    let mut reader = entry.open().unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();

    // The same size, a moment later.
    fs::write(folder.path().join("a"), b"MARK 2").unwrap();
    let message = |error: std::io::Error| error.to_string();
    assert_eq!(
        message(entry.open().err().unwrap()),
        "a sample file has changed since it was found"
    );
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(
        message(error),
        "a sample file has changed since it was found"
    );
    assert!(corpus.find(&hash(b"MARK 1")).unwrap().is_err());
    assert_eq!(
        bytes(&corpus.find(&hash(b"MARK 2")).unwrap().unwrap()),
        b"MARK 2"
    );
    let after = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    // The changed file is newer.
    assert_eq!(contents(&after), [&b"MARK 2"[..], b"MARK"]);
    assert_eq!(after.entries[0].hashes.sha256, hash(b"MARK 2"));
    assert_ne!(after.entries[0].first_seen, entry.first_seen);
}

#[test]
fn a_change_in_the_same_moment_is_seen() {
    let folder = folder(&[("a", b"")]);
    let corpus = Corpus::open(folder.path()).unwrap();
    let now = std::time::SystemTime::now();
    for content in [&b"MARK 1"[..], b"MARK 2"] {
        let mut file = File::create(folder.path().join("a")).unwrap();
        file.write_all(content).unwrap();
        file.set_modified(now).unwrap();
        let found = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
        assert_eq!(found.entries[0].hashes.sha256, hash(content));
    }
}

#[test]
fn a_settled_file_is_hashed_once() {
    let folder = folder(&[("a", b"MARK 1"), ("b", b"MARK 2")]);
    let ahead = std::time::SystemTime::now() + Duration::from_secs(86_400);
    File::options()
        .write(true)
        .open(folder.path().join("b"))
        .unwrap()
        .set_modified(ahead)
        .unwrap();
    std::thread::sleep(SETTLED + Duration::from_millis(100));
    let corpus = Corpus::open(folder.path()).unwrap();
    assert_eq!(
        corpus
            .search(&[ascii("MARK")], &Filter::default())
            .unwrap()
            .total,
        2
    );
    assert!(corpus.0.samples.iter().all(|slot| slot.known().is_some()));
}

/// Other systems cannot detect this change.
#[cfg(unix)]
#[test]
fn a_change_with_the_old_time_is_seen() {
    let folder = folder(&[("a", b"MARK 1"), ("b", b"MARK 3")]);
    std::thread::sleep(SETTLED + Duration::from_millis(100));
    let corpus = Corpus::open(folder.path()).unwrap();
    let before = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    assert!(corpus.0.samples.iter().all(|slot| slot.known().is_some()));
    // One file is overwritten, and the other is replaced.
    write(&folder.path().join("a"), b"MARK 2");
    write(&folder.path().join("new/b"), b"MARK 4");
    fs::rename(folder.path().join("new/b"), folder.path().join("b")).unwrap();
    for (entry, [old, new]) in before
        .entries
        .iter()
        .zip([[b"MARK 1", b"MARK 2"], [b"MARK 3", b"MARK 4"]])
    {
        assert_eq!(
            entry.open().err().unwrap().to_string(),
            "a sample file has changed since it was found"
        );
        assert!(corpus.find(&hash(old)).unwrap().is_err());
        assert_eq!(bytes(&corpus.find(&hash(new)).unwrap().unwrap()), new);
    }
}

#[test]
fn a_panic_over_one_file_is_contained() {
    let corpus = Corpus::from_bytes((0..20u8).map(|byte| vec![byte]));
    let (found, skipped) = corpus
        .each(false, |slot, buffer| {
            slot.read(|opened| {
                assert!(!Arc::ptr_eq(slot, &corpus.0.samples[7]));
                corpus.entry(slot, opened, buffer).map(Some)
            })
        })
        .unwrap();
    assert_eq!(found.len(), 19);
    assert_eq!(
        skipped[0].to_string(),
        "a sample in memory: the search panicked"
    );
}

#[test]
fn a_file_that_never_rests_is_left_out() {
    let folder = folder(&[("a", b"MARK")]);
    let path = folder.path().join("a");
    let corpus = Corpus::open(folder.path()).unwrap();
    let mut tries = 0;
    let mut read = |rests_after| {
        tries = 0;
        corpus.0.samples[0].read(|opened| {
            tries += 1;
            if tries <= rests_after {
                File::options()
                    .append(true)
                    .open(&path)
                    .unwrap()
                    .write_all(b"+")
                    .unwrap();
            }
            let mut bytes = Vec::new();
            opened.read_to_end(&mut bytes)?;
            Ok(bytes)
        })
    };
    // The end is fixed when the file is opened, and the file is read again.
    assert_eq!(read(2).unwrap(), b"MARK++");
    assert_eq!(
        read(99).unwrap_err().to_string(),
        "the file keeps changing while it is being read"
    );
}

#[test]
fn only_what_is_found_is_hashed() {
    let corpus = Corpus::from_bytes([
        b"MARK 1".to_vec(),
        b"other".to_vec(),
        b"MARK 2".to_vec(),
        b"last".to_vec(),
    ]);
    let hashed = || {
        corpus
            .0
            .samples
            .iter()
            .map(|slot| slot.known().is_some())
            .collect::<Vec<_>>()
    };
    let found = corpus.search(&[ascii("MARK")], &Filter::default()).unwrap();
    assert_eq!(hashed(), [true, false, true, false]);
    assert_eq!(
        corpus
            .find(&hash(b"MARK 2"))
            .unwrap()
            .unwrap()
            .hashes
            .sha256,
        found.entries[1].hashes.sha256
    );
    assert_eq!(hashed(), [true, false, true, false]);
    assert!(corpus.find(&hash(b"nowhere")).unwrap().is_err());
    assert_eq!(hashed(), [true; 4]);
}

#[test]
fn annotations_say_what_a_file_does_not() {
    let folder = folder(&[
        ("a/one", b"MARK 1"),
        ("two", b"MARK 2"),
        ("three", b"MARK 3"),
    ]);
    let json = format!(
        r#"{{ "path": {{ "a/one": {{ "first_seen": "2001/01/01", "label": "malware", "family": "by path" }} }},
             "sha256": {{ "{}": {{ "label": "clean" }}, "{}": {{ "first_seen": "2002/02/02" }} }} }}"#,
        hash(b"MARK 1"),
        hash(b"MARK 2")
    );
    fs::write(folder.path().join("malquery-corpus.json"), json).unwrap();
    let corpus = Corpus::open(folder.path()).unwrap();
    assert_eq!(corpus.len(), 3);
    let find = |options: Filter| {
        let found = corpus.search(&[ascii("MARK")], &options).unwrap();
        let shown = |entry: &Entry| {
            format!(
                "{} {} {:?} {:?}",
                String::from_utf8(bytes(entry)).unwrap(),
                entry.first_seen,
                entry.label.as_ref().map(Label::as_str),
                entry.family.as_deref()
            )
        };
        found.entries.iter().map(shown).collect::<Vec<_>>()
    };
    let all = [
        // The annotation by hash takes precedence.
        "MARK 3 2020/06/09 None None",
        "MARK 2 2002/02/02 None None",
        r#"MARK 1 2001/01/01 Some("clean") Some("by path")"#,
    ];
    assert_eq!(find(Filter::default()), all);
    assert_eq!(
        find(Filter {
            max_date: Some(day("2002/02/02")),
            ..Filter::default()
        }),
        all[1..]
    );
    assert_eq!(
        find(Filter {
            min_date: Some(day("2002/02/03")),
            ..Filter::default()
        }),
        all[..1]
    );
}

#[test]
fn bad_annotations_are_refused_with_their_place() {
    let refused = |json: &str| {
        let folder = folder(&[("a", b"x"), ("malquery-corpus.json", json.as_bytes())]);
        let error = Corpus::open(folder.path()).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    let cases = [
        "",
        "{\n \"paths\": {} }",
        "{\n \"path\": { \"a\": { \"lable\": \"x\" } } }",
        "{\n \"path\": { \"a\": { \"first_seen\": \"2023/02/29\" } } }",
        "{\n \"path\": { \"a\": { \"first_seen\": \"2023.02.28\" } } }",
        "{\n \"path\": { \"a\": { \"label\": \"\" } } }",
        "{\n \"path\": { \"a\": {},\n \"a\": {} } }",
        "{\n \"path\": { \"b\": {} } }",
        "{\n \"path\": { \"../a\": {} } }",
        "{\n \"path\": { \"/etc/passwd\": {} } }",
        "{\n \"path\": { \"c:\\\\a\": {} } }",
        "{\n \"path\": { \"\": {} } }",
        "{\n \"path\": { \"malquery-corpus.json\": {} } }",
        "{\n \"sha256\": { \"12\": {} } }",
        "{\n \"path\": { \"a\": [\"2020/01/01\"] } }",
    ];
    let shown: Vec<_> = cases
        .iter()
        .map(|json| format!("{json}\n=> {}\n", refused(json)))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
    #[cfg(unix)]
    {
        let folder = folder(&[("a", b"x")]);
        std::os::unix::fs::symlink("a", folder.path().join("malquery-corpus.json")).unwrap();
        let error = Corpus::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("malquery-corpus.json: not a regular file"),
            "{error}"
        );
    }
}

#[cfg(feature = "yara")]
mod yara {
    use super::super::Rule;
    use super::*;

    #[test]
    fn a_rule_is_run_over_whole_files() {
        let long = [&b"MZ"[..], &[0; 3 * CHUNK], b"END"].concat();
        let folder = folder(&[
            ("a", &long),
            ("b", b"MZ END"),
            ("c", b"END MZ"),
            ("d/e", b"MZ END"),
            ("empty", b""),
        ]);
        let corpus = Corpus::open(folder.path()).unwrap();
        let hunt = |rule: &str, options: Filter| {
            let found = corpus
                .hunt(&Rule::compile(rule).unwrap(), &options)
                .unwrap();
            assert!(found.skipped.is_empty());
            assert_eq!(found.total, found.entries.len());
            contents(&found)
        };
        let rule = r#"rule r { strings: $a = "MZ" $b = "END" condition: $a at 0 and @b > @a }"#;
        assert_eq!(
            hunt(rule, Filter::default()),
            [long.clone(), b"MZ END".to_vec()]
        );
        assert_eq!(
            hunt(
                rule,
                Filter {
                    max_size: Some(6),
                    ..Filter::default()
                }
            ),
            [b"MZ END"]
        );
        assert_eq!(
            hunt("rule r { condition: filesize == 0 }", Filter::default()),
            [b""]
        );
        let hash = format!(
            "import \"hash\" rule r {{ condition: hash.sha256(0, filesize) == \"{}\" }}",
            hash(b"END MZ")
        );
        assert_eq!(hunt(&hash, Filter::default()), [b"END MZ"]);
    }

    #[test]
    fn a_file_too_large_to_hunt_is_named() {
        let folder = folder(&[("a", b"x"), ("huge", b"")]);
        let path = folder.path().join("huge");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(256 * 1024 * 1024 + 1)
            .unwrap();
        let corpus = Corpus::open(folder.path()).unwrap();
        let found = corpus
            .hunt(
                &Rule::compile("rule any_file { condition: true }").unwrap(),
                &Filter::default(),
            )
            .unwrap();
        assert_eq!(contents(&found), [b"x"]);
        let skipped: Vec<_> = found.skipped.iter().map(ToString::to_string).collect();
        let expected = format!(
            "{}: the sample is larger than 256 MiB, so the rule was not run on it",
            path.display()
        );
        assert_eq!(skipped, [expected]);
    }
}
