//! Journals that take nothing: nothing new is claimed, and what ended is told as it ended, also by the next relay.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use signalbox_testkit::{
    eventually_within,
    process::{Daemon, Signal, signal},
    small_disk::SmallDisk,
};

use crate::{
    center::{Center, KEY, Reply},
    harness::{Machine, PATIENCE, QUICK},
};

const RESULT: &str = "POST /relay/commands/result";
const CLAIM: &str = "POST /relay/commands/claim";
const HEARTBEAT: &str = "POST /relay/heartbeat";

/// A relay that a limit of file sizes does not kill.
fn relay(machine: &Machine, center: &Center) -> Result<Daemon> {
    let relay = machine.program();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", r#"trap "" XFSZ; exec "$@""#, "sh"]).arg(relay.get_program());
    command.args([KEY, &center.url]).args(QUICK).arg("--store-dir").arg(machine.store());
    command.current_dir(machine.work()).env("HOME", machine.home.path()).env_remove("SIGNALBOX_API_KEY");
    Daemon::spawn(&mut command)
}

/// From now on no file of a relay grows, or all do again. A keeper that is there has no such limit.
fn let_files_grow(relay: &Daemon, may_grow: bool) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(relay.pid())?).context("no pid")?;
    let current = (!may_grow).then_some(1);
    prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None })?;
    Ok(())
}

/// Waits until the relay has had the time for whatever it does next.
async fn two_more_heartbeats(center: &Center) -> Result<()> {
    let before = center.requests_of(HEARTBEAT).len();
    center.asked(HEARTBEAT, before + 2, PATIENCE).await?;
    Ok(())
}

/// What became of a relay whose journal took nothing when a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Restarted,
    LosesItsKeeper,
}

#[rstest]
#[case::its_end_and_that_it_was_taken(false, Then::Restarted)]
#[case::that_it_was_taken(true, Then::Restarted)]
#[case::its_end_and_its_keeper(false, Then::LosesItsKeeper)]
#[tokio::test]
async fn an_end_that_cannot_be_written_down_is_not_followed_by_another_one(
    #[case] end_is_written: bool,
    #[case] then: Then,
) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let (begun, gate) = (machine.file("begun"), machine.file("gate"));
    let [begun_at, gate_at] = [&begun, &gate].map(|path| path.display().to_string());
    center.queue("c1", &format!("touch {begun_at}; until [ -e {gate_at} ]; do sleep 0.05; done; echo end"));
    center.always(RESULT, Reply::Json(503, json!({"error": "x"})));
    let first = relay(&machine, &center)?;
    eventually_within("it runs", PATIENCE, || async {
        ensure!(begun.exists());
        Ok(())
    })
    .await?;
    if end_is_written {
        fs::write(&gate, "")?;
        center.asked(RESULT, 1, PATIENCE).await?;
    }
    let_files_grow(&first, false)?;
    fs::write(&gate, "")?;
    center.as_usual(RESULT);
    let told = center.result("c1", PATIENCE).await?;
    assert_eq!((&told["success"], &told["output"]), (&json!(true), &json!("end\n")));
    two_more_heartbeats(&center).await?;
    center.queue("c2", "true");
    two_more_heartbeats(&center).await?;
    assert_eq!(center.requests_of(CLAIM).len(), 1, "it took work that it could not write down");
    let _next = if then == Then::Restarted {
        first.terminate()?;
        first.wait(PATIENCE).await?;
        relay(&machine, &center)?
    } else {
        let pid = machine.keeper_pid().await?;
        signal(pid, Signal::KILL)?;
        eventually_within("another keeper", PATIENCE, || async {
            ensure!(machine.keeper_pid().await? != pid);
            Ok(())
        })
        .await?;
        two_more_heartbeats(&center).await?;
        let_files_grow(&first, true)?;
        first
    };
    assert_eq!(center.result("c2", PATIENCE).await?["success"], true);
    assert!(center.results_of("c1").iter().all(|again| *again == told), "{:?}", center.results_of("c1"));
    eventually_within("its output is let go of", PATIENCE, || async {
        ensure!(fs::read_dir(machine.store().join("http/spool"))?.count() == 0, "it is still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_claimed() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let Some(disk) = SmallDisk::over(&machine.store().join("http"), 1)? else {
        return Ok(());
    };
    disk.fill(&[])?;
    let relay = machine.relay(&center)?;
    for number in 0..3 {
        center.queue(&format!("c{number}"), "echo done");
    }
    eventually_within("it is said", PATIENCE, || async {
        ensure!(relay.stderr()?.contains("No more commands are claimed until the journal can be written"));
        Ok(())
    })
    .await?;
    two_more_heartbeats(&center).await?;
    assert_eq!(center.requests_of(CLAIM).len(), 0, "it took work that it could not write down");
    disk.make_room()?;
    for number in 0..3 {
        assert_eq!(center.result(&format!("c{number}"), PATIENCE).await?["output"], "done\n");
    }
    // By it the next relay finds what this one's keeper leaves behind, should it die.
    let journal = fs::read_to_string(machine.store().join("http/journal"))?;
    let [keeper, claim] = [r#""e":"keeper""#, r#""e":"claim""#].map(|entry| journal.find(entry));
    assert!(keeper.is_some() && keeper < claim, "{journal}");
    assert_eq!(relay.stderr()?.matches("No more commands are claimed").count(), 1);
    Ok(())
}
