//! HTTP as a test's client speaks it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

/// Longest single request: a long poll of 60 s and some.
const REQUEST: Duration = Duration::from_secs(75);

/// Largest answer that is read.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// A client with a bearer token.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    base: String,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("reading {:?} as JSON", String::from_utf8_lossy(&self.body)))
    }

    /// The body as text, for people.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Http {
    /// A client of the server at `base`, as the holder of `token`.
    pub fn new(base: &str, token: &str) -> Self {
        Self { agent: agent(REQUEST), base: base.to_owned(), token: token.to_owned() }
    }

    /// The same client, whose requests may take so long each.
    #[must_use]
    pub fn patient(&self, patience: Duration) -> Self {
        Self { agent: agent(patience), ..self.clone() }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The same server, another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// One request.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let what = format!("{method} {path}");
        let agent = self.agent.clone();
        let task = tokio::task::spawn_blocking(move || -> Result<Answer> {
            let response = agent.run(request.body(body)?)?;
            let (parts, mut body) = response.into_parts();
            let body = body.with_config().limit(ANSWER_BYTES).read_to_vec()?;
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        });
        task.await?.context(what)
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.request("GET", path, &[], Vec::new()).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request("POST", path, &[("content-type", "application/json")], serde_json::to_vec(body)?).await
    }

    /// GET that must answer 200 with JSON.
    ///
    /// # Errors
    /// When it answers anything else.
    pub async fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path).await?;
        ensure!(
            answer.status == 200,
            "GET {path} answers {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// Submits a command and answers its id.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn submit(&self, on: &str, command: &str) -> Result<String> {
        self.submit_with(&json!({"on": on, "command": command})).await
    }

    /// Submits a command with all its members and answers its id.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn submit_with(&self, body: &Value) -> Result<String> {
        let answer = self.post("/api/v1/commands", body).await?;
        let json = answer.json()?;
        ensure!(answer.status == 202, "submit answers {}: {json}", answer.status);
        Ok(json.get("id").and_then(Value::as_str).context("no id")?.to_owned())
    }

    /// Waits until every run of a command has settled.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn settled(&self, id: &str) -> Result<Value> {
        self.settled_within(id, 6, "").await
    }

    /// Waits until every run of a command has settled, at most `rounds` long polls of 10 s; answers with one run of
    /// them, as all are work for the bridge.
    ///
    /// # Errors
    /// When it does not settle.
    pub async fn settled_in_short(&self, id: &str, rounds: u32) -> Result<Value> {
        self.settled_within(id, rounds, "&limit=1").await
    }

    async fn settled_within(&self, id: &str, rounds: u32, page: &str) -> Result<Value> {
        let mut last = Value::Null;
        for _ in 0..rounds {
            let answer = self.get(&format!("/api/v1/commands/{id}/wait?timeout_ms=10000{page}")).await?;
            last = answer.json()?;
            match answer.status {
                200 => return Ok(last),
                202 => {}
                status => bail!("wait answers {status}: {last}"),
            }
        }
        bail!("command {id} has not settled: {last}")
    }

    /// Submits and waits.
    ///
    /// # Errors
    /// When it is not accepted or does not settle.
    pub async fn run(&self, on: &str, command: &str) -> Result<Value> {
        let id = self.submit(on, command).await?;
        self.settled(&id).await
    }

    /// The whole of one stream of a run.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub async fn output(&self, id: &str, machine: &str, stream: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let offset = bytes.len();
            let path = format!("/api/v1/commands/{id}/output?machine={machine}&stream={stream}");
            let answer = self.get(&format!("{path}&offset={offset}&limit=8388608")).await?;
            ensure!(answer.status == 200, "output answers {}", answer.status);
            let total: usize = answer.header("signalbox-total").context("no total")?.parse()?;
            bytes.extend_from_slice(&answer.body);
            if bytes.len() >= total {
                return Ok(bytes);
            }
            ensure!(!answer.body.is_empty(), "output stops at {offset} of {total}");
        }
    }
}

fn agent(patience: Duration) -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience)).build().into()
}

/// The run on `machine` in a command's JSON.
///
/// # Errors
/// When there is none.
pub fn run_on<'a>(command: &'a Value, machine: &str) -> Result<&'a Value> {
    let runs = command.get("runs").and_then(Value::as_array).context("no runs")?;
    runs.iter()
        .find(|run| run.get("machine").is_some_and(|name| name == machine))
        .with_context(|| format!("no run on {machine}: {command}"))
}
