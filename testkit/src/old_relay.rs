//! Relays of the old contract, as far as a center sees them: HTTP/1.1 on kept connections, byte for byte.

use std::str::FromStr as _;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::Answer;

/// Largest head of an answer.
const HEAD_BYTES: usize = 16 * 1024;
/// Largest body of an answer.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Read at once. Thousands of relays in one process read little each.
const READ_BYTES: usize = 2 * 1024;

/// A kept connection. Requests are sent as they are given; answers come in their order.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects to the server at `base`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(base: &str) -> Result<Self> {
        let host = host(base)?;
        let stream = TcpStream::connect(host).await.with_context(|| format!("connecting to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await.context("sending a request")
    }

    /// The next answer, read to its last byte.
    ///
    /// # Errors
    /// When the server hangs up before, or what comes is no answer with a `Content-Length`.
    pub async fn answer(&mut self) -> Result<Answer> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            ensure!(self.unread.len() <= HEAD_BYTES, "the head of an answer has no end");
            self.read().await?;
        };
        let rest = self.unread.split_off(end + 4);
        let head = std::mem::replace(&mut self.unread, rest);
        let (status, headers) = head_of(&head)?;
        let length = match headers.get("content-length") {
            Some(length) => length.to_str()?.parse()?,
            None if status == 204 => 0,
            None => bail!("an answer without a length: {headers:?}"),
        };
        ensure!(length <= BODY_BYTES, "an answer of {length} bytes");
        while self.unread.len() < length {
            self.read().await?;
        }
        let rest = self.unread.split_off(length);
        let body = std::mem::replace(&mut self.unread, rest);
        self.unread.shrink_to_fit();
        Ok(Answer { status, headers, body })
    }

    async fn read(&mut self) -> Result<()> {
        let mut space = [0; READ_BYTES];
        let read = self.stream.read(&mut space).await.context("reading an answer")?;
        ensure!(read > 0, "the server has hung up");
        self.unread.extend_from_slice(space.get(..read).unwrap_or_default());
        Ok(())
    }
}

fn host(base: &str) -> Result<&str> {
    base.strip_prefix("http://").with_context(|| format!("{base} is not at http://"))
}

/// Status and headers.
fn head_of(head: &[u8]) -> Result<(u16, HeaderMap)> {
    let mut lines = std::str::from_utf8(head)?.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.with_context(|| format!("{first:?} is no status"))?;
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').with_context(|| format!("{line:?} is no header"))?;
        headers.append(HeaderName::from_str(name)?, HeaderValue::from_str(value.trim())?);
    }
    Ok((status, headers))
}

/// The requests of one relay, with the headers that it sends. One request at a time; a relay that polls beside its work is
/// two of these.
#[derive(Debug)]
pub struct OldRelay {
    base: String,
    key: String,
    connection: Option<Connection>,
}

