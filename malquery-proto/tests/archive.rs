//! Tests `archive` with archives that other programs created. See archives/make.sh.
// Tests may access files.
#![allow(clippy::disallowed_methods)]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use malquery_proto::archive::{Archive, ArchiveError, Limit, Limits, Report};
use malquery_proto::types::Sha256;
use proptest::prelude::*;
use sha2::Digest;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/archives")
        .join(name);
    fs::read(path).unwrap()
}

fn open(name: &str) -> Archive<Cursor<Vec<u8>>> {
    Archive::open(Cursor::new(fixture(name))).unwrap()
}

fn refused(name: &str) -> ArchiveError {
    Archive::open(Cursor::new(fixture(name))).unwrap_err()
}

fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn numbers() -> Vec<u8> {
    (1..=400)
        .flat_map(|number: u32| format!("{number}\n").into_bytes())
        .collect()
}

/// Returns the bytes of the entries with these names.
fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("greeting.txt", b"hello".to_vec()),
        ("second.txt", b"world".to_vec()),
        ("numbers.txt", numbers()),
        ("nothing", Vec::new()),
        ("-", numbers()),
    ])
}

/// Returns the files in a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

/// Checks that each file in a folder is named after its own SHA-256.
fn assert_samples_only(folder: &Path) {
    for (name, bytes) in files(folder) {
        assert_eq!(name, sha256(&bytes).to_string());
    }
}

/// Returns the messages of an error and its sources.
fn chain(error: &ArchiveError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn stopped(error: ArchiveError) -> (usize, ArchiveError, Box<Report>) {
    match error {
        ArchiveError::Stopped {
            entry,
            source,
            report,
        } => (entry, *source, report),
        error => panic!("{error:?}"),
    }
}

#[test]
fn archives_of_other_programs_are_read() {
    let archives: [(&str, &[&str]); 12] = [
        ("zipcrypto-stored.zip", &["greeting.txt"]),
        ("zipcrypto-deflated.zip", &["numbers.txt"]),
        (
            "zipcrypto-several.zip",
            &["greeting.txt", "second.txt", "numbers.txt", "nothing"],
        ),
        ("zipcrypto-zip64.zip", &["greeting.txt", "numbers.txt"]),
        (
            "zipcrypto-descriptors.zip",
            &["greeting.txt", "numbers.txt"],
        ),
        ("zipcrypto-7z.zip", &["greeting.txt", "numbers.txt"]),
        ("plain-zip64-descriptors.zip", &["-"]),
        ("aes128.zip", &["greeting.txt"]),
        ("aes256-stored.zip", &["greeting.txt"]),
        ("aes256-deflated.zip", &["numbers.txt"]),
        (
            "aes256-several.zip",
            &["greeting.txt", "nothing", "numbers.txt", "second.txt"],
        ),
        ("empty.zip", &[]),
    ];
    let contents = contents();
    for (file, names) in archives {
        let mut archive = open(file);
        let listed: Vec<_> = archive
            .entries()
            .iter()
            .map(|entry| entry.name().to_string())
            .collect();
        assert_eq!(listed, names, "{file}");
        for (number, name) in names.iter().enumerate() {
            let info = &archive.entries()[number];
            assert_eq!(info.size(), contents[name].len() as u64, "{file} {name}");
            assert_eq!(
                info.is_encrypted(),
                !file.starts_with("plain"),
                "{file} {name}"
            );
            // Info-ZIP stores this name for data from a pipe.
            assert_eq!(info.warning().is_some(), *name == "-", "{file} {name}");
            let mut entry = archive.entry(number).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, contents[name], "{file} {name}");
            let received = entry.received().unwrap();
            assert_eq!(
                (received.bytes, received.sha256),
                (bytes.len() as u64, sha256(&bytes))
            );
            assert_eq!(entry.read(&mut [0; 8]).unwrap(), 0);
        }

        // No samples are expected, so all of them count as found.
        let report = archive.check().unwrap();
        assert_eq!(report.is_complete(), !names.is_empty(), "{file}");
        assert_eq!(report.found.len(), names.len());
        assert_eq!(
            report.bytes,
            names
                .iter()
                .map(|name| contents[name].len() as u64)
                .sum::<u64>()
        );

        let folder = tempfile::tempdir().unwrap();
        let report = archive.extract(folder.path(), false).unwrap();
        let written = files(folder.path());
        assert_eq!(written.len(), names.len(), "{file}");
        for (found, name) in report.found.iter().zip(names) {
            let path = folder.path().join(sha256(&contents[name]).to_string());
            assert_eq!((&found.file, found.existed), (&Some(path), false));
            assert_eq!(written[&found.sha256.to_string()], contents[name]);
        }
    }
}

