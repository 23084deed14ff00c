use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;
use crate::time::Timestamp;

/// A calendar day in UTC, such as the day on which a sample was first seen.
///
/// `Display` uses the service's format, for example `2024/02/29`. Parsing also accepts hyphens:
/// `2024-02-29`.
///
/// ```
/// use malquery_proto::types::Date;
///
/// let date: Date = "2024/02/29".parse()?;
/// assert_eq!("2024-02-29".parse::<Date>()?, date);
/// assert!(date < Date::new(2024, 3, 1)?);
/// assert!("2023/02/29".parse::<Date>().is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(jiff::civil::Date);

impl Date {
    /// Creates a date from the year (0 to 9999), the month (1 to 12) and the day of the month.
    ///
    /// # Errors
    /// Fails if the year, the month or the day is out of range.
    pub fn new(year: u16, month: u8, day: u8) -> Result<Self, ParseError> {
        let date = || {
            let year = i16::try_from(year).ok()?;
            let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
            jiff::civil::Date::new(year, month, day).ok()
        };
        let error = || ParseError::new(WHAT, "the year, the month or the day is out of range");
        date().map(Self).ok_or_else(error)
    }

    /// Returns the UTC date at this point in time. Times after the year 9999 become `9999/12/31`.
    ///
    /// ```
    /// use malquery_proto::Timestamp;
    /// use malquery_proto::types::Date;
    ///
    /// assert_eq!(Date::of(Timestamp::from_millis(0)).to_string(), "1970/01/01");
    /// assert_eq!(Date::of(Timestamp::MAX).to_string(), "9999/12/31");
    /// ```
    pub fn of(time: Timestamp) -> Self {
        let days = (time.as_millis() / 86_400_000).min(4_000_000) as u32;
        Self(jiff::civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(days)))
    }

    /// Returns the date this many days earlier, but no earlier than `0000/01/01`.
    ///
    /// ```
    /// use malquery_proto::types::Date;
    ///
    /// let today = Date::new(2024, 3, 30)?;
    /// assert_eq!(today.days_before(30), Date::new(2024, 2, 29)?);
    /// # Ok::<(), malquery_proto::types::ParseError>(())
    /// ```
    #[must_use]
    pub fn days_before(self, days: u32) -> Self {
        let first = jiff::civil::date(0, 1, 1);
        let earlier = self
            .0
            .saturating_sub(jiff::Span::new().days(days.min(4_000_000)));
        Self(earlier.max(first))
    }

    /// Returns the year.
    pub fn year(&self) -> u16 {
        self.0.year().unsigned_abs()
    }

    /// Returns the month, from 1 to 12.
    pub fn month(&self) -> u8 {
        self.0.month().unsigned_abs()
    }

    /// Returns the day of the month, from 1 to 31.
    pub fn day(&self) -> u8 {
        self.0.day().unsigned_abs()
    }
}

const WHAT: &str = "a date";

impl FromStr for Date {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = |range| -> Option<u16> {
            let digits: &str = text.get(range)?;
            digits
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| digits.parse().ok())?
        };
        match (number(0..4), number(5..7), number(8..10)) {
            (Some(year), Some(month), Some(day))
                if text.len() == 10
                    && matches!(text.as_bytes()[4], b'/' | b'-')
                    && text.as_bytes()[7] == text.as_bytes()[4] =>
            {
                // The month and the day have two digits, which fit in a byte.
                Self::new(year, month as u8, day as u8)
            }
            _ => Err(ParseError::new(WHAT, "expected YYYY/MM/DD or YYYY-MM-DD")),
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format_args!("{:04}/{:02}/{:02}", self.year(), self.month(), self.day());
        if f.width().or(f.precision()).is_none() {
            f.write_fmt(text)
        } else {
            f.pad(&text.to_string())
        }
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Date({self})")
    }
}

impl From<Timestamp> for Date {
    fn from(time: Timestamp) -> Self {
        Self::of(time)
    }
}

text_item!(Date, |_, text| text.contains('/'));

#[cfg(test)]
mod tests;
