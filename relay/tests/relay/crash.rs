//! A relay or a keeper that kills itself at a named point: one start, one end, and never a false one.

use std::{fs, os::unix::process::ExitStatusExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use signalbox_relay::vault::{Vault, VaultError, VaultPlace};
use signalbox_schemas::{
    command::Change,
    credential::CredentialValue,
    id::CommandId,
    limit,
    mailbox::Offer,
    output::OutputStream,
    run::{Claim, Exit, ExitState},
    subject::FactKind,
};
use signalbox_testkit::eventually_within;

use crate::{
    changes::{changing, label, name, push, pushing},
    harness::{Fleet, Machine, RUN_BOUND, Relay, grant, now_ms, sign_offer},
    lines,
};

/// A command that shows how often it was started, and prints enough for several chunks.
fn script(log: &Path) -> String {
    format!("echo started >> {}; head -c 400000 /dev/zero; echo end", log.display())
}

async fn assert_output(fleet: &Fleet, machine: &Machine, exit: &Exit) -> Result<()> {
    let output = fleet.output(machine, exit.cid, OutputStream::Stdout).await?;
    let whole = output.whole()?;
    assert_eq!(whole.len(), 400_004);
    assert!(whole.ends_with(b"\0end\n"));
    Ok(())
}

#[rstest]
#[case("relay:claim.sent")]
#[case("relay:claim.acked")]
#[case("relay:spawned")]
#[case("relay:output.half")]
#[case("relay:output.half:3")]
#[case("relay:exit.written")]
#[case("relay:exit.unacked")]
#[tokio::test]
async fn a_relay_killed_at_a_point_is_followed_by_one_that_completes(#[case] point: &str) -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start_in(&fleet, &machine.store(), &[("SIGNALBOX_CRASH_AT", point)]).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &script(&log))?;
    fleet.offer(&machine, &[offer]).await?;
    let status = relay.daemon.wait(RUN_BOUND).await?;
    assert_eq!(status.signal(), Some(9), "{status}");
    let next = machine.start(&fleet).await?;
    assert_eq!(next.keeper_pid, relay.keeper_pid);
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!(exit.state, ExitState::Completed);
    assert_output(&fleet, &machine, &exit).await?;
    assert_eq!(lines(&log), ["started"]);
    Ok(())
}

fn password(text: &str) -> CredentialValue {
    CredentialValue::Password { password: text.to_owned().into() }
}

/// What a machine's vault has under a name, opened anew. The vault must open.
fn kept(machine: &Machine, wanted: &str) -> Result<Option<CredentialValue>> {
    let vault = Vault::open(VaultPlace::new(&machine.store(), None)).context("the vault does not open")?;
    match vault.value(&name(wanted)?) {
        Ok(value) => Ok(Some(value)),
        Err(VaultError::Unknown { .. }) => Ok(None),
        Err(error) => Err(error).context("the vault has half a value"),
    }
}

/// A machine whose relay keeps `db`, and another one that nobody changes.
async fn keeping_two() -> Result<(Fleet, Machine, Relay)> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    for (wanted, value) in [("db", "old"), ("other", "untouched")] {
        push(&fleet, &machine, label(wanted, "*.lan")?, &password(value)).await?;
    }
    Ok((fleet, machine, relay))
}

/// The relay dies at a point of a change to its vault, and another one begins.
async fn killed_in_a_change(
    fleet: &Fleet,
    machine: &Machine,
    (point, at_the_kill): (&str, Option<CredentialValue>),
    (cid, offer): (CommandId, Offer),
) -> Result<Exit> {
    let at = [("SIGNALBOX_CRASH_AT", point)];
    let relay = machine.start_in(fleet, &machine.store(), &at).await?;
    fleet.offer(machine, &[offer]).await?;
    let status = relay.daemon.wait(RUN_BOUND).await?;
    assert_eq!(status.signal(), Some(9), "{status}: {}", relay.daemon.stderr()?);
    ensure!(
        kept(machine, "db")? == at_the_kill,
        "at the kill the vault is neither the old one nor the new one"
    );
    assert_eq!(kept(machine, "other")?, Some(password("untouched")));
    let told: Option<Exit> = fleet.fact(machine, cid, FactKind::Exit).await?;
    assert_eq!(told, None, "it was told before it was done");
    let next = machine.start(fleet).await?;
    let exit = fleet.exit(machine, cid).await?;
    next.stop().await?;
    Ok(exit)
}

