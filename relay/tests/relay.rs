//! The relay as a process, against a real nats-server and a small bridge made of keys.

#[path = "relay/alone.rs"]
mod alone;
#[path = "relay/beats.rs"]
mod beats;
#[path = "relay/changes.rs"]
mod changes;
#[path = "relay/clock.rs"]
mod clock;
#[cfg(feature = "crash-points")]
#[path = "relay/crash.rs"]
mod crash;
#[path = "relay/harness.rs"]
mod harness;
#[path = "relay/labels.rs"]
mod labels;
#[path = "relay/output.rs"]
mod output;
#[path = "relay/ssh.rs"]
mod ssh;
#[path = "relay/trust.rs"]
mod trust;
#[path = "relay/waiting.rs"]
mod waiting;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use harness::{Fleet, Machine, RUN_BOUND, memory, now_ms};
use signalbox_link::Store;
use signalbox_relay::keeper::{client::KeeperClient, protocol::Phase};
use signalbox_schemas::{
    id::{CommandId, MachineToken, Sha256, Workspace},
    output::OutputStream,
    run::{Claim, ExitState, LostReason},
    signed::Signed,
    stream::{OUT, RUN},
    subject::{FactKind, Subject},
};
use signalbox_testkit::{
    eventually, eventually_within,
    process::{Daemon, Signal, is_alive, signal},
};

/// Lines of a file that commands append to; none when it is not there.
fn lines(path: &std::path::Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_command_runs_from_offer_to_exit() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let (cid, offer) = fleet.command(&machine, "echo out; echo err >&2; exit 3")?;
    fleet.offer(&machine, &[offer]).await?;
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!((exit.state, exit.exit_code, exit.chunks), (ExitState::Failed, Some(3), 0));
    let inline = exit.inline.context("no inline output")?;
    assert_eq!((inline.stdout.0, inline.stderr.0), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(exit.stdout.sha256, Sha256::of(b"out\n"));
    assert_eq!(fleet.messages(OUT).await?, 0);
    let beat = fleet.heartbeat(&machine).await?;
    assert!(beat.authors <= 1 && beat.metrics.is_some() && !beat.facts.hostname.is_empty());
    relay.stop().await?;
    assert!(is_alive(relay.keeper_pid), "the keeper outlives its relay");
    Ok(())
}

#[tokio::test]
async fn what_waited_runs_in_order_and_what_expired_never() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::with_policy(&fleet, "web-1", 1, "[]")?;
    let log = machine.file("log");
    let mut offers = Vec::new();
    let mut cids = Vec::new();
    for number in 0..5 {
        let script = format!("echo {number} >> {}", log.display());
        let past = now_ms() - 1;
        let (cid, offer) = fleet.command_with(&machine, &script, |spec| {
            if number == 2 {
                (spec.created_at, spec.expires_at) = (past - 1_000, past);
            }
        })?;
        offers.push(offer);
        cids.push(cid);
    }
    fleet.offer(&machine, &offers).await?;
    let _relay = machine.start(&fleet).await?;
    fleet.exit(&machine, cids[4]).await?;
    assert_eq!(lines(&log), ["0", "1", "3", "4"]);
    let register: Option<Claim> = fleet.fact(&machine, cids[2], FactKind::Claim).await?;
    assert_eq!(register, None, "the bridge withdraws what has expired, not the relay");
    Ok(())
}

#[tokio::test]
async fn what_is_too_early_starts_at_its_time() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let at = now_ms() + 700;
    let (cid, offer) = fleet.command_with(&machine, "true", |spec| spec.not_before = Some(at))?;
    fleet.offer(&machine, &[offer]).await?;
    let exit = fleet.exit(&machine, cid).await?;
    assert!(exit.started_at >= at, "started {} ms early", at - exit.started_at);
    assert_eq!(exit.state, ExitState::Completed);
    Ok(())
}

