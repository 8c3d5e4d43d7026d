//! What a relay keeps for its machine, and who may change it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use signalbox_relay::keeper::client::KeeperClient;
use signalbox_schemas::{
    Base64Url,
    command::{Change, CommandSpec, Grant, HostKeys, PutCredential},
    credential::{CredentialLabel, CredentialType, CredentialValue, StorageMode},
    id::{CommandId, CredentialName, MachineToken, Workspace},
    mailbox::Offer,
    run::{Exit, ExitState, RejectReason},
    sealed::{ContentKey, Context, OpeningKey, Recipient, SealingKey},
    signed::SigningKey,
    subject::FactKind,
};
use signalbox_testkit::{eventually, process::Signal};

use crate::harness::{Fleet, Machine, Relay, grant, sign_offer, spec};

/// Found nowhere but where it belongs.
const MARKER: &str = "hunter2-6b1f0c";

pub(crate) fn name(text: &str) -> Result<CredentialName> {
    Ok(CredentialName::new(text)?)
}

pub(crate) fn password() -> CredentialValue {
    CredentialValue::Password { password: MARKER.to_owned().into() }
}

pub(crate) fn label(text: &str, target: &str) -> Result<CredentialLabel> {
    Ok(CredentialLabel {
        name: name(text)?,
        credential_type: CredentialType::Password,
        target: Some(target.parse()?),
        username: Some("root".into()),
        storage_mode: StorageMode::RelayOnly,
    })
}

pub(crate) fn changing(change: &Change) -> CommandSpec {
    spec(&change.summary(), |spec| {
        spec.change = Some(change.clone());
        spec.crit = vec!["change".into()];
    })
}

/// A credential for a machine, sealed for a key that is said to be its relay's.
pub(crate) struct Push {
    pub(crate) spec: CommandSpec,
    grant: Grant,
}

impl Push {
    pub(crate) fn new(
        machine: &Machine,
        label: CredentialLabel,
        value: &CredentialValue,
        to: &SealingKey,
    ) -> Result<Self> {
        Self::sealed_as(machine, label, value, (to, &machine.mid))
    }

    /// Until then it may wait.
    pub(crate) fn expiring_at(mut self, machine: &Machine, expires_at: u64) -> Result<Self> {
        self.spec.expires_at = expires_at;
        self.grant = Grant { sealed: self.grant.sealed, ..grant(machine, &self.spec)? };
        Ok(self)
    }

    fn sealed_as(
        machine: &Machine,
        label: CredentialLabel,
        value: &CredentialValue,
        (to, mid): (&SealingKey, &MachineToken),
    ) -> Result<Self> {
        let mut spec = spec("put", |_| {});
        let ws = Workspace::main();
        let name = label.name.clone();
        let context = Context { ws: &ws, name: name.as_str(), cid: spec.cid };
        let key = ContentKey::new([9; 32]);
        let body = key.seal(&value.to_json(), context, [5; 24])?;
        let sealed = key.wrap(to, context, Recipient::Machine(mid), [4; 32])?;
        spec.change = Some(Change::PutCredential(PutCredential { label, body }));
        spec.crit = vec!["change".into()];
        let grant = Grant { sealed: Some(sealed), ..grant(machine, &spec)? };
        Ok(Self { spec, grant })
    }

    pub(crate) fn by(&self, author: &SigningKey) -> Result<(CommandId, Offer)> {
        Ok((self.spec.cid, sign_offer(&self.spec, &self.grant, author)?))
    }
}

pub(crate) async fn push(
    fleet: &Fleet,
    machine: &Machine,
    label: CredentialLabel,
    value: &CredentialValue,
) -> Result<Exit> {
    let (cid, offer) = pushing(fleet, machine, label, value).await?;
    fleet.offer(machine, &[offer]).await?;
    fleet.exit(machine, cid).await
}

/// What brings a credential to a machine.
pub(crate) async fn pushing(
    fleet: &Fleet,
    machine: &Machine,
    label: CredentialLabel,
    value: &CredentialValue,
) -> Result<(CommandId, Offer)> {
    let sealing_key = fleet.inventory(machine, |_| true).await?.sealing_key;
    Push::new(machine, label, value, &sealing_key)?.by(&fleet.operator)
}

pub(crate) async fn change(fleet: &Fleet, machine: &Machine, change: Change) -> Result<Exit> {
    let spec = changing(&change);
    fleet.offer(machine, &[sign_offer(&spec, &grant(machine, &spec)?, &fleet.operator)?]).await?;
    fleet.exit(machine, spec.cid).await
}

fn said(exit: &Exit) -> String {
    let stdout = exit.inline.as_ref().map(|inline| inline.stdout.0.clone()).unwrap_or_default();
    String::from_utf8_lossy(&stdout).into_owned()
}

pub(crate) fn code(exit: &Exit) -> (ExitState, &str) {
    (exit.state, exit.error.as_ref().map_or("", |error| &error.code))
}

