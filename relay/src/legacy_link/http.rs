//! Requests to the center. Everything here blocks and belongs on a thread for that.
//!
//! Certificates are checked against those that the system trusts; a redirect is an answer and is not followed, so that the
//! key goes where it was told to and nowhere else.

use std::{io, sync::Arc, time::Duration};

use rustls::crypto::ring::default_provider;
pub(crate) use ureq::http::StatusCode;
use ureq::{
    Agent, SendBody,
    http::{
        Method, Request, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    tls::{Certificate, RootCerts, TlsConfig},
};

use signalbox_schemas::enrol::KEY_HEADER;

use crate::api_key::ApiKey;

/// A center that does not take a connection for this long is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// A center may hold a question for commands for 30 s; more is the way there and back.
const ANSWER: Duration = Duration::from_secs(45);
/// The largest result on a slow link.
const SEND: Duration = Duration::from_mins(10);
/// A list of commands on a slow link.
const RECEIVE: Duration = Duration::from_mins(1);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// The same about commands: a list of them, or a grant, in which the command may stand again.
const MAX_COMMANDS_BYTES: u64 = 16 * 1024 * 1024;
/// Below this path commands are spoken of.
const COMMANDS: &str = "/relay/commands";
/// A connection is used again for so long: a question a few seconds after the last one costs no handshake, and most centers
/// and proxies keep it for longer.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Stands for a text of the center's that is not shown, since the key is in it.
pub(crate) const HIDDEN: &str = "(a text with the API key in it)";

/// The URL is none that a center can be at. Never retryable.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It cannot be read, or names no host. It is not shown: there may be a password in it.
    #[error("the URL is not valid: http:// or https://, a host and perhaps a port and a path are expected")]
    Invalid,
    /// Nothing can be trusted.
    #[error(
        "the system has no certificates to trust; install them (ca-certificates), or name them in SSL_CERT_FILE"
    )]
    NoRoots,
}

/// No answer came. Retryable.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} was not answered: {source}")]
pub struct NoAnswer {
    method: Method,
    path: String,
    source: ureq::Error,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// As it came, or empty.
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
    /// Whether the key is in the body: then nothing of it belongs into a log.
    pub(crate) has_key: bool,
}

/// Where the center is, and the key it knows this relay by.
#[derive(Clone)]
pub(crate) struct Center {
    agent: Agent,
    base: String,
    key: ApiKey,
    is_private: bool,
}

impl Center {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// [`UrlError`].
    pub(crate) fn new(base: &str, key: ApiKey) -> Result<Self, UrlError> {
        let uri: Uri = base.parse().map_err(|_| UrlError::Invalid)?;
        let authority = uri.authority().ok_or(UrlError::Invalid)?;
        // "https://HTTP://host": a host with an empty port.
        if authority.host().is_empty()
            || authority.as_str().contains('@')
            || authority.as_str().ends_with(':')
        {
            return Err(UrlError::Invalid);
        }
        if uri.query().is_some() {
            return Err(UrlError::Invalid);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("signalbox-relay/", env!("CARGO_PKG_VERSION")))
            .max_idle_age(MAX_IDLE)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(CONNECT))
            .timeout_send_body(Some(SEND))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(RECEIVE));
        let config = match uri.scheme_str() {
            Some("https") => config.tls_config(tls()?),
            Some("http") => config,
            _ => return Err(UrlError::Invalid),
        };
        let is_here = is_this_machine(authority.host());
        // A proxy's own machine is another one.
        let config = if is_here { config.proxy(None) } else { config };
        let is_private = uri.scheme_str() == Some("https") || is_here;
        if !is_private {
            tracing::warn!("The center is spoken to without encryption: the API key can be read on the way");
        }
        Ok(Self { agent: config.build().into(), base: base.to_owned(), key, is_private })
    }

    /// Whether nobody on the way can change what is said.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Its URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The key itself, for the one body that it goes into.
    pub(crate) fn key(&self) -> &ApiKey {
        &self.key
    }

    /// Asks with the key.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        let request = self.request(Method::GET, path).header(KEY_HEADER, self.key.reveal());
        self.answered(Method::GET, path, request.body(SendBody::none()))
    }

    /// Says JSON, with the key.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
        self.post_from(path, body.len() as u64, &mut &*body)
    }

    /// Says so many bytes of JSON, with the key.
    pub(crate) fn post_from(
        &self,
        path: &str,
        length: u64,
        body: &mut dyn io::Read,
    ) -> Result<Answer, NoAnswer> {
        let request = self.request(Method::POST, path).header(KEY_HEADER, self.key.reveal());
        let request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, length);
        self.answered(Method::POST, path, request.body(SendBody::from_reader(body)))
    }

    /// Says nothing but the key: no body, and no type of one.
    pub(crate) fn post_nothing(&self, path: &str) -> Result<Answer, NoAnswer> {
        let request = self.request(Method::POST, path).header(KEY_HEADER, self.key.reveal());
        self.answered(Method::POST, path, request.header(CONTENT_LENGTH, 0).body(SendBody::none()))
    }

    /// Says JSON without the key in a header.
    pub(crate) fn post_unknown(&self, path: &str, mut body: &[u8]) -> Result<Answer, NoAnswer> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        let request = request.header(CONTENT_LENGTH, body.len());
        self.answered(Method::POST, path, request.body(SendBody::from_reader(&mut body)))
    }

    fn request(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        Request::builder().method(method).uri(format!("{}{path}", self.base))
    }

    fn answered(
        &self,
        method: Method,
        path: &str,
        request: Result<Request<SendBody<'_>>, ureq::http::Error>,
    ) -> Result<Answer, NoAnswer> {
        let answered = request.map_err(ureq::Error::from).and_then(|request| {
            let (head, mut body) = self.agent.run(request)?.into_parts();
            let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            let most = if path.starts_with(COMMANDS) { MAX_COMMANDS_BYTES } else { MAX_ANSWER_BYTES };
            let body = body.with_config().limit(most).read_to_vec()?;
            let has_key = holds(&body, self.key.reveal());
            Ok(Answer { status: head.status, content_type, body, has_key })
        });
        answered.map_err(|source| NoAnswer { method, path: path.to_owned(), source })
    }
}

