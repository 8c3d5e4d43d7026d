//! `signalbox up`: what it starts, what it keeps, what it leaves behind.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use signalbox_testkit::{
    broker::nats_server,
    eventually::{eventually, eventually_within},
    process::{Daemon, Signal, bin, is_alive, signal},
    stack::{Options, Stack},
};

fn pids(stack: &Stack) -> Vec<u32> {
    let ready = stack.ready();
    let machines = ready.machines.iter().flat_map(|machine| [machine.pid, machine.keeper_pid]);
    [ready.pids.broker, ready.pids.bridge].into_iter().chain(machines).collect()
}

#[rstest]
#[case::term(Signal::TERM)]
#[case::ctrl_c(Signal::INT)]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_everything_within_five_seconds(#[case] ending: Signal) -> Result<()> {
    let stack = Stack::demo().await?;
    let all = pids(&stack);
    assert_eq!(all.len(), 8);
    let id = stack.http().submit("all", "echo $$; exec sleep 300").await?;
    let child = eventually("a running child", || async {
        let text = String::from_utf8(stack.http().output(&id, "demo-1", "stdout").await?)?;
        text.trim().parse::<u32>().context("no pid yet")
    })
    .await?;
    let since = Instant::now();
    stack.up().signal(ending)?;
    let status = stack.up().wait(Duration::from_secs(10)).await?;
    let took = since.elapsed();
    assert!(status.success(), "up ended with {status}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    for pid in all.into_iter().chain([child]) {
        assert!(!is_alive(pid), "{pid} is alive");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_still_is_ended_too_with_all_it_holds() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let id = stack.http().submit("all", "echo $$; exec sleep 300").await?;
    let child = eventually("a running child", || async {
        let text = String::from_utf8(stack.http().output(&id, "demo-1", "stdout").await?)?;
        text.trim().parse::<u32>().context("no pid yet")
    })
    .await?;
    let keeper = stack.machine(0)?.keeper_pid;
    signal(keeper, Signal::STOP)?;
    stack.stop().await?;
    for pid in [keeper, child] {
        assert!(!is_alive(pid), "{pid} is alive");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_directory_keeps_everything() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let first = Stack::start(Options::relays(2).state_dir(&state)).await?;
    let command = first.http().run("all", "echo kept").await?;
    let id = command["id"].as_str().context("no id")?.to_owned();
    first.stop().await?;
    let second = Stack::start(Options::relays(2).state_dir(&state)).await?;
    assert_eq!(first.ready().admin_token, second.ready().admin_token);
    assert_eq!(first.machine(0)?.signing_key, second.machine(0)?.signing_key);
    let again = second.http().json(&format!("/api/v1/commands/{id}")).await?;
    assert_eq!(again, command);
    second.http().run("all", "echo fresh").await?;
    Ok(())
}

/// `up` on these two addresses.
fn up(state: &Path, http: &str, nats: &str) -> Result<Command> {
    let mut command = Command::new(bin("signalbox")?);
    command.args(["up", "--headless", "--http", http, "--nats", nats, "--state-dir"]).arg(state);
    command.env("SIGNALBOX_NATS_SERVER", nats_server()?);
    Ok(command)
}

/// Any free port.
const FREE: &str = "127.0.0.1:0";

/// Runs `up`, which must end with 1 and one line.
async fn refused(command: &mut Command) -> Result<String> {
    let up = Daemon::spawn(command)?;
    let status = up.wait(Duration::from_secs(30)).await?;
    assert_eq!(status.code(), Some(1), "{}", up.stderr()?);
    assert_eq!(up.stdout()?, "");
    let stderr = up.stderr()?;
    assert_eq!(stderr.trim_end().lines().count(), 1, "more than one line: {stderr}");
    Ok(stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_in_use_is_refused_with_the_pid() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let said = refused(&mut up(&stack.ready().state_dir, FREE, FREE)?).await?;
    assert!(said.contains(&stack.up().pid().to_string()), "{said}");
    // Nor does a bridge that wants the broker for itself get past the one that has it.
    let mut second = Command::new(bin("signalbox-bridge")?);
    second.args(["serve", "--embedded-broker", "--http", FREE, "--state-dir"]).arg(&stack.ready().state_dir);
    let said = refused(&mut second).await?;
    assert!(said.contains(&stack.pid("bridge")?.to_string()), "{said}");
    stack.http().run("all", "true").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_directory_and_a_taken_port_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("thesis.tex"), "do not touch")?;
    refused(&mut up(dir.path(), FREE, FREE)?).await?;
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 1, "something was left behind");
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = format!("127.0.0.1:{}", taken.local_addr()?.port());
    let fresh = tempfile::tempdir()?;
    let state = fresh.path().join("state");
    for (http, nats) in [(port.as_str(), FREE), (FREE, port.as_str())] {
        let said = refused(&mut up(&state, http, nats)?).await?;
        assert!(said.contains(&port), "{said}");
        nothing_is_left(&state)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_too_old_is_refused() -> Result<()> {
    let (old, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let program = old.path().join("nats-server");
    std::fs::write(&program, "#!/bin/sh\necho 'nats-server: v2.10.0'\n")?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o700))?;
    let state = dir.path().join("state");
    let mut command = up(&state, FREE, FREE)?;
    let said = refused(command.env_remove("SIGNALBOX_NATS_SERVER").env("PATH", old.path())).await?;
    assert!(said.contains("2.10.0") && said.contains("2.15"), "{said}");
    nothing_is_left(&state)
}

/// The directory is gone, and no process names it on its command line.
fn nothing_is_left(state: &Path) -> Result<()> {
    ensure!(!state.exists(), "{} was left behind", state.display());
    let state = state.to_str().context("no text")?;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path().join("cmdline");
        let Ok(line) = std::fs::read(&path) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        ensure!(!line.contains(state), "left behind: {line}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_is_started_again() -> Result<()> {
    let stack = Stack::demo().await?;
    for name in ["demo-1", "broker", "bridge"] {
        let old = stack.pid(name)?;
        let since = Instant::now();
        signal(old, Signal::KILL)?;
        eventually_within(name, Duration::from_secs(20), || async {
            let new = stack.pid(name)?;
            ensure!(new != old && is_alive(new), "still {new}");
            Ok(())
        })
        .await?;
        let took = since.elapsed();
        assert!((900..5_000).contains(&took.as_millis()), "{name} came back after {took:?}");
        let command = eventually_within("a command to run", Duration::from_secs(30), || async {
            let command = stack.http().run("all", "echo alive").await?;
            Ok(command)
        })
        .await?;
        assert_eq!(command["counts"], serde_json::json!({"completed": 3}));
    }
    stack.stop().await?;
    let said = stack.up().stdout()?;
    assert_eq!(said.lines().count(), 1, "more than the one line: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_that_was_killed_is_followed_by_one_that_copes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let first = Stack::start(Options::relays(1).state_dir(&state)).await?;
    let all = pids(&first);
    first.up().kill()?;
    let second = Stack::start(Options::relays(1).state_dir(&state)).await?;
    eventually("the end of what was left", || async {
        for pid in &all {
            ensure!(!is_alive(*pid), "{pid} is alive");
        }
        Ok(())
    })
    .await?;
    second.http().run("all", "true").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_for_their_owner_only() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let mut folders = vec![stack.ready().state_dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let (path, kind) = entry.map(|e| (e.path(), e.file_type()))?;
            let kind = kind?;
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            let secret =
                ["seed", "creds", "token"].iter().any(|end| path.extension().is_some_and(|e| e == *end));
            if secret {
                assert_eq!(meta.permissions().mode() & 0o077, 0, "{}", path.display());
            }
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    let mode = std::fs::metadata(&stack.ready().state_dir)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // No process carries a secret in its arguments.
    let token = &stack.ready().admin_token;
    for pid in pids(&stack) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        assert!(!String::from_utf8_lossy(&line).contains(token.as_str()));
    }
    Ok(())
}