#[test]
fn unrequested_entries_are_reported() {
    let (hello, other, many) = (sha256(b"hello"), sha256(b"other"), sha256(&numbers()));
    let mut archive = open("zipcrypto-several.zip").expect_samples([other, hello, many, other]);
    let folder = tempfile::tempdir().unwrap();
    for keep in [false, true] {
        archive = archive.keep_unexpected(keep);
        let report = archive.extract(folder.path(), false).unwrap();
        let names = |list: &[malquery_proto::archive::Found]| {
            list.iter()
                .map(|found| (found.entry, found.name.to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&report.found),
            [(0, "greeting.txt".into()), (2, "numbers.txt".into())]
        );
        assert_eq!(
            names(&report.unexpected),
            [(1, "second.txt".into()), (3, "nothing".into())]
        );
        assert_eq!(report.missing, [other]);
        assert!(
            report
                .found
                .iter()
                .all(|found| found.file.is_some() && found.existed == keep)
        );
        assert!(
            report
                .unexpected
                .iter()
                .all(|found| found.file.is_some() == keep)
        );
        assert_eq!(files(folder.path()).len(), if keep { 4 } else { 2 });
        assert!(!report.is_complete());
        let error = report.complete().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the archive is not complete (missing samples: 1, damaged entries: 0)"
        );
        assert_eq!(error.report().unwrap().missing, [other]);
    }
    assert_samples_only(folder.path());
}

#[test]
fn existing_files_are_kept_replaced_or_refused() {
    let (hello, many) = (sha256(b"hello").to_string(), sha256(&numbers()).to_string());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();

    // A file with the same bytes.
    fs::write(path.join(&hello), "hello").unwrap();
    let report = open("aes256-stored.zip").extract(path, false).unwrap();
    assert!(report.found[0].existed);
    assert_eq!(report.found[0].file.as_deref(), Some(&*path.join(&hello)));

    // Files with other bytes, of the same and of another length.
    for bytes in ["help!", "", "hello "] {
        fs::write(path.join(&hello), bytes).unwrap();
        let (entry, error, report) = stopped(
            open("zipcrypto-zip64.zip")
                .extract(path, false)
                .unwrap_err(),
        );
        assert_eq!((entry, report.found.len(), report.bytes), (0, 0, 5));
        assert!(matches!(&error, ArchiveError::File { path: of, .. } if *of == path.join(&hello)));
        assert!(
            chain(&error).ends_with("could not be written: a file with that name already exists")
        );
        assert_eq!(
            files(path),
            BTreeMap::from([(hello.clone(), bytes.as_bytes().to_vec())])
        );
    }
    let report = open("zipcrypto-zip64.zip").extract(path, true).unwrap();
    assert!(report.found.iter().all(|found| !found.existed));
    assert_eq!(files(path).len(), 2);
    assert_samples_only(path);

    // The first file remains if the second one fails.
    fs::remove_file(path.join(&hello)).unwrap();
    fs::write(path.join(&many), "1").unwrap();
    let (entry, _, report) = stopped(
        open("zipcrypto-zip64.zip")
            .extract(path, false)
            .unwrap_err(),
    );
    assert_eq!(entry, 1);
    assert_eq!(report.found[0].file.as_deref(), Some(&*path.join(&hello)));
    assert_eq!(files(path)[&hello], b"hello");
    // The report has no missing sample and no damaged entry, but it is not about all entries.
    assert!(!report.is_complete() && report.complete().is_err());

    // A folder is never replaced.
    fs::remove_file(path.join(&many)).unwrap();
    fs::create_dir(path.join(&many)).unwrap();
    for overwrite in [false, true] {
        assert!(
            open("zipcrypto-deflated.zip")
                .extract(path, overwrite)
                .is_err()
        );
    }
    // A file of a killed process is removed, and a file with a similar name remains.
    let [part, other] = [".malquery-aB1cde.part", ".malquery-aB1cde"].map(|name| path.join(name));
    for left in [&part, &other] {
        fs::write(left, "half a sample").unwrap();
    }
    open("zipcrypto-stored.zip").extract(path, true).unwrap();
    assert!(!part.exists() && other.exists());
    let nowhere = path.join("nowhere");
    let (_, error, _) = stopped(open("aes128.zip").extract(&nowhere, false).unwrap_err());
    assert!(matches!(error, ArchiveError::File { path, .. } if path == nowhere));
}

