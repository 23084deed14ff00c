use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};

use super::directory::{read_at, u16_at, u32_at, u64_at};
use super::*;

#[test]
fn names_are_fit_for_a_terminal() {
    let shown = |name: &[u8]| EntryName(name.into()).to_string();
    assert_eq!(shown(b"it's \"a\" sample.exe"), "it's \"a\" sample.exe");
    assert_eq!(shown("größe 日本".as_bytes()), "größe 日本");
    assert_eq!(
        shown(b"a\0b\r\n\x1b[2J\x7f\xc2\x9b"),
        r"a\0b\r\n\u{1b}[2J\u{7f}\u{9b}"
    );
    assert_eq!(
        shown("\u{202e}\u{200b}\u{feff}\u{2028}\u{301}".as_bytes()),
        r"\u{202e}\u{200b}\u{feff}\u{2028}\u{301}"
    );
    assert_eq!(shown(b"\xc3(\xff"), r"\xc3(\xff");
    assert_eq!(shown(&[b'a'; 200]), "a".repeat(200));
    for name in [[b'a'; 65_535], [0xff; 65_535]] {
        let shown = shown(&name);
        assert!(shown.ends_with('…') && shown.chars().count() <= 801);
    }
}

#[test]
fn unusual_entries_give_a_warning() {
    let warning = |name: &[u8], mode| {
        let info = EntryInfo {
            name: EntryName(name.into()),
            size: 0,
            packed: 0,
            encrypted: false,
            strong: false,
            mode,
            beyond: false,
        };
        info.warning().unwrap_or("none")
    };
    let path = "its name is a path";
    let unprintable = "its name contains unusual characters or invalid UTF-8";
    for (name, expected) in [
        (
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "none",
        ),
        ("it's a sample (1).exe", "none"),
        ("größe", "none"),
        ("...", "none"),
        ("NUL", "none"),
        ("a/b", path),
        ("..", path),
        ("a/../../b", path),
        (r"a\..\b", path),
        (r"\\server\share", path),
        ("/etc/passwd", path),
        ("c:x", path),
        ("a/", "it is a folder"),
        ("", "it has no name"),
        ("a\u{200b}", unprintable),
        ("a\0", unprintable),
    ] {
        assert_eq!(warning(name.as_bytes(), 0), expected, "{name:?}");
        assert_eq!(warning(name.as_bytes(), 0o100_644), expected, "{name:?}");
    }
    assert_eq!(warning(b"a\xff", 0), unprintable);
    assert_eq!(warning(b"a", 0o040_755), "it is a folder");
    assert_eq!(
        warning(b"a", 0o120_777),
        "it is a symbolic link; its content is the path of the target"
    );
    assert_eq!(
        warning(b"a", 0o140_777),
        "it is a device, a pipe or a socket"
    );
}

#[test]
fn a_limit_may_be_reached_and_not_passed() {
    let limits = Limits::default();
    assert_eq!(
        (limits.directory_size, limits.entry_size, limits.total_size),
        (4_194_304, 2_147_483_648, 8_589_934_592)
    );
    let refused = |result| match result {
        Ok(()) => None,
        Err(ArchiveError::Limit { limit, allowed }) => Some((limit, allowed)),
        Err(error) => panic!("{error}"),
    };
    let entry = |size, packed| refused(limits.check_entry(size, packed));
    let size = limits.entry_size;
    assert_eq!(entry(size, size), None);
    assert_eq!(entry(size + 1, size), Some((Limit::EntrySize, size)));
    // The ratio applies only to entries of more than 1 MiB.
    assert_eq!(entry(1_048_576, 1), None);
    assert_eq!(entry(1_048_577, 1), Some((Limit::Ratio, 500)));
    assert_eq!(entry(500 * 4000, 4000), None);
    assert_eq!(entry(500 * 4000 + 1, 4000), Some((Limit::Ratio, 500)));

    let total = limits.total_size;
    assert_eq!(refused(limits.check_total(total)), None);
    assert_eq!(
        refused(limits.check_total(total + 1)),
        Some((Limit::TotalSize, total))
    );

    let directory = |entries, size| refused(limits.check_directory(entries, size));
    assert_eq!(directory(10_000, limits.directory_size), None);
    assert_eq!(directory(10_001, 0), Some((Limit::Entries, 10_000)));
    assert_eq!(
        directory(0, limits.directory_size + 1),
        Some((Limit::DirectorySize, limits.directory_size))
    );
}

