//! The keeper as a relay meets it: the real program, real shells, real signals.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use signalbox_relay::keeper::{
    client::{KeeperClient, KeeperEvent, Welcome},
    protocol::{Cause, End, Phase, Refusal, RunStatus, ShellEnd, StartRun, StreamStatus},
    reap::end_marked,
    spool::read_spool,
};
use signalbox_schemas::{
    id::{CommandId, Sha256},
    output::OutputStream::{self, Stderr, Stdout},
};
use signalbox_testkit::eventually_within;

/// Nothing here takes this long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_signalbox-relay"))
}

/// A store with its keeper and a connection to it. The keeper ends when the store is removed with this value.
struct Room {
    folder: tempfile::TempDir,
    client: KeeperClient,
    welcome: Welcome,
    next_cid: u64,
}

impl Room {
    async fn open() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (client, welcome) = KeeperClient::connect_or_start(&folder.path().join("store"), exe()).await?;
        Ok(Self { folder, client, welcome, next_cid: 0 })
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn cid(&mut self) -> CommandId {
        self.next_cid += 1;
        CommandId::from_idempotency_key("test", &self.next_cid.to_string())
    }

    fn start_of(&mut self, command: &str) -> StartRun {
        let cid = self.cid();
        StartRun {
            cid,
            command: command.into(),
            timeout_ms: 60_000,
            max_output: 128 * MIB,
            leave_children: false,
            expires_at: u64::MAX,
            folder: None,
            await_pipes: false,
            route: None,
        }
    }

    /// Starts a run and waits until the keeper says so.
    async fn start(&mut self, run: StartRun) -> Result<CommandId> {
        let cid = run.cid;
        self.client.start(run).await?;
        match self.event().await? {
            KeeperEvent::Started { cid: started } if started == cid => Ok(cid),
            other => bail!("not started: {other:?}"),
        }
    }

    async fn event(&mut self) -> Result<KeeperEvent> {
        tokio::time::timeout(PATIENCE, self.client.next_event()).await.context("the keeper says nothing")
    }

    async fn status_when(&mut self, what: impl Fn(&RunStatus) -> bool) -> Result<RunStatus> {
        loop {
            match self.event().await? {
                KeeperEvent::Status(status) if what(&status) => return Ok(*status),
                KeeperEvent::Status(_) | KeeperEvent::Started { .. } => {}
                other => bail!("instead of a status: {other:?}"),
            }
        }
    }

    async fn end_of(&mut self, cid: CommandId) -> Result<RunStatus> {
        self.status_when(|status| status.cid == cid && status.phase == Phase::Ended).await
    }

    async fn run_as(&mut self, run: StartRun) -> Result<RunStatus> {
        let cid = self.start(run).await?;
        self.end_of(cid).await
    }

    async fn run(&mut self, command: &str) -> Result<RunStatus> {
        let run = self.start_of(command);
        self.run_as(run).await
    }

    /// What the spool holds of a stream from `offset` on, read in pieces of 128 KiB.
    fn output(&self, cid: CommandId, stream: OutputStream, mut offset: u64) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let piece = self.client.read_spool(cid, stream, offset, 128 * 1024)?;
            if piece.is_empty() {
                return Ok(whole);
            }
            offset += piece.len() as u64;
            whole.extend_from_slice(&piece);
        }
    }

    fn text(&self, status: &RunStatus) -> Result<String> {
        Ok(String::from_utf8(self.output(status.cid, Stdout, 0)?)?)
    }
}

fn end(status: &RunStatus) -> Result<&End> {
    status.end.as_ref().context("no end")
}

fn cause(status: &RunStatus) -> Result<&Cause> {
    Ok(&end(status)?.cause)
}

/// Whether a process is there and no zombie.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    Ok(kill_process(pid, signal)?)
}

async fn eventually_dead(pid: u32, bound: Duration) -> Result<()> {
    eventually_within("the process is gone", bound, || async move {
        ensure!(!is_alive(pid), "{pid} is alive");
        Ok(())
    })
    .await
}

/// A number from `/proc/<pid>/status`; sizes are in kB.
fn number_of(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test]
async fn exit_codes_are_exact() -> Result<()> {
    let mut room = Room::open().await?;
    for code in 0..=255_u8 {
        let status = room.run(&format!("exit {code}")).await?;
        assert_eq!(cause(&status)?, &Cause::Exited { code });
        assert!(end(&status)?.group_dead);
        assert_eq!((status.stdout.bytes, status.stdout.sha256), (0, Some(Sha256::of(b""))));
        room.client.forget(status.cid).await?;
    }
    Ok(())
}