#[tokio::test]
async fn two_relays_of_one_machine_start_once() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _one = machine.start(&fleet).await?;
    let _two = machine.start_in(&fleet, &machine.file("store-2"), &[]).await?;
    let log = machine.file("log");
    let mut cids = Vec::new();
    let mut offers = Vec::new();
    for number in 0..20 {
        let (cid, offer) = fleet.command(&machine, &format!("echo {number} >> {}", log.display()))?;
        cids.push(cid);
        offers.push(offer);
    }
    fleet.offer(&machine, &offers).await?;
    for cid in cids {
        assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed);
    }
    let mut numbers: Vec<u32> = lines(&log).iter().map(|line| line.parse()).collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_deleted_store_starts_nothing_twice() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &format!("echo ran >> {}", log.display()))?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    fleet.exit(&machine, cid).await?;
    relay.stop().await?;
    fs::remove_dir_all(machine.store())?;
    let _relay = machine.start(&fleet).await?;
    let (next, other) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer, other]).await?;
    fleet.exit(&machine, next).await?;
    fleet.counted(&machine, "claim_decided_elsewhere").await?;
    assert_eq!(lines(&log), ["ran"]);
    Ok(())
}

#[tokio::test]
async fn a_restored_store_starts_nothing_twice() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    relay.stop().await?;
    let copy = fs::read(machine.store().join("journal"))?;
    let relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &format!("echo ran >> {}", log.display()))?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    fleet.exit(&machine, cid).await?;
    relay.kill().await?;
    relay.kill_keeper().await?;
    fs::write(machine.store().join("journal"), copy)?;
    let _relay = machine.start(&fleet).await?;
    let (next, other) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer, other]).await?;
    fleet.exit(&machine, next).await?;
    assert_eq!(lines(&log), ["ran"]);
    Ok(())
}

#[tokio::test]
async fn a_killed_relay_is_followed_by_one_that_completes_its_runs() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let (gate, log) = (machine.file("gate"), machine.file("log"));
    // More than the window of chunks in flight before the kill, and more after it.
    let noise = "head -c 2000000 /dev/urandom | tee -a";
    let script = format!(
        "{noise} {log}; until [ -e {} ]; do sleep 0.02; done; {noise} {log}",
        gate.display(),
        log = log.display()
    );
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually_within("output before the kill", RUN_BOUND, || async {
        let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
        ensure!(output.chunks.len() >= 10, "{} chunks", output.chunks.len());
        Ok(())
    })
    .await?;
    relay.kill().await?;
    fs::write(&gate, "")?;
    let next = machine.start(&fleet).await?;
    assert_eq!(next.keeper_pid, relay.keeper_pid);
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!(exit.state, ExitState::Completed);
    let written = fs::read(&log)?;
    let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
    assert_eq!(written.len(), 4_000_000);
    assert!(output.whole()? == written, "the output is not what was written");
    assert_eq!((exit.stdout.bytes, exit.stdout.sha256), (4_000_000, Sha256::of(&written)));
    let mut counters = output.counters.clone();
    counters.sort_unstable();
    counters.dedup();
    assert_eq!(counters, (0..exit.chunks).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_killed_keeper_means_lost_runs_and_no_process_left() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let pids = machine.file("pids");
    let script =
        format!("echo $$ >> {0}; setsid sh -c 'echo $$ >> {0}; sleep 300' & sleep 300", pids.display());
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    eventually("both processes", || async {
        ensure!(lines(&pids).len() == 2);
        Ok(())
    })
    .await?;
    relay.kill_keeper().await?;
    let lost = fleet.lost(&machine, cid).await?;
    assert_eq!(lost.reason, LostReason::KeeperGone);
    let claim: Claim = fleet.fact(&machine, cid, FactKind::Claim).await?.context("no claim")?;
    assert_eq!(claim.nonce, lost.nonce);
    for pid in lines(&pids) {
        assert!(!is_alive(pid.parse()?), "process {pid} is left");
    }
    let (next, other) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer, other]).await?;
    assert_eq!(fleet.exit(&machine, next).await?.state, ExitState::Completed);
    assert_eq!(lines(&pids).len(), 2, "a lost run is not started again");
    Ok(())
}

#[tokio::test]
async fn what_an_ended_run_left_on_request_outlives_the_keeper() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let pids = machine.file("pids");
    let script = format!("sleep 300 >/dev/null 2>&1 & echo $! >> {}", pids.display());
    let (left, offer) = fleet.command_with(&machine, &script, |spec| spec.leave_children = true)?;
    let (open, other) = fleet.command(&machine, &format!("echo $$ >> {}; sleep 300", pids.display()))?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    assert_eq!(fleet.exit(&machine, left).await?.state, ExitState::Completed);
    fleet.offer(&machine, &[offer, other]).await?;
    eventually("the second process", || async {
        ensure!(lines(&pids).len() == 2);
        Ok(())
    })
    .await?;
    relay.kill_keeper().await?;
    assert_eq!(fleet.lost(&machine, open).await?.reason, LostReason::KeeperGone);
    let [daemon, shell] = [lines(&pids)[0].parse()?, lines(&pids)[1].parse()?];
    assert!(!is_alive(shell), "the open run's process is left");
    assert!(is_alive(daemon), "what was left on request was ended");
    signal(daemon, Signal::KILL)
}

