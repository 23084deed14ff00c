use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// A file size for a search filter, such as `128000` (bytes), `1.3 KB`, `8mb` or `1MiB`.
///
/// A size in KB, MB or GB is sent unchanged, because CrowdStrike does not document whether a KB has
/// 1,000 or 1,024 bytes. A size in KiB, MiB or GiB is sent in bytes, rounded down.
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

    /// Returns the size as sent to the service.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this size exceeds `other`, both if a KB has 1,000 bytes and if it has
    /// 1,024. Fractions of a billionth of a byte are ignored.
    pub(crate) fn surely_exceeds(&self, other: &Self) -> bool {
        let at = |size: &Self, kilo| Parts::of(&size.0).and_then(|parts| parts.size(kilo));
        [1000, 1024]
            .iter()
            .all(|kilo| at(self, *kilo) > at(other, *kilo))
    }
}

/// Each unit, its power of 1,000 or 1,024, and whether it is binary.
const UNITS: [(&str, u32, bool); 7] = [
    ("", 0, false),
    ("kb", 1, false),
    ("mb", 2, false),
    ("gb", 3, false),
    ("kib", 1, true),
    ("mib", 2, true),
    ("gib", 3, true),
];

const BILLION: u128 = 1_000_000_000;

struct Parts<'a> {
    whole: &'a str,
    fraction: Option<&'a str>,
    power: u32,
    is_binary: bool,
}

impl<'a> Parts<'a> {
    /// Splits a size into its parts. Returns `None` if it is malformed or its unit is unknown.
    fn of(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (number, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !fraction.is_none_or(digits) {
            return None;
        }
        let unit = match unit.strip_prefix(' ') {
            Some("") | None => unit,
            Some(unit) => unit,
        };
        let known = |(name, ..): &&(&str, u32, bool)| unit.eq_ignore_ascii_case(name);
        let (_, power, is_binary) = *UNITS.iter().find(known)?;
        Some(Self {
            whole,
            fraction,
            power,
            is_binary,
        })
    }

    /// Returns the size in billionths of a byte, rounded down, if a KB or a KiB has `kilo` bytes.
    /// Returns `None` if the integer part of the number does not fit in 64 bits.
    fn size(&self, kilo: u128) -> Option<u128> {
        let unit = BILLION * kilo.pow(self.power);
        // Rounding down at each digit gives the same result as rounding down at the end.
        let digits = self.fraction.unwrap_or_default().bytes().rev();
        let part = digits.fold(0, |part, digit| {
            (part + u128::from(digit - b'0') * unit) / 10
        });
        Some(u128::from(self.whole.parse::<u64>().ok()?) * unit + part)
    }
}

impl FromStr for FileSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const FORMS: &str = "expected a number of bytes, such as 128000, or a number and a unit (KB, MB, GB, KiB, MiB or GiB), such as 1.3 KB or 8mb";
        let refuse = |why| Err(ParseError::new("a file size", why));
        let Some(parts) = Parts::of(text) else {
            return refuse(FORMS);
        };
        if parts.power == 0 && parts.fraction.is_some() {
            return refuse("a size in bytes must be a whole number");
        }
        let size = parts.size(if parts.is_binary { 1024 } else { 1000 });
        match size.and_then(|size| u64::try_from(size / BILLION).ok()) {
            Some(bytes) if parts.is_binary => Ok(Self::bytes(bytes)),
            Some(_) => Ok(Self(text.to_owned())),
            None => refuse("the size does not fit in 64 bits"),
        }
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