fn tls() -> Result<TlsConfig, UrlError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "Certificates of the system not read");
    }
    if found.certs.is_empty() {
        return Err(UrlError::NoRoots);
    }
    let roots = found.certs.iter().map(|root| Certificate::from_der(root).to_owned());
    let roots = RootCerts::Specific(Arc::new(roots.collect()));
    let provider = Arc::new(default_provider());
    Ok(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build())
}

/// Whether a text, which may be JSON, has the key in it.
fn holds(body: &[u8], key: &str) -> bool {
    let text = String::from_utf8_lossy(body);
    // A string always has a JSON form.
    let quoted = serde_json::to_string(key).unwrap_or_default();
    let escaped = quoted.trim_matches('"');
    text.contains(key) || text.contains(escaped) || text.contains(&escaped.replace('/', "\\/"))
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://127.0.0.1:1", true)]
    #[case("http://center/deep/path", true)]
    #[case("https://HTTP://x", false)]
    #[case("https://", false)]
    #[case("httpx://a", false)]
    #[case("http://user:word@a", false)]
    #[case("http://a?b", false)]
    #[case("http://a b", false)]
    fn only_a_url_of_a_host_is_taken(#[case] url: &str, #[case] taken: bool) {
        assert_eq!(Center::new(url, ApiKey::new("k").unwrap()).is_ok(), taken);
    }

    #[rstest]
    #[case("https://center", true)]
    #[case("http://127.0.0.1:1", true)]
    #[case("http://center", false)]
    fn who_is_on_the_way_is_known(#[case] url: &str, #[case] is_private: bool) {
        assert_eq!(Center::new(url, ApiKey::new("k").unwrap()).unwrap().is_private(), is_private);
    }

    #[rstest]
    #[case("no such key: a/b\\c", true)]
    #[case(r#"{"error":"no such key: a/b\\c"}"#, true)]
    #[case(r#"{"error":"no such key: a\/b\\c"}"#, true)]
    #[case(r#"{"error":"no such key: a/b"}"#, false)]
    fn the_key_is_found_in_an_answer(#[case] body: &str, #[case] is: bool) {
        assert_eq!(holds(body.as_bytes(), "a/b\\c"), is);
    }

    #[rstest]
    #[case("localhost", true)]
    #[case("127.0.0.9", true)]
    #[case("[::1]", true)]
    #[case("10.0.0.1", false)]
    #[case("center", false)]
    fn this_machine_is_known(#[case] host: &str, #[case] is: bool) {
        assert_eq!(is_this_machine(host), is);
    }
}
