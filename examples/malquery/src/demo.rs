//! The harmless files that `--demo` searches. They are built into the program.

use malquery_mock::{Corpus, CorpusSample};

/// The content of a file, the day on which it was first seen, its label and its family, if any.
type File = (
    &'static [u8],
    &'static str,
    &'static str,
    Option<&'static str>,
);

macro_rules! file {
    ($name:literal, $first_seen:literal, $label:literal, $family:expr) => {
        (
            include_bytes!(concat!("../corpus/", $name)),
            $first_seen,
            $label,
            $family,
        )
    };
}

const FILES: [File; 8] = [
    file!("sample-1.txt", "2024/01/15", "malware", Some("Demo")),
    file!("sample-2.txt", "2024/02/15", "unknown", None),
    file!("sample-3.txt", "2024/03/15", "clean", None),
    file!("page.html", "2024/04/15", "clean", None),
    file!("script.py", "2024/05/15", "unknown", None),
    file!("document.pdf", "2024/06/15", "clean", None),
    file!("headers.exe", "2024/07/15", "malware", Some("Demo")),
    file!("header.elf", "2024/08/15", "unknown", None),
];

pub(crate) fn corpus() -> Corpus {
    Corpus::from_bytes(FILES.map(|(bytes, first_seen, label, family)| {
        let mut sample = CorpusSample::new(bytes);
        if let (Ok(day), Ok(label)) = (first_seen.parse(), label.parse()) {
            sample = sample.first_seen(day).label(label);
        }
        match family {
            Some(family) => sample.family(family),
            None => sample,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_files_have_a_day_and_a_label() {
        assert_eq!(corpus().len(), FILES.len());
        for (_, first_seen, label, _) in FILES {
            first_seen.parse::<malquery_proto::types::Date>().unwrap();
            label.parse::<malquery_proto::types::Label>().unwrap();
        }
    }
}