/// 200,000 ids are two days of a command per second.
#[tokio::test]
async fn a_keeper_that_remembers_all_it_can_is_replaced_and_nothing_fails() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    relay.kill().await?;
    let (mut client, welcome) = KeeperClient::connect(&machine.store()).await?;
    let free = welcome.free.context("it does not say how many it can remember")?;
    for number in 0..free {
        let cid = CommandId::from_idempotency_key("test", &number.to_string());
        client.decline(cid, now_ms() + 3_600_000).await?;
    }
    eventually("a full keeper", || async {
        let (_, welcome) = KeeperClient::connect(&machine.store()).await?;
        ensure!(welcome.free == Some(0), "{:?}", welcome.free);
        Ok(())
    })
    .await?;
    let _next = machine.start(&fleet).await?;
    let (cid, offer) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer]).await?;
    assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed);
    assert!(!is_alive(relay.keeper_pid), "it is the same keeper");
    fleet.counted(&machine, "keeper_replaced").await?;
    Ok(())
}

/// The same while the broker is away, so that the run's output waits when its keeper dies.
#[tokio::test]
async fn what_a_run_left_on_request_outlives_the_keeper_while_its_output_waits() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let [daemon, shell, gate] = ["daemon", "shell", "gate"].map(|name| machine.file(name));
    let script = format!(
        "sleep 300 >/dev/null 2>&1 & echo $! > {}; until [ -e {} ]; do sleep 0.02; done; head -c 300000 /dev/zero",
        daemon.display(),
        gate.display()
    );
    let (ended, offer) = fleet.command_with(&machine, &script, |spec| spec.leave_children = true)?;
    let (open, other) = fleet.command(&machine, &format!("echo $$ > {}; sleep 300", shell.display()))?;
    fleet.offer(&machine, &[offer, other]).await?;
    eventually("both processes", || async {
        ensure!(lines(&daemon).len() == 1 && lines(&shell).len() == 1);
        Ok(())
    })
    .await?;
    fleet.broker.stop()?;
    fs::write(&gate, "")?;
    eventually("the end of the run", || async {
        let (_, welcome) = KeeperClient::connect(&machine.store()).await?;
        let run = welcome.runs.into_iter().find(|run| run.cid == ended).context("it is not there")?;
        ensure!(run.phase == Phase::Ended);
        Ok(())
    })
    .await?;
    relay.kill_keeper().await?;
    eventually("the former keeper's burial", || async {
        ensure!(relay.daemon.stderr()?.contains("former keeper is gone"));
        Ok(())
    })
    .await?;
    let [daemon, shell] = [lines(&daemon)[0].parse()?, lines(&shell)[0].parse()?];
    assert!(!is_alive(shell), "the open run's process is left");
    assert!(is_alive(daemon), "what was left on request was ended");
    signal(daemon, Signal::KILL)?;
    fleet.broker.cont()?;
    assert_eq!(fleet.exit(&machine, ended).await?.state, ExitState::Completed);
    assert_eq!(fleet.lost(&machine, open).await?.reason, LostReason::KeeperGone);
    Ok(())
}

#[tokio::test]
async fn keepers_that_die_while_the_broker_is_away_make_one_question_per_claim() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let pids = machine.file("pids");
    let (cid, offer) = fleet.command(&machine, &format!("echo $$ > {}; sleep 300", pids.display()))?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the process", || async {
        ensure!(lines(&pids).len() == 1);
        Ok(())
    })
    .await?;
    fleet.broker.kill()?;
    let said = |text: &str| Ok::<_, anyhow::Error>(relay.daemon.stderr()?.matches(text).count());
    for died in 1..=3 {
        let (_, welcome) = KeeperClient::connect(&machine.store()).await?;
        signal(welcome.pid, Signal::KILL)?;
        eventually("the next keeper, and the burial", || async {
            ensure!(said("keeper is up")? == 1 + died && said("former keeper is gone")? >= died);
            Ok(())
        })
        .await?;
    }
    fleet.broker.restart().await?;
    assert_eq!(fleet.lost(&machine, cid).await?.reason, LostReason::KeeperGone);
    assert_eq!(said("asking the register")?, 1);
    Ok(())
}

