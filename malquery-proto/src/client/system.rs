//! The system clock and environment variables. No other module of this crate reads them.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::Clock;
use crate::cloud::{BaseUrl, Cloud};
use crate::credentials::Credentials;
use crate::debug::debug_with_sources;
use crate::time::Timestamp;
use crate::types::ParseError;

/// A [`Clock`] that reads the system time and waits by sleeping.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn sleep_until(&self, time: Timestamp) {
        // Sleep in slices, in case the clock is changed or the machine is suspended. If the clock
        // is set back, the wait does not get longer.
        let (begun, whole) = (Instant::now(), time.since(self.now()));
        loop {
            let left = time
                .since(self.now())
                .min(whole.saturating_sub(begun.elapsed()));
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_secs(1)));
        }
    }
}
const CLIENT_ID: &str = "FALCON_CLIENT_ID";
const CLIENT_SECRET: &str = "FALCON_CLIENT_SECRET";
const CLOUD: &str = "FALCON_CLOUD";
const BASE_URL: &str = "FALCON_BASE_URL";
const MEMBER_CID: &str = "FALCON_MEMBER_CID";
/// The value of `FALCON_CLOUD` that makes other SDKs find the cloud automatically.
const AUTODISCOVER: &str = "autodiscover";

/// The base URL and the credentials, from environment variables.
///
/// | variable | meaning |
/// |---|---|
/// | `FALCON_CLIENT_ID` | the id of the API client |
/// | `FALCON_CLIENT_SECRET` | the secret of the API client |
/// | `FALCON_CLOUD` | the cloud of the account; if this is unset or set to `autodiscover`, the first request goes to `us-1`, which redirects to another commercial cloud if necessary |
/// | `FALCON_BASE_URL` | a base URL, which overrides `FALCON_CLOUD` |
/// | `FALCON_MEMBER_CID` | the child to act for, if the account is a Flight Control parent |
///
/// Whitespace around a value is ignored. An empty value counts as unset.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base URL for requests.
    pub base: BaseUrl,
    /// The credentials.
    pub credentials: Credentials,
}

impl Settings {
    /// Reads the environment variables of the process.
    ///
    /// # Errors
    /// See [`EnvError`].
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads the variables with `lookup`. Use this in a program that stores its settings elsewhere,
    /// or whose options override the environment.
    ///
    /// ```
    /// use malquery_proto::client::Settings;
    ///
    /// // From the program's command line.
    /// let cloud = Some("eu-1".to_owned());
    /// let settings = Settings::from_lookup(|name| match name {
    ///     "FALCON_CLOUD" => cloud.clone().map(Into::into).or_else(|| std::env::var_os(name)),
    ///     # "FALCON_CLIENT_ID" | "FALCON_CLIENT_SECRET" => Some("x".into()),
    ///     _ => std::env::var_os(name),
    /// })?;
    /// # Ok::<(), malquery_proto::client::EnvError>(())
    /// ```
    ///
    /// # Errors
    /// See [`EnvError`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvError> {
        let get = |name| match lookup(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
            Some(Err(_)) => Err(EnvError::NotUnicode(name)),
        };
        let need = |name| get(name)?.ok_or(EnvError::Missing(name));
        let mut credentials = Credentials::new(need(CLIENT_ID)?, need(CLIENT_SECRET)?);
        if let Some(cid) = get(MEMBER_CID)? {
            credentials = credentials.member_cid(cid.parse().map_err(invalid(MEMBER_CID))?);
        }
        let base = match (get(BASE_URL)?, get(CLOUD)?) {
            (Some(url), _) => url.parse().map_err(invalid(BASE_URL))?,
            // The token endpoint of us-1 redirects to other commercial clouds.
            (None, Some(cloud)) if cloud.eq_ignore_ascii_case(AUTODISCOVER) => Cloud::Us1.into(),
            (None, Some(cloud)) => cloud.parse::<Cloud>().map_err(invalid(CLOUD))?.into(),
            (None, None) => Cloud::Us1.into(),
        };
        Ok(Self { base, credentials })
    }
}

/// The error for a missing or unusable environment variable. It does not show the client secret.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A required variable is unset or empty.
    #[error(
        "{0} is not set; create an API client in the Falcon console, and set FALCON_CLIENT_ID and FALCON_CLIENT_SECRET to its id and secret"
    )]
    Missing(&'static str),
    /// The value is not valid Unicode.
    #[error("{0} is not valid Unicode")]
    NotUnicode(&'static str),
    /// The transport cannot use the proxy or the root certificates that the variable specifies.
    #[error("{message}")]
    #[allow(missing_docs)]
    Transport {
        variable: &'static str,
        message: String,
    },
    /// The value is not valid.
    #[error("{variable} is not valid")]
    #[allow(missing_docs)]
    Invalid {
        variable: &'static str,
        #[source]
        error: ParseError,
    },
}

debug_with_sources!(EnvError);

impl EnvError {
    /// Returns the name of the variable.
    pub fn variable(&self) -> &'static str {
        match self {
            Self::Missing(variable)
            | Self::NotUnicode(variable)
            | Self::Transport { variable, .. }
            | Self::Invalid { variable, .. } => variable,
        }
    }
}