#[test]
fn packing_methods_have_names() {
    let shown = |method| ArchiveError::UnsupportedMethod(method).to_string();
    assert_eq!(
        shown(14),
        "the entry is compressed with LZMA (method 14), which is not supported; unpack the archive with another program, such as 7-Zip"
    );
    assert!(shown(4711).starts_with("the entry is compressed with method 4711, which"));
    let names: HashSet<_> = [1, 2, 6, 9, 12, 14, 93, 94, 95, 96, 97, 98]
        .map(shown)
        .into();
    assert_eq!(names.len(), 12);
}

/// Surveys an archive with this end record, and returns the exceeded limit. The archive has one
/// entry, followed by a Zip64 record that declares 20,000 entries.
fn surveyed(
    entries: u16,
    size: u32,
    directory: Option<u32>,
    locator: &[u8],
    comment: &[u8],
) -> Option<Limit> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.resize(30, 0);
    let start = u32::try_from(bytes.len()).unwrap();
    bytes.extend(b"PK\x01\x02");
    bytes.resize(bytes.len() + 42, 0);
    let record = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.resize(bytes.len() + 28, 0);
    bytes.extend(20_000_u64.to_le_bytes());
    bytes.resize(bytes.len() + 8, 0);
    bytes.extend(u64::from(start).to_le_bytes());
    bytes.extend(locator);
    bytes.extend([0; 4]);
    bytes.extend(record.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(b"PK\x05\x06");
    bytes.resize(bytes.len() + 6, 0);
    bytes.extend(entries.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(directory.unwrap_or(start).to_le_bytes());
    bytes.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
    bytes.extend(comment);
    match survey(&mut io::Cursor::new(bytes), &Limits::default()) {
        Ok(_) => None,
        Err(ArchiveError::Limit { limit, .. }) => Some(limit),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn whatever_end_is_taken_is_within_the_limits() {
    const LOCATOR: &[u8] = b"PK\x06\x07";
    let entries = Some(Limit::Entries);
    assert_eq!(surveyed(1, 46, None, LOCATOR, b""), None);
    assert_eq!(surveyed(10_001, 46, None, LOCATOR, b""), entries);
    // Each of the three numbers refers to the Zip64 record if it has its maximum value.
    assert_eq!(surveyed(0xffff, 46, None, LOCATOR, b""), entries);
    assert_eq!(surveyed(1, 0xffff_ffff, None, LOCATOR, b""), entries);
    assert_eq!(surveyed(1, 46, Some(0xffff_ffff), LOCATOR, b""), entries);
    // Without a Zip64 locator, the number itself counts.
    assert_eq!(surveyed(0xffff, 46, None, b"none", b""), entries);
    assert_eq!(surveyed(1, 0xffff_ffff, None, b"none", b""), None);
    // Even the longest comment does not hide the end record.
    assert_eq!(
        surveyed(0xffff, 46, None, LOCATOR, &[b' '; 65_535]),
        entries
    );
    // An end record inside a comment does not count if it does not point to a directory.
    assert_eq!(
        surveyed(1, 46, None, LOCATOR, b"PK\x05\x06AAAAAAAAAAAAAAAAAAAAAAAA"),
        None
    );
}

#[test]
fn numbers_are_little_endian() {
    let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(u16_at(&bytes, 1), 0x0201);
    assert_eq!(u32_at(&bytes, 1), 0x0403_0201);
    assert_eq!(u64_at(&bytes, 1), 0x0807_0605_0403_0201);
}

#[test]
fn only_the_files_end_is_no_error() {
    let mut file = io::Cursor::new(b"1234");
    assert_eq!(read_at(&mut file, 1).unwrap(), Some(*b"234"));
    assert_eq!(read_at::<3, _>(&mut file, 2).unwrap(), None);

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }
    assert!(read_at::<3, _>(&mut Broken, 0).is_err());
}
