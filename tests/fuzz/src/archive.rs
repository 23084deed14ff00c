use std::io::Cursor;

use malquery_proto::archive::{Archive, ArchiveError, Limits, Report};
use malquery_proto::types::Sha256;

use super::input::assert_harmless;

const LIMITS: Limits = Limits {
    entries: 64,
    directory_size: 16 << 10,
    entry_size: 64 << 10,
    total_size: 256 << 10,
    ratio: 500,
};

fn open(data: &[u8]) -> Option<Archive<Cursor<&[u8]>>> {
    match Archive::open_with(Cursor::new(data), LIMITS) {
        Ok(archive) => Some(archive),
        Err(error) => {
            assert_harmless(&error.to_string());
            assert!(error.report().is_none());
            None
        }
    }
}

/// Opens an archive within the limits, or refuses it.
pub fn archive_open(data: &[u8]) {
    let Some(archive) = open(data) else { return };
    assert!(archive.entries().len() <= 64);
    for entry in archive.entries() {
        assert_harmless(&entry.name().to_string());
    }
}

/// Reads the entries of an archive within the limits, twice with the same result.
pub fn archive_read(data: &[u8]) {
    let Some(mut archive) = open(data) else {
        return;
    };
    let entries = archive.entries().len();
    let Some((first, found)) = check(&mut archive, entries) else {
        return;
    };
    let wanted = found.iter().copied().chain([Sha256::from_bytes([7; 32])]);
    let mut archive = archive.expect_samples(wanted);
    let (second, again) = check(&mut archive, entries).expect("it was read before");
    // Expected samples are found even if their checksum is wrong, so they no longer count as
    // damaged.
    assert!(
        found.iter().all(|sample| again.contains(sample))
            && again.iter().all(|sample| found.contains(sample))
    );
    assert_eq!(
        again.len() + second.damaged.len(),
        found.len() + first.damaged.len()
    );
    assert_eq!(second.bytes, first.bytes);
    assert!(second.unexpected.is_empty());
    assert_eq!(second.missing, [Sha256::from_bytes([7; 32])]);
}

fn check(archive: &mut Archive<Cursor<&[u8]>>, entries: usize) -> Option<(Report, Vec<Sha256>)> {
    let result = archive.check();
    let (report, whole) = match result {
        Ok(report) => (report, true),
        Err(ArchiveError::Stopped { report, source, .. }) => {
            assert!(matches!(*source, ArchiveError::Limit { .. }), "{source}");
            (*report, false)
        }
        Err(error) => {
            assert!(matches!(error, ArchiveError::Limit { .. }), "{error}");
            return None;
        }
    };
    assert!(report.bytes <= LIMITS.total_size);
    assert!(
        report
            .found
            .iter()
            .all(|found| found.bytes <= LIMITS.entry_size)
    );
    assert!(report.found.iter().map(|found| found.bytes).sum::<u64>() <= report.bytes);
    assert!(report.found.len() + report.unexpected.len() + report.damaged.len() <= entries);
    for damaged in &report.damaged {
        assert_harmless(&damaged.error.to_string());
    }
    let found = report.found.iter().map(|found| found.sha256).collect();
    whole.then_some((report, found))
}
