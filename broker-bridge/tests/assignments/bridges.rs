//! Two bridges and one record.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use signalbox_bridge::broker_link::BrokerLink;
use signalbox_link::{Link, Options};
use signalbox_schemas::{
    credential::{CredentialType, SharedCredentialRecord},
    id::{BridgeId, Workspace},
    record::table,
    signed::{PublicKey, SigningKey},
    stream::{self, STATE},
};
use signalbox_testkit::Broker;

use super::NOBODY;

fn new_key() -> Result<SigningKey> {
    Ok(SigningKey::from_seed(&nkeys::KeyPair::new_user().seed()?)?)
}

#[tokio::test]
async fn two_bridges_that_change_one_record_lose_nothing() -> Result<()> {
    const EACH: usize = 25;
    let broker = Broker::start().await?;
    let keys = [Arc::new(new_key()?), Arc::new(new_key()?)];
    let publics: Vec<PublicKey> = keys.iter().map(|key| key.public().clone()).collect();
    let mut bridges = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let link = Link::connect(Options::plain(&broker.url(), "bridge", None)).await?;
        let id = BridgeId::new(format!("b{n}"))?;
        bridges.push(BrokerLink::new(link, Workspace::main(), id, Arc::clone(key)));
    }
    bridges[0].ensure_streams().await?;
    let first = SharedCredentialRecord {
        ws: Workspace::main(),
        id: NOBODY.to_owned(),
        name: "n".to_owned(),
        credential_type: CredentialType::Password,
        target_host: None,
        encrypted_value: "x".to_owned(),
        assigned: Vec::new(),
        created_by: "token:admin".to_owned(),
        created_at: 1,
        updated_at: 1,
        kept: None,
        removed_at: None,
        revision: 0,
    };
    let known = |key: &PublicKey, _| publics.contains(key);
    let edit = async |bridge: &BrokerLink, name: String| {
        let add = |stands: Option<SharedCredentialRecord>| {
            let mut record = stands.unwrap_or_else(|| first.clone());
            if !record.assigned.contains(&name) {
                record.assigned.push(name.clone());
            }
            Some(record)
        };
        bridge.edit_record(table::SHARED_CREDENTIALS, NOBODY, known, add).await
    };
    let of_one = async |n: usize| {
        for i in 0..EACH {
            edit(&bridges[n], format!("{n}-{i}")).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (a, b) = tokio::join!(of_one(0), of_one(1));
    a.and(b)?;
    let untouched = bridges[0].edit_record(table::SHARED_CREDENTIALS, NOBODY, known, |_| None);
    let (record, cursors) = untouched.await?;
    let mut record: SharedCredentialRecord = record.context("it stands there")?;
    record.assigned.sort();
    let mut all: Vec<_> = (0..2).flat_map(|n| (0..EACH).map(move |i| format!("{n}-{i}"))).collect();
    all.sort();
    assert_eq!(record.assigned, all);
    let last = bridges[1].link().stream_state(stream::STATE).await?.last;
    assert_eq!((cursors.get(STATE).sequence, last), (last, 2 * EACH as u64), "each is one edition");

    // What is no bridge's does not count, also when it is the newest.
    let stranger = |key: &PublicKey, _| *key == publics[0];
    let seen = bridges[0].edit_record(table::SHARED_CREDENTIALS, "other", stranger, |stands| {
        stands.or_else(|| Some(SharedCredentialRecord { id: "other".to_owned(), ..first.clone() }))
    });
    seen.await?;
    let foreign = SharedCredentialRecord { name: "foreign".to_owned(), ..first.clone() };
    bridges[1].put_record(table::SHARED_CREDENTIALS, "other", &foreign).await?;
    let (seen, _) = bridges[0].edit_record(table::SHARED_CREDENTIALS, "other", stranger, |_| None).await?;
    assert_eq!(seen.map(|record: SharedCredentialRecord| record.name).as_deref(), Some("n"));
    Ok(())
}
