//! `signalbox decode`: explains signed messages in what `nats` prints.
//!
//! For eyes, never for decisions. The envelope does not name its type; the type is the one under which the
//! signature is right.

use std::io::Read as _;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::Serialize;
use serde_json::{Map, Value};
use signalbox_schemas::{
    api::Request,
    audit::AuditEntry,
    authors::Authors,
    command::{CommandSpec, Grant},
    config::ConfigPushRecord,
    credential::{SharedCredentialRecord, SharedSecret},
    enrol::Enrolment,
    error::report,
    event::Event as SystemEvent,
    inventory::Inventory,
    layout::Layout,
    mailbox::Mailbox,
    record::{ApiKeyRecord, AssignmentRecord, DoneCommand, DoneRun, MachineRecord, OperatorRecord},
    relay::RelayRecord,
    rollout::Progress,
    run::{Claim, Exit, Lost, Rejection, Start, Withdrawal},
    signed::{Message, PublicKey, Signed, SignedError},
};

use super::{
    call, clean, event,
    exit::{self, Failure},
};
use crate::args;

/// Most that is read: a listing of many thousand messages.
const INPUT_BYTES: u64 = 256 * 1024 * 1024;
/// Messages within messages: a mailbox holds grants, a settled run holds facts. More than that is not ours.
const DEPTH: usize = 6;
/// Longest JSON value that is looked for: the largest message on the broker, in base64, with its frame.
const VALUE_BYTES: usize = 2 * 1024 * 1024;

/// What a signature is worth here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Right, by a key that is known here.
    Verified,
    /// Right, by a key that is not known here.
    UnknownKey,
    /// Wrong, or of a type that this version does not know.
    Wrong,
}

/// A message, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// The type under which the signature is right; `null` when it is not.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// Whose key it is, if known here and if it signed this: with a wrong signature the key is but a claim.
    pub signer: Option<String>,
    /// The key.
    pub key: PublicKey,
    /// What the signature is worth.
    pub signature: Verdict,
    /// What it says; messages within are explained too.
    pub payload: Value,
    /// Whether its signature, or that of a message within, is wrong.
    #[serde(skip)]
    pub holds_wrong: bool,
}

/// Keys and whose they are.
#[derive(Debug, Default)]
pub struct Keys {
    names: Vec<(PublicKey, String)>,
    /// Until when each counted, Unix ms, where it is a former one.
    bridges: Vec<(PublicKey, Option<u64>)>,
}

impl Keys {
    /// Keys of a state directory: of the authors document, the fleet, its machines. What is not there or not
    /// right is left out.
    pub fn load(layout: &Layout) -> Self {
        let mut keys = Self::default();
        let text = |path: std::path::PathBuf| std::fs::read(path).ok();
        let fleet = text(layout.fleet_pub()).and_then(|key| String::from_utf8(key).ok());
        let fleet: Option<PublicKey> = fleet.and_then(|key| key.trim().parse().ok());
        if let Some(fleet) = &fleet {
            keys.add(fleet.clone(), "fleet");
        }
        let document = text(layout.authors()).and_then(|bytes| Signed::<Authors>::from_json(&bytes).ok());
        // Without the fleet key the document is taken at its word, as the directory is the user's own.
        let trusted = |key: &PublicKey| fleet.as_ref().is_none_or(|fleet| fleet == key);
        if let Some(authors) = document.and_then(|document| document.open(trusted).ok()) {
            for author in &authors.authors {
                keys.add(author.key.clone(), &author.name);
            }
            for bridge in authors.bridges {
                keys.bridges.push((bridge.clone(), None));
                keys.add(bridge, "bridge");
            }
            for former in authors.former_bridges {
                keys.bridges.push((former.key.clone(), Some(former.until)));
                keys.add(former.key, "former bridge");
            }
        }
        let machines = std::fs::read_dir(layout.machines_dir()).into_iter().flatten().flatten();
        for entry in machines {
            let record = text(entry.path().join("machine.json"));
            let record = record.and_then(|bytes| serde_json::from_slice::<MachineRecord>(&bytes).ok());
            if let Some((record, key)) = record.as_ref().and_then(|it| Some((it, it.signing_key()?))) {
                keys.add(key.clone(), &format!("machine:{}", record.id));
            }
        }
        keys
    }