#[cfg(unix)]
#[test]
fn files_are_private_and_links_are_not_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let aside = tempfile::NamedTempFile::new().unwrap();
    let path = folder.path().join(sha256(b"hello").to_string());
    fs::write(aside.path(), "hello").unwrap();
    symlink(aside.path(), &path).unwrap();
    // A link is rejected even if it leads to the same bytes.
    assert!(
        open("aes256-stored.zip")
            .extract(folder.path(), false)
            .is_err()
    );
    open("aes256-stored.zip")
        .extract(folder.path(), true)
        .unwrap();
    let metadata = path.symlink_metadata().unwrap();
    assert!(metadata.is_file());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    fs::write(aside.path(), "changed").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");

    // A program with the set-user-id bit is an ordinary file.
    let report = open("kinds.zip").extract(folder.path(), false).unwrap();
    for found in report.found.iter().filter(|found| !found.existed) {
        let metadata = found.file.as_ref().unwrap().symlink_metadata().unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn hostile_names_are_reported_and_not_used() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a").join("b");
    fs::create_dir_all(&folder).unwrap();
    let mut archive = open("names.zip");
    let report = archive.extract(&folder, false).unwrap().complete().unwrap();
    assert_eq!(report.found.len(), 7);
    assert_eq!(files(&folder).len(), 7);
    assert_samples_only(&folder);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(parent.path().join("a")).unwrap().count(), 1);

    assert_eq!(
        report.warnings,
        [
            r#"entry 1, "../../escapes!": its name is a path"#,
            r#"entry 2, "/etc/hosts\0": its name is a path"#,
            r#"entry 3, "C:\\x\\y.exe": its name is a path"#,
            r#"entry 4, "\u{1b}[31m\u{202e}\u{7}!": its name contains unusual characters or invalid UTF-8"#,
            r#"entry 5, "\xff\xfe\x80x.bin": its name contains unusual characters or invalid UTF-8"#,
            r#"entry 7, "a/b/c": its name is a path"#,
        ]
    );
    assert_eq!(archive.entries()[4].name().as_bytes(), b"\xff\xfe\x80x.bin");
}

#[test]
fn an_empty_directory_hides_no_entries() {
    let mut bytes = fixture("zipcrypto-stored.zip");
    // The comment is an end record that declares no entries.
    let end = bytes
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .unwrap();
    bytes[end + 20..end + 22].copy_from_slice(&22_u16.to_le_bytes());
    bytes.extend(b"PK\x05\x06");
    bytes.extend([0; 18]);
    let result = Archive::open(std::io::Cursor::new(bytes)).map(|archive| archive.entries().len());
    assert!(!matches!(result, Ok(0)), "{result:?}");
}

#[test]
fn folders_links_devices_and_twins_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let report = open("kinds.zip").extract(folder.path(), false).unwrap();
    assert_eq!(
        report.warnings,
        [
            r#"entry 1, "folder/": it is a folder"#,
            r#"entry 2, "link": it is a symbolic link; its content is the path of the target"#,
            r#"entry 3, "device": it is a device, a pipe or a socket"#,
        ]
    );
    assert!(report.duplicate_names);
    // One entry is hidden, so the archive does not count as complete.
    assert!(!report.is_complete());
    let message = open("kinds.zip")
        .check()
        .unwrap()
        .complete()
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("several entries have the same name"),
        "{message}"
    );
    let texts: Vec<_> = files(folder.path()).into_values().collect();
    assert_eq!(texts.len(), 4);
    for text in ["/etc/passwd", "device", "program", "the second"] {
        assert!(texts.contains(&text.as_bytes().to_vec()));
    }
    assert_samples_only(folder.path());
    assert!(!open("names.zip").has_duplicate_names());
}

#[test]
fn bombs_end_with_an_error_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let is = |error: &ArchiveError, expected: Limit| {
        assert!(
            matches!(error, ArchiveError::Limit { limit, .. } if *limit == expected),
            "{error:?}"
        );
    };
    let refuse = |name: &str, limits: Limits, expected: Limit| {
        let mut archive = Archive::open_with(Cursor::new(fixture(name)), limits).unwrap();
        for error in [
            archive.extract(folder.path(), false).unwrap_err(),
            archive.check().unwrap_err(),
        ] {
            is(&error, expected);
        }
        assert_eq!(files(folder.path()), BTreeMap::new());
    };
    let limits = Limits::default();
    // The other entries are read.
    for (limits, limit) in [
        (limits, Limit::Ratio),
        (
            Limits {
                ratio: 2000,
                entry_size: 2_999_999,
                ..limits
            },
            Limit::EntrySize,
        ),
        // The entry does not count toward the total, because it is not read.
        (
            Limits {
                total_size: 5,
                ..limits
            },
            Limit::Ratio,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = Cursor::new(fixture("bomb-and-sample.zip"));
        let mut archive = Archive::open_with(bytes, limits)
            .unwrap()
            .expect_samples([sha256(b"hello")]);
        let report = archive.extract(folder.path(), false).unwrap();
        assert_eq!(
            (report.found.len(), report.missing.len(), report.bytes),
            (1, 0, 5)
        );
        is(&report.damaged[0].error, limit);
        assert!(!report.is_complete());
        assert_eq!(
            files(folder.path()).into_values().collect::<Vec<_>>(),
            [b"hello"]
        );
        is(&archive.entry(0).map(drop).unwrap_err(), limit);
    }
    refuse(
        "bomb.zip",
        Limits {
            ratio: 2000,
            total_size: 2_999_999,
            ..limits
        },
        Limit::TotalSize,
    );
    refuse(
        "zipcrypto-several.zip",
        Limits {
            total_size: 1501,
            ..limits
        },
        Limit::TotalSize,
    );
    let mut bomb = Archive::open_with(
        Cursor::new(fixture("bomb.zip")),
        Limits {
            ratio: 2000,
            ..limits
        },
    )
    .unwrap();
    assert_eq!(bomb.check().unwrap().bytes, 3_000_000);

    // The entry unpacks to more than it declares, so no file is written.
    let report = open("liar.zip").extract(folder.path(), false).unwrap();
    assert!(matches!(report.damaged[0].error, ArchiveError::Damaged(_)));
    assert_eq!(files(folder.path()), BTreeMap::new());

    let few = Limits {
        entries: 3,
        ..limits
    };
    for (name, limits) in [
        ("zipcrypto-several.zip", few),
        ("claims-60000.zip", limits),
        ("claims-zip64.zip", limits),
        (
            "claims-zip64.zip",
            Limits {
                entries: 1 << 40,
                ..limits
            },
        ),
    ] {
        let error = Archive::open_with(Cursor::new(fixture(name)), limits).unwrap_err();
        assert!(
            matches!(
                error,
                ArchiveError::Limit {
                    limit: Limit::Entries,
                    ..
                }
            ),
            "{name} {error:?}"
        );
    }
    let small = Limits {
        directory_size: 200,
        ..limits
    };
    let error =
        Archive::open_with(Cursor::new(fixture("zipcrypto-several.zip")), small).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Limit {
                limit: Limit::DirectorySize,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .ends_with("exceeds the limit of 200 bytes")
    );
    let error = refused("overlap.zip");
    assert!(matches!(error, ArchiveError::Overlap), "{error:?}");
}

