//! Hosts as they are written: names, addresses, and patterns that mean some of them.
//!
//! ```text
//! pattern = host [":" port]      db-1   db-1:2222   10.0.0.7   [fe80::1]:22   2001:db8::7
//!         | glob [":" port]      *.lan   web-??:2222                 * any characters, ? one
//!         | network              10.0.0.0/8   [2001:db8::/32]:22
//! ```
//!
//! Names are compared without case and without a dot at their end. An address is compared as a number, and one of version 4
//! that is written as version 6 (`::ffff:10.0.0.7`) as what it is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::limit::SSH_HOST_BYTES;

/// Longest pattern, bytes: a host in brackets, and a port.
pub const PATTERN_BYTES: usize = SSH_HOST_BYTES + 8;

/// What [`is_host`] asks, for people.
pub const HOST_RULE: &str = r#"a host is a name or an address of 1 to 255 bytes, without white space, control characters and any of @/\,*?!#|[]"', and with colons only in an address of IPv6, without a zone"#;

/// Whether a text can be a host: 1 to 255 bytes, without white space, control characters, and what has a meaning in
/// patterns, in known-hosts files and before an `@`.
pub fn is_host(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !r#"@/\,*?!#|[]"'"#.contains(c);
    let name = text.strip_suffix('.').unwrap_or(text);
    text.len() <= SSH_HOST_BYTES
        && !name.is_empty()
        && !name.ends_with('.')
        && text.chars().all(plain)
        && (!text.contains(':') || text.parse::<Ipv6Addr>().is_ok())
}

/// A host's text as it is compared: lower case, no dot at its end, addresses in their one spelling.
pub fn plain(host: &str) -> String {
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().to_string();
    }
    host.strip_suffix('.').unwrap_or(host).to_lowercase()
}

/// Whether a pattern of `*` (any characters) and `?` (one character) means the whole text.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where the last star stands, and what it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(seen) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(expected) if *expected == '?' || expected == letter => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                seen = taken + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == '*')
}

/// What a host is to be, for a credential or a policy to speak of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    hosts: Hosts,
    port: Option<u16>,
}

/// Which hosts a pattern means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Hosts {
    /// One, as [`plain`] spells it.
    One(String),
    /// All addresses with the same first bits; those after them are zero.
    Network(IpAddr, u8),
    /// All whose name matches.
    Glob(String),
}

/// How closely a pattern means a host: the greater one is the closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness {
    /// Globs, then networks, then the host itself.
    kind: u8,
    /// Letters that are no wildcard, or bits of the network.
    length: usize,
    has_port: bool,
}

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host pattern: write `host`, `host:port`, a glob such as `*.lan`, or a network such as `10.0.0.0/8`"
)]
pub struct PatternError;

impl HostPattern {
    /// The pattern that means one host, on one port or on every one.
    ///
    /// # Errors
    /// [`PatternError`] when the text can be no host, or the port is 0.
    pub fn of(host: &str, port: Option<u16>) -> Result<Self, PatternError> {
        if !is_host(host) || port == Some(0) {
            return Err(PatternError);
        }
        Ok(Self { hosts: Hosts::One(plain(host)), port })
    }

    /// How closely the pattern means a host as it was named; absent when it does not.
    pub fn matches(&self, host: &str, port: u16) -> Option<Closeness> {
        if self.port.is_some_and(|own| own != port) {
            return None;
        }
        let host = plain(host);
        let (kind, length) = match &self.hosts {
            Hosts::One(own) => (*own == host).then_some((2, own.len()))?,
            Hosts::Network(first, bits) => {
                let address = host.parse().ok()?;
                is_within(address, *first, *bits).then_some((1, usize::from(*bits)))?
            }
            Hosts::Glob(glob) => {
                wildcard(glob, &host).then(|| (0, glob.chars().filter(|c| !"*?".contains(*c)).count()))?
            }
        };
        Some(Closeness { kind, length, has_port: self.port.is_some() })
    }

