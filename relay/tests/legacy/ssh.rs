//! Commands on hosts behind the machine, for a center that speaks HTTP: a real SSH server.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually_within,
    process::{Daemon, Signal, signal},
    sshd::Sshd,
};

use crate::{
    center::{Center, KEY},
    harness::{Machine, PATIENCE, QUICK},
};

/// Longer than a relay waits for its disk.
const HANG_BOUND: Duration = Duration::from_mins(1);

/// A relay whose store is named as people name it, from where they are.
fn relay(machine: &Machine, center: &Center) -> Result<Daemon> {
    let mut command = machine.program();
    command.args([KEY, &center.url]).args(QUICK).args(["--log-level", "debug", "--store-dir", "../store"]);
    Daemon::spawn(&mut command)
}

/// What a command has that runs on this host.
fn at(sshd: &Sshd) -> Value {
    json!({
        "targetType": "ssh", "targetHost": "127.0.0.1", "targetPort": sshd.port(), "targetUsername": sshd.user(),
    })
}

async fn run(center: &Center, sshd: &Sshd, id: &str, command: &str) -> Result<Value> {
    center.queue_with(id, command, at(sshd));
    center.result(id, PATIENCE).await
}

#[tokio::test]
async fn a_command_runs_on_a_host_behind_the_machine() -> Result<()> {
    let (center, machine, sshd) = (Center::start().await?, Machine::new()?, Sshd::start().await?);
    center.push("targets", "ssh_targets", r#"{"targets":["127.0.0.1"]}"#);
    fs::create_dir(machine.file("store"))?;
    let relay = relay(&machine, &center)?;
    let none = run(&center, &sshd, "none", "true").await?;
    assert_eq!(none["error"], "No credentials found for 127.0.0.1 and failed to read default SSH key");

    // The usual key of the user who runs the relay, as the older relay takes it.
    fs::create_dir(machine.file(".ssh"))?;
    fs::write(machine.file(".ssh/id_rsa"), sshd.text("user")?)?;
    let unknown = run(&center, &sshd, "unknown", "true").await?;
    let error = unknown["error"].as_str().context("no error")?;
    ensure!(error.contains("known-hosts scan"), "{unknown}");
    assert_eq!((unknown["stderr"].as_str(), unknown["exitCode"].as_i64()), (Some(error), Some(-1)));

    fs::write(machine.store().join("known_hosts"), format!("{}\n", sshd.known_as("host", sshd.port())?))?;
    let ran = run(&center, &sshd, "ran", "echo out; echo err >&2; exit 3").await?;
    assert_eq!(
        (&ran["output"], &ran["stderr"], &ran["exitCode"]),
        (&json!("out\n"), &json!("err\n"), &json!(3))
    );
    assert!(ran.get("error").is_none(), "{ran}");
    ensure!(!relay.stderr()?.contains("PRIVATE KEY"), "the key is in the log");

    center.push("fewer", "ssh_targets", r#"{"targets":["10.0.0.0/8"]}"#);
    center.asked("POST /relay/config/ack", 2, PATIENCE).await?;
    let denied = run(&center, &sshd, "denied", "true").await?;
    ensure!(
        denied["error"]
            .as_str()
            .is_some_and(|error| error.ends_with("is none of the `ssh_targets` that the center pushes")),
        "{denied}"
    );
    Ok(())
}

/// A relay that may dial the host and knows it, and the usual key's file: a pipe, so that who reads it waits until it is written.
async fn at_a_pipe(center: &Center, machine: &Machine, sshd: &Sshd) -> Result<(Daemon, PathBuf)> {
    center.push("targets", "ssh_targets", r#"{"targets":["127.0.0.1"]}"#);
    fs::create_dir_all(machine.file("store"))?;
    fs::write(machine.store().join("known_hosts"), format!("{}\n", sshd.known_as("host", sshd.port())?))?;
    fs::create_dir(machine.file(".ssh"))?;
    let key = machine.file(".ssh").canonicalize()?.join("id_rsa");
    signalbox_testkit::sshd::run(Command::new("mkfifo").arg(&key))?;
    let relay = relay(machine, center)?;
    center.asked("POST /relay/config/ack", 1, PATIENCE).await?;
    Ok((relay, key))
}

/// How many times a process has a file open, for reading.
fn readers(pid: u32, file: &Path) -> Result<usize> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(open.filter(|open| open == file).count())
}

/// What takes long on the disk goes on while the connection to the keeper is made anew.
#[tokio::test]
async fn the_way_to_a_host_is_looked_for_once() -> Result<()> {
    let (center, machine, sshd) = (Center::start().await?, Machine::new()?, Sshd::start().await?);
    let (relay, key) = at_a_pipe(&center, &machine, &sshd).await?;
    center.queue_with("away", "echo away", at(&sshd));
    // Both ends, as it would wait here for a reader otherwise.
    let mut held = fs::OpenOptions::new().read(true).write(true).open(&key)?;
    let one_reads = || async {
        ensure!(readers(relay.pid(), &key)? >= 1, "nobody reads the key");
        Ok(())
    };
    eventually_within("the key is read", PATIENCE, one_reads).await?;

    let keeper = machine.keeper_pid().await?;
    signal(keeper, Signal::STOP)?;
    center.queue("here", "echo here");
    let hangs = || async {
        ensure!(relay.stderr()?.contains("Keeper does not answer"), "it was not missed");
        Ok(())
    };
    let missed = eventually_within("the keeper is missed", PATIENCE, hangs).await;
    signal(keeper, Signal::CONT)?;
    missed?;
    assert_eq!(center.result("here", PATIENCE).await?["output"], "here\n");
    assert_eq!(readers(relay.pid(), &key)?, 1, "it is looked for again");

    held.write_all(sshd.text("user")?.as_bytes())?;
    drop(held);
    assert_eq!(center.result("away", PATIENCE).await?["output"], "away\n");
    Ok(())
}

/// A disk that hangs holds a few threads, and no place among the parallel commands.
#[tokio::test]
async fn what_waits_for_a_disk_that_hangs_ends_and_says_so() -> Result<()> {
    let (center, machine, sshd) = (Center::start().await?, Machine::new()?, Sshd::start().await?);
    let (relay, key) = at_a_pipe(&center, &machine, &sshd).await?;
    // Both ends, so that who reads it waits.
    let mut held = fs::OpenOptions::new().read(true).write(true).open(&key)?;
    let all = ["a", "b", "c", "d", "e"];
    for id in all {
        center.queue_with(id, "echo away", at(&sshd));
    }
    for id in all {
        let result = center.result(id, HANG_BOUND).await?;
        let error = result["error"].as_str().context("no error")?;
        ensure!(error.contains("does the disk hang"), "{result}");
    }
    ensure!(readers(relay.pid(), &key)? <= 4, "each command holds another thread");
    center.queue("here", "echo here");
    assert_eq!(center.result("here", PATIENCE).await?["output"], "here\n");

    // Each that reads gets some of it, and none a key.
    let is_left = || async {
        ensure!(readers(relay.pid(), &key)? == 0, "it is still read");
        Ok(())
    };
    held.write_all(sshd.text("user")?.as_bytes())?;
    drop(held);
    eventually_within("nobody waits", PATIENCE, is_left).await?;
    fs::remove_file(&key)?;
    fs::write(&key, sshd.text("user")?)?;
    assert_eq!(run(&center, &sshd, "again", "echo away").await?["output"], "away\n");
    Ok(())
}

/// The server there sends no signals, and takes no variables: nothing that is asked of it ends the command.
#[tokio::test]
async fn what_the_host_does_not_confirm_is_told() -> Result<()> {
    let lines = ["ForceCommand eval \"$SSH_ORIGINAL_COMMAND\"", "AcceptEnv LANG"];
    let (center, machine, sshd) = (Center::start().await?, Machine::new()?, Sshd::start_with(&lines).await?);
    center.push("targets", "ssh_targets", r#"{"targets":["127.0.0.1"]}"#);
    fs::create_dir_all(machine.store())?;
    fs::write(machine.store().join("known_hosts"), format!("{}\n", sshd.known_as("host", sshd.port())?))?;
    fs::create_dir(machine.file(".ssh"))?;
    fs::write(machine.file(".ssh/id_rsa"), sshd.text("user")?)?;
    let _relay = relay(&machine, &center)?;
    center.asked("POST /relay/config/ack", 1, PATIENCE).await?;
    let members = json!({
        "targetType": "ssh", "targetHost": "127.0.0.1", "targetPort": sshd.port(), "targetUsername": sshd.user(),
        "timeoutMs": 1000,
    });
    let pid = sshd.path("pid");
    let command = format!("echo $$ > {}; trap '' HUP PIPE; echo err >&2; sleep 60", pid.display());
    center.queue_with("late", &command, members);
    let late = center.result("late", PATIENCE).await?;
    let pid = rustix::process::Pid::from_raw(fs::read_to_string(pid)?.trim().parse()?).context("no pid")?;
    rustix::process::kill_process_group(pid, Signal::KILL)?;
    assert_eq!((&late["error"], &late["exitCode"]), (&json!("Command timed out"), &json!(-1)));
    let stderr = late["stderr"].as_str().context("no stderr")?;
    ensure!(stderr.starts_with("err\n\n") && stderr.contains("did not confirm"), "{late}");
    Ok(())
}
