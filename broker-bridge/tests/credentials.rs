//! What relays with keys keep, and how it is changed, over both fronts and a real broker.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "some of it is for the tests of feeds")]
mod bench;
#[path = "credentials/changes.rs"]
mod changes;
#[path = "credentials/inventory.rs"]
mod inventory;
#[path = "credentials/shared.rs"]
mod shared;

use anyhow::{Context as _, Result, ensure};
use bench::{Bench, Console};
use serde_json::Value;
use signalbox_link::{Store, Stored};
use signalbox_schemas::{
    api::{InventoryView, Listed, op},
    authors::Right,
    credential::{CredentialMeta, CredentialType, StorageMode},
    id::{MachineToken, Workspace},
    inventory::Inventory,
    label::LabelMap,
    sealed::OpeningKey,
    signed::{Signed, SigningKey},
};
use signalbox_testkit::eventually;

pub(crate) fn meta(name: &str, target: &str) -> CredentialMeta {
    CredentialMeta {
        credential_name: name.to_owned(),
        credential_type: CredentialType::SshKey,
        target_host: Some(target.to_owned()),
        storage_mode: StorageMode::RelayOnly,
        last_updated_at: 7,
        username: Some("ops".to_owned()),
        created_at: Some(6),
    }
}

/// The list of a machine, as its relay would make it.
pub(crate) fn list(
    machine: &str,
    key: &SigningKey,
    revision: u64,
    credentials: Vec<CredentialMeta>,
) -> Result<Inventory> {
    Ok(Inventory {
        ws: Workspace::main(),
        mid: MachineToken::new(machine)?,
        revision,
        sealing_key: OpeningKey::of_machine(key)?.public().clone(),
        credentials,
        left_out: 0,
        problem: None,
        labels: LabelMap::new(),
        facts: None,
        crit: vec!["sealing_key".to_owned()],
    })
}

/// Puts something where a machine's list is.
pub(crate) async fn put(bench: &Bench, machine: &str, body: Vec<u8>) -> Result<Stored> {
    Ok(bench.link.store(Store::new(format!("inv.main.{machine}"), body)).await?)
}

/// A machine says what it keeps.
pub(crate) async fn say(
    bench: &Bench,
    machine: &str,
    revision: u64,
    credentials: Vec<CredentialMeta>,
) -> Result<()> {
    let key = bench.machine_key(machine)?;
    put(bench, machine, Signed::sign(&list(machine, key, revision, credentials)?, key)?.to_json()).await?;
    Ok(())
}

pub(crate) async fn listed(console: &Console, args: &Value) -> Result<Listed<InventoryView>> {
    let answer =
        console.read(op::INVENTORY_LIST, args).await?.map_err(|problem| anyhow::anyhow!("{problem}"))?;
    Ok(serde_json::from_value(answer)?)
}

/// The revision that is shown of each machine, once it is as wanted.
pub(crate) async fn shows(console: &Console, wanted: &[(&str, Option<u64>)]) -> Result<()> {
    eventually("what is shown of the lists", || async {
        let all = listed(console, &serde_json::json!({"on": "all"})).await?;
        let revision = |view: &InventoryView| {
            let inventory = view.inventory.as_ref().map(Signed::peek).transpose()?;
            anyhow::Ok((view.token.to_string(), inventory.map(|inventory| inventory.revision)))
        };
        let found = all.items.iter().map(revision).collect::<Result<Vec<_>>>()?;
        let wanted: Vec<_> = wanted.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        ensure!(found == wanted, "{found:?} instead of {wanted:?}");
        Ok(())
    })
    .await
}

/// Lets an operator put credentials and host keys, too.
pub(crate) async fn give_rights(bench: &Bench, operator: &str, rights: &[Right]) -> Result<()> {
    let name = format!("operator:{operator}");
    bench
        .publish(|authors| {
            for author in authors.authors.iter_mut().filter(|author| author.name == name) {
                author.rights = rights.to_vec();
            }
        })
        .await
}

pub(crate) async fn refused(bench: &Bench, reason: &str, least: u64) -> Result<()> {
    let name = format!("refused.INV.{reason}");
    eventually("a refusal is counted", || async {
        let health = bench.http.json("/health").await?;
        let count = health["counters"].get(&name).and_then(Value::as_u64).unwrap_or_default();
        ensure!(count >= least, "{name} is {count}: {}", health["counters"]);
        Ok(())
    })
    .await
    .context(name.clone())
}
