//! Which hosts may be dialled. Pure.
//!
//! A name is somebody else's word for an address: what it leads to is looked at after it was resolved, each time. Some addresses
//! are never meant by a name or a glob, but only by a pattern that names the address, or a network that it is in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use signalbox_schemas::{host::HostPattern, ssh::SshFault};

use super::{failure::Failure, route::SetBy};

/// What clouds tell their machines about themselves, beside the link-local address that most use.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// What may be dialled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard<'a> {
    /// Absent: everything but what is denied by default.
    targets: Option<&'a [HostPattern]>,
    /// Who says so.
    set_by: SetBy,
    /// Everything may be, whatever the targets.
    is_open: bool,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(targets: Option<&'a [HostPattern]>, set_by: SetBy) -> Self {
        Self { targets, set_by, is_open: false }
    }

    /// For a person who names a host on the machine itself.
    pub(crate) fn unguarded() -> Self {
        Self { targets: None, set_by: SetBy::Owner, is_open: true }
    }

    /// Leaves the addresses that may be dialled of those that a name leads to.
    pub(crate) fn addresses(
        &self,
        host: &str,
        port: u16,
        found: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, Failure> {
        let by_name = self.means(host, port);
        let may = |address: &&SocketAddr| {
            let ip = address.ip().to_canonical();
            let named = self.names(ip, port);
            self.is_open || named || (by_name && !is_denied(ip))
        };
        let allowed: Vec<SocketAddr> = found.iter().filter(may).copied().collect();
        match found.first() {
            Some(first) if allowed.is_empty() => Err(self.denial(host, port, by_name, Some(first.ip()))),
            _ => Ok(allowed),
        }
    }

    /// Whether a host may be dialled from another one, where its name is resolved.
    pub(crate) fn behind_another(&self, host: &str, port: u16) -> Result<(), Failure> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.addresses(host, port, &[SocketAddr::new(ip, port)]).map(drop);
        }
        let names_it = |pattern: &HostPattern| pattern.is_one_host() && pattern.matches(host, port).is_some();
        let is_named = self.targets.is_some_and(|targets| targets.iter().any(names_it));
        let is_name = !is_local_name(host) && !is_numeric(host);
        if self.means(host, port) && (is_name || is_named) {
            return Ok(());
        }
        Err(self.denial(host, port, self.means(host, port), None))
    }

    fn means(&self, host: &str, port: u16) -> bool {
        self.targets.is_none_or(|targets| targets.iter().any(|pattern| pattern.matches(host, port).is_some()))
    }

    fn names(&self, ip: IpAddr, port: u16) -> bool {
        self.targets.is_some_and(|targets| targets.iter().any(|pattern| pattern.names_address(ip, port)))
    }

    fn denial(&self, host: &str, port: u16, is_meant: bool, address: Option<IpAddr>) -> Failure {
        let leads = match address {
            Some(ip) if host.parse() != Ok(ip) => format!("{host} port {port} leads to {ip}, which"),
            _ => format!("{host} port {port}"),
        };
        let targets = self.set_by.targets();
        let why = if is_meant {
            format!("is dialled only if one of {targets} names the address itself")
        } else {
            format!("is none of {targets}")
        };
        Failure::new(SshFault::TargetDenied, format!("{leads} {why}"))
    }
}

/// Whether a name means the machine that resolves it.
fn is_local_name(host: &str) -> bool {
    let host = signalbox_schemas::host::plain(host);
    host == "localhost" || host.ends_with(".localhost")
}

