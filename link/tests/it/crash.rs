//! A part that is told to die dies, there and then.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signalbox_link::crash::{Part, Point, hit};

/// Set for the child only.
const CHILD: &str = "SIGNALBOX_TEST_CRASH_CHILD";

/// Not a test of its own: what the children of the others do.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    hit(Part::Keeper, Point::Spawned);
    hit(Part::Relay, Point::ClaimSent);
    hit(Part::Relay, Point::Spawned);
    hit(Part::Relay, Point::Spawned);
    std::process::exit(7);
}

fn command(crash_at: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "crash::child"]).env(CHILD, "1").env("SIGNALBOX_CRASH_AT", crash_at);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn run(crash_at: &str) -> Result<ExitStatus> {
    Ok(command(crash_at)?.status()?)
}

#[test]
fn the_named_part_dies_at_the_named_hit() -> Result<()> {
    for dies in ["relay:claim.sent", "relay:spawned", "relay:spawned:2", "keeper:spawned"] {
        assert_eq!(run(dies)?.signal(), Some(9), "{dies}");
    }
    for lives in ["relay:spawned:3", "keeper:claim.sent", "bridge:spawned", "relay:exit.written", "rubbish"] {
        assert_eq!(run(lives)?.code(), Some(7), "{lives}");
    }
    Ok(())
}

#[test]
fn at_a_point_of_the_broker_the_process_stops_and_goes_on() -> Result<()> {
    let mut child = command("broker:spawned")?.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("pid")?;
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)?.context("status")?;
    assert!(status.stopped(), "{status:?}");
    kill_process(pid, Signal::CONT)?;
    assert_eq!(child.wait()?.code(), Some(7));
    Ok(())
}