#[tokio::test]
async fn a_keeper_that_hangs_starts_once_it_goes_on() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    signal(relay.keeper_pid, Signal::STOP)?;
    let (cid, offer) = fleet.command(&machine, &format!("echo $$ >> {}", log.display()))?;
    fleet.offer(&machine, &[offer]).await?;
    fleet.counted(&machine, "keeper_silent").await?;
    signal(relay.keeper_pid, Signal::CONT)?;
    assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed);
    assert_eq!(lines(&log).len(), 1);
    Ok(())
}

#[tokio::test]
async fn keeper_and_relay_killed_together_mean_lost() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let pids = machine.file("pids");
    let (cid, offer) = fleet.command(&machine, &format!("echo $$ >> {}; sleep 300", pids.display()))?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the process", || async {
        ensure!(lines(&pids).len() == 1);
        Ok(())
    })
    .await?;
    relay.kill().await?;
    relay.kill_keeper().await?;
    let _next = machine.start(&fleet).await?;
    assert_eq!(fleet.lost(&machine, cid).await?.reason, LostReason::KeeperGone);
    assert!(!is_alive(lines(&pids)[0].parse()?));
    Ok(())
}

#[tokio::test]
async fn a_full_run_stream_starts_nothing_and_loses_nothing() -> Result<()> {
    let fleet = Fleet::start_with(|def| {
        if def.name == RUN {
            def.max_bytes = Some(64 * 1024);
        }
    })
    .await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let (gate, log) = (machine.file("gate"), machine.file("log"));
    let script = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let (running, first) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, std::slice::from_ref(&first)).await?;
    eventually("the claim", || async {
        fleet.fact::<Claim>(&machine, running, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    // Filled up by somebody else, to the last byte that fits.
    let mut size = 32 * 1024;
    while size >= 16 {
        let subject =
            Subject::Run(Workspace::main(), MachineToken::new("other")?, harness::new_cid(), FactKind::Claim);
        if fleet.link.store(Store::new(subject.to_string(), vec![b'x'; size])).await.is_err() {
            size /= 2;
        }
    }
    let mut offers = vec![first];
    let mut cids = Vec::new();
    for number in 0..5 {
        let (cid, offer) = fleet.command(&machine, &format!("echo {number} >> {}", log.display()))?;
        cids.push(cid);
        offers.push(offer);
    }
    fleet.offer(&machine, &offers).await?;
    fs::write(&gate, "")?;
    fleet.counted(&machine, "claim_full").await?;
    fleet.counted(&machine, "fact_full").await?;
    assert_eq!(lines(&log), Vec::<String>::new());
    fleet.link.purge_subject(RUN, "run.main.other.>").await?;
    assert_eq!(fleet.exit(&machine, running).await?.state, ExitState::Completed);
    for cid in cids {
        assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed);
    }
    assert_eq!(lines(&log).len(), 5);
    Ok(())
}

#[tokio::test]
async fn a_cancel_ends_what_runs() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let (cid, offer) = fleet.command(&machine, "sleep 300")?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    eventually("the claim", || async {
        fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    let mut mailbox = fleet.mailbox(&machine, &[offer]);
    mailbox.cancels = vec![cid];
    fleet.put(&machine, Signed::sign(&mailbox, &fleet.bridge)?.to_json()).await?;
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!(exit.state, ExitState::Cancelled);
    assert!(exit.group_dead);
    Ok(())
}

#[tokio::test]
async fn a_broker_that_dies_and_comes_back_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let gate = machine.file("gate");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; head -c 500000 /dev/zero", gate.display());
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the claim", || async {
        fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    fleet.broker.kill()?;
    fs::write(&gate, "")?;
    eventually("the end of the run", || async {
        ensure!(relay.daemon.stderr()?.contains("broker connection lost"));
        Ok(())
    })
    .await?;
    fleet.broker.restart().await?;
    let exit = fleet.exit_within(&machine, cid, Duration::from_secs(40)).await?;
    assert_eq!((exit.state, exit.stdout.bytes), (ExitState::Completed, 500_000));
    let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
    assert!(output.whole()? == vec![0; 500_000]);
    Ok(())
}

#[tokio::test]
async fn a_settled_run_that_is_offered_again_is_reported_again() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &format!("echo ran >> {}", log.display()))?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    let before = fleet.exit(&machine, cid).await?;
    fleet.link.purge_subject(RUN, "run.>").await?;
    fleet.offer(&machine, &[offer]).await?;
    let after = fleet.exit(&machine, cid).await?;
    assert_eq!(before, after);
    assert_eq!(lines(&log), ["ran"]);
    Ok(())
}

