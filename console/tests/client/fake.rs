//! A bridge that says what the test says, and somebody who may ask it.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde::de::DeserializeOwned;
use serde_json::Value;
use signalbox_console::client::Access;
use signalbox_link::{Headers, Link, Login, Options, Subscription};
use signalbox_schemas::{
    api::{Answer, AnswerBody, FeedEvent, Request, chunk},
    error::Problem,
    id::{OperatorId, RequestId, Workspace},
    layout::Layout,
    signed::{Signed, SigningKey},
    subject::Subject,
};
use signalbox_testkit::Broker;
use tempfile::TempDir;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

// The key of 32 sevens.
pub(super) const SEED: &str = include_str!("../seven.seed");
/// Nothing here takes longer, but for the waits that are tested.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// A broker that asks for a login and lets everybody in.
pub(super) async fn broker() -> Broker {
    let key = key().public().clone();
    Broker::start_with_config_text(&format!(
        "listen: 127.0.0.1:-1\nno_auth_user: any\n\
         authorization {{ users: [{{ nkey: {key} }}, {{ user: any, password: any }}] }}\n"
    ))
    .await
    .unwrap()
}

pub(super) fn key() -> SigningKey {
    SigningKey::from_seed(SEED).unwrap()
}

pub(super) fn access(broker: &Broker) -> Access {
    access_at(broker.url())
}

/// A token that says who it is for; nobody checks who signed it.
fn jwt() -> String {
    let claims = serde_json::json!({ "sub": key().public(), "name": "local" }).to_string();
    format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.as_bytes()))
}

pub(super) fn access_at(nats_url: String) -> Access {
    Access {
        ws: Workspace::main(),
        operator: OperatorId::new("local").unwrap(),
        nats_url,
        login: Login::new(&jwt(), SEED).unwrap(),
        key: Arc::new(key()),
    }
}

/// A bridge that says what the test says.
pub(super) struct Fake {
    link: Link,
    requests: Subscription,
}

impl Fake {
    pub(super) async fn start(broker: &Broker) -> Self {
        let link = Link::connect(Options::plain(&broker.url(), "fake", None)).await.unwrap();
        let requests = link.subscribe("api.main.local.*.*.*").await.unwrap();
        link.flush().await;
        Self { link, requests }
    }

    pub(super) async fn request(&mut self) -> (String, RequestId, Bytes) {
        let delivery = timeout(SOON, self.requests.next()).await.unwrap().unwrap();
        let Ok(Subject::Api(_, _, noun, verb, rid)) = Subject::parse(&delivery.subject) else {
            panic!("not a request: {}", delivery.subject);
        };
        assert!(!delivery.has_reply, "a request has a reply subject");
        (format!("{noun}.{verb}"), rid, delivery.payload)
    }

    /// The next request of one kind, and its arguments; others are left unanswered.
    pub(super) async fn wait_for<T: DeserializeOwned>(&mut self, wanted: &str) -> (RequestId, T) {
        loop {
            let (op, rid, body) = self.request().await;
            if op == wanted {
                return (rid, serde_json::from_slice(&body).unwrap());
            }
        }
    }

    pub(super) async fn answer(&self, rid: &RequestId, seq: u64, body: AnswerBody) {
        let answer = Answer { seq, bridge: "b1".to_owned(), body };
        let body = serde_json::to_vec(&answer).unwrap();
        self.link.publish(&subject(rid), None, body.into()).await.unwrap();
    }

    pub(super) async fn ok(&self, rid: &RequestId, value: impl serde::Serialize) {
        self.answer(rid, 0, AnswerBody::Ok(serde_json::to_value(value).unwrap())).await;
    }

    pub(super) async fn refuse(&self, rid: &RequestId, problem: Problem) {
        self.answer(rid, 0, AnswerBody::Error(problem)).await;
    }

    pub(super) async fn event(&self, rid: &RequestId, seq: u64, event: FeedEvent) {
        self.answer(rid, seq, AnswerBody::Event(Box::new(event))).await;
    }

    /// A chunk of demo-1's stdout; its position is where it ends.
    pub(super) async fn chunk(&self, rid: &RequestId, seq: u64, offset: usize, data: &[u8]) {
        let headers = Headers::new()
            .with(chunk::SEQ, &seq.to_string())
            .with(chunk::BRIDGE, "b1")
            .with(chunk::MACHINE, "demo-1")
            .with(chunk::STREAM, "stdout")
            .with(chunk::OFFSET, &offset.to_string())
            .with(chunk::POSITION, &(offset + data.len()).to_string());
        let data = Bytes::copy_from_slice(data);
        self.link.publish(&subject(rid), Some(headers), data).await.unwrap();
    }
}

impl Fake {
    /// A range of output, as the answer to `commands.output`.
    pub(super) async fn range(&self, rid: &RequestId, offset: usize, total: usize, data: &[u8]) {
        let headers = Headers::new()
            .with(chunk::SEQ, "0")
            .with(chunk::BRIDGE, "b1")
            .with(chunk::OFFSET, &offset.to_string())
            .with(chunk::TOTAL, &total.to_string());
        let data = Bytes::copy_from_slice(data);
        self.link.publish(&subject(rid), Some(headers), data).await.unwrap();
    }
}

pub(super) fn subject(rid: &RequestId) -> String {
    Subject::Feed(Workspace::main(), OperatorId::new("local").unwrap(), rid.clone()).to_string()
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

/// A request as it came in.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) op: String,
    pub(super) rid: RequestId,
    pub(super) is_signed: bool,
    pub(super) args: Value,
}

/// A state directory whose operator asks the fake.
pub(super) struct Desk {
    pub(super) fake: Fake,
    pub(super) dir: TempDir,
    _broker: Broker,
}

impl Desk {
    pub(super) async fn start() -> Self {
        let broker = broker().await;
        let fake = Fake::start(&broker).await;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for folder in ["creds", "keys", "run"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(layout.state_json(), "{}").unwrap();
        let block =
            |name: &str, text: &str| format!("-----BEGIN {name}-----\n{text}\n------END {name}------\n");
        let creds = block("NATS USER JWT", &jwt()) + &block("USER NKEY SEED", SEED.trim());
        fs::write(layout.creds("operator-local"), creds).unwrap();
        fs::write(layout.seed("operator-local"), SEED).unwrap();
        fs::write(dir.path().join("run/nats.url"), broker.url()).unwrap();
        Self { fake, dir, _broker: broker }
    }

    /// Starts the program.
    pub(super) fn signalbox(&self, args: &[&str], input: &[u8]) -> JoinHandle<Ended> {
        let mut program = Command::new(env!("CARGO_BIN_EXE_signalbox"));
        program.args(args).env_clear().env("SIGNALBOX_STATE_DIR", self.dir.path());
        let mut child =
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may not want any.
        let _ = child.stdin.take().unwrap().write_all(input);
        spawn_blocking(move || {
            let output = child.wait_with_output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
        })
    }

    /// The next request, opened if it is signed.
    pub(super) async fn asked(&mut self) -> Asked {
        let (op, rid, body) = self.fake.request().await;
        if let Ok(signed) = Signed::<Request>::from_json(&body) {
            let request = signed.open(|by| by == key().public()).unwrap();
            assert_eq!(request.op, op);
            return Asked { op, rid, is_signed: true, args: request.args };
        }
        // To close a feed there is nothing to say.
        let args = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Asked { op, rid, is_signed: false, args }
    }
}