fn invalid(variable: &'static str) -> impl Fn(ParseError) -> EnvError {
    move |error| EnvError::Invalid { variable, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, EnvError> {
        Settings::from_lookup(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    const WHO: [(&str, &str); 2] = [(CLIENT_ID, "an-id"), (CLIENT_SECRET, "p4ssw0rd")];

    fn with(more: &[(&str, &str)]) -> Result<Settings, EnvError> {
        read(&[more, &WHO].concat())
    }

    #[test]
    fn values_are_trimmed_and_empty_ones_are_none() {
        let settings = read(&[
            (CLIENT_ID, " an-id\n"),
            (CLIENT_SECRET, "\tp4ssw0rd\r\n"),
            (CLOUD, ""),
            (BASE_URL, " "),
            (MEMBER_CID, "\n"),
        ])
        .unwrap();
        assert_eq!(settings.base, Cloud::Us1.into());
        assert_eq!(settings.credentials.client_id(), "an-id");
        assert!(
            format!("{settings:?}").contains("member_cid: None"),
            "{settings:?}"
        );
    }

    #[test]
    fn the_base_url_beats_the_cloud() {
        assert_eq!(with(&[]).unwrap().base, Cloud::Us1.into());
        assert_eq!(with(&[(CLOUD, "EU1")]).unwrap().base, Cloud::Eu1.into());
        let any = with(&[(CLOUD, "Autodiscover")]).unwrap();
        assert_eq!(any.base, Cloud::Us1.into());
        let own = [(CLOUD, "eu-1"), (BASE_URL, "https://falcon.example/")];
        assert_eq!(with(&own).unwrap().base.as_str(), "https://falcon.example");
        // An unknown cloud is not an error if it is not used.
        let own = [(CLOUD, "nowhere"), (BASE_URL, "http://127.0.0.1:8080")];
        assert_eq!(with(&own).unwrap().base.as_str(), "http://127.0.0.1:8080");
    }

    #[test]
    fn the_member_cid_is_read() {
        let settings = with(&[(MEMBER_CID, " 0123456789abcdef0123456789abcdef-4F ")]).unwrap();
        assert!(
            format!("{settings:?}").contains("\"0123456789abcdef0123456789abcdef\""),
            "{settings:?}"
        );
    }

    #[test]
    fn errors_name_the_variable() {
        let missing = read(&[]).unwrap_err();
        assert_eq!(missing, EnvError::Missing(CLIENT_ID));
        assert_eq!(
            missing.to_string(),
            "FALCON_CLIENT_ID is not set; create an API client in the Falcon console, and set \
             FALCON_CLIENT_ID and FALCON_CLIENT_SECRET to its id and secret"
        );
        assert_eq!(
            read(&WHO[..1]).unwrap_err(),
            EnvError::Missing(CLIENT_SECRET)
        );
        assert_eq!(read(&WHO[1..]).unwrap_err(), EnvError::Missing(CLIENT_ID));
        let wrong: [(&str, &str); 2] = [(CLOUD, "us-9"), (BASE_URL, "http://api.crowdstrike.com")];
        for (name, value) in wrong {
            let error = with(&[(name, value)]).unwrap_err();
            assert_eq!(error.variable(), name);
            assert_eq!(error.to_string(), format!("{name} is not valid"));
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.starts_with("not a "), "{source}");
            assert!(!format!("{error} {error:?} {source}").contains("p4ssw0rd"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_without_unicode_is_not_missing() {
        use std::os::unix::ffi::OsStringExt;

        let error = Settings::from_lookup(|_| Some(OsString::from_vec(b"p4ssw0rd\xff".to_vec())))
            .unwrap_err();
        assert_eq!(error, EnvError::NotUnicode(CLIENT_ID));
        assert!(!format!("{error} {error:?}").contains("p4ss"));
    }

    #[test]
    fn it_sleeps_until_a_time_ahead() {
        let start = SystemClock.now();
        assert!(start > Timestamp::from_millis(1_700_000_000_000));
        let end = start.after(Duration::from_millis(30));
        SystemClock.sleep_until(end);
        assert!(SystemClock.now() >= end);
        SystemClock.sleep_until(start);
        SystemClock.sleep_until(Timestamp::from_millis(0));
    }
}