#[rstest]
#[case::before("relay:vault.drafted", "old")]
#[case::behind("relay:vault.replaced", "new")]
#[tokio::test]
async fn a_push_in_which_the_relay_is_killed_is_made_by_the_next_one(
    #[case] point: &str,
    #[case] at_the_kill: &str,
) -> Result<()> {
    let (fleet, machine, first) = keeping_two().await?;
    let change = pushing(&fleet, &machine, label("db", "*.lan")?, &password("new")).await?;
    first.stop().await?;
    let at = (point, Some(password(at_the_kill)));
    let exit = killed_in_a_change(&fleet, &machine, at, change).await?;
    assert_eq!((exit.state, exit.exit_code), (ExitState::Completed, Some(0)), "{exit:?}");
    assert_eq!(kept(&machine, "db")?, Some(password("new")));
    assert_eq!(kept(&machine, "other")?, Some(password("untouched")));
    fleet.inventory(&machine, |kept| kept.credentials.len() == 2).await?;
    Ok(())
}

#[rstest]
#[case::before("relay:vault.drafted", Some("old"))]
#[case::behind("relay:vault.replaced", None)]
#[tokio::test]
async fn a_removal_in_which_the_relay_is_killed_is_made_by_the_next_one(
    #[case] point: &str,
    #[case] at_the_kill: Option<&str>,
) -> Result<()> {
    let (fleet, machine, first) = keeping_two().await?;
    let spec = changing(&Change::RemoveCredential { name: name("db")? });
    let change = (spec.cid, sign_offer(&spec, &grant(&machine, &spec)?, &fleet.operator)?);
    first.stop().await?;
    let exit = killed_in_a_change(&fleet, &machine, (point, at_the_kill.map(password)), change).await?;
    assert_eq!((exit.state, exit.exit_code), (ExitState::Completed, Some(0)), "{exit:?}");
    assert_eq!(kept(&machine, "db")?, None);
    fleet.inventory(&machine, |kept| kept.credentials.len() == 1).await?;
    Ok(())
}

#[rstest]
#[case("keeper:spawned")]
#[case("keeper:output.half")]
#[case("keeper:exit.written")]
#[tokio::test]
async fn a_keeper_killed_at_a_point_leaves_a_lost_run(#[case] point: &str) -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start_in(&fleet, &machine.store(), &[("SIGNALBOX_CRASH_AT", point)]).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &script(&log))?;
    fleet.offer(&machine, &[offer]).await?;
    let lost = fleet.lost(&machine, cid).await?;
    let claim: Claim = fleet.fact(&machine, cid, FactKind::Claim).await?.context("no claim")?;
    assert_eq!(lost.nonce, claim.nonce);
    let exit: Option<Exit> = fleet.fact(&machine, cid, FactKind::Exit).await?;
    assert_eq!(exit, None);
    assert!(lines(&log).len() <= 1);
    Ok(())
}

async fn stands_still(relay: &Relay) -> Result<()> {
    let stat = format!("/proc/{}/stat", relay.daemon.pid());
    eventually_within("the stop at the point", RUN_BOUND, || async {
        let stat = fs::read_to_string(&stat)?;
        stat.contains(") T ").then_some(()).context("still going")
    })
    .await
}

/// Its claim is first in the register, but the answer is heard when a bridge could have withdrawn the offer long ago.
#[tokio::test]
async fn a_claim_that_is_answered_too_late_starts_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let at = [("SIGNALBOX_CRASH_AT", "broker:claim.sent")];
    let relay = machine.start_in(&fleet, &machine.store(), &at).await?;
    let log = machine.file("log");
    let expires_at = now_ms() + 1_500;
    let (cid, offer) = fleet.command_with(&machine, &script(&log), |spec| spec.expires_at = expires_at)?;
    fleet.offer(&machine, &[offer]).await?;
    stands_still(&relay).await?;
    eventually_within("the end of the offer", RUN_BOUND, || async {
        (now_ms() > expires_at + limit::EXPIRY_GRACE_MS).then_some(()).context("it still counts")
    })
    .await?;
    relay.daemon.resume()?;
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!(exit.state, ExitState::Failed);
    assert_eq!(exit.error.context("why")?.code, "expired");
    assert!(!log.exists(), "it was started");
    Ok(())
}

#[rstest]
#[case("broker:claim.sent")]
#[case("broker:claim.acked")]
#[case("broker:exit.unacked")]
#[tokio::test]
async fn a_broker_killed_at_a_point_comes_back_to_one_end(#[case] point: &str) -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start_in(&fleet, &machine.store(), &[("SIGNALBOX_CRASH_AT", point)]).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &script(&log))?;
    fleet.offer(&machine, &[offer]).await?;
    stands_still(&relay).await?;
    fleet.broker.kill()?;
    fleet.broker.restart().await?;
    relay.daemon.resume()?;
    let exit = fleet.exit_within(&machine, cid, RUN_BOUND * 3).await?;
    assert_eq!(exit.state, ExitState::Completed);
    assert_output(&fleet, &machine, &exit).await?;
    assert_eq!(lines(&log), ["started"]);
    Ok(())
}
