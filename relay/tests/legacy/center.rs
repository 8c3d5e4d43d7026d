//! A center made of a register of commands and a script: real TCP, real HTTP, and whatever answers a test wants.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{eventually, eventually_within};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// The key that the center knows.
pub(crate) const KEY: &str = "sk_test_0123456789";

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    /// Method and path, with the query.
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON in {}", self.line))
    }
}

/// What the center answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Json(u16, Value),
    Raw(u16, &'static str, &'static str),
    /// Another place.
    Elsewhere(String),
    /// The connection ends.
    Drop,
    /// What was asked for is done, and then the connection ends.
    DoneAndDropped,
    /// Later.
    Held(Duration, Box<Reply>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Claimed,
    Ended,
}

#[derive(Default)]
struct Inner {
    requests: Vec<Request>,
    commands: Vec<(Value, State)>,
    results: Vec<Value>,
    pushes: Vec<Value>,
    /// By method and path without a query: what is answered next, and from then on.
    scripts: HashMap<String, VecDeque<Reply>>,
    always: HashMap<String, Reply>,
}

/// A center. Ends with this value.
pub(crate) struct Center {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
    _server: JoinSet<()>,
}

impl Center {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    /// A center at an address that another one may just have left.
    pub(crate) async fn start_at(address: &str) -> Result<Self> {
        Self::start_with(address, None).await
    }

    /// A center that speaks TLS.
    pub(crate) async fn start_with(address: &str, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener =
            eventually("the address is free", || async { Ok(TcpListener::bind(address).await?) }).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let inner = Arc::new(Mutex::new(Inner::default()));
        let mut server = JoinSet::new();
        let shared = Arc::clone(&inner);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let Some(tls) = tls else { return drop(serve(stream, &shared).await) };
                    // A client that does not trust this center goes away.
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(serve(stream, &shared).await);
                    }
                });
            }
        });
        Ok(Self { url, inner, _server: server })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }

    /// Answers the next requests of a route in this way.
    pub(crate) fn script(&self, route: &str, replies: impl IntoIterator<Item = Reply>) {
        self.inner().scripts.entry(route.to_owned()).or_default().extend(replies);
    }

    /// Answers a route in this way from now on, after what is scripted.
    pub(crate) fn always(&self, route: &str, reply: Reply) {
        self.inner().always.insert(route.to_owned(), reply);
    }

    /// Answers a route as a center does again.
    pub(crate) fn as_usual(&self, route: &str) {
        let mut inner = self.inner();
        inner.always.remove(route);
        inner.scripts.remove(route);
    }

    /// Offers a command.
    pub(crate) fn queue(&self, id: &str, command: &str) {
        self.queue_with(id, command, json!({}));
    }

    /// Offers a command with other members.
    pub(crate) fn queue_with(&self, id: &str, command: &str, members: Value) {
        let mut entry = json!({
            "_id": id, "command": command, "targetType": "local", "targetPort": 22, "timeoutMs": 30_000, "createdAt": 1,
        });
        if let (Value::Object(entry), Value::Object(members)) = (&mut entry, members) {
            entry.extend(members);
        }
        self.inner().commands.push((entry, State::Pending));
    }

    /// Offers a command again, whatever became of it.
    pub(crate) fn offer_again(&self, id: &str) {
        for (command, state) in &mut self.inner().commands {
            if *member(command, "_id") == id {
                *state = State::Pending;
            }
        }
    }

    pub(crate) fn push(&self, id: &str, kind: &str, payload: &str) {
        let push = json!({"_id": id, "pushType": kind, "payload": payload, "createdAt": 1});
        self.inner().pushes.push(push);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.inner().requests.clone()
    }

    /// The requests of one route, by method and path with the query.
    pub(crate) fn requests_of(&self, line: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.line == line).collect()
    }

    /// Waits for so many requests of a route.
    pub(crate) async fn asked(&self, line: &str, times: usize, bound: Duration) -> Result<Vec<Request>> {
        eventually_within(line, bound, || async {
            let found = self.requests_of(line);
            ensure!(found.len() >= times, "{} of {times}", found.len());
            Ok(found)
        })
        .await
    }

    pub(crate) fn results_of(&self, id: &str) -> Vec<Value> {
        self.inner().results.iter().filter(|result| *member(result, "commandId") == id).cloned().collect()
    }

    /// Waits for a command's result.
    pub(crate) async fn result(&self, id: &str, bound: Duration) -> Result<Value> {
        eventually_within(&format!("the result of {id}"), bound, || async {
            self.results_of(id).into_iter().next().context("none")
        })
        .await
    }
}

/// What a test that failed left behind is still looked at.
fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A member of an object, or `null`.
pub(crate) fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