#[tokio::test]
async fn an_idle_relay_with_its_keeper_is_small() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let (cid, offer) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer]).await?;
    fleet.exit(&machine, cid).await?;
    let total = memory(relay.daemon.pid(), "VmRSS:")? + memory(relay.keeper_pid, "VmRSS:")?;
    // A debug build has more code in memory; the budget of 12 MiB is for a release.
    assert!(total <= 48 << 20, "{} KiB together", total / 1024);
    Ok(())
}

#[tokio::test]
async fn a_store_in_use_and_files_that_are_not_in_order_are_refused() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let refused = |daemon: Daemon| async move {
        let status = daemon.wait(Duration::from_secs(5)).await?;
        ensure!(status.code() == Some(1), "{status}");
        daemon.stderr()
    };
    let url = fleet.broker.url();
    let said = refused(machine.spawn(&url, &machine.store(), &[])?.daemon).await?;
    assert!(said.contains(&format!("pid {}", relay.daemon.pid())), "{said}");
    let spare = machine.file("spare");
    let toml = machine.file("relay.toml");
    let good = fs::read_to_string(&toml)?;
    fs::write(&toml, format!("{good}surprise = 1\n"))?;
    let said = refused(machine.spawn(&url, &spare, &[])?.daemon).await?;
    assert!(said.contains("surprise"), "{said}");
    fs::write(&toml, good)?;
    let seed = machine.file("signing.seed");
    fs::set_permissions(&seed, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let said = refused(machine.spawn(&url, &spare, &[])?.daemon).await?;
    assert!(said.contains("signing.seed") && said.contains("0600"), "{said}");
    assert!(!spare.exists(), "the store was opened before all was checked");
    Ok(())
}

#[tokio::test]
async fn a_store_deleted_under_a_living_relay_loses_its_runs_and_nothing_else() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &format!("echo $$ >> {}; sleep 300", log.display()))?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    eventually("the process", || async {
        ensure!(lines(&log).len() == 1);
        Ok(())
    })
    .await?;
    fs::remove_dir_all(machine.store())?;
    assert_eq!(fleet.lost(&machine, cid).await?.reason, LostReason::KeeperGone);
    assert!(!is_alive(lines(&log)[0].parse()?));
    let (next, other) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer.clone(), other]).await?;
    assert_eq!(fleet.exit(&machine, next).await?.state, ExitState::Completed);
    relay.stop().await?;
    let _relay = machine.start(&fleet).await?;
    let (last, another) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer, another]).await?;
    assert_eq!(fleet.exit(&machine, last).await?.state, ExitState::Completed);
    assert_eq!(lines(&log).len(), 1, "the lost run was started again");
    Ok(())
}

#[tokio::test]
async fn a_keeper_that_cannot_be_brought_up_is_counted() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    relay.kill().await?;
    relay.kill_keeper().await?;
    // Somebody else holds the lock of the next keeper.
    let lock = fs::File::open(machine.store().join("keeper.lock"))?;
    eventually("the lock", || async {
        Ok(rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
    })
    .await?;
    let next = machine.spawn(&fleet.broker.url(), &machine.store(), &[])?;
    fleet.counted(&machine, "keeper_not_up").await?;
    drop(lock);
    let _next = next.ready().await?;
    let (cid, offer) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer]).await?;
    assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed);
    Ok(())
}

#[tokio::test]
async fn a_relay_without_a_broker_waits_and_stops_when_told() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let url = fleet.broker.url();
    fleet.broker.kill()?;
    let waiting = machine.spawn(&url, &machine.store(), &[])?;
    eventually("its keeper", || async {
        ensure!(machine.store().join("keeper.sock").exists());
        Ok(())
    })
    .await?;
    assert_eq!(waiting.daemon.stdout()?, "");
    waiting.daemon.terminate()?;
    assert!(waiting.daemon.wait(Duration::from_secs(3)).await?.success());
    let waiting = machine.spawn(&url, &machine.store(), &[])?;
    fleet.broker.restart().await?;
    let _relay = waiting.ready().await?;
    Ok(())
}
