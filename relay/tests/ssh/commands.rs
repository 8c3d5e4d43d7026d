//! What a command prints and how it ends.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use sha2::{Digest as _, Sha256 as Hasher};
use signalbox_relay::{
    keeper::protocol::{Cause, Phase, ShellEnd, StartRun, StreamStatus},
    ssh::route::Hop,
};
use signalbox_schemas::{
    id::Sha256,
    output::OutputStream::{Stderr, Stdout},
    ssh::SshFault,
};
use signalbox_testkit::{
    eventually_within,
    sshd::{PasswordUser, Sshd},
};

use crate::harness::{MIB, PATIENCE, Room, cause, end, hop, nothing_runs, password};

#[tokio::test]
async fn output_and_exit_codes_come_as_they_are() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    ensure!(room.welcome.remote);
    let route = room.route(&sshd)?;
    let status = room.run(&route, "echo out; echo err >&2; exit 7").await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 7 });
    assert_eq!((room.text(&status, Stdout)?, room.text(&status, Stderr)?), ("out\n".into(), "err\n".into()));
    assert_eq!(status.pid, None);
    assert!(end(&status)?.group_dead && end(&status)?.fault.is_none());
    assert!(status.begun_at_ms.is_some_and(|at| at >= status.started_at_ms), "{status:?}");
    // By 129 and more shells mean signals; it is a code all the same.
    for code in [0, 1, 126, 127, 129, 137, 143, 254, 255] {
        let status = room.run(&route, &format!("exit {code}")).await?;
        assert_eq!(cause(&status)?, &Cause::Exited { code });
    }
    Ok(())
}

#[rstest]
#[case("KILL", "SIGKILL")]
#[case("TERM", "SIGTERM")]
#[case("ABRT", "SIGABRT")]
#[tokio::test]
async fn signals_are_told_by_their_names(#[case] signal: &str, #[case] name: &str) -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let status = room.run(&route, &format!("ulimit -c 0; kill -{signal} $$")).await?;
    assert_eq!(cause(&status)?, &Cause::Signalled { name: name.into() });
    Ok(())
}

#[tokio::test]
async fn a_command_reads_nothing_and_is_run_as_it_is_written() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    assert_eq!(room.print(&route, "cat; printf '%s' \"a  'b'\\$c\\\" \u{e4}\"").await?, "a  'b'$c\" \u{e4}");
    let long = format!("printf %s {} | wc -c", "x".repeat(60_000));
    assert_eq!(room.print(&route, &long).await?.trim(), "60000");
    Ok(())
}

#[tokio::test]
async fn a_hundred_mebibytes_come_byte_for_byte() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    // No two pieces of it are the same, whatever their size.
    let whole: Vec<u8> =
        (0..100 * MIB / 8).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    fs::write(sshd.path("whole"), &whole)?;
    let status = room.run(&route, &format!("cat {}", sshd.path("whole").display())).await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert_eq!((status.stdout.bytes, status.stdout.kept), (100 * MIB, 100 * MIB));
    assert_eq!(status.stdout.sha256, Some(Sha256::of(&whole)));
    let spooled = room.output(status.cid, Stdout)?;
    assert_eq!(Hasher::digest(&spooled), Hasher::digest(&whole));
    Ok(())
}

/// As of a run on the machine itself: the beginning, the end, and what all of it was.
#[tokio::test]
async fn of_output_beyond_its_limit_beginning_and_end_are_kept() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let whole: Vec<u8> = (0..600_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(sshd.path("whole"), &whole)?;
    let command = format!("cat {}; echo err >&2", sshd.path("whole").display());
    let run = StartRun { max_output: MIB, ..room.start_of(&route, &command) };
    let status = room.run_as(run).await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    let StreamStatus { bytes, kept, sha256, truncated, tail } = status.stdout;
    assert_eq!((bytes, truncated), (whole.len() as u64, true));
    // The other stream has its part where it comes first.
    assert_eq!(kept + status.stderr.kept, MIB);
    assert_eq!(sha256, Some(Sha256::of(&whole)));
    let tail = tail.context("no tail")?;
    assert_eq!((tail.offset + tail.len, tail.len), (bytes, MIB / 2));
    let (head_end, tail_begin) = (usize::try_from(kept)?, usize::try_from(tail.offset)?);
    assert!(room.output(status.cid, Stdout)? == whole[..head_end], "the beginning differs");
    let kept_tail = room.client.read_spool(status.cid, Stdout, tail.offset, 1024 * 1024)?;
    assert!(kept_tail == whole[tail_begin..], "the end differs");
    Ok(())
}

#[tokio::test]
async fn keys_are_exchanged_anew_in_the_middle_of_output() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start_with(&["RekeyLimit 2M"]).await?);
    let route = room.route(&sshd)?;
    let command = "for i in 1 2 3 4; do head -c 8388608 /dev/zero & done; wait";
    for _ in 0..2 {
        let status = room.run(&route, command).await?;
        assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
        assert_eq!(status.stdout.bytes, 32 * MIB);
    }
    assert_eq!(sshd.connections()?, 1);
    Ok(())
}