/// Serves one connection until it ends.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Mutex<Inner>) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let mut reply = {
            let mut inner = locked(shared);
            inner.requests.push(request.clone());
            inner.reply(&request)
        };
        while let Reply::Held(time, then) = reply {
            tokio::time::sleep(time).await;
            reply = *then;
        }
        let (status, headers, body) = match reply {
            Reply::Json(status, body) => {
                (status, "Content-Type: application/json\r\n".to_owned(), body.to_string())
            }
            Reply::Raw(status, kind, body) => (status, format!("Content-Type: {kind}\r\n"), body.to_owned()),
            Reply::Elsewhere(url) => (307, format!("Location: {url}\r\n"), String::new()),
            Reply::Drop | Reply::DoneAndDropped | Reply::Held(..) => return Ok(()),
        };
        let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
    Ok(())
}

async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<Option<Request>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer.get(..end).unwrap_or_default().to_vec())?;
    let mut lines = head.split("\r\n");
    let line = lines.next().context("no line")?;
    let line = line.strip_suffix(" HTTP/1.1").context("another protocol")?.to_owned();
    let mut headers = HashMap::new();
    for header in lines {
        let (name, value) = header.split_once(": ").context("no header")?;
        ensure!(headers.insert(name.to_lowercase(), value.to_owned()).is_none(), "{name} twice");
    }
    if headers.contains_key("transfer-encoding") {
        bail!("a body without a length");
    }
    let length: usize = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    while buffer.len() < end + 4 + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let rest = buffer.split_off(end + 4 + length);
    let body = std::mem::replace(buffer, rest).split_off(end + 4);
    Ok(Some(Request { at: Instant::now(), line, headers, body }))
}

impl Inner {
    fn reply(&mut self, request: &Request) -> Reply {
        let route = request.line.split('?').next().unwrap_or_default().to_owned();
        let scripted = self.scripts.get_mut(&route).and_then(VecDeque::pop_front);
        match scripted.or_else(|| self.always.get(&route).cloned()) {
            Some(Reply::DoneAndDropped) => {
                self.usual(&route, request);
                Reply::Drop
            }
            Some(reply) => reply,
            None => self.usual(&route, request),
        }
    }

    /// What a center answers that follows the rules.
    fn usual(&mut self, route: &str, request: &Request) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if route == "POST /relay/verify" {
            return if *member(&body, "apiKey") == KEY {
                let known =
                    json!({"valid": true, "assignmentId": "asg 1", "machineId": "mach_1", "name": "Stub"});
                Reply::Json(200, known)
            } else {
                Reply::Json(401, json!({"error": "Invalid API key"}))
            };
        }
        let unknown = Reply::Raw(404, "text/plain", "No HttpAction routed");
        if route == "POST /enroll" {
            return unknown;
        }
        if request.headers.get("x-api-key").is_none_or(|key| key != KEY) {
            return Reply::Json(401, json!({"error": "Invalid API key"}));
        }
        match route {
            "GET /relay/commands" => {
                let pending = self.commands.iter().filter(|(_, state)| *state == State::Pending);
                let commands: Vec<&Value> = pending.map(|(command, _)| command).take(10).collect();
                Reply::Json(200, json!({"commands": commands}))
            }
            "POST /relay/commands/claim" => {
                match self
                    .commands
                    .iter_mut()
                    .find(|(command, _)| *member(command, "_id") == *member(&body, "commandId"))
                {
                    Some((command, state)) if *state == State::Pending => {
                        *state = State::Claimed;
                        Reply::Json(200, json!({"success": true, "command": command}))
                    }
                    Some(_) => Reply::Json(400, json!({"success": false, "error": "Command is not pending"})),
                    None => Reply::Json(400, json!({"success": false, "error": "Command not found"})),
                }
            }
            "POST /relay/commands/result" => {
                for (command, state) in &mut self.commands {
                    if *member(command, "_id") == *member(&body, "commandId") {
                        *state = State::Ended;
                    }
                }
                self.results.push(body);
                Reply::Json(200, json!({"success": true}))
            }
            "POST /relay/heartbeat" => Reply::Json(200, json!({"success": true})),
            "POST /relay/status" => {
                let (success, pending) = (true, self.pushes.len());
                Reply::Json(
                    200,
                    json!({"success": success, "pendingConfigPushes": pending, "sharedCredentialsCount": 0}),
                )
            }
            "GET /relay/config/pending" => Reply::Json(200, json!({"pushes": self.pushes})),
            "GET /relay/config-pushes" => Reply::Json(200, json!({"configPushes": self.pushes})),
            "POST /relay/config/ack" | "POST /relay/config-pushes/ack" => {
                self.pushes.retain(|push| *member(push, "_id") != *member(&body, "pushId"));
                Reply::Json(200, json!({"success": true}))
            }
            _ => unknown,
        }
    }
}