#[test]
fn a_sample_only_named_is_missing() {
    let report = open("named.zip").check().unwrap();
    assert_eq!(report.missing, [sha256(b"hello")]);
    assert_eq!(report.found.len(), 2);
    assert!(!report.is_complete());
    let report = open("named-otherwise.zip").check().unwrap();
    assert_eq!((report.missing.len(), report.is_complete()), (0, true));
    // If the expected samples are known, names do not count.
    let report = open("named.zip")
        .expect_samples([sha256(b"world")])
        .check()
        .unwrap();
    assert!(report.is_complete(), "{report:?}");
}

#[test]
fn the_total_holds_for_single_entries() {
    let limits = Limits {
        total_size: 2000,
        ..Limits::default()
    };
    let mut archive =
        Archive::open_with(Cursor::new(fixture("zipcrypto-several.zip")), limits).unwrap();
    io::copy(&mut archive.entry(2).unwrap(), &mut io::sink()).unwrap();
    let error = io::copy(&mut archive.entry(2).unwrap(), &mut io::sink()).unwrap_err();
    let error = error.downcast::<ArchiveError>().unwrap();
    assert!(matches!(
        error,
        ArchiveError::Limit {
            limit: Limit::TotalSize,
            allowed: 2000
        }
    ));
    // A pass has its own count.
    let limits = Limits {
        total_size: 1600,
        ..limits
    };
    let mut archive =
        Archive::open_with(Cursor::new(fixture("zipcrypto-several.zip")), limits).unwrap();
    for _ in 0..2 {
        archive.check().unwrap().complete().unwrap();
        io::copy(&mut archive.entry(0).unwrap(), &mut io::sink()).unwrap();
    }
    io::copy(&mut archive.entry(2).unwrap(), &mut io::sink()).unwrap();
    archive.check().unwrap().complete().unwrap();
    assert!(io::copy(&mut archive.entry(2).unwrap(), &mut io::sink()).is_err());
    assert!(matches!(
        archive.entry(4).unwrap_err(),
        ArchiveError::NoEntry(4)
    ));
}

#[test]
fn a_wrong_password_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, entries) in [("wrong-password.zip", 2), ("wrong-password-aes.zip", 1)] {
        let expected = sha256(b"hello");
        let report = open(name)
            .expect_samples([expected])
            .extract(folder.path(), false)
            .unwrap();
        assert_eq!(
            (report.damaged.len(), report.found.len()),
            (entries, 0),
            "{name}"
        );
        assert_eq!(report.missing, [expected]);
        for damaged in &report.damaged {
            assert!(
                matches!(damaged.error, ArchiveError::WrongPassword),
                "{name} {:?}",
                damaged.error
            );
        }
        assert_eq!(files(folder.path()), BTreeMap::new());
        let report = open(name)
            .password("other")
            .expect_samples([expected])
            .check()
            .unwrap();
        assert!(report.is_complete(), "{name}");
    }

    // One in 256 wrong passwords passes ZipCrypto's check, and is detected only later.
    let mut noticed_late = 0;
    for password in 0..2000 {
        let report = open("zipcrypto-several.zip")
            .password(password.to_string())
            .check()
            .unwrap();
        assert_eq!(
            report.found.iter().filter(|found| found.bytes > 0).count(),
            0
        );
        noticed_late += report
            .damaged
            .iter()
            .filter(|damaged| matches!(damaged.error, ArchiveError::Damaged(_)))
            .count();
    }
    assert!(noticed_late > 0);
}