    /// Adds a key; the first name stands.
    pub fn add(&mut self, key: PublicKey, name: &str) {
        if self.name(&key).is_none() {
            self.names.push((key, super::clean::line(name)));
        }
    }

    /// Whether any key of a bridge is known.
    pub fn knows_bridges(&self) -> bool {
        !self.bridges.is_empty()
    }

    /// Whether a key was a bridge's at a time, Unix ms.
    pub fn was_bridge(&self, key: &PublicKey, at: u64) -> bool {
        self.bridges.iter().any(|(known, until)| known == key && until.is_none_or(|until| at <= until))
    }

    fn name(&self, key: &PublicKey) -> Option<&str> {
        self.names.iter().find(|(known, _)| known == key).map(|(_, name)| name.as_str())
    }
}

/// Explains what comes on stdin, with the keys of a state directory if there is one. A signature that is wrong, also within another message, makes the exit code 1.
///
/// # Errors
/// [`Failure`] when nothing signed is found.
pub async fn decode(layout: Option<&Layout>, args: args::Decode) -> Result<u8, Failure> {
    let mut input = Vec::new();
    std::io::stdin()
        .lock()
        .take(INPUT_BYTES + 1)
        .read_to_end(&mut input)
        .map_err(|error| Failure::system("read stdin", &error))?;
    if input.len() as u64 > INPUT_BYTES {
        let line = format!("cannot decode: more than {INPUT_BYTES} bytes on stdin; decode them in parts");
        return Err(Failure::new(exit::FAILED, line));
    }
    let found = explain(&input, &layout.map(Keys::load).unwrap_or_default());
    if found.is_empty() {
        return Err(Failure::new(exit::FAILED, "cannot decode: no signed message on stdin"));
    }
    let text: Vec<u8> = if args.json {
        found.iter().flat_map(event::line).collect()
    } else {
        found.iter().map(show).collect::<Vec<_>>().join("\n").into_bytes()
    };
    let code = call::print(text).await?;
    Ok(if found.iter().any(|explained| explained.holds_wrong) { exit::FAILED } else { code })
}

fn show(explained: &Explained) -> String {
    let signer = explained.signer.as_deref().unwrap_or("unknown");
    let worth = match explained.signature {
        Verdict::Verified => "verified",
        Verdict::UnknownKey => "unverified: right, but the key is not known here",
        Verdict::Wrong => "WRONG: not signed by this key, or of an unknown type",
    };
    let payload = clean::json(&serde_json::to_string_pretty(&explained.payload).unwrap_or_default());
    format!(
        "type       {}\nsigner     {signer} {}\nsignature  {worth}\n{payload}\n",
        explained.kind.unwrap_or("unknown"),
        explained.key
    )
}

/// Every signed message in a text, in order: bare JSON, or JSON among other text, also in base64 members.
pub fn explain(text: &[u8], keys: &Keys) -> Vec<Explained> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = text.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'{')) {
        at += step;
        let window = text.get(at..text.len().min(at + VALUE_BYTES)).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(window).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                search(&value, keys, DEPTH, &mut found);
                at += values.byte_offset().max(1);
            }
            Some(Err(_)) | None => at += 1,
        }
    }
    found
}

