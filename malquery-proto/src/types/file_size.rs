use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// A file size for a search filter, such as `128000` (bytes), `1.3 KB`, `8mb` or `1MiB`.
///
/// A size in KB, MB or GB is sent unchanged, because CrowdStrike does not document whether a KB has
/// 1,000 or 1,024 bytes. A size in KiB, MiB or GiB is sent as a whole number of bytes.
///
/// ```
/// use malquery_proto::types::FileSize;
///
/// assert_eq!(FileSize::bytes(128_000).to_string(), "128000");
/// assert_eq!("1.3 KB".parse::<FileSize>()?.to_string(), "1.3 KB");
/// assert_eq!("1MiB".parse::<FileSize>()?.to_string(), "1048576");
/// assert!("1.5".parse::<FileSize>().is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSize(String);

impl FileSize {
    /// Creates a size from a number of bytes.
    pub fn bytes(bytes: u64) -> Self {
        Self(bytes.to_string())
    }

    /// Returns the size as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this exceeds `other` in both cases: a KB of 1,000 and a KB of 1,024 bytes.
    pub(crate) fn surely_exceeds(&self, other: &Self) -> bool {
        match (self.0.parse::<u64>(), other.0.parse::<u64>()) {
            (Ok(bytes), Ok(others)) => bytes > others,
            _ => [1000.0, 1024.0]
                .iter()
                .all(|kilo| self.at(*kilo) > other.at(*kilo)),
        }
    }

    /// Returns the approximate number of bytes if a KB or a KiB has `kilo` bytes.
    fn at(&self, kilo: f64) -> f64 {
        split(&self.0).map_or(0.0, |(number, unit)| {
            number.parse::<f64>().unwrap_or(0.0) * kilo.powi(unit.power())
        })
    }
}

/// A unit, as an index into `NAMES`. The first unit is the byte; the last three are binary.
#[derive(Clone, Copy)]
struct Unit(i32);

impl Unit {
    const NAMES: [&str; 7] = ["", "kb", "mb", "gb", "kib", "mib", "gib"];

    /// Returns the power of 1,000 or 1,024: 0 for bytes, 1 for KB and KiB.
    fn power(self) -> i32 {
        if self.is_binary() { self.0 - 3 } else { self.0 }
    }

    fn is_binary(self) -> bool {
        self.0 > 3
    }
}

/// Splits a size into its number and its unit. Returns `None` for an unknown unit.
fn split(text: &str) -> Option<(&str, Unit)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit
        .strip_prefix(' ')
        .filter(|rest| !rest.is_empty())
        .unwrap_or(unit);
    let unit = Unit::NAMES
        .iter()
        .position(|known| unit.eq_ignore_ascii_case(known))?;
    Some((number, Unit(unit as i32)))
}

impl FromStr for FileSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const FORMS: &str = "expected bytes (128000), or a number with KB, MB, GB, KiB, MiB or GiB (1.3 KB, 8mb, 1MiB)";
        let refuse = |why| Err(ParseError::new("a file size", why));
        let Some((number, unit)) = split(text) else {
            return refuse(FORMS);
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return refuse(FORMS);
        }
        if unit.power() == 0 && number.contains('.') {
            return refuse("a number of bytes cannot have a fraction");
        }
        let size = Self(text.to_owned());
        // The constant is 2^64.
        let fits = if unit.power() == 0 {
            text.parse::<u64>().is_ok()
        } else {
            size.at(1024.0) < 18_446_744_073_709_551_616.0
        };
        if !fits {
            return refuse("the size does not fit in 64 bits");
        }
        Ok(if unit.is_binary() {
            Self::bytes(size.at(1024.0) as u64)
        } else {
            size
        })
    }
}

impl fmt::Display for FileSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<u64> for FileSize {
    fn from(bytes: u64) -> Self {
        Self::bytes(bytes)
    }
}

text_item!(FileSize, |_, _| true, as_str);

#[cfg(test)]
mod tests;