#[test]
fn an_unsupported_packing_method_is_named() {
    let report = open("lzma.zip").check().unwrap();
    let error = &report.damaged[0].error;
    assert!(
        matches!(error, ArchiveError::UnsupportedMethod(14)),
        "{error:?}"
    );
    assert!(chain(error).starts_with("the entry is compressed with LZMA (method 14), which"));
}

#[test]
fn strong_encryption_is_named() {
    let mut bytes = fixture("zipcrypto-several.zip");
    let record = records(&bytes)[0];
    bytes[record + 8] |= 1 << 6;
    let report = Archive::open(Cursor::new(bytes)).unwrap().check().unwrap();
    assert_eq!((report.found.len(), report.damaged.len()), (3, 1));
    let error = &report.damaged[0].error;
    assert!(matches!(error, ArchiveError::Unsupported(_)), "{error:?}");
    assert!(chain(error).ends_with(": the entry uses PKWARE's strong encryption"));
}

#[test]
fn an_error_shows_what_arrived_instead() {
    let message = |bytes: &[u8]| Archive::open(Cursor::new(bytes)).unwrap_err().to_string();
    assert_eq!(message(b""), "the file is not a zip archive; it is empty");
    assert_eq!(
        message(b"7z\xbc\xaf\x27\x1c\0\x04"),
        "the file is not a zip archive; it is a 7z archive"
    );
    assert_eq!(
        message(b"<html><title>Sign in</title>"),
        "the file is not a zip archive; it is an HTML page that begins with \"<html><title>Sign in</title>\""
    );
    assert_eq!(
        message(br#"{"errors":[]}"#),
        r#"the file is not a zip archive; it is JSON that begins with "{\"errors\":[]}""#
    );
}

/// Returns the positions of the directory's records, and of its end.
fn records(bytes: &[u8]) -> Vec<usize> {
    let at = |magic: &[u8]| {
        let found = move |at: &usize| bytes[*at..].starts_with(magic);
        (0..bytes.len()).filter(found).collect::<Vec<_>>()
    };
    // It is extremely unlikely that encrypted bytes contain this signature.
    let mut records = at(b"PK\x01\x02");
    records.push(at(b"PK\x05\x06")[0]);
    records
}

/// Returns the archive with another number of entries and another size in its end record.
fn with_end(mut bytes: Vec<u8>, entries: usize, size: usize) -> Vec<u8> {
    let end = bytes.len() - 22;
    for at in [end + 8, end + 10] {
        bytes[at..at + 2].copy_from_slice(&(entries as u16).to_le_bytes());
    }
    bytes[end + 12..end + 16].copy_from_slice(&(size as u32).to_le_bytes());
    bytes
}

#[test]
fn a_directory_that_omits_entries_is_not_complete() {
    for name in [
        "zipcrypto-several.zip",
        "zipcrypto-descriptors.zip",
        "aes256-several.zip",
    ] {
        let whole = fixture(name);
        let records = records(&whole);
        let (count, size) = (records.len() - 1, records[records.len() - 1] - records[0]);
        let mut hidden = 0;
        let mut omit = |bytes: Vec<u8>| match Archive::open(Cursor::new(bytes)) {
            Ok(mut archive) => {
                let listed = archive.entries().len();
                let report = archive.check().unwrap();
                assert!(
                    listed < count && report.omits_entries && !report.is_complete(),
                    "{name} {report:?}"
                );
                let message = report.complete().unwrap_err().to_string();
                assert!(
                    message.ends_with(
                        "; the archive may contain entries that its directory does not list"
                    ),
                    "{message}"
                );
                hidden += 1;
            }
            Err(error) => assert!(matches!(error, ArchiveError::Broken(_)), "{error:?}"),
        };
        for omitted in 0..count {
            // A record is removed.
            let mut bytes = whole.clone();
            let length = records[omitted + 1] - records[omitted];
            bytes.drain(records[omitted]..records[omitted + 1]);
            omit(with_end(bytes, count - 1, size - length));
            // The number of entries is reduced, with or without the size of the directory.
            if omitted > 0 {
                omit(with_end(whole.clone(), omitted, size));
                omit(with_end(
                    whole.clone(),
                    omitted,
                    records[omitted] - records[0],
                ));
            }
        }
        assert!(hidden >= count, "{name}");
        // The expected samples are present.
        let mut archive = Archive::open(Cursor::new(with_end(whole, 1, size)));
        if let Ok(archive) = &mut archive {
            let found = archive.check().unwrap().found[0].sha256;
            let archive = Archive::open(Cursor::new(with_end(fixture(name), 1, size))).unwrap();
            assert!(
                archive
                    .expect_samples([found])
                    .check()
                    .unwrap()
                    .is_complete()
            );
        }
    }
}

/// Inserts bytes, and corrects the position of the directory.
fn with_bytes(mut bytes: Vec<u8>, at: usize, more: &[u8]) -> Vec<u8> {
    let records = records(&bytes);
    let (directory, end) = (records[0], records[records.len() - 1]);
    if at <= directory {
        let directory = (directory + more.len()) as u32;
        bytes[end + 16..end + 20].copy_from_slice(&directory.to_le_bytes());
    }
    bytes.splice(at..at, more.iter().copied());
    bytes
}

/// Returns the archive with a longer field, whose length is at `length`.
fn with_field(mut bytes: Vec<u8>, length: usize, at: usize, more: &[u8]) -> Vec<u8> {
    let old = u16::from_le_bytes([bytes[length], bytes[length + 1]]);
    bytes[length..length + 2].copy_from_slice(&(old + more.len() as u16).to_le_bytes());
    with_bytes(bytes, at, more)
}

#[test]
fn an_archive_with_a_hidden_entry_is_incomplete() {
    let whole = fixture("zipcrypto-stored.zip");
    let records = records(&whole);
    let (directory, end, length) = (records[0], records[1], whole.len());
    let other = fixture("aes128.zip");
    let entry = &other[..self::records(&other)[0]];
    let name = usize::from(whole[26]);
    let field = [&[0xfe, 0xca, entry.len() as u8, 0], entry].concat();
    for (place, bytes) in [
        ("after the end", with_bytes(whole.clone(), length, entry)),
        ("a second archive", [&whole[..], &whole].concat()),
        ("another archive", [&whole[..], &other].concat()),
        (
            "in the comment",
            with_field(whole.clone(), end + 20, length, entry),
        ),
        (
            "before the end record",
            with_bytes(whole.clone(), end, entry),
        ),
        (
            "before the directory",
            with_bytes(whole.clone(), directory, entry),
        ),
        (
            "in an extra field",
            with_field(whole.clone(), 28, 30 + name, &field),
        ),
        (
            "in an extra field of the directory",
            with_field(whole.clone(), directory + 30, directory + 46 + name, &field),
        ),
        (
            "in the comment of an entry",
            with_field(whole.clone(), directory + 32, directory + 46 + name, entry),
        ),
        (
            "in another directory record",
            with_bytes(whole.clone(), end, &whole[directory..end]),
        ),
    ] {
        match Archive::open(Cursor::new(bytes)) {
            Ok(mut archive) => {
                let report = archive.check().unwrap();
                assert!(report.omits_entries && !report.is_complete(), "{place}");
                // The known sample is still there.
                let hello = sha256(b"hello");
                let report = archive.expect_samples([hello]).check().unwrap();
                assert!(report.is_complete(), "{place}");
            }
            Err(error) => panic!("{place}: {error:?}"),
        }
    }
    // A comment of other text hides nothing.
    let bytes = with_field(whole.clone(), end + 20, length, &[b'a'; 60]);
    let report = Archive::open(Cursor::new(bytes)).unwrap().check().unwrap();
    assert!(report.is_complete());
    for at in 0..=length {
        let bytes = with_bytes(whole.clone(), at, entry);
        if let Ok(mut archive) = Archive::open(Cursor::new(bytes)) {
            assert!(!archive.check().unwrap().is_complete(), "{at}");
        }
    }
}

#[test]
fn a_report_is_shown_and_stored() {
    let report = open("zipcrypto-stored.zip").check().unwrap();
    assert_eq!(
        report.to_string(),
        "found samples: 1, missing samples: 0, damaged entries: 0, unexpected samples: 0"
    );
    let stored = serde_json::to_value(&report).unwrap();
    assert_eq!(stored["found"][0]["name"], "greeting.txt");
    assert_eq!(stored["found"][0]["sha256"], sha256(b"hello").to_string());
    let report = open("lzma.zip").check().unwrap();
    let stored = serde_json::to_value(&report).unwrap();
    let error = stored["damaged"][0]["error"].as_str().unwrap();
    assert!(error.contains("LZMA"), "{error}");
    let report = open("empty.zip").check().unwrap();
    assert!(report.is_empty && !report.is_complete());
    assert!(
        report.to_string().ends_with("; there are no samples"),
        "{report}"
    );
}

#[test]
fn what_is_no_archive_is_refused() {
    for bytes in [
        &b""[..],
        b"PK",
        b"{\"errors\": []}",
        b"\x7fELF",
        &[0; 100_000],
    ] {
        let error = Archive::open(Cursor::new(bytes)).unwrap_err();
        assert!(matches!(error, ArchiveError::NotZip(_)), "{error:?}");
    }
    // Data before the archive is an error.
    let mut bytes = b"MZ".to_vec();
    bytes.extend(fixture("aes128.zip"));
    assert!(matches!(
        Archive::open(Cursor::new(bytes)).unwrap_err(),
        ArchiveError::NotZip(_)
    ));
}

#[test]
fn a_cut_archive_never_looks_whole() {
    for name in [
        "zipcrypto-several.zip",
        "zipcrypto-zip64.zip",
        "zipcrypto-descriptors.zip",
        "plain-zip64-descriptors.zip",
        "aes256-several.zip",
        "empty.zip",
    ] {
        let whole = fixture(name);
        for end in 0..whole.len() {
            let error = Archive::open(Cursor::new(&whole[..end])).unwrap_err();
            let expected = match error {
                ArchiveError::NotZip(_) => end < 4,
                ArchiveError::Broken(_) => end >= 4,
                _ => false,
            };
            assert!(expected, "{name} {end} {error:?}");
        }
    }
}

#[test]
fn a_missing_byte_within_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "zipcrypto-several.zip",
        "aes256-several.zip",
        "plain-zip64-descriptors.zip",
    ] {
        let whole = fixture(name);
        let samples: Vec<_> = open(name)
            .check()
            .unwrap()
            .found
            .iter()
            .map(|found| found.sha256)
            .collect();
        let directory = whole
            .windows(4)
            .position(|bytes| bytes == b"PK\x01\x02")
            .unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes.remove(at);
            let Ok(archive) = Archive::open(Cursor::new(bytes)) else {
                continue;
            };
            let mut archive = archive.expect_samples(samples.iter().copied());
            let Ok(report) = archive.extract(folder.path(), false) else {
                continue;
            };
            // A missing byte in a name or a date of the directory does no harm.
            assert!(
                !report.is_complete() || at > directory && report.found.len() == samples.len(),
                "{name} {at}"
            );
        }
    }
    assert_samples_only(folder.path());
}

