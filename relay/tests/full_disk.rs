//! Full disks: what prints is cut, and nothing that runs dies of it.

#[expect(dead_code, reason = "written for the other tests of a relay")]
#[path = "relay/harness.rs"]
mod harness;

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use harness::{Fleet, Machine, now_ms};
use rstest::rstest;
use signalbox_relay::keeper::{
    client::{KeeperClient, KeeperEvent},
    protocol::{Refusal, StartRun},
};
use signalbox_schemas::{
    limit::EXPIRY_GRACE_MS,
    run::{Claim, Exit, ExitState},
    subject::FactKind,
};
use signalbox_testkit::{eventually, process::is_alive, small_disk::SmallDisk};

/// Files of a relay that are written on in their last block while there is none left.
const APPENDED: [&str; 2] = ["keeper.log", "journal"];

fn full() -> Result<File> {
    Ok(OpenOptions::new().write(true).open("/dev/full")?)
}

#[rstest]
#[case::text("text")]
#[case::json("json")]
#[tokio::test]
async fn a_keeper_whose_log_takes_nothing_lives(#[case] format: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
    command.args(["keeper", "--log", "trace", "--log-format", format, "--store"]).arg(folder.path());
    let mut keeper = command.stderr(full()?).spawn()?;
    let connect = || async { Ok(KeeperClient::connect(folder.path()).await?) };
    let connected = eventually("the keeper", connect).await;
    let alive = keeper.try_wait()?.is_none();
    if let Ok((client, _)) = connected {
        client.shutdown().await?;
    }
    let status = keeper.wait()?;
    ensure!(alive && status.success(), "it ended by itself: {status}");
    Ok(())
}

#[tokio::test]
async fn a_relay_whose_log_takes_nothing_runs_commands() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
    command.args(["run", "--log", "debug", "--nats", &fleet.broker.url(), "--store"]).arg(machine.store());
    command.arg("--creds").arg(machine.file("relay.creds"));
    let mut relay = command.stdout(Stdio::null()).stderr(full()?).spawn()?;
    let (cid, offer) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer]).await?;
    let exit = fleet.exit(&machine, cid).await;
    relay.kill()?;
    relay.wait()?;
    drop(fs::remove_file(machine.store().join("keeper.lock")));
    assert_eq!(exit?.state, ExitState::Completed);
    Ok(())
}

#[tokio::test]
async fn on_a_full_disk_what_prints_is_cut_and_the_others_live_on() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let Some(disk) = SmallDisk::over(&machine.store(), 1)? else {
        return Ok(());
    };
    let relay = machine.start(&fleet).await?;
    let (print, go_on) = (machine.file("print"), machine.file("go-on"));
    let wait_for = |gate: &Path| format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let (printing, first) =
        fleet.command(&machine, &format!("{}; head -c 3000000 /dev/zero", wait_for(&print)))?;
    let (other, second) = fleet.command(&machine, &format!("{}; exit 3", wait_for(&go_on)))?;
    let (next, third) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[first.clone(), second.clone()]).await?;
    for cid in [printing, other] {
        eventually("the claim", || async {
            fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
        })
        .await?;
    }
    relay.stop().await?;
    disk.fill(&APPENDED)?;
    let keeper_pid = relay.keeper_pid;
    let relay = machine.start(&fleet).await?;
    assert_eq!(relay.keeper_pid, keeper_pid);
    fs::write(&print, "")?;
    let exit = fleet.exit(&machine, printing).await?;
    assert_eq!((exit.state, exit.stdout.bytes), (ExitState::Completed, 3_000_000));
    assert!(exit.stdout.truncated, "there was room");
    fleet.offer(&machine, &[first, second, third]).await?;
    fleet.counted(&machine, "journal_write").await?;
    assert!(is_alive(relay.daemon.pid()) && is_alive(relay.keeper_pid));

    disk.make_room()?;
    fs::write(&go_on, "")?;
    let exit = fleet.exit(&machine, other).await?;
    assert_eq!((exit.state, exit.exit_code), (ExitState::Failed, Some(3)));
    assert_eq!(fleet.exit(&machine, next).await?.state, ExitState::Completed);
    assert!(is_alive(relay.daemon.pid()) && is_alive(relay.keeper_pid));
    let journal = machine.store().join("journal");
    eventually("what could not be written is written", || async {
        let line = format!(r#"{{"e":"decided","cid":"{printing}"}}"#);
        ensure!(fs::read_to_string(&journal)?.contains(&line), "no {line}");
        Ok(())
    })
    .await
}

/// Its exit says that it never started; were that said and not written down, a relay that comes back would start it.
#[tokio::test]
async fn what_never_started_is_said_when_it_is_written_and_not_before() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let Some(disk) = SmallDisk::over(&machine.store(), 1)? else {
        return Ok(());
    };
    let relay = machine.start(&fleet).await?;
    let begin = now_ms() + 1_500;
    let (cid, offer) = fleet.command_with(&machine, "true", |spec| {
        (spec.not_before, spec.expires_at) = (Some(begin), begin + 1_500);
    })?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the mailbox is taken", || async {
        ensure!(fs::read_to_string(machine.store().join("journal"))?.contains(r#""e":"mailbox""#));
        Ok(())
    })
    .await?;
    // The claim is answered when it is too late to start.
    fleet.broker.stop()?;
    eventually("the claim is about to be sent", || async {
        ensure!(fs::read_to_string(machine.store().join("journal"))?.contains(&cid.to_string()));
        Ok(())
    })
    .await?;
    relay.stop().await?;
    disk.fill(&APPENDED)?;
    let next = machine.spawn(&fleet.broker.url(), &machine.store(), &[])?;
    eventually("it is too late", || async {
        ensure!(now_ms() > begin + 1_500 + EXPIRY_GRACE_MS);
        Ok(())
    })
    .await?;
    fleet.broker.cont()?;
    let _next = next.ready().await?;
    fleet.counted(&machine, "run_not_started").await?;
    let exit: Option<Exit> = fleet.fact(&machine, cid, FactKind::Exit).await?;
    assert_eq!(exit, None, "it was said and not written");
    let (mut client, _) = KeeperClient::connect(&machine.store()).await?;
    let (command, timeout_ms, max_output, leave_children) = ("true".into(), 1_000, 1_000, false);
    let expires_at = begin + 1_500;
    let (folder, await_pipes, route) = (None, false, None);
    let start = StartRun {
        cid,
        command,
        timeout_ms,
        max_output,
        leave_children,
        expires_at,
        folder,
        await_pipes,
        route,
    };
    client.start(start).await?;
    assert_eq!(client.next_event().await, KeeperEvent::Refused { cid, reason: Refusal::Forgotten });
    disk.make_room()?;
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!((exit.state, exit.error.map(|error| error.code)), (ExitState::Failed, Some("expired".into())));
    Ok(())
}
