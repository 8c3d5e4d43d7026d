//! What was claimed and cannot begin at once.

use std::{fs, os::unix::fs::OpenOptionsExt as _, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::OFlags;
use signalbox_schemas::{
    command::{Change, HostKeys, SshTarget, Target},
    id::CommandId,
    mailbox::Offer,
    run::{Claim, ExitState},
    subject::FactKind,
};
use signalbox_testkit::{
    eventually_within,
    process::{Signal, signal},
    sshd::run,
};

use crate::{
    changes::{Push, changing, code, label, password},
    harness::{Fleet, Machine, RUN_BOUND, Relay, grant, now_ms, sign_offer},
};

/// Longer than a relay waits for its store.
const HANG_BOUND: Duration = Duration::from_mins(1);

/// A pipe in place of the known hosts, which holds who reads it as a disk that hangs would.
fn hang(machine: &Machine) -> Result<()> {
    run(Command::new("mkfifo").arg(machine.store().join("known_hosts")))?;
    Ok(())
}

/// Lets go who reads the pipe: there is nothing in it.
fn let_go(machine: &Machine) -> Result<()> {
    // Fails where nobody reads it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits())?;
    let pipe =
        fs::OpenOptions::new().write(true).custom_flags(flags).open(machine.store().join("known_hosts"));
    pipe.context("nobody hangs")?;
    Ok(())
}

/// A change that reads the known hosts.
fn reading(fleet: &Fleet, machine: &Machine) -> Result<(CommandId, Offer)> {
    let line = "db-1.lan ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIu6CFvKqgnFzOD7vDnGaOhWSr5w8tF9qYo7YfC1sXyZ";
    let spec = changing(&Change::HostKeys(HostKeys { add: vec![line.into()], remove: vec![] }));
    Ok((spec.cid, sign_offer(&spec, &grant(machine, &spec)?, &fleet.operator)?))
}

/// A command on a host behind the machine.
fn elsewhere(fleet: &Fleet, machine: &Machine) -> Result<(CommandId, Offer)> {
    let (host, username) = ("db-1.lan".to_owned(), Some("root".to_owned()));
    let target = Target::Ssh(SshTarget { host, port: 22, username, jump: vec![], credential: None });
    fleet.command_with(machine, "true", |spec| {
        spec.target = Some(target);
        spec.crit = vec!["target".into()];
    })
}

async fn claimed(fleet: &Fleet, machine: &Machine, cid: CommandId) -> Result<()> {
    eventually_within("the claim", RUN_BOUND, || async {
        fleet.fact::<Claim>(machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_change_that_waited_beyond_its_end_is_not_made() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let sealing_key = fleet.inventory(&machine, |_| true).await?.sealing_key;
    hang(&machine)?;
    let (first, first_offer) = reading(&fleet, &machine)?;
    fleet.offer(&machine, &[first_offer]).await?;
    claimed(&fleet, &machine, first).await?;
    let late = Push::new(&machine, label("db", "*.lan")?, &password(), &sealing_key)?
        .expiring_at(&machine, now_ms() + 2_000)?;
    let (cid, offer) = late.by(&fleet.operator)?;
    fleet.offer(&machine, &[offer]).await?;
    claimed(&fleet, &machine, cid).await?;
    let too_late = late.spec.expires_at + 2_000;
    eventually_within("its end", RUN_BOUND, || async {
        ensure!(now_ms() > too_late, "it is not over");
        Ok(())
    })
    .await?;
    let_go(&machine)?;
    assert_eq!(fleet.exit(&machine, first).await?.state, ExitState::Completed);
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!(code(&exit), (ExitState::Failed, "expired"), "{exit:?}");
    assert!(!machine.store().join("vault.json").exists(), "it was made all the same");
    Ok(())
}

#[tokio::test]
async fn what_waits_for_its_way_or_its_turn_is_cancelled_at_once() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    fleet.inventory(&machine, |_| true).await?;
    hang(&machine)?;
    let (first, first_offer) = reading(&fleet, &machine)?;
    fleet.offer(&machine, &[first_offer]).await?;
    claimed(&fleet, &machine, first).await?;
    for (cid, offer) in [elsewhere(&fleet, &machine)?, reading(&fleet, &machine)?] {
        fleet.offer(&machine, &[offer]).await?;
        claimed(&fleet, &machine, cid).await?;
        fleet.cancel(&machine, cid).await?;
        let exit = fleet.exit(&machine, cid).await?;
        assert_eq!(code(&exit), (ExitState::Cancelled, "cancelled"), "{exit:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_hangs_holds_no_place_among_the_parallel_runs() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine =
        Machine::with_policy(&fleet, "web-1", 3, r#"["root", "terminal", "config", "credential"]"#)?;
    let _relay = machine.start(&fleet).await?;
    fleet.inventory(&machine, |_| true).await?;
    hang(&machine)?;
    let (begun, offer) = reading(&fleet, &machine)?;
    fleet.offer(&machine, &[offer]).await?;
    claimed(&fleet, &machine, begun).await?;
    let ((waits, next), (run, command)) = (reading(&fleet, &machine)?, elsewhere(&fleet, &machine)?);
    let (after, local) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[next, command, local]).await?;
    for (cid, said) in [
        (begun, "was begun, and whether it will be made is not known"),
        (waits, "was not made"),
        (run, "the way to the host was looked for"),
    ] {
        let exit = fleet.exit_within(&machine, cid, HANG_BOUND).await?;
        assert_eq!(code(&exit), (ExitState::Failed, "store_hangs"), "{exit:?}");
        let message = exit.error.context("no error")?.message;
        assert!(message.contains(said) && message.contains("does the disk hang"), "{message}");
    }
    assert_eq!(fleet.exit(&machine, after).await?.state, ExitState::Completed);
    let_go(&machine)?;
    let (cid, offer) = reading(&fleet, &machine)?;
    fleet.offer(&machine, &[offer]).await?;
    assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed, "it does not hang any more");
    Ok(())
}

/// Two pushes of one credential: the first claimed in the life of a keeper that hangs and is not gone, the second, which a new
/// relay has claimed, answered for.
struct TwoPushes {
    fleet: Fleet,
    machine: Machine,
    /// The keeper that hangs.
    former: u32,
    _relay: Relay,
    first: CommandId,
    second: CommandId,
}

impl TwoPushes {
    async fn start() -> Result<Self> {
        let fleet = Fleet::start().await?;
        let machine = Machine::new(&fleet, "web-1")?;
        let relay = machine.start(&fleet).await?;
        let sealing_key = fleet.inventory(&machine, |_| true).await?.sealing_key;
        let push = |target: &str| {
            Push::new(&machine, label("db", target)?, &password(), &sealing_key)?.by(&fleet.operator)
        };
        // Held until the relay is gone: what it claims it does not make.
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(machine.store().join("vault.lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        let (first, offer) = push("first.lan")?;
        fleet.offer(&machine, &[offer]).await?;
        claimed(&fleet, &machine, first).await?;
        signal(relay.keeper_pid, Signal::STOP)?;
        relay.kill().await?;
        drop(lock);
        for name in ["keeper.sock", "keeper.lock"] {
            fs::remove_file(machine.store().join(name))?;
        }
        let former = relay.keeper_pid;
        let next = machine.start(&fleet).await?;
        // Dropping the one before would end the new keeper.
        std::mem::forget(relay);
        let (second, offer) = push("second.lan")?;
        fleet.offer(&machine, &[offer]).await?;
        claimed(&fleet, &machine, second).await?;
        // What may be made at once is made when another command has run.
        let (cid, offer) = fleet.command(&machine, "true")?;
        fleet.offer(&machine, &[offer]).await?;
        fleet.exit(&machine, cid).await?;
        Ok(Self { fleet, machine, former, _relay: next, first, second })
    }

    async fn stands(&self) -> Result<()> {
        self.fleet
            .inventory(&self.machine, |kept| {
                kept.credentials.iter().any(|meta| meta.target_host.as_deref() == Some("second.lan"))
            })
            .await?;
        Ok(())
    }
}

impl Drop for TwoPushes {
    fn drop(&mut self) {
        // It may be gone.
        drop(signal(self.former, Signal::KILL));
    }
}

#[tokio::test]
async fn of_two_pushes_the_later_one_stays_whichever_is_answered_for_first() -> Result<()> {
    let pushes = TwoPushes::start().await?;
    signal(pushes.former, Signal::KILL)?;
    for cid in [pushes.first, pushes.second] {
        let exit = pushes.fleet.exit(&pushes.machine, cid).await?;
        assert_eq!(exit.state, ExitState::Completed, "{exit:?}");
    }
    pushes.stands().await
}

#[tokio::test]
async fn an_earlier_push_that_is_never_answered_for_holds_no_later_one() -> Result<()> {
    let pushes = TwoPushes::start().await?;
    let exit = pushes.fleet.exit_within(&pushes.machine, pushes.second, HANG_BOUND).await?;
    assert_eq!(exit.state, ExitState::Completed, "{exit:?}");
    signal(pushes.former, Signal::KILL)?;
    // The earlier one is not made any more.
    let (cid, offer) = pushes.fleet.command(&pushes.machine, "true")?;
    pushes.fleet.offer(&pushes.machine, &[offer]).await?;
    pushes.fleet.exit(&pushes.machine, cid).await?;
    pushes.stands().await
}