#[test]
fn the_hash_decides_where_the_checksum_is_wrong() {
    // Only the checksum in the directory counts.
    let mut bytes = fixture("plain-zip64-descriptors.zip");
    let directory = bytes
        .windows(4)
        .position(|bytes| bytes == b"PK\x01\x02")
        .unwrap();
    bytes[directory + 16] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let report = Archive::open(Cursor::new(bytes.clone()))
        .unwrap()
        .extract(folder.path(), false)
        .unwrap();
    assert_eq!((report.found.len(), report.damaged.len()), (0, 1));
    assert_eq!(files(folder.path()), BTreeMap::new());
    let mut archive = Archive::open(Cursor::new(bytes))
        .unwrap()
        .expect_samples([sha256(&numbers())]);
    let report = archive
        .extract(folder.path(), false)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(report.found.len(), 1);
    assert_samples_only(folder.path());
}

#[test]
fn an_archive_says_what_it_holds() {
    let mut archive = open("zipcrypto-stored.zip");
    let info = &archive.entries()[0];
    // ZipCrypto adds twelve bytes before the data.
    assert_eq!((info.size(), info.packed_size()), (5, 17));
    assert_eq!(format!("{:?}", info.name()), "EntryName(greeting.txt)");
    assert!(
        format!("{archive:?}")
            .starts_with("Archive { entries: [EntryInfo { name: EntryName(greeting.txt)")
    );
    let mut entry = archive.entry(0).unwrap();
    assert!(format!("{entry:?}").ends_with("bytes: 0, .. }"));
    io::copy(&mut entry, &mut io::sink()).unwrap();
    assert!(format!("{entry:?}").ends_with("bytes: 5, .. }"));
    drop(entry);
    let report = archive.check().unwrap();
    assert_eq!(
        (&report.found[0].file, report.found[0].existed),
        (&None, false)
    );
}

