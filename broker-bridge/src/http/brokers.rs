//! Where enrolled relays are told to find the broker.

use std::net::IpAddr;

use axum::http::{Uri, uri::Authority};

/// Where relays are told to find the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brokers {
    /// At these URLs.
    Named(Vec<String>),
    /// Where this bridge finds it, or, where that means the bridge's own host, on the host that the relay asked.
    Own(String),
}

impl Brokers {
    /// The URLs for a relay that asked `host`: the `Host` header of its request.
    pub(super) fn urls(&self, host: Option<&str>) -> Vec<String> {
        match self {
            Self::Named(urls) => urls.clone(),
            Self::Own(url) => vec![host.and_then(|host| on_host(url, host)).unwrap_or_else(|| url.clone())],
        }
    }
}

/// `url` on another host, if it is on this one.
fn on_host(url: &str, host: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    if !is_here(uri.host()?) {
        return None;
    }
    let asked: Authority = host.parse().ok()?;
    let is_plain = !asked.as_str().contains('@') && !asked.host().is_empty();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let path = uri.path().trim_end_matches('/');
    is_plain.then(|| format!("{}://{}{port}{path}", uri.scheme_str().unwrap_or("nats"), asked.host()))
}

/// Whether a host in a URL means whatever machine reads it.
fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("nats://127.0.0.1:4222", "center:8088", "nats://center:4222")]
    #[case("nats://0.0.0.0:4222", "10.0.0.7", "nats://10.0.0.7:4222")]
    #[case("nats://[::1]:4222", "[fd00::1]:80", "nats://[fd00::1]:4222")]
    #[case("tls://localhost:4222", "center", "tls://center:4222")]
    #[case("ws://localhost:80/nats", "center", "ws://center:80/nats")]
    #[case("nats://broker:4222", "center:8088", "nats://broker:4222")]
    #[case("nats://127.0.0.1:4222", "a b", "nats://127.0.0.1:4222")]
    #[case("nats://127.0.0.1:4222", "user@center", "nats://127.0.0.1:4222")]
    #[case("nats://127.0.0.1:4222", "center/x", "nats://127.0.0.1:4222")]
    fn a_broker_here_is_where_the_bridge_was_asked(
        #[case] url: &str,
        #[case] host: &str,
        #[case] told: &str,
    ) {
        assert_eq!(Brokers::Own(url.to_owned()).urls(Some(host)), [told]);
    }

    #[test]
    fn brokers_that_are_named_are_told_as_they_are() {
        let urls = vec!["tls://127.0.0.1:1".to_owned(), "tls://b:2".to_owned()];
        assert_eq!(Brokers::Named(urls.clone()).urls(Some("center")), urls);
        assert_eq!(Brokers::Own("nats://127.0.0.1:1".to_owned()).urls(None), ["nats://127.0.0.1:1"]);
    }
}