#[tokio::test]
async fn output_is_told_while_the_command_runs() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let fifo = sshd.path("fifo");
    let run = room.start_of(&route, &format!("mkfifo {0}; echo first; cat {0}", fifo.display()));
    let cid = room.start(run).await?;
    let status = room.status_when(|status| status.cid == cid && status.stdout.kept == 6).await?;
    assert_eq!((status.phase, status.begun_at_ms.is_some()), (Phase::Running, true));
    fs::write(&fifo, "second\n")?;
    let status = room.end_of(cid).await?;
    assert_eq!(room.text(&status, Stdout)?, "first\nsecond\n");
    Ok(())
}

/// The id of a process that a command wrote down.
async fn pid_in(sshd: &Sshd, name: &str) -> Result<u32> {
    eventually_within("the command's id", PATIENCE, || async { Ok(sshd.text(name)?.trim().parse()?) }).await
}

async fn is_gone(pid: u32) -> Result<()> {
    eventually_within("the command is gone", PATIENCE, || async move {
        ensure!(fs::metadata(format!("/proc/{pid}")).is_err(), "{pid} is there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cancel_ends_the_process_there() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let file = sshd.path("pid");
    let run = room.start_of(&route, &format!("echo $$ > {}; exec sleep 300", file.display()));
    let cid = room.start(run).await?;
    let pid = pid_in(&sshd, "pid").await?;
    room.client.cancel(cid).await?;
    let status = room.end_of(cid).await?;
    assert_eq!(cause(&status)?, &Cause::Cancelled { shell: Some(ShellEnd::Signalled("SIGTERM".into())) });
    assert!(end(&status)?.group_dead && end(&status)?.fault.is_none(), "{status:?}");
    is_gone(pid).await
}

#[tokio::test]
async fn timeout_ends_what_does_not_want_to() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let command =
        format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.1; done", sshd.path("pid").display());
    let run = StartRun { timeout_ms: 500, ..room.start_of(&route, &command) };
    let status = room.run_as(run).await?;
    assert_eq!(cause(&status)?, &Cause::Timeout { shell: Some(ShellEnd::Signalled("SIGKILL".into())) });
    assert!(end(&status)?.group_dead, "{status:?}");
    is_gone(pid_in(&sshd, "pid").await?).await?;
    nothing_runs(&sshd).await
}

#[tokio::test]
async fn a_keeper_that_is_told_to_end_ends_what_runs_elsewhere() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let run = room.start_of(&route, &format!("echo $$ > {}; exec sleep 300", sshd.path("pid").display()));
    room.start(run).await?;
    let pid = pid_in(&sshd, "pid").await?;
    room.client.shutdown().await?;
    is_gone(pid).await
}

/// Signals are for users who are not root: the server sends none to what root runs.
#[tokio::test]
async fn cancel_is_a_signal_of_the_server_where_it_sends_one() -> Result<()> {
    let Some(user) = PasswordUser::make().await? else { return Ok(()) };
    let sshd = Sshd::start_with(&["PasswordAuthentication yes", "AcceptEnv LANG"]).await?;
    let mut room = Room::open().await?;
    let mut route = room.route(&sshd)?;
    route.hops[0] = Hop { user: user.name().into(), ..hop(&sshd, vec![password(user.password())]) };
    let run = room.start_of(&route, "echo $$; exec sleep 300");
    let cid = room.start(run).await?;
    let status = room.status_when(|status| status.cid == cid && status.stdout.kept > 1).await?;
    let pid = room.text(&status, Stdout)?.trim().parse()?;
    room.client.cancel(cid).await?;
    let status = room.end_of(cid).await?;
    assert_eq!(cause(&status)?, &Cause::Cancelled { shell: Some(ShellEnd::Signalled("SIGTERM".into())) });
    is_gone(pid).await
}

/// OpenSSH sends no signals where the server has a command of its own for everybody, and this one takes no variables.
#[tokio::test]
async fn what_the_host_does_not_confirm_is_said() -> Result<()> {
    let sshd = Sshd::start_with(&["ForceCommand eval \"$SSH_ORIGINAL_COMMAND\"", "AcceptEnv LANG"]).await?;
    let mut room = Room::open().await?;
    let route = room.route(&sshd)?;
    let command = format!("echo $$ > {}; trap '' HUP PIPE; sleep 60", sshd.path("pid").display());
    let run = StartRun { timeout_ms: 500, ..room.start_of(&route, &command) };
    let status = room.run_as(run).await?;
    assert_eq!(cause(&status)?, &Cause::Timeout { shell: None });
    let fault = end(&status)?.fault.clone().unwrap();
    assert_eq!(fault.code, SshFault::NotConfirmed.as_str());
    assert!(fault.message.contains("may go on"), "{fault:?}");
    assert!(!end(&status)?.group_dead);
    // The next one finds a connection, whatever became of the channel.
    assert_eq!(room.print(&route, "echo next").await?, "next\n");
    let pid = i32::try_from(pid_in(&sshd, "pid").await?)?;
    rustix::process::kill_process_group(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )?;
    nothing_runs(&sshd).await
}

#[tokio::test]
async fn what_stays_in_the_background_does_not_hold_the_run() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let command = format!("sleep 20 & echo $! > {}; echo done", sshd.path("pid").display());
    let status = room.run(&route, &command).await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert!(end(&status)?.duration_ms < 15_000, "{status:?}");
    assert_eq!(room.text(&status, Stdout)?, "done\n");
    let waiting = StartRun { await_pipes: true, ..room.start_of(&route, "(sleep 2; echo late) & echo done") };
    let status = room.run_as(waiting).await?;
    assert_eq!(room.text(&status, Stdout)?, "done\nlate\n");
    Ok(())
}