#[test]
fn a_damaged_header_harms_no_other_entry() {
    let mut bytes = fixture("zipcrypto-several.zip");
    let headers: Vec<_> = (0..bytes.len() - 4)
        .filter(|at| bytes[*at..*at + 4] == *b"PK\x03\x04")
        .collect();
    bytes[headers[1]] = b'?';
    let report = Archive::open(Cursor::new(bytes.clone()))
        .unwrap()
        .check()
        .unwrap();
    assert_eq!((report.found.len(), report.damaged.len()), (3, 1));
    assert_eq!(report.damaged[0].entry, 1);
    // A file that cannot be read is a different error.
    let at = headers[1] as u64;
    let error = Archive::open(Failing {
        file: Cursor::new(bytes),
        at,
    })
    .unwrap_err();
    assert!(matches!(error, ArchiveError::Read(_)), "{error:?}");
}

/// A reader that returns one byte at a time and is interrupted before each byte.
struct Interrupted(Cursor<Vec<u8>>, bool);

impl Read for Interrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

impl Seek for Interrupted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_read_that_is_interrupted_is_done_again() {
    for name in ["zipcrypto-several.zip", "aes256-several.zip"] {
        let mut archive = Archive::open(Interrupted(Cursor::new(fixture(name)), false)).unwrap();
        assert_eq!(archive.check().unwrap().complete().unwrap().found.len(), 4);
        let mut bytes = [0; 5];
        let entry = archive
            .entries()
            .iter()
            .position(|entry| entry.name().to_string() == "greeting.txt");
        let mut entry = archive.entry(entry.unwrap()).unwrap();
        let mut count = 0;
        while count < bytes.len() {
            // Do not use `read_exact`, which would retry by itself.
            count += entry.read(&mut bytes[count..]).unwrap();
        }
        assert_eq!(&bytes, b"hello");
    }
}

