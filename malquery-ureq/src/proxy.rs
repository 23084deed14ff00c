//! The proxy from the environment, and the hosts that are reached without it.

use std::net::IpAddr;

use http::Uri;
use ureq::Proxy;

use crate::ureq_error::ConfigError;

/// The proxy to use, and the hosts to reach without it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    proxy: Option<Proxy>,
    direct: NoProxy,
}

impl Route {
    /// Uses this proxy, except for the hosts in `direct`, a list like `NO_PROXY`.
    pub(crate) fn through(proxy: Proxy, direct: &str) -> Self {
        Self {
            proxy: Some(proxy),
            direct: NoProxy::new(direct),
        }
    }

    pub(crate) fn proxy(&self, uri: &Uri) -> Option<Proxy> {
        let proxy = self.proxy.as_ref()?;
        (!self.direct.contains(uri)).then(|| proxy.clone())
    }

    /// Reads the environment. A nonempty lowercase variable takes precedence over its uppercase
    /// form. `HTTP_PROXY` is ignored, because plain http is allowed only for loopback.
    pub(crate) fn from_env() -> Result<Self, ConfigError> {
        const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let Some(name) = VARIABLES.into_iter().find(set) else {
            return Ok(Self::default());
        };
        let proxy = std::env::var(name)
            .ok()
            .and_then(|value| parse(value.trim()))
            .ok_or(ConfigError::ProxyVariable(name))?;
        let direct = ["no_proxy", "NO_PROXY"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        Ok(Self::through(proxy, &direct))
    }
}

/// Parses the URL of a proxy. ureq itself would replace an invalid port with the default port.
pub(crate) fn parse(url: &str) -> Option<Proxy> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let behind = host.rsplit(']').next()?;
    let port = behind.rsplit_once(':').map(|(_, port)| port);
    let is_valid = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    Proxy::new(url).ok().filter(|_| port.is_none_or(is_valid))
}

/// The hosts in `NO_PROXY`.
#[derive(Debug, Clone, Default)]
struct NoProxy(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Hosts {
    All,
    /// A host and its subdomains.
    Domain(String),
    /// An address, and the number of leading bits that must match.
    Network(IpAddr, u32),
}

impl NoProxy {
    fn new(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(
            entries
                .filter(|entry| !entry.is_empty())
                .map(Entry::new)
                .collect(),
        )
    }

    fn contains(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        let address = parse_address(host);
        let port = uri.port_u16().unwrap_or(443);
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port)
                && match &entry.hosts {
                    Hosts::All => true,
                    Hosts::Domain(domain) => host
                        .strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
                    Hosts::Network(network, bits) => {
                        address.is_some_and(|address| common_bits(*network, address) >= Some(*bits))
                    }
                }
        })
    }
}

impl Entry {
    fn new(entry: &str) -> Self {
        if let Some(hosts) = Hosts::addresses(entry) {
            return Self { hosts, port: None };
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (entry, None),
        };
        let hosts = match host {
            "*" => Hosts::All,
            _ => Hosts::addresses(host).unwrap_or_else(|| Hosts::domain(host)),
        };
        Self { hosts, port }
    }
}

impl Hosts {
    fn domain(name: &str) -> Self {
        let name = name.strip_prefix('*').unwrap_or(name);
        Self::Domain(name.trim_matches('.').to_ascii_lowercase())
    }

    /// Parses an address, or a network such as `10.0.0.0/8`.
    fn addresses(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address = parse_address(address)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self::Network(address, bits))
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(address.to_canonical())
}

fn common_bits(one: IpAddr, other: IpAddr) -> Option<u32> {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            Some((one.to_bits() ^ other.to_bits()).leading_zeros())
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            Some((one.to_bits() ^ other.to_bits()).leading_zeros())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_lists_hosts_as_curl_does() {
        let cases: [(&str, &str, bool); 38] = [
            ("", "https://api.example.com", false),
            (",, ,", "https://api.example.com", false),
            ("*", "https://api.example.com", true),
            ("*", "https://[::1]:8443", true),
            // A domain includes its subdomains, but not other names with the same ending.
            ("example.com", "https://example.com", true),
            ("example.com", "https://api.example.com", true),
            ("example.com", "https://a.b.EXAMPLE.com.", true),
            ("Example.Com.", "https://api.example.com", true),
            ("example.com", "https://badexample.com", false),
            ("api.example.com", "https://example.com", false),
            (".example.com", "https://api.example.com", true),
            (".example.com", "https://example.com", true),
            ("*.example.com", "https://api.example.com", true),
            ("*.example.com", "https://badexample.com", false),
            ("example.*", "https://example.com", false),
            // Entries are separated by spaces, commas or both.
            ("localhost, example.com", "https://api.example.com", true),
            ("localhost example.com", "https://api.example.com", true),
            (" localhost ,\texample.com ", "https://localhost", true),
            ("localhost,example.com", "https://example.org", false),
            // Ports.
            ("example.com:8443", "https://api.example.com:8443", true),
            ("example.com:8443", "https://api.example.com", false),
            ("example.com:443", "https://api.example.com", true),
            ("example.com", "https://api.example.com:8443", true),
            ("*:8443", "https://api.example.com:8443", true),
            ("10.1.2.3:8443", "https://10.1.2.3", false),
            ("[::1]:8443", "https://[::1]:8443", true),
            // Addresses and networks.
            ("10.1.2.3", "https://10.1.2.3:8443", true),
            ("10.1.2.3", "https://10.1.2.30", false),
            ("10.0.0.0/8", "https://10.255.0.1", true),
            ("10.0.0.0/8", "https://11.0.0.1", false),
            ("0.0.0.0/0", "https://11.0.0.1", true),
            ("192.168.1.128/25", "https://192.168.1.127", false),
            ("::1", "https://[::1]", true),
            ("[::1]", "https://[0:0:0:0:0:0:0:1]", true),
            ("2001:db8::/32", "https://[2001:db8:1::1]", true),
            ("2001:db8::/32", "https://[2001:db9::1]", false),
            ("10.0.0.0/8", "https://[::ffff:10.0.0.1]", true),
            ("10.0.0.0/33,10.0.0.0/x,/", "https://10.0.0.1", false),
        ];
        for (list, uri, expected) in cases {
            let direct = NoProxy::new(list).contains(&uri.parse().unwrap());
            assert_eq!(direct, expected, "{list:?} {uri}");
        }
    }
}