/// All files under the machine's folder that have the marker in them.
fn marked(machine: &Machine) -> Result<Vec<String>> {
    fn walk(folder: &std::path::Path, found: &mut Vec<String>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, found)?;
            } else if path.is_file()
                && fs::read(&path)?.windows(MARKER.len()).any(|bytes| bytes == MARKER.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(machine.dir.path(), &mut found)?;
    Ok(found)
}

#[tokio::test]
async fn a_relay_that_keeps_nothing_says_what_to_seal_for() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let inventory = fleet.inventory(&machine, |_| true).await?;
    assert_eq!(inventory.sealing_key, *OpeningKey::of_machine(&machine.key)?.public());
    assert!(inventory.credentials.is_empty() && inventory.problem.is_none(), "{inventory:?}");
    assert!(!machine.store().join("vault.json").exists(), "a vault was made for nothing");
    Ok(())
}

#[tokio::test]
async fn a_credential_is_kept_listed_replaced_and_removed() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let exit = push(&fleet, &machine, label("db", "*.lan")?, &password()).await?;
    assert_eq!((exit.state, exit.exit_code), (ExitState::Completed, Some(0)), "{exit:?}");
    assert_eq!(said(&exit), "kept credential db (password) for *.lan\n");
    let first = fleet.inventory(&machine, |kept| !kept.credentials.is_empty()).await?;
    let kept = first.credentials.first().context("none")?;
    assert_eq!((&*kept.credential_name, kept.target_host.as_deref()), ("db", Some("*.lan")));
    assert_eq!((kept.username.as_deref(), kept.storage_mode), (Some("root"), StorageMode::RelayOnly));

    push(&fleet, &machine, label("db", "db-1.lan:22")?, &password()).await?;
    let replaced = |target: &str, count| {
        let target = target.to_owned();
        move |kept: &signalbox_schemas::inventory::Inventory| {
            kept.credentials.len() == count
                && kept.credentials.iter().any(|meta| meta.target_host.as_deref() == Some(&target))
        }
    };
    let second = fleet.inventory(&machine, replaced("db-1.lan:22", 1)).await?;
    assert!(second.revision > first.revision);
    assert_eq!(second.credentials.first().and_then(|meta| meta.created_at), kept.created_at);
    assert_eq!(marked(&machine)?, Vec::<String>::new(), "the secret lies in clear on the disk");
    assert!(!relay.daemon.stderr()?.contains(MARKER), "the secret is in the log");

    let gone = change(&fleet, &machine, Change::RemoveCredential { name: name("db")? }).await?;
    assert_eq!((gone.state, &*said(&gone)), (ExitState::Completed, "removed credential db\n"));
    fleet.inventory(&machine, |kept| kept.credentials.is_empty()).await?;
    let again = change(&fleet, &machine, Change::RemoveCredential { name: name("db")? }).await?;
    assert_eq!(said(&again), "there was no credential db\n");
    Ok(())
}

#[tokio::test]
async fn what_was_sealed_for_another_changes_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let (machine, other) = (Machine::new(&fleet, "web-1")?, Machine::new(&fleet, "web-2")?);
    let _relay = machine.start(&fleet).await?;
    let own = fleet.inventory(&machine, |_| true).await?.sealing_key;
    let foreign = OpeningKey::of_machine(&other.key)?.public().clone();
    let text = label("db", "*.lan")?;
    let mut wrong_type = text.clone();
    wrong_type.credential_type = CredentialType::ApiKey;
    let not_a_key = CredentialValue::SshKey {
        key: "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned().into(),
        passphrase: None,
        certificate: None,
    };
    let mut of_key = text.clone();
    of_key.credential_type = CredentialType::SshKey;
    let mut swapped = Push::new(&machine, text.clone(), &password(), &own)?;
    if let Some(Change::PutCredential(put)) = &mut swapped.spec.change {
        put.label.name = name("root of everything")?;
    }
    swapped.grant = Grant { sealed: swapped.grant.sealed.clone(), ..grant(&machine, &swapped.spec)? };
    let tries = [
        ("seal", Push::new(&machine, text.clone(), &password(), &foreign)?),
        ("seal", Push::sealed_as(&machine, text.clone(), &password(), (&own, &other.mid))?),
        ("seal", swapped),
        ("value", Push::new(&machine, wrong_type, &password(), &own)?),
        ("value", Push::new(&machine, of_key, &not_a_key, &own)?),
    ];
    let (mut offers, mut expected) = (Vec::new(), Vec::new());
    for (wanted, push) in &tries {
        let (cid, offer) = push.by(&fleet.operator)?;
        offers.push(offer);
        expected.push((cid, *wanted));
    }
    fleet.offer(&machine, &offers).await?;
    for (cid, wanted) in expected {
        let exit = fleet.exit(&machine, cid).await?;
        assert_eq!(code(&exit), (ExitState::Failed, wanted), "{exit:?}");
    }
    assert!(!machine.store().join("vault.json").exists(), "something was kept");
    Ok(())
}