fn search(value: &Value, keys: &Keys, depth: usize, found: &mut Vec<Explained>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    if let Some(explained) = explain_envelope(value, keys, depth) {
        found.push(explained);
        return;
    }
    match value {
        Value::Object(members) => members.values().for_each(|member| search(member, keys, depth, found)),
        Value::Array(items) => items.iter().for_each(|item| search(item, keys, depth, found)),
        Value::String(text) => {
            let decoded = BASE64.decode(text.as_bytes()).ok();
            let decoded = decoded.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(decoded) = decoded.filter(Value::is_object) {
                search(&decoded, keys, depth, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn explain_envelope(value: &Value, keys: &Keys, depth: usize) -> Option<Explained> {
    let members = value.as_object().filter(|members| members.len() == 3)?;
    let text = |name: &str| members.get(name)?.as_str();
    let key: PublicKey = text("key")?.parse().ok()?;
    text("sig")?;
    let payload = BASE64URL_NOPAD.decode(text("payload")?.as_bytes()).ok()?;
    let bytes = serde_json::to_vec(value).ok()?;
    let (kind, error) = kind_of(&bytes).map_or((None, None), |(kind, error)| (Some(kind), error));
    let signer = kind.and_then(|_| keys.name(&key)).map(str::to_owned);
    let signature = match (kind, &signer) {
        (None, _) => Verdict::Wrong,
        (Some(_), Some(_)) => Verdict::Verified,
        (Some(_), None) => Verdict::UnknownKey,
    };
    let mut holds_wrong = signature == Verdict::Wrong;
    let payload = match serde_json::from_slice(&payload) {
        Ok(payload) => expand(payload, keys, depth, &mut holds_wrong),
        Err(_) => Value::String(String::from_utf8_lossy(&payload).into_owned()),
    };
    if let Some(error) = error {
        tracing::warn!(error = report(&error), "payload is not what its type says");
    }
    Some(Explained { kind, signer, key, signature, payload, holds_wrong })
}

/// Makes messages within a payload readable; notes in `holds_wrong` when one of them is signed wrongly.
fn expand(value: Value, keys: &Keys, depth: usize, holds_wrong: &mut bool) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return value };
    if let Some(explained) = explain_envelope(&value, keys, depth) {
        *holds_wrong |= explained.holds_wrong;
        return serde_json::to_value(explained).unwrap_or(value);
    }
    match value {
        Value::Object(members) => {
            let expanded: Map<String, Value> = members
                .into_iter()
                .map(|(name, member)| {
                    let member = encoded(&name, &member).unwrap_or(member);
                    (name, expand(member, keys, depth, holds_wrong))
                })
                .collect();
            Value::Object(expanded)
        }
        Value::Array(items) => items.into_iter().map(|item| expand(item, keys, depth, holds_wrong)).collect(),
        other => other,
    }
}

/// Members that hold exact bytes of other JSON: the spec of an offer, the body of a stored fact.
fn encoded(name: &str, member: &Value) -> Option<Value> {
    let text = member.as_str().filter(|_| matches!(name, "spec" | "body"))?;
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    if name == "spec" {
        // DONE has them without what was sealed.
        return CommandSpec::from_settled_bytes(&bytes).ok().and_then(|spec| serde_json::to_value(spec).ok());
    }
    serde_json::from_slice(&bytes).ok()
}

type Attempt = fn(&[u8]) -> Option<(&'static str, Option<SignedError>)>;

/// The type under which the signature of an envelope is right.
fn kind_of(envelope: &[u8]) -> Option<(&'static str, Option<SignedError>)> {
    const KINDS: [Attempt; 25] = [
        attempt::<Claim>,
        attempt::<AuditEntry>,
        attempt::<Exit>,
        attempt::<Mailbox>,
        attempt::<Grant>,
        attempt::<Request>,
        attempt::<Rejection>,
        attempt::<Withdrawal>,
        attempt::<Start>,
        attempt::<Lost>,
        attempt::<Authors>,
        attempt::<MachineRecord>,
        attempt::<Inventory>,
        attempt::<OperatorRecord>,
        attempt::<AssignmentRecord>,
        attempt::<ApiKeyRecord>,
        attempt::<RelayRecord>,
        attempt::<SharedCredentialRecord>,
        attempt::<SharedSecret>,
        attempt::<ConfigPushRecord>,
        attempt::<Enrolment>,
        attempt::<DoneRun>,
        attempt::<DoneCommand>,
        attempt::<Progress>,
        attempt::<SystemEvent>,
    ];
    KINDS.iter().find_map(|attempt| attempt(envelope))
}

fn attempt<T: Message>(envelope: &[u8]) -> Option<(&'static str, Option<SignedError>)> {
    match Signed::<T>::from_json(envelope).ok()?.open(|_| true) {
        Ok(_) => Some((T::TYPE, None)),
        Err(error @ (SignedError::Payload(_) | SignedError::Critical(_))) => Some((T::TYPE, Some(error))),
        Err(_) => None,
    }
}