#[rstest]
#[case("kill -9 $$", "SIGKILL")]
#[case("kill -TERM $$", "SIGTERM")]
#[case("kill -35 $$", "SIGRTMIN+1")]
#[tokio::test]
async fn a_death_by_signal_has_its_name(#[case] command: &str, #[case] name: &str) -> Result<()> {
    let status = Room::open().await?.run(command).await?;
    assert_eq!(cause(&status)?, &Cause::Signalled { name: name.into() });
    Ok(())
}

#[tokio::test]
async fn processes_know_their_run_and_have_no_input() -> Result<()> {
    let mut room = Room::open().await?;
    let status = room.run("echo $SIGNALBOX_RUN $SIGNALBOX_KEEPER; cat; ps -o pgid= -p $$").await?;
    let text = room.text(&status)?;
    let words: Vec<_> = text.split_whitespace().collect();
    let pid = status.pid.context("no pid")?;
    assert_eq!(words, [status.cid.to_string(), room.welcome.instance.to_string(), pid.to_string()]);
    Ok(())
}

#[tokio::test]
async fn bytes_are_left_as_they_are_and_streams_apart() -> Result<()> {
    let mut room = Room::open().await?;
    let status = room.run(r"printf '\000\377\376x\n'; printf '\200err' >&2").await?;
    assert_eq!(room.output(status.cid, Stdout, 0)?, b"\0\xff\xfex\n");
    assert_eq!(room.output(status.cid, Stderr, 0)?, b"\x80err");
    assert_eq!(status.stdout.sha256, Some(Sha256::of(b"\0\xff\xfex\n")));
    assert_eq!((status.stderr.bytes, status.stderr.kept, status.stderr.truncated), (4, 4, false));
    Ok(())
}

#[tokio::test]
async fn output_is_told_while_the_run_goes_on() -> Result<()> {
    let mut room = Room::open().await?;
    let run = room.start_of("echo a; sleep 3; echo b");
    let began = Instant::now();
    let cid = room.start(run).await?;
    let first = room.status_when(|status| status.stdout.bytes > 0).await?;
    assert_eq!((first.phase, first.stdout.kept, first.stdout.sha256), (Phase::Running, 2, None));
    assert_eq!(room.output(cid, Stdout, 0)?, b"a\n");
    assert!(began.elapsed() < Duration::from_secs(2), "the first byte took {:?}", began.elapsed());
    let last = room.end_of(cid).await?;
    assert_eq!(room.text(&last)?, "a\nb\n");
    assert!((3000..5000).contains(&end(&last)?.duration_ms));
    Ok(())
}

#[tokio::test]
async fn long_command_text_runs_and_too_long_text_is_a_run_that_could_not_start() -> Result<()> {
    let mut room = Room::open().await?;
    let mut text = "echo ok #".to_owned();
    text.extend(std::iter::repeat_n('ß', (64 * 1024 - text.len()) / 2));
    let status = room.run(&text).await?;
    assert_eq!(room.text(&status)?, "ok\n");
    let status = room.run(&"x".repeat(200_000)).await?;
    assert!(
        matches!(cause(&status)?, Cause::SpawnFailed { message } if message.contains("too long")),
        "{status:?}"
    );
    assert_eq!((status.pid, status.stdout.sha256), (None, Some(Sha256::of(b""))));
    let status = room.run("a\0b").await?;
    assert!(matches!(cause(&status)?, Cause::SpawnFailed { .. }), "{status:?}");
    Ok(())
}

#[rstest]
#[case(0)]
#[case(172_800_001)]
#[tokio::test]
async fn timeouts_out_of_range_are_refused(#[case] timeout_ms: u64) -> Result<()> {
    let mut room = Room::open().await?;
    let run = StartRun { timeout_ms, ..room.start_of("true") };
    let cid = run.cid;
    room.client.start(run).await?;
    assert_eq!(room.event().await?, KeeperEvent::Refused { cid, reason: Refusal::Invalid });
    Ok(())
}

