//! What stands in RUN about a run: one word in its register, and at most one end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use serde_json::{Value, json};
use signalbox_schemas::{
    run::{Claim, Exit, Lost, Withdrawal},
    signed::{Message, Signed},
};
use signalbox_testkit::{eventually::eventually_within, http::Http, stack::Stack};

use super::wire::{administrator, messages};

/// Kinds of facts, and what each of them is.
type Kinds<'a> = &'a [(&'a str, &'a str)];
/// A run that was started and whose end is known.
pub(super) const EXITED: Kinds<'_> = &[("claim", "claim"), ("exit", "exit")];
/// A run that was claimed and of which nobody knows the end.
pub(super) const LOST: Kinds<'_> = &[("claim", "claim"), ("lost", "lost")];
/// A run that its machine refused.
pub(super) const REJECTED: Kinds<'_> = &[("claim", "rejection")];
/// A run that was taken back before anybody claimed it.
pub(super) const WITHDRAWN: Kinds<'_> = &[("claim", "withdrawal")];

/// The facts about a run by kind: sequence, type and envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts(BTreeMap<String, (u64, String, Vec<u8>)>);

impl Facts {
    /// All that stands in RUN about a command on a machine.
    pub(super) async fn of(stack: &Stack, id: &str, machine: &str) -> Result<Self> {
        let (client, _) = administrator(stack).await?;
        let subject = format!("run.main.{machine}.{id}.");
        let mut facts = BTreeMap::new();
        for message in messages(&jetstream::new(client), "RUN").await? {
            let Some(kind) = message.subject.strip_prefix(&subject) else { continue };
            let is = message.headers.get("Sb-Type").context("no type")?.to_string();
            let fact = (message.sequence, is, message.payload.to_vec());
            ensure!(facts.insert(kind.to_owned(), fact).is_none(), "{subject}{kind} was written twice");
        }
        Ok(Self(facts))
    }

    /// The payload of one kind, whoever signed it as a `T`.
    pub(super) fn read<T: Message>(&self, kind: &str) -> Result<T> {
        let (.., envelope) = self.0.get(kind).with_context(|| format!("no {kind} in {:?}", self.kinds()))?;
        Ok(Signed::<T>::from_json(envelope)?.open(|_| true)?)
    }

    /// What the first word in the register is.
    pub(super) fn register(&self) -> Result<&'static str> {
        let claim = self.read::<Claim>("claim").map(|_| "claim");
        claim.or_else(|_| self.read::<Withdrawal>("claim").map(|_| "withdrawal"))
    }

    fn kinds(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(kind, (_, is, _))| (kind.as_str(), is.as_str())).collect()
    }
}

/// The command has exactly these facts on each machine, and after a further heartbeat the same ones and the same
/// state.
pub(super) async fn one_end(stack: &Stack, http: &Http, id: &str, expected: Kinds<'_>) -> Result<()> {
    let path = format!("/api/v1/commands/{id}");
    let command = http.json(&path).await?;
    let mut before = Vec::new();
    for machine in &stack.ready().machines {
        let facts = Facts::of(stack, id, &machine.token).await?;
        assert_eq!(facts.kinds(), expected, "{}: {command}", machine.id);
        let ended_by = match expected {
            EXITED => Some(facts.read::<Exit>("exit")?.nonce),
            LOST => Some(facts.read::<Lost>("lost")?.nonce),
            _ => None,
        };
        if let Some(nonce) = ended_by {
            assert_eq!(facts.read::<Claim>("claim")?.nonce, nonce, "ended by somebody else");
        }
        before.push((machine, facts));
    }
    a_heartbeat_later(http).await?;
    for (machine, facts) in before {
        assert_eq!(Facts::of(stack, id, &machine.token).await?, facts, "{}", machine.id);
    }
    assert_eq!(http.json(&path).await?, command);
    Ok(())
}

/// Waits until every machine has said something more.
async fn a_heartbeat_later(http: &Http) -> Result<()> {
    let seen = async || -> Result<Vec<Value>> {
        let machines = http.json("/api/v1/machines").await?;
        let items = machines["items"].as_array().context("no machines")?;
        Ok(items.iter().map(|machine| machine["last_seen_at"].clone()).collect())
    };
    let before = seen().await?;
    eventually_within("a heartbeat", Duration::from_secs(30), || async {
        let now = seen().await?;
        let is_newer = |(now, before): (&Value, &Value)| now.as_u64() > before.as_u64();
        ensure!(now.iter().zip(&before).all(is_newer), "{}", json!(now));
        Ok(())
    })
    .await
}