impl OldRelay {
    /// A relay with this API key, of the center at `base`. It connects when it has something to say.
    pub fn new(base: &str, key: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), key: key.to_owned(), connection: None }
    }

    /// A request as it goes over the wire.
    ///
    /// # Errors
    /// When the center is not at `http://`.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Vec<u8>> {
        let host = host(&self.base)?;
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if body.is_some() {
            request.push_str("Content-Type: application/json\r\n");
        }
        if !path.ends_with("/verify") {
            request.push_str("X-API-Key: ");
            request.push_str(&self.key);
            request.push_str("\r\n");
        }
        request.push_str("Connection: keep-alive\r\nUser-Agent: Bun/1.4.5\r\nAccept: */*\r\nHost: ");
        request.push_str(host);
        request.push_str("\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n");
        if method == "POST" {
            let length = body.map_or(0, str::len);
            request.push_str("Content-Length: ");
            request.push_str(&length.to_string());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        Ok(request.into_bytes())
    }

    /// Asks and reads the answer. A GET on a kept connection that broke is sent again once, as relays do.
    ///
    /// # Errors
    /// When there is no answer; the next request opens a new connection.
    pub async fn ask(&mut self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        let request = self.request(method, path, body)?;
        let is_again = self.connection.is_some() && method == "GET";
        match self.once(&request).await {
            Err(_) if is_again => self.once(&request).await,
            answered => answered,
        }
        .with_context(|| format!("{method} {path}"))
    }

    async fn once(&mut self, request: &[u8]) -> Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.base).await?,
        };
        connection.send(request).await?;
        let answer = connection.answer().await?;
        let is_kept = answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
        self.connection = is_kept.then_some(connection);
        Ok(answer)
    }

    /// `POST /relay/verify`
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn verify(&mut self) -> Result<Answer> {
        let body = json!({"apiKey": self.key}).to_string();
        self.ask("POST", "/relay/verify", Some(&body)).await
    }

    /// `GET /relay/commands`
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn poll(&mut self) -> Result<Answer> {
        self.ask("GET", "/relay/commands", None).await
    }

    /// The commands that a poll lists.
    ///
    /// # Errors
    /// When it lists none at all.
    pub async fn commands(&mut self) -> Result<Vec<Value>> {
        let answer = self.poll().await?;
        ensure!(answer.status == 200, "a poll is answered {}: {}", answer.status, answer.text());
        let commands = answer.json()?;
        commands.get("commands").and_then(Value::as_array).cloned().context("no commands")
    }

    /// `POST /relay/commands/claim`
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn claim(&mut self, id: &str) -> Result<Answer> {
        self.ask("POST", "/relay/commands/claim", Some(&json!({"commandId": id}).to_string())).await
    }

    /// Whether a claim is granted. A relay looks at nothing else.
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn wins(&mut self, id: &str) -> Result<bool> {
        let answer = self.claim(id).await?;
        Ok(answer.json()?.get("success") == Some(&Value::Bool(true)))
    }

    /// `POST /relay/commands/result` of a run that ended with this code.
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn result(&mut self, id: &str, code: i32, output: &str) -> Result<Answer> {
        let [id, output] = [id, output].map(Value::from);
        // The members in the order in which relays send them.
        let body = format!(
            r#"{{"commandId":{id},"success":{},"output":{output},"stderr":"","exitCode":{code},"durationMs":2}}"#,
            code == 0
        );
        self.ask("POST", "/relay/commands/result", Some(&body)).await
    }

    /// `POST /relay/heartbeat`: no body, and no type of one.
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn heartbeat(&mut self) -> Result<Answer> {
        self.ask("POST", "/relay/heartbeat", None).await
    }

    /// `POST /relay/status`
    ///
    /// # Errors
    /// As [`OldRelay::ask`].
    pub async fn status(&mut self, relay: &str) -> Result<Answer> {
        self.ask("POST", "/relay/status", Some(&status_of(relay))).await
    }
}

/// A report as relays send it.
pub fn status_of(relay: &str) -> String {
    let relay = Value::from(relay);
    format!(
        concat!(
            r#"{{"relayId":{},"capabilities":["local_cmd","ssh","perf_metrics"],"metrics":{{"cpuPercent":17.52,"#,
            r#""memoryTotalMb":24106,"memoryUsedMb":1036,"memoryPercent":4.3,"loadAvg1m":1.94,"loadAvg5m":1.91,"#,
            r#""loadAvg15m":0.9,"diskTotalGb":251.97,"diskUsedGb":13.7,"diskPercent":5.44}},"version":"1.0.0","#,
            r#""hostname":"vm","platform":"linux-x64","credentials":[]}}"#
        ),
        relay
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_relays_send() {
        let relay = OldRelay::new("http://127.0.0.1:1/", "sk_x");
        let heartbeat = String::from_utf8(relay.request("POST", "/relay/heartbeat", None).unwrap()).unwrap();
        assert!(
            heartbeat.starts_with("POST /relay/heartbeat HTTP/1.1\r\nX-API-Key: sk_x\r\n"),
            "{heartbeat}"
        );
        assert!(heartbeat.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{heartbeat}");
        assert!(!heartbeat.contains("Content-Type"), "{heartbeat}");
        let verify = relay.request("POST", "/relay/verify", Some("{}")).unwrap();
        assert!(!String::from_utf8(verify).unwrap().contains("X-API-Key"));
        assert!(serde_json::from_str::<Value>(&status_of("a\"b")).unwrap()["relayId"] == "a\"b");
    }

    #[test]
    fn heads_are_read() {
        let (status, headers) = head_of(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nx: a:b\r\n\r\n").unwrap();
        assert_eq!(
            (status, headers["content-length"].as_bytes(), &headers["x"]),
            (200, &b"7"[..], &HeaderValue::from_static("a:b"))
        );
        for odd in [
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 2x0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(head_of(odd.as_bytes()).is_err(), "{odd}");
        }
    }
}