#[rstest]
#[case(1)]
#[case(172_800_000)]
#[tokio::test]
async fn timeouts_at_both_limits_are_taken(#[case] timeout_ms: u64) -> Result<()> {
    let mut room = Room::open().await?;
    let command = if timeout_ms == 1 { "sleep 60" } else { "true" };
    let run = StartRun { timeout_ms, ..room.start_of(command) };
    let status = room.run_as(run).await?;
    assert_eq!(matches!(cause(&status)?, Cause::Timeout { .. }), timeout_ms == 1, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_timeout_asks_first_and_then_insists() -> Result<()> {
    let mut room = Room::open().await?;
    let polite =
        StartRun { timeout_ms: 200, ..room.start_of("trap 'echo bye; exit 3' TERM; sleep 60 & wait") };
    let status = room.run_as(polite).await?;
    assert_eq!(cause(&status)?, &Cause::Timeout { shell: Some(ShellEnd::Exited(3)) });
    assert_eq!(room.text(&status)?, "bye\n");
    assert!((200..4000).contains(&end(&status)?.duration_ms), "{status:?}");

    let stubborn = StartRun { timeout_ms: 200, ..room.start_of("trap '' TERM; while :; do sleep 0.1; done") };
    let status = room.run_as(stubborn).await?;
    let killed = ShellEnd::Signalled("SIGKILL".into());
    assert_eq!(cause(&status)?, &Cause::Timeout { shell: Some(killed) });
    assert!((5200..9000).contains(&end(&status)?.duration_ms), "{status:?}");
    assert!(end(&status)?.group_dead);
    Ok(())
}

#[tokio::test]
async fn a_cancel_ends_a_run_and_leaves_an_ended_one_as_it_is() -> Result<()> {
    let mut room = Room::open().await?;
    let run = room.start_of("sleep 60");
    let cid = room.start(run).await?;
    room.client.cancel(cid).await?;
    let status = room.end_of(cid).await?;
    assert_eq!(cause(&status)?, &Cause::Cancelled { shell: Some(ShellEnd::Signalled("SIGTERM".into())) });

    let ended = room.run("exit 7").await?;
    room.client.cancel(ended.cid).await?;
    let (_, welcome) = KeeperClient::connect(&room.store()).await?;
    let seen = welcome.runs.iter().find(|run| run.cid == ended.cid);
    assert_eq!(seen, Some(&ended));
    Ok(())
}

#[rstest]
#[case::its_cancel(60_000)]
#[case::its_timeout(300)]
#[tokio::test]
async fn a_shell_that_ended_before_the_keeper_acted_ended_by_itself(#[case] timeout_ms: u64) -> Result<()> {
    let mut room = Room::open().await?;
    let gate = room.folder.path().join("gate");
    let command = format!("until [ -e {} ]; do sleep 0.01; done; exit 5", gate.display());
    let run = StartRun { timeout_ms, ..room.start_of(&command) };
    let (cid, began) = (room.start(run).await?, Instant::now());
    let shell = room.status_when(|status| status.cid == cid).await?.pid.context("no pid")?;
    // The keeper sleeps while the shell ends, so that its exit and the other reason meet it when it wakes.
    signal(room.welcome.pid, Signal::STOP)?;
    fs::write(&gate, "")?;
    eventually_dead(shell, PATIENCE).await?;
    if timeout_ms < 1000 {
        eventually_within("the timeout is past", PATIENCE, || async {
            ensure!(began.elapsed() > Duration::from_millis(2 * timeout_ms), "not yet");
            Ok(())
        })
        .await?;
    } else {
        room.client.cancel(cid).await?;
    }
    signal(room.welcome.pid, Signal::CONT)?;
    let status = room.end_of(cid).await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 5 });
    Ok(())
}