    /// Whether the pattern names an address itself, or a network that it is in. Names and globs do not: what they stand for
    /// is somebody else's word.
    pub fn names_address(&self, address: IpAddr, port: u16) -> bool {
        let names_it = match &self.hosts {
            Hosts::One(own) => own.parse() == Ok(address.to_canonical()),
            Hosts::Network(first, bits) => is_within(address, *first, *bits),
            Hosts::Glob(_) => false,
        };
        names_it && self.port.is_none_or(|own| own == port)
    }

    /// Whether it speaks of one host by name or address.
    pub fn is_one_host(&self) -> bool {
        matches!(self.hosts, Hosts::One(_))
    }
}

fn is_within(address: IpAddr, first: IpAddr, bits: u8) -> bool {
    match (address.to_canonical(), first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == first.to_bits()
        }
        (IpAddr::V6(address), IpAddr::V6(first)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == first.to_bits()
        }
        _ => false,
    }
}

fn network(text: &str) -> Option<Hosts> {
    let (address, bits) = text.split_once('/')?;
    let first: IpAddr = address.parse().ok()?;
    let most = if first.is_ipv4() { 32 } else { 128 };
    // One network has one spelling: no sign, no leading zero, no bits behind its own.
    let bits: u8 = bits.parse().ok().filter(|number: &u8| number.to_string() == bits && *number <= most)?;
    (first.to_canonical() == first && is_within(first, first, bits)).then_some(Hosts::Network(first, bits))
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES {
            return Err(PatternError);
        }
        let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok() || network(text).is_some();
        let (hosts, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (hosts, port) = rest.split_once(']').ok_or(PatternError)?;
                if !hosts.contains(':') {
                    return Err(PatternError);
                }
                (
                    hosts,
                    if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(PatternError)?) },
                )
            }
            None if is_v6(text) => (text, None),
            None => text.split_once(':').map_or((text, None), |(hosts, port)| (hosts, Some(port))),
        };
        let port = port.map(|port| self::port(port).ok_or(PatternError)).transpose()?;
        if hosts.contains('/') {
            return Ok(Self { hosts: network(hosts).ok_or(PatternError)?, port });
        }
        if !hosts.contains(['*', '?']) {
            return Self::of(hosts, port);
        }
        // What is left when the wildcards are letters must be a name.
        let is_glob = is_host(&hosts.replace(['*', '?'], "x")) && !hosts.contains(':');
        let glob = hosts.strip_suffix('.').unwrap_or(hosts).to_lowercase();
        if is_glob { Ok(Self { hosts: Hosts::Glob(glob), port }) } else { Err(PatternError) }
    }
}

/// Reads a host and a port as people write them: `host`, `host:port`, `[address]:port`, or an address of version 6 alone.
///
/// # Errors
/// [`PatternError`] for what names no single host.
pub fn place(text: &str) -> Result<(String, Option<u16>), PatternError> {
    let HostPattern { hosts, port } = text.parse()?;
    match hosts {
        Hosts::One(host) => Ok((host, port)),
        Hosts::Network(..) | Hosts::Glob(_) => Err(PatternError),
    }
}

