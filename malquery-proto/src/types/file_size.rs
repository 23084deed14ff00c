use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// A file size as a search filter takes it: whole bytes (`128000`), or a decimal number of KB, MB or GB
/// (`1.3 KB`, `8mb`).
///
/// It is sent as it was written. Whether the service counts 1,000 or 1,024 bytes to a KB is not documented,
/// so sizes with a unit are not converted here.
///
/// ```
/// use malquery_proto::types::FileSize;
///
/// assert_eq!(FileSize::bytes(128_000).to_string(), "128000");
/// assert_eq!("1.3 KB".parse::<FileSize>()?.to_string(), "1.3 KB");
/// assert!("1.5".parse::<FileSize>().is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSize(String);

impl FileSize {
    /// A number of bytes.
    pub fn bytes(bytes: u64) -> Self {
        Self(bytes.to_string())
    }

    /// The size as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is more than `other`, however many bytes a KB has.
    pub(crate) fn surely_exceeds(&self, other: &Self) -> bool {
        match (self.0.parse::<u64>(), other.0.parse::<u64>()) {
            (Ok(bytes), Ok(others)) => bytes > others,
            _ => [1000.0, 1024.0]
                .iter()
                .all(|kilo| self.at(*kilo) > other.at(*kilo)),
        }
    }

    /// The bytes, if a KB has `kilo` of them. As decimals, which is exact below 2^53 bytes and good enough above.
    fn at(&self, kilo: f64) -> f64 {
        split(&self.0).map_or(0.0, |(number, power)| {
            number.parse::<f64>().unwrap_or(0.0) * kilo.powi(power)
        })
    }
}

/// The number and the power of a KB; `None` for an unknown unit.
fn split(text: &str) -> Option<(&str, i32)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit
        .strip_prefix(' ')
        .filter(|rest| !rest.is_empty())
        .unwrap_or(unit);
    let power = ["", "kb", "mb", "gb"]
        .iter()
        .position(|known| unit.eq_ignore_ascii_case(known))?;
    Some((number, power as i32))
}

impl FromStr for FileSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |why| Err(ParseError::new("a file size", why));
        let Some((number, power)) = split(text) else {
            return refuse("write bytes (128000) or a number with KB, MB or GB (1.3 KB, 8mb)");
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return refuse("write bytes (128000) or a number with KB, MB or GB (1.3 KB, 8mb)");
        }
        if power == 0 && number.contains('.') {
            return refuse("a number of bytes has no fraction");
        }
        let size = Self(text.to_owned());
        // 2^64
        let fits = if power == 0 {
            text.parse::<u64>().is_ok()
        } else {
            size.at(1024.0) < 18_446_744_073_709_551_616.0
        };
        if !fits {
            return refuse("no file is that large");
        }
        Ok(size)
    }
}

impl fmt::Display for FileSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

text_item!(FileSize, |_, _| true);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_and_units_are_taken_as_written() {
        for text in [
            "0",
            "128000",
            "1.3 KB",
            "1.3KB",
            "8mb",
            "8 Mb",
            "2GB",
            "0.5gb",
            "18446744073709551615",
        ] {
            assert_eq!(text.parse::<FileSize>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let message = |text: &str| text.parse::<FileSize>().unwrap_err().to_string();
        for text in [
            "", " ", "-1", "+1", "1 ", "1  KB", "KB", ".5 KB", "5. KB", "1.2.3 KB", "1 TB", "1k",
            "1e3", "１",
        ] {
            assert_eq!(
                message(text),
                "not a file size: write bytes (128000) or a number with KB, MB or GB (1.3 KB, 8mb)",
                "{text:?}"
            );
        }
        assert_eq!(
            message("1.5"),
            "not a file size: a number of bytes has no fraction"
        );
        assert_eq!(
            message("99999999999999999999"),
            "not a file size: no file is that large"
        );
        assert_eq!(
            message("99999999999999 GB"),
            "not a file size: no file is that large"
        );
    }

    #[test]
    fn sizes_compare_only_where_the_unit_leaves_no_doubt() {
        let exceeds = |a: &str, b: &str| {
            a.parse::<FileSize>()
                .unwrap()
                .surely_exceeds(&b.parse::<FileSize>().unwrap())
        };
        assert!(exceeds("8mb", "1 MB"));
        assert!(exceeds("1 MB", "900 KB"));
        assert!(exceeds("2 KB", "1999"));
        assert!(!exceeds("1 KB", "1010"));
        assert!(!exceeds("1 KB", "1 KB"));
        assert!(!exceeds("1", "1 GB"));
        assert!(exceeds("9007199254740993", "9007199254740992"));
    }

    #[test]
    fn the_largest_file_has_less_than_two_to_the_64() {
        assert!("18446744073709551616".parse::<FileSize>().is_err());
        assert!("17179869183.9 GB".parse::<FileSize>().is_ok());
        assert!("17179869184 GB".parse::<FileSize>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9. kKmMgGbB]{0,12}|.{0,12}") {
            if let Ok(size) = text.parse::<FileSize>() {
                prop_assert_eq!(size.as_str(), text);
                prop_assert!(size.at(1000.0).is_finite());
            }
        }
    }
}