/// A file that cannot be read at one position.
struct Failing {
    file: Cursor<Vec<u8>>,
    at: u64,
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.file.position();
        let count = self.file.read(buffer)?;
        if (start..start + count as u64).contains(&self.at) {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(count)
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn a_file_error_is_no_archive_error() {
    for name in ["zipcrypto-several.zip", "aes256-several.zip"] {
        let whole = fixture(name);
        for at in 0..whole.len() as u64 {
            let error = match Archive::open(Failing {
                file: Cursor::new(whole.clone()),
                at,
            }) {
                Err(error) => error,
                Ok(mut archive) => match archive.check() {
                    // Data descriptors are not read.
                    Ok(report) => {
                        assert!(report.is_complete(), "{name} {at}");
                        continue;
                    }
                    Err(error) => {
                        // Only the samples that were extracted before remain.
                        let folder = tempfile::tempdir().unwrap();
                        let (_, _, report) =
                            stopped(archive.extract(folder.path(), false).unwrap_err());
                        assert_samples_only(folder.path());
                        assert_eq!(files(folder.path()).len(), report.found.len());
                        stopped(error).1
                    }
                },
            };
            assert!(
                matches!(error, ArchiveError::Read(_)),
                "{name} {at} {error:?}"
            );
            assert_eq!(
                chain(&error),
                "the archive could not be read: the disk is on fire"
            );
        }
    }
}

#[test]
fn an_entry_keeps_the_kind_of_file_errors() {
    /// A reader that fails once the flag is set.
    struct Refused(Cursor<Vec<u8>>, Rc<Cell<bool>>);

    impl Read for Refused {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1.get() {
                Err(io::ErrorKind::PermissionDenied.into())
            } else {
                self.0.read(buffer)
            }
        }
    }

    impl Seek for Refused {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    let refused = Rc::new(Cell::new(false));
    let file = Refused(
        Cursor::new(fixture("zipcrypto-several.zip")),
        Rc::clone(&refused),
    );
    let mut archive = Archive::open(file).unwrap();
    let mut entry = archive.entry(2).unwrap();
    refused.set(true);
    let error = io::copy(&mut entry, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    // Later bytes are not mistaken for the rest of the entry.
    refused.set(false);
    assert_eq!(
        entry.read(&mut [0; 8]).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn types_are_as_they_should_be() {
    fn is_send<T: Send>() {}
    is_send::<Archive<fs::File>>();
    is_send::<ArchiveError>();
    is_send::<Report>();
    assert!(std::mem::size_of::<ArchiveError>() <= 64);
}

fn any_fixture() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        "zipcrypto-several.zip",
        "zipcrypto-zip64.zip",
        "zipcrypto-descriptors.zip",
        "plain-zip64-descriptors.zip",
        "aes256-several.zip",
        "aes256-stored.zip",
        "kinds.zip",
        "names.zip",
        "overlap.zip",
        "claims-zip64.zip",
        "lzma.zip",
        "empty.zip",
    ])
    .prop_map(fixture)
}

/// Reads any bytes as an archive, and checks that no file has a wrong name.
fn survive(bytes: Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        total_size: 1 << 20,
        entry_size: 1 << 20,
        ..Limits::default()
    };
    let Ok(mut archive) = Archive::open_with(Cursor::new(bytes), limits) else {
        return;
    };
    let report = archive.extract(folder.path(), false);
    assert_samples_only(folder.path());
    let report = match &report {
        Ok(report) => report,
        Err(error) => match error.report() {
            Some(report) => report,
            None => return assert_eq!(files(folder.path()), BTreeMap::new()),
        },
    };
    let names: BTreeSet<_> = report
        .found
        .iter()
        .map(|found| found.sha256.to_string())
        .collect();
    assert!(names.iter().eq(files(folder.path()).keys()));
    for warning in &report.warnings {
        assert!(warning.chars().all(|c| !c.is_control()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn flipped_bytes_give_no_sample_wrong_names(
        bytes in any_fixture(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes;
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survive(bytes);
    }

    #[test]
    fn flipped_bytes_of_the_directory_never_panic(
        bytes in any_fixture(),
        flips in prop::collection::vec((0usize..400, any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes;
        for (back, byte) in flips {
            let at = bytes.len() - 1 - back % bytes.len();
            bytes[at] = byte;
        }
        survive(bytes);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), is_zip: bool) {
        if is_zip {
            bytes.splice(..0, *b"PK\x03\x04");
            bytes.extend(*b"PK\x05\x06");
            bytes.extend([0; 18]);
        }
        survive(bytes);
    }
}