/// Reads a port: 1 to 65,535, digits only.
pub fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == text)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = match &self.hosts {
            Hosts::One(text) | Hosts::Glob(text) => text.clone(),
            Hosts::Network(first, bits) => format!("{first}/{bits}"),
        };
        match self.port {
            None => f.write_str(&hosts),
            Some(port) if hosts.contains(':') => write!(f, "[{hosts}]:{port}"),
            Some(port) => write!(f, "{hosts}:{port}"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("db-1", "db-1", 22, true)]
    #[case("DB-1.Lan.", "db-1.lan", 22, true)]
    #[case("db-1", "DB-1.", 2222, true)]
    #[case("db-1:2222", "db-1", 2222, true)]
    #[case("db-1:2222", "db-1", 22, false)]
    #[case("db-1", "db-10", 22, false)]
    #[case("*.lan", "a.b.lan", 22, true)]
    #[case("*.lan", "lan", 22, false)]
    #[case("web-??:22", "web-01", 22, true)]
    #[case("web-??", "web-1", 22, false)]
    #[case("*", "10.0.0.7", 22, true)]
    #[case("10.0.0.7", "::ffff:10.0.0.7", 22, true)]
    #[case("2001:db8::7", "2001:DB8:0::7", 22, true)]
    #[case("[2001:db8::7]:22", "2001:db8::7", 22, true)]
    #[case("[2001:db8::7]:22", "2001:db8::7", 23, false)]
    #[case("10.0.0.0/8", "10.200.3.4", 22, true)]
    #[case("10.0.0.0/8", "11.0.0.1", 22, false)]
    #[case("10.0.0.0/8", "ten.lan", 22, false)]
    #[case("0.0.0.0/0", "8.8.8.8", 22, true)]
    #[case("0.0.0.0/0", "2001:db8::7", 22, false)]
    #[case("2001:db8::/32", "2001:db8:ffff::1", 22, true)]
    #[case("[2001:db8::/32]:22", "2001:db8::1", 23, false)]
    fn patterns_mean_hosts(#[case] text: &str, #[case] host: &str, #[case] port: u16, #[case] means: bool) {
        assert_eq!(pattern(text).matches(host, port).is_some(), means);
    }

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("a..")]
    #[case("a b")]
    #[case("a:0")]
    #[case("a:65536")]
    #[case("a:+1")]
    #[case("a:22:23")]
    #[case("user@a")]
    #[case("[a]:22")]
    #[case("[2001:db8::7]22")]
    #[case("[2001:db8::7")]
    #[case("10.0.0.1/8")]
    #[case("10.0.0.0/08")]
    #[case("10.0.0.0/33")]
    #[case("*.lan/8")]
    #[case("fe80:*")]
    #[case("a,b")]
    #[case("!a")]
    #[case("a\u{7}")]
    fn others_are_none(#[case] text: &str) {
        assert_eq!(text.parse::<HostPattern>(), Err(PatternError));
    }

    #[test]
    fn the_closest_is_the_host_itself_and_one_with_its_port() {
        let by_closeness = ["db.lan:22", "db.lan", "d*.lan:22", "d*.lan", "*.lan:22", "?*.lan", "*:22", "*"];
        let closeness: Vec<_> = by_closeness.iter().map(|text| pattern(text).matches("db.lan", 22)).collect();
        assert!(closeness.windows(2).all(|pair| pair[0] >= pair[1]), "{closeness:?}");
        assert!(
            pattern("10.0.0.0/24").matches("10.0.0.7", 22) > pattern("10.0.0.0/8").matches("10.0.0.7", 22)
        );
        assert!(pattern("10.0.0.0/8").matches("10.0.0.7", 22) > pattern("10.0.0.*").matches("10.0.0.7", 22));
    }

    #[test]
    fn only_addresses_and_networks_name_an_address() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        for (text, names) in [
            ("127.0.0.1", true),
            ("127.0.0.1:22", true),
            ("127.0.0.1:23", false),
            ("127.0.0.0/8", true),
            ("localhost", false),
            ("*", false),
        ] {
            assert_eq!(pattern(text).names_address(loopback, 22), names, "{text}");
            assert_eq!(pattern(text).names_address(mapped, 22), names, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_has_one_text(text in r"[a-zA-Z0-9.*?:/\[\]-]{0,24}") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<HostPattern>(), Ok(pattern));
            }
        }

        /// Against the obvious way to say it, which takes exponential time.
        #[test]
        fn wildcards_mean_what_they_say(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn slow(pattern: &str, text: &str) -> bool {
                let (mut left, mut right) = (pattern.chars(), text.chars());
                match (left.next(), right.next()) {
                    (None, None) => true,
                    (Some('*'), None) => slow(left.as_str(), text),
                    (Some('*'), Some(_)) => slow(left.as_str(), text) || slow(pattern, right.as_str()),
                    (Some(one), Some(other)) if one == '?' || one == other => slow(left.as_str(), right.as_str()),
                    _ => false,
                }
            }
            prop_assert_eq!(wildcard(&pattern, &text), slow(&pattern, &text));
        }
    }
}