#[tokio::test]
async fn only_who_has_the_right_changes_anything() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let member = SigningKey::from_seed(&nkeys::KeyPair::new_user().seed()?)?;
    let mut authors = fleet.authors.clone();
    authors.version = 2;
    let mut author = authors.authors.first().context("no author")?.clone();
    (author.key, author.rights) = (member.public().clone(), vec![signalbox_schemas::authors::Right::Command]);
    authors.authors.push(author);
    fleet.authors_ref = fleet.publish_authors(&authors).await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let sealing_key = fleet.inventory(&machine, |_| true).await?.sealing_key;
    let push = Push::new(&machine, label("db", "*.lan")?, &password(), &sealing_key)?;
    let (refused, offer) = push.by(&member)?;
    fleet.offer(&machine, &[offer]).await?;
    assert_eq!(fleet.rejection(&machine, refused).await?.reason, RejectReason::Forbidden);
    // A secret without a key to it, and a key without a secret.
    for spoil in [Push { grant: Grant { sealed: None, ..push.grant.clone() }, spec: push.spec.clone() }, {
        let spec = spec("true", |_| {});
        let grant = Grant { sealed: Some(Base64Url(vec![1; 80])), ..grant(&machine, &spec)? };
        Push { spec, grant }
    }] {
        let mut spoil = spoil;
        spoil.spec.cid = crate::harness::new_cid();
        let sealed = spoil.grant.sealed.clone();
        spoil.grant = Grant { sealed, ..grant(&machine, &spoil.spec)? };
        let (cid, offer) = spoil.by(&fleet.operator)?;
        fleet.offer(&machine, &[offer]).await?;
        assert_eq!(fleet.rejection(&machine, cid).await?.reason, RejectReason::Invalid);
    }
    Ok(())
}

#[tokio::test]
async fn host_keys_are_brought_and_taken() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIIu6CFvKqgnFzOD7vDnGaOhWSr5w8tF9qYo7YfC1sXyZ";
    let keys = |add: &[&str], remove: &[&str]| {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Change::HostKeys(HostKeys { add: own(add), remove: own(remove) })
    };
    let line = format!("db-1.lan ssh-ed25519 {key}");
    let added = change(&fleet, &machine, keys(&[&line], &[])).await?;
    assert_eq!((added.state, &*said(&added)), (ExitState::Completed, "host keys: 1 added, 0 removed\n"));
    let file = machine.store().join("known_hosts");
    assert!(fs::read_to_string(&file)?.contains(key));
    let bad = change(&fleet, &machine, keys(&["no key at all"], &["db-1.lan"])).await?;
    assert_eq!(code(&bad), (ExitState::Failed, "host_keys"));
    assert!(fs::read_to_string(&file)?.contains(key), "half of a change was made");
    let removed = change(&fleet, &machine, keys(&[], &["db-1.lan"])).await?;
    assert_eq!(said(&removed), "host keys: 0 added, 1 removed\n");
    assert!(!fs::read_to_string(&file)?.contains(key));
    Ok(())
}

/// What waits for the vault does not wait for the keeper.
#[tokio::test]
async fn a_change_outlives_the_keeper_in_whose_life_it_was_claimed() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    push(&fleet, &machine, label("first", "*.lan")?, &password()).await?;
    let lock = fs::OpenOptions::new().write(true).open(machine.store().join("vault.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let sealing_key = fleet.inventory(&machine, |_| true).await?.sealing_key;
    let (cid, offer) =
        Push::new(&machine, label("second", "*.lan")?, &password(), &sealing_key)?.by(&fleet.operator)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the claim", || async {
        fleet.fact::<signalbox_schemas::run::Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    relay.kill_keeper().await?;
    eventually("the next keeper", || async {
        let (_, welcome) = KeeperClient::connect(&machine.store()).await?;
        ensure!(welcome.pid != relay.keeper_pid, "it is the former one");
        Ok(())
    })
    .await?;
    drop(lock);
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!(exit.state, ExitState::Completed, "{exit:?}");
    fleet.inventory(&machine, |kept| kept.credentials.len() == 2).await?;
    Ok(())
}

/// A relay that is killed at any moment of a push has the credential or has it not, and says which.
#[tokio::test]
async fn a_killed_relay_finishes_what_it_claimed() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let mut relay: Relay = machine.start(&fleet).await?;
    let sealing_key = fleet.inventory(&machine, |_| true).await?.sealing_key;
    for round in 0..8 {
        let wanted = format!("db-{round}");
        let (cid, offer) =
            Push::new(&machine, label(&wanted, "*.lan")?, &password(), &sealing_key)?.by(&fleet.operator)?;
        fleet.offer(&machine, &[offer]).await?;
        relay.daemon.signal(Signal::KILL)?;
        relay.daemon.wait(std::time::Duration::from_secs(5)).await?;
        let next = machine.start(&fleet).await?;
        // Dropping the one before would end its keeper, which goes on.
        std::mem::forget(std::mem::replace(&mut relay, next));
        let exit = fleet.exit(&machine, cid).await?;
        ensure!(exit.state == ExitState::Completed, "round {round}: {exit:?}");
        let has = |kept: &signalbox_schemas::inventory::Inventory| {
            kept.credentials.iter().any(|meta| meta.credential_name == wanted)
        };
        fleet.inventory(&machine, has).await?;
    }
    assert_eq!(marked(&machine)?, Vec::<String>::new());
    Ok(())
}