/// Whether a text may be one of the many spellings of an address that resolvers take beside the usual one: `127.1`,
/// `2130706433`, `0x7f.1`. No domain ends with a label of digits.
fn is_numeric(host: &str) -> bool {
    let host = signalbox_schemas::host::plain(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hex = |digits: &str| digits.chars().all(|c| c.is_ascii_hexdigit());
    last.chars().all(|c| c.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

/// Whether nobody means an address who does not name it.
fn is_denied(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_denied_v4(ip),
        IpAddr::V6(ip) => {
            let is_link_local = ip.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80);
            let is_own = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip == METADATA_V6;
            is_own || is_link_local || inner_v4(ip).is_some_and(is_denied_v4)
        }
    }
}

fn is_denied_v4(ip: Ipv4Addr) -> bool {
    let is_this_network = ip.octets().first() == Some(&0);
    let is_many = ip.is_multicast() || ip.is_broadcast();
    ip.is_loopback() || ip.is_link_local() || is_this_network || is_many || ip == METADATA_V4
}

/// The address of version 4 that a translator or a tunnel makes of one of version 6.
fn inner_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        // NAT64, addresses that are compatible with version 4, and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(v4(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn patterns(texts: &[&str]) -> Vec<HostPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn dials(targets: Option<&[&str]>, host: &str, leads_to: &str) -> bool {
        let targets = targets.map(patterns);
        let found = [SocketAddr::new(leads_to.parse().unwrap(), 22)];
        Guard::new(targets.as_deref(), SetBy::Owner).addresses(host, 22, &found).is_ok()
    }

    #[rstest]
    #[case("10.0.0.7", true)]
    #[case("8.8.8.8", true)]
    #[case("2001:db8::7", true)]
    #[case("127.0.0.1", false)]
    #[case("127.8.9.1", false)]
    #[case("::1", false)]
    #[case("::ffff:127.0.0.1", false)]
    #[case("::127.0.0.1", false)]
    #[case("64:ff9b::7f00:1", false)]
    #[case("64:ff9b::a9fe:a9fe", false)]
    #[case("2002:7f00:1::1", false)]
    #[case("64:ff9b::a00:7", true)]
    #[case("0.0.0.0", false)]
    #[case("0.1.2.3", false)]
    #[case("::", false)]
    #[case("169.254.169.254", false)]
    #[case("169.254.0.1", false)]
    #[case("fe80::1", false)]
    #[case("febf::1", false)]
    #[case("fec0::1", true)]
    #[case("fd00:ec2::254", false)]
    #[case("100.100.100.200", false)]
    #[case("224.0.0.1", false)]
    #[case("255.255.255.255", false)]
    #[case("ff02::1", false)]
    fn some_addresses_are_denied_by_default(#[case] address: &str, #[case] is_dialled: bool) {
        assert_eq!(dials(None, "some.lan", address), is_dialled, "by name");
        assert_eq!(dials(None, address, address), is_dialled, "by itself");
        assert_eq!(dials(Some(&["*"]), "some.lan", address), is_dialled, "a glob names no address");
        assert_eq!(dials(Some(&["some.lan"]), "some.lan", address), is_dialled, "a name names no address");
        assert!(dials(Some(&[address]), "some.lan", address), "it was named");
    }

    #[rstest]
    #[case(&["web-1"], "web-1", "10.0.0.7", true)]
    #[case(&["web-1"], "web-2", "10.0.0.7", false)]
    #[case(&["10.0.0.0/8"], "web-2", "10.0.0.7", true)]
    #[case(&["10.0.0.0/8"], "web-2", "11.0.0.7", false)]
    #[case(&["web-1:2222"], "web-1", "10.0.0.7", false)]
    #[case(&["127.0.0.1:2222"], "web-1", "127.0.0.1", false)]
    #[case(&["127.0.0.0/8"], "web-1", "127.0.0.1", true)]
    #[case(&[], "web-1", "10.0.0.7", false)]
    fn with_targets_nothing_else_is_dialled(
        #[case] targets: &[&str],
        #[case] host: &str,
        #[case] leads_to: &str,
        #[case] is_dialled: bool,
    ) {
        assert_eq!(dials(Some(targets), host, leads_to), is_dialled);
    }

    #[test]
    fn of_several_addresses_those_that_may_be_are_dialled() {
        let found: Vec<SocketAddr> = ["127.0.0.1:22", "10.0.0.7:22", "[fe80::1]:22"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(Guard::new(None, SetBy::Owner).addresses("web-1", 22, &found).unwrap(), [found[1]]);
    }

    #[rstest]
    #[case(None, "db.lan", true)]
    #[case(None, "10.0.0.7", true)]
    #[case(None, "127.0.0.1", false)]
    #[case(None, "localhost", false)]
    #[case(None, "a.LocalHost.", false)]
    #[case(None, "2130706433", false)]
    #[case(None, "2852039166", false)]
    #[case(None, "127.1", false)]
    #[case(None, "127.1.", false)]
    #[case(None, "0177.0.0.1", false)]
    #[case(None, "0x7f.1", false)]
    #[case(None, "0X7F000001", false)]
    #[case(None, "127.0.0.0x1", false)]
    #[case(None, "web-1", true)]
    #[case(None, "0xen.lan", true)]
    #[case(Some(&["*"][..]), "127.1", false)]
    #[case(Some(&["127.1"][..]), "127.1", true)]
    #[case(Some(&["*"][..]), "localhost", false)]
    #[case(Some(&["localhost"][..]), "localhost", true)]
    #[case(Some(&["127.0.0.1"][..]), "127.0.0.1", true)]
    #[case(Some(&["*.lan"][..]), "db.lan", true)]
    #[case(Some(&["*.lan"][..]), "db.wan", false)]
    fn behind_another_host_the_name_decides(
        #[case] targets: Option<&[&str]>,
        #[case] host: &str,
        #[case] is_dialled: bool,
    ) {
        let targets = targets.map(patterns);
        assert_eq!(Guard::new(targets.as_deref(), SetBy::Owner).behind_another(host, 22).is_ok(), is_dialled);
    }

    #[test]
    fn a_denial_says_what_to_change() {
        let found = ["127.0.0.1:22".parse().unwrap()];
        let said =
            |targets, set_by| Guard::new(targets, set_by).addresses("db", 22, &found).unwrap_err().message;
        let text = said(None, SetBy::Owner);
        assert!(text.contains("leads to 127.0.0.1") && text.contains("names the address itself"), "{text}");
        let text = said(Some(&[]), SetBy::Owner);
        assert!(text.contains("none of the `targets` under [ssh] in relay.toml"), "{text}");
        for targets in [None, Some(&[][..])] {
            let text = said(targets, SetBy::Center);
            assert!(text.contains("the `ssh_targets` that the center pushes"), "{text}");
            assert!(!text.contains("relay.toml"), "its relays have no such file: {text}");
        }
    }
}