#[tokio::test]
async fn a_cancel_against_a_natural_end_has_one_winner() -> Result<()> {
    let mut room = Room::open().await?;
    for _ in 0..50 {
        let run = room.start_of("exit 0");
        let cid = room.start(run).await?;
        room.client.cancel(cid).await?;
        let status = room.end_of(cid).await?;
        let known =
            matches!(cause(&status)?, Cause::Exited { code: 0 } | Cause::Cancelled { shell: Some(_) });
        assert!(known, "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn children_left_in_the_group_end_with_the_run() -> Result<()> {
    let mut room = Room::open().await?;
    let status = room.run("sleep 300 & echo x; echo $! >&2").await?;
    assert_eq!((cause(&status)?, room.text(&status)?.as_str()), (&Cause::Exited { code: 0 }, "x\n"));
    // The pipe is held for a second, then the sleep is ended.
    assert!((1000..3000).contains(&end(&status)?.duration_ms), "{status:?}");
    assert!(end(&status)?.group_dead);
    let child: u32 = String::from_utf8(room.output(status.cid, Stderr, 0)?)?.trim().parse()?;
    assert!(!is_alive(child));
    Ok(())
}

#[tokio::test]
async fn children_that_ignore_term_are_killed() -> Result<()> {
    let mut room = Room::open().await?;
    let began = Instant::now();
    let status =
        room.run("(trap '' TERM; exec >/dev/null 2>&1; while :; do sleep 0.1; done) & echo $!").await?;
    let child: u32 = room.text(&status)?.trim().parse()?;
    assert!(!is_alive(child));
    assert!(end(&status)?.group_dead);
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert!(began.elapsed() >= Duration::from_secs(5), "TERM had no time to work");
    assert!(end(&status)?.duration_ms < 3000, "the run itself was over at once: {status:?}");
    Ok(())
}

#[tokio::test]
async fn children_stay_when_asked_for() -> Result<()> {
    let mut room = Room::open().await?;
    let run = StartRun { leave_children: true, ..room.start_of("sleep 300 >/dev/null 2>&1 & echo $!") };
    let status = room.run_as(run).await?;
    let child: u32 = room.text(&status)?.trim().parse()?;
    assert!(is_alive(child));
    assert_eq!((cause(&status)?, end(&status)?.group_dead), (&Cause::Exited { code: 0 }, false));
    // An orphan is the keeper's child: it is reaped and no zombie stays.
    assert_eq!(number_of(child, "PPid")?, u64::from(room.welcome.pid));
    signal(child, Signal::KILL)?;
    eventually_within("the orphan is reaped", PATIENCE, || async move {
        ensure!(!Path::new(&format!("/proc/{child}")).exists(), "{child} is there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_may_begin_in_another_folder() -> Result<()> {
    let mut room = Room::open().await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().canonicalize()?.display().to_string();
    let run = StartRun { folder: Some(path.clone()), ..room.start_of("pwd") };
    let status = room.run_as(run).await?;
    assert_eq!(room.text(&status)?, format!("{path}\n"));
    drop(folder);
    let run = StartRun { folder: Some(path), ..room.start_of("pwd") };
    let status = room.run_as(run).await?;
    assert!(matches!(cause(&status)?, Cause::SpawnFailed { .. }), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn who_holds_the_pipe_is_waited_for_when_asked_to_until_the_timeout() -> Result<()> {
    let mut room = Room::open().await?;
    let run = StartRun { await_pipes: true, ..room.start_of("(sleep 2; echo late) & echo soon; exit 4") };
    let status = room.run_as(run).await?;
    assert_eq!((cause(&status)?, room.text(&status)?.as_str()), (&Cause::Exited { code: 4 }, "soon\nlate\n"));
    assert!(end(&status)?.duration_ms >= 2000, "{status:?}");

    let run = StartRun {
        await_pipes: true,
        leave_children: true,
        timeout_ms: 1500,
        ..room.start_of("sleep 60 & exit 0")
    };
    let status = room.run_as(run).await?;
    assert_eq!(cause(&status)?, &Cause::Timeout { shell: Some(ShellEnd::Exited(0)) });
    assert!(end(&status)?.group_dead && (1500..5000).contains(&end(&status)?.duration_ms), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_holds_the_pipe_delays_the_end_by_a_second() -> Result<()> {
    let mut room = Room::open().await?;
    let status = room.run("(setsid sleep 300 &) ; echo x").await?;
    assert_eq!((cause(&status)?, room.text(&status)?.as_str()), (&Cause::Exited { code: 0 }, "x\n"));
    assert!((1000..3000).contains(&end(&status)?.duration_ms), "{status:?}");
    let ended = end_marked(room.welcome.instance, &[status.cid]).await;
    assert_eq!((ended.ended, ended.none_left), (1, true));
    Ok(())
}

#[tokio::test]
async fn a_hundred_mebibytes_arrive_exactly() -> Result<()> {
    let mut room = Room::open().await?;
    let copy = room.folder.path().join("copy");
    let idle = number_of(room.welcome.pid, "VmHWM")?;
    let began = Instant::now();
    let status = room.run(&format!("head -c {} /dev/urandom | tee {}", 100 * MIB, copy.display())).await?;
    println!("100 MiB in {:?}", began.elapsed());
    let expected = fs::read(copy)?;
    assert_eq!(status.stdout.bytes, 100 * MIB);
    assert_eq!((status.stdout.kept, status.stdout.truncated, status.stdout.tail), (100 * MIB, false, None));
    assert_eq!(status.stdout.sha256, Some(Sha256::of(&expected)));
    assert!(room.output(status.cid, Stdout, 0)? == expected, "the spool differs");
    let peak = number_of(room.welcome.pid, "VmHWM")?;
    assert!(peak < idle + 3 * 1024, "the keeper took {idle} kB and then {peak} kB");
    Ok(())
}

#[tokio::test]
async fn output_past_its_limit_is_counted_hashed_and_kept_from_the_end() -> Result<()> {
    let mut room = Room::open().await?;
    let expected: Vec<u8> = (1..=1_000_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    let run = StartRun { max_output: MIB, ..room.start_of("seq 1 1000000; printf late >&2") };
    let status = room.run_as(run).await?;
    let StreamStatus { bytes, kept, sha256, truncated, tail } = status.stdout;
    assert_eq!((bytes, kept, truncated), (expected.len() as u64, MIB, true));
    assert_eq!(sha256, Some(Sha256::of(&expected)));
    let tail = tail.context("no tail")?;
    assert_eq!((tail.offset + tail.len, tail.len), (bytes, MIB / 2));
    let split = usize::try_from(tail.offset)?;
    assert!(room.output(status.cid, Stdout, 0)? == expected[..usize::try_from(kept)?], "the head differs");
    assert!(room.output(status.cid, Stdout, tail.offset)? == expected[split..], "the tail differs");
    assert!(room.output(status.cid, Stdout, kept)?.is_empty(), "something stands in the gap");
    assert_eq!((status.stderr.bytes, status.stderr.kept, status.stderr.truncated), (4, 0, true));
    assert_eq!(room.output(status.cid, Stderr, 0)?, b"late");
    Ok(())
}

#[tokio::test]
async fn endless_output_is_ended_by_its_timeout_in_little_memory() -> Result<()> {
    let mut room = Room::open().await?;
    // Most of it is the program itself, and that of a test build grows with everything that is in it.
    let idle = number_of(room.welcome.pid, "VmHWM")?;
    let run = StartRun { timeout_ms: 1500, max_output: 10 * MIB, ..room.start_of("yes; echo never") };
    let status = room.run_as(run).await?;
    assert!(matches!(cause(&status)?, Cause::Timeout { .. }), "{status:?}");
    assert_eq!((status.stdout.kept, status.stdout.truncated), (10 * MIB, true));
    assert!(end(&status)?.duration_ms < 6000, "{status:?}");
    let peak = number_of(room.welcome.pid, "VmHWM")?;
    println!("{} MiB, idle {idle} kB, peak {peak} kB", status.stdout.bytes / MIB);
    assert!(peak < idle + 3 * 1024, "the keeper took {idle} kB and then {peak} kB");
    Ok(())
}

#[tokio::test]
async fn a_busy_run_does_not_hold_up_another() -> Result<()> {
    let mut room = Room::open().await?;
    let busy = StartRun { timeout_ms: 10_000, max_output: MIB, ..room.start_of("yes") };
    let busy = room.start(busy).await?;
    let began = Instant::now();
    for _ in 0..10 {
        let run = room.start_of("exit 0");
        let cid = run.cid;
        room.client.start(run).await?;
        room.end_of(cid).await?;
    }
    assert!(began.elapsed() < Duration::from_secs(3), "ten runs took {:?}", began.elapsed());
    room.client.cancel(busy).await?;
    room.end_of(busy).await?;
    Ok(())
}

#[tokio::test]
async fn starting_twice_is_one_start_for_ever() -> Result<()> {
    let mut room = Room::open().await?;
    let trace = room.folder.path().join("trace");
    let run = room.start_of(&format!("echo x >> {}; sleep 0.2", trace.display()));
    let cid = room.start(run.clone()).await?;
    room.client.start(run.clone()).await?;
    let first = room.end_of(cid).await?;
    room.start(run.clone()).await?;
    assert_eq!(fs::read_to_string(&trace)?, "x\n");

    room.client.forget(cid).await?;
    room.client.start(run.clone()).await?;
    assert_eq!(room.event().await?, KeeperEvent::Refused { cid, reason: Refusal::Forgotten });
    assert_eq!(fs::read_to_string(&trace)?, "x\n");
    assert_eq!(cause(&first)?, &Cause::Exited { code: 0 });
    Ok(())
}

#[tokio::test]
async fn forgetting_waits_for_the_end_and_removes_the_spool() -> Result<()> {
    let mut room = Room::open().await?;
    let run = room.start_of("echo x; sleep 0.3");
    let cid = room.start(run).await?;
    room.client.forget(cid).await?;
    let refused = loop {
        if let KeeperEvent::Refused { cid, reason } = room.event().await? {
            break (cid, reason);
        }
    };
    assert_eq!(refused, (cid, Refusal::Running));
    room.end_of(cid).await?;
    assert_eq!(room.output(cid, Stdout, 0)?, b"x\n");
    room.client.forget(cid).await?;
    let spool = room.store().join("spool");
    eventually_within("the spool is empty", PATIENCE, || async {
        ensure!(fs::read_dir(&spool)?.next().is_none(), "files are left");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_relay_that_comes_back_finds_its_run() -> Result<()> {
    let mut room = Room::open().await?;
    let gate = room.folder.path().join("gate");
    let run = room.start_of(&format!("echo a; until [ -e {} ]; do sleep 0.01; done; echo b", gate.display()));
    let cid = room.start(run).await?;
    room.status_when(|status| status.stdout.bytes == 2).await?;

    let (client, welcome) = KeeperClient::connect_or_start(&room.store(), exe()).await?;
    drop(std::mem::replace(&mut room.client, client));
    assert_eq!(
        (welcome.nonce, welcome.instance, welcome.pid),
        (room.welcome.nonce, room.welcome.instance, room.welcome.pid)
    );
    assert_eq!(welcome.runs.len(), 1);
    assert_eq!((welcome.runs[0].phase, welcome.runs[0].stdout.kept), (Phase::Running, 2));
    fs::write(&gate, "")?;
    let status = room.end_of(cid).await?;
    assert_eq!(room.text(&status)?, "a\nb\n");
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    Ok(())
}

#[tokio::test]
async fn what_a_killed_keeper_leaves_is_found_by_its_marks() -> Result<()> {
    let mut room = Room::open().await?;
    let kept = StartRun { leave_children: true, ..room.start_of("sleep 300 >/dev/null 2>&1 & echo $!") };
    let kept = room.run_as(kept).await?;
    let ended = kept.cid;
    let kept: u32 = room.text(&kept)?.trim().parse()?;
    let run = room.start_of("echo a; setsid sleep 300 & sleep 300 & env -i sleep 300 & echo $!; wait");
    let cid = room.start(run).await?;
    let status = room.status_when(|status| status.cid == cid && status.stdout.bytes > 2).await?;
    let shell = status.pid.context("no pid")?;
    let unmarked: u32 = room.text(&status)?.lines().last().context("no pid")?.parse()?;

    signal(room.welcome.pid, Signal::KILL)?;
    while room.event().await? != KeeperEvent::Gone {}
    assert!(is_alive(shell), "nobody told it to end yet");
    let found = end_marked(room.welcome.instance, &[cid]).await;
    // Those that died with their group before they were looked at are not counted.
    assert!(found.none_left && found.ended >= 2, "{found:?}");
    assert!(!is_alive(shell) && !is_alive(unmarked));
    assert!(is_alive(kept), "another run's child was ended");
    assert_eq!(read_spool(&room.store(), cid, Stdout, 0, 100)?, format!("a\n{unmarked}\n"));

    let found = end_marked(room.welcome.instance, &[ended]).await;
    assert_eq!((found.ended, found.none_left), (1, true));
    eventually_dead(kept, PATIENCE).await?;
    let (client, welcome) = KeeperClient::connect_or_start(&room.store(), exe()).await?;
    room.client = client;
    assert!(welcome.nonce != room.welcome.nonce && welcome.instance != room.welcome.instance);
    assert!(welcome.runs.is_empty());
    Ok(())
}

/// With the store everything that knew of the former keeper is gone, or is set back to a time before it.
#[tokio::test]
async fn a_new_keeper_ends_what_a_killed_one_left_even_when_the_store_is_gone() -> Result<()> {
    let mut room = Room::open().await?;
    let kept = StartRun { leave_children: true, ..room.start_of("sleep 300 >/dev/null 2>&1 & echo $!") };
    let kept = room.run_as(kept).await?;
    let kept: u32 = room.text(&kept)?.trim().parse()?;
    let run = room.start_of("setsid sleep 300 & echo $!; sleep 300");
    let cid = room.start(run).await?;
    let status = room.status_when(|status| status.cid == cid && status.stdout.bytes > 2).await?;
    let (shell, daemon) = (status.pid.context("no pid")?, room.text(&status)?.trim().parse()?);
    let mut other = Room::open().await?;
    let elsewhere = other.start_of("echo x; sleep 300");
    other.client.start(elsewhere).await?;
    let elsewhere = other.status_when(|status| status.stdout.bytes > 0).await?.pid.context("no pid")?;

    signal(room.welcome.pid, Signal::KILL)?;
    while room.event().await? != KeeperEvent::Gone {}
    fs::remove_dir_all(room.store())?;
    assert!(is_alive(shell) && is_alive(daemon), "nobody told them to end yet");
    let (client, _) = KeeperClient::connect_or_start(&room.store(), exe()).await?;
    room.client = client;
    eventually_dead(shell, PATIENCE).await?;
    eventually_dead(daemon, PATIENCE).await?;
    assert!(is_alive(kept), "a child that was left on request was ended");
    assert!(is_alive(elsewhere), "a run of another store was ended");
    signal(kept, Signal::KILL)
}

/// What a completed run started and left to itself, such as a service, outlives any number of keepers.
#[tokio::test]
async fn a_new_keeper_ends_what_open_runs_left_and_nothing_of_ended_ones() -> Result<()> {
    let mut room = Room::open().await?;
    // The shell stays until the other one has left its group.
    let script = "setsid sleep 300 >/dev/null 2>&1 & until [ \"$(ps -o sid= $! | tr -d ' ')\" = $! ]; do :; done; echo $!";
    let kept = room.run(script).await?;
    let kept: u32 = room.text(&kept)?.trim().parse()?;
    assert!(is_alive(kept), "it left its group");
    let run = room.start_of("setsid sleep 300 & echo $!; sleep 300");
    let cid = room.start(run).await?;
    let status = room.status_when(|status| status.cid == cid && status.stdout.bytes > 2).await?;
    let (shell, daemon) = (status.pid.context("no pid")?, room.text(&status)?.trim().parse()?);
    for _ in 0..2 {
        signal(room.welcome.pid, Signal::KILL)?;
        while room.event().await? != KeeperEvent::Gone {}
        (room.client, room.welcome) = KeeperClient::connect_or_start(&room.store(), exe()).await?;
        eventually_dead(shell, PATIENCE).await?;
        eventually_dead(daemon, PATIENCE).await?;
        assert!(is_alive(kept), "what an ended run left behind was ended");
    }
    assert_eq!(fs::read_dir(room.store().join("open"))?.count(), 0);
    signal(kept, Signal::KILL)
}

#[tokio::test]
async fn a_keeper_without_its_lock_file_ends_with_its_children() -> Result<()> {
    let mut room = Room::open().await?;
    let run = room.start_of("trap '' TERM; echo x; setsid sleep 300 & sleep 300");
    let cid = room.start(run).await?;
    let shell = room.status_when(|status| status.stdout.bytes == 2).await?.pid.context("no pid")?;
    let lock = room.store().join("keeper.lock");
    fs::remove_file(&lock)?;
    fs::write(&lock, "somebody else's")?;
    let began = Instant::now();
    eventually_dead(room.welcome.pid, Duration::from_secs(3)).await?;
    println!("gone after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(1500), "it took {:?}", began.elapsed());
    assert!(!is_alive(shell));
    assert_eq!(end_marked(room.welcome.instance, &[cid]).await.ended, 0);
    assert_eq!(fs::read_to_string(&lock)?, "somebody else's");
    Ok(())
}

#[rstest]
#[case::removed(false)]
#[case::replaced(true)]
#[tokio::test]
async fn a_keeper_without_its_socket_is_found_again(#[case] is_replaced: bool) -> Result<()> {
    let mut room = Room::open().await?;
    let run = room.start_of("sleep 300");
    let cid = room.start(run).await?;
    let socket = room.store().join("keeper.sock");
    fs::remove_file(&socket)?;
    if is_replaced {
        fs::write(&socket, "")?;
    }
    let connect = || async { Ok(KeeperClient::connect(&room.store()).await?) };
    let (mut client, welcome) = eventually_within("the keeper is found", PATIENCE, connect).await?;
    assert_eq!((welcome.pid, welcome.runs.len()), (room.welcome.pid, 1));
    client.cancel(cid).await?;
    room.end_of(cid).await?;
    Ok(())
}

#[rstest]
#[case::by_signal(true)]
#[case::by_request(false)]
#[tokio::test]
async fn a_keeper_told_to_end_takes_all_with_it(#[case] by_signal: bool) -> Result<()> {
    let mut room = Room::open().await?;
    let run = room.start_of("trap '' TERM; echo x; while :; do sleep 0.1; done");
    room.start(run).await?;
    let shell = room.status_when(|status| status.stdout.bytes == 2).await?.pid.context("no pid")?;
    let began = Instant::now();
    let Room { folder, mut client, welcome, .. } = room;
    if by_signal {
        signal(welcome.pid, Signal::TERM)?;
        // Nobody is told of an end that was the keeper's own: the run is lost.
        assert_eq!(tokio::time::timeout(PATIENCE, client.next_event()).await?, KeeperEvent::Gone);
    } else {
        client.shutdown().await?;
    }
    eventually_dead(welcome.pid, Duration::from_secs(3)).await?;
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    assert!(!is_alive(shell));
    for name in ["keeper.lock", "keeper.sock"] {
        assert!(!folder.path().join("store").join(name).exists(), "{name} is left");
    }
    Ok(())
}

#[tokio::test]
async fn a_hangup_changes_nothing() -> Result<()> {
    let mut room = Room::open().await?;
    signal(room.welcome.pid, Signal::HUP)?;
    let status = room.run("kill -HUP $$").await?;
    assert_eq!(cause(&status)?, &Cause::Signalled { name: "SIGHUP".into() });
    Ok(())
}

#[tokio::test]
async fn a_store_has_one_keeper() -> Result<()> {
    let mut room = Room::open().await?;
    let second = Command::new(exe()).arg("keeper").arg("--store").arg(room.store()).output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains(&format!("held by another keeper (pid {})", room.welcome.pid)), "{said}");
    let status = room.run("exit 4").await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 4 });
    Ok(())
}

#[tokio::test]
async fn relays_that_start_together_find_one_keeper() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    let connect = || KeeperClient::connect_or_start(&store, exe());
    let (a, b, c) = tokio::try_join!(connect(), connect(), connect())?;
    assert!(a.1.pid == b.1.pid && b.1.pid == c.1.pid);
    Ok(())
}

#[tokio::test]
async fn a_long_store_path_works() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("x".repeat(100)).join("y".repeat(100));
    let (client, welcome) = KeeperClient::connect_or_start(&store, exe()).await?;
    drop(client);
    let (client, again) = KeeperClient::connect_or_start(&store, exe()).await?;
    assert_eq!(welcome.pid, again.pid);
    client.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_no_keeper_is_reported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = KeeperClient::connect_or_start(folder.path(), Path::new("/nonexistent")).await;
    assert!(missing.is_err_and(|error| error.to_string() == "cannot start a keeper from `/nonexistent`"));
    Ok(())
}

#[tokio::test]
async fn noise_on_the_socket_hurts_nobody_else() -> Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let mut room = Room::open().await?;
    let noise: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], b"\0\0\0\x02{}"];
    for bytes in noise {
        let mut socket = tokio::net::UnixStream::connect(room.store().join("keeper.sock")).await?;
        socket.write_all(bytes).await?;
        let mut answer = Vec::new();
        // It hangs up, with or without reading all of it.
        drop(tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer).await);
        assert!(answer.is_empty(), "it answered {answer:?}");
    }
    let status = room.run("exit 4").await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 4 });
    Ok(())
}

#[tokio::test]
async fn the_log_of_a_living_keeper_is_bounded() -> Result<()> {
    use std::io::Write as _;
    let mut room = Room::open().await?;
    let log = room.store().join("keeper.log");
    fs::File::options().append(true).open(&log)?.write_all(&b"x".repeat(300_000))?;
    eventually_within("the log begins anew", PATIENCE, || async {
        let text = fs::read_to_string(&log)?;
        ensure!(text.len() < 10_000 && text.contains("begins anew"), "{} bytes", text.len());
        Ok(())
    })
    .await?;
    let status = room.run("exit 4").await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 4 });
    Ok(())
}

#[tokio::test]
async fn an_idle_keeper_is_small() -> Result<()> {
    let mut room = Room::open().await?;
    room.run("echo x").await?;
    let ticks = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", room.welcome.pid))?;
        let fields: Vec<_> = stat.rsplit(')').next().context("no stat")?.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    // Without the pages of the program file: a debug build has many times those of a release.
    let own = number_of(room.welcome.pid, "RssAnon")?;
    println!("{own} kB of its own, {} ticks", ticks()?);
    assert!(own < 3 * 1024, "{own} kB even in a debug build");
    assert!(ticks()? < 20, "{} ticks of 10 ms", ticks()?);
    Ok(())
}

/// A keeper that dies on purpose leaves what its marks lead to, and no end that is not true.
#[cfg(feature = "crash-points")]
#[rstest]
#[case("spawned")]
#[case("output.half")]
#[case("exit.written")]
#[tokio::test]
async fn a_keeper_that_dies_on_purpose_leaves_a_run_that_is_lost(#[case] point: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut keeper = Command::new(exe())
        .arg("keeper")
        .arg("--store")
        .arg(folder.path())
        .env("SIGNALBOX_CRASH_AT", format!("keeper:{point}"))
        .stderr(std::process::Stdio::null())
        .spawn()?;
    // Only this keeper is armed: another one must not be started in its place.
    let connect = || async { Ok(KeeperClient::connect(folder.path()).await?) };
    let (client, welcome) = eventually_within("the keeper is there", PATIENCE, connect).await?;
    assert_eq!(welcome.pid, keeper.id());
    let mut room = Room { folder, client, welcome, next_cid: 0 };
    // Nothing is written where nobody is left to read: that would end the shell by itself.
    let command = match point {
        "spawned" => "sleep 300",
        "output.half" => "echo x; sleep 300",
        _ => "echo x",
    };
    let run = room.start_of(command);
    let cid = run.cid;
    room.client.start(run).await?;
    loop {
        match room.event().await? {
            KeeperEvent::Gone => break,
            KeeperEvent::Status(status) => assert_eq!(status.end, None),
            _ => {}
        }
    }
    keeper.wait()?;
    let ended = end_marked(room.welcome.instance, &[cid]).await;
    assert!(ended.none_left);
    assert_eq!(ended.ended > 0, point != "exit.written");
    Ok(())
}
