//! Parses the values of options.

use std::num::IntErrorKind;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use malquery_proto::types::MetaField;

/// Parses a duration, capped at a year: a number of seconds, or a number with `s`, `m` or `h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1.0),
        Some(b'm') => (&text[..text.len() - 1], 60.0),
        Some(b'h') => (&text[..text.len() - 1], 3600.0),
        _ => (text, 1.0),
    };
    // `f64` also parses words such as `infinity`.
    let is_number = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = is_number
        .then(|| number.parse().ok())
        .flatten()
        .ok_or("expected a duration such as 90, 90s, 10m or 1h")?;
    // Limit the duration to a year, because a longer one could overflow.
    Duration::try_from_secs_f64((seconds * unit).min(31_536_000.0))
        .map_err(|error| error.to_string())
}

/// Parses a duration greater than 0.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a duration greater than 0".into()),
        time => Ok(time),
    }
}

/// Formats a duration for messages.
pub(crate) fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.subsec_nanos() > 0 => format!("{} s", duration.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Parses an element of a list, ignoring spaces around it.
pub(crate) fn trimmed<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.trim().parse()
}

/// Parses a field that the service is known to support. Refuses others, which may be misspelled.
pub(crate) fn field(text: &str) -> Result<MetaField, String> {
    use MetaField::{Family, FirstSeen, Label, Md5, Sha256, Size, Type};
    let field: MetaField =
        trimmed(text).map_err(|error: malquery_proto::types::ParseError| error.to_string())?;
    let known = [Sha256, Md5, Type, Size, FirstSeen, Label, Family];
    if known.contains(&field) {
        return Ok(field);
    }
    let known = known.map(|field| field.to_string()).join(", ");
    Err(format!("unknown field; use one of: {known}"))
}

/// Returns a parser for the path of a file. The parser refuses `-`.
pub(crate) fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => {
            Err("standard input and output are not supported here; for a file named `-`, use ./-")
        }
        false => Ok(path),
    })
}

pub(crate) fn at_least_one<T: TryFrom<u64>>(text: &str) -> Result<T, &'static str> {
    let too_large = "the number is too large";
    match text.parse::<u64>() {
        Ok(number) if number > 0 => T::try_from(number).map_err(|_| too_large),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(too_large),
        _ => Err("expected a whole number greater than 0"),
    }
}

/// Returns the user information in a URL as written, such as `name:password`.
pub(crate) fn login(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    Some(rest.split(['/', '?', '#']).next()?.rsplit_once('@')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("10m", 600.0),
            ("1h", 3600.0),
            ("0.01", 0.01),
            ("1.5m", 90.0),
            ("99999999999999999h", 31_536_000.0),
        ] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in [
            "", "h", "soon", "-1", "nan", "inf", "1d", "1 h", "1e3", "1.2.3", "é",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_at_least_one() {
        assert_eq!(at_least_one::<u32>("4294967295"), Ok(u32::MAX));
        for text in ["0", "-1", "", "1.5"] {
            let error = at_least_one::<u32>(text).unwrap_err();
            assert_eq!(error, "expected a whole number greater than 0", "{text}");
        }
        for text in ["4294967296", "99999999999999999999"] {
            let error = at_least_one::<u32>(text).unwrap_err();
            assert_eq!(error, "the number is too large");
        }
    }
}
