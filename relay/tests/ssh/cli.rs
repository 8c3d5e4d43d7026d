//! `signalbox-relay known-hosts`.

use std::{
    fs::Permissions,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_schemas::ssh::SshFault;
use signalbox_testkit::{process::Daemon, sshd::Sshd};

use crate::harness::{PATIENCE, Room, hop, key};

fn known_hosts(file: &Path, args: &[&str], stdin: &str) -> Result<Output> {
    known_hosts_at("--file", file, args, stdin)
}

fn known_hosts_at(place: &str, path: &Path, args: &[&str], stdin: &str) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
    command.arg("known-hosts").args(args).arg(place).arg(path);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes())?;
    Ok(child.wait_with_output()?)
}

fn printed(file: &Path, args: &[&str], stdin: &str) -> Result<String> {
    let output = known_hosts(file, args, stdin)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_host_is_scanned_added_listed_and_forgotten() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    sshd.keygen("rsa", &["-t", "rsa", "-b", "2048", "-N", ""])?;
    let route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    room.fails(&route, SshFault::HostKeyUnknown).await?;
    let (file, host) = (room.path("known_hosts"), format!("127.0.0.1:{}", sshd.port()));
    let line = sshd.known_as("host", sshd.port())?;
    let scanned = printed(&file, &["scan", &host], "")?;
    assert!(scanned.contains(&format!("{line}\n")) && scanned.contains("SHA256:"), "{scanned}");
    assert!(!file.exists(), "it was added without being asked for");
    let refused = known_hosts(&file, &["scan", &host, "--add"], "y\n")?;
    assert!(!refused.status.success() && String::from_utf8(refused.stderr)?.contains("--yes"));
    printed(&file, &["scan", &host, "--add", "--yes"], "")?;
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    let listed: serde_json::Value = serde_json::from_str(&printed(&file, &["list", "--json"], "")?)?;
    assert_eq!(listed[0]["hosts"], format!("[127.0.0.1]:{}", sshd.port()));
    assert!(scanned.contains(listed[0]["fingerprint"].as_str().context("no text")?));
    assert_eq!(printed(&file, &["remove", &host, "--json"], "")?, "{\"added\":0,\"removed\":1}\n");
    let added = printed(&file, &["add", "-", "--json"], &format!("# a comment\n\n{line}\n{line}\n"))?;
    assert_eq!(added, "{\"added\":1,\"removed\":0}\n");
    let refused = known_hosts(&file, &["add", "rubbish"], "")?;
    assert!(!refused.status.success() && String::from_utf8(refused.stderr)?.contains("no host key"));
    assert_eq!(std::fs::read_to_string(&file)?, format!("{line}\n"));
    Ok(())
}

#[test]
fn what_a_relay_shall_know_can_be_said_before_it_has_begun() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("relay/store");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    let listed = known_hosts_at("--store", &store, &["list"], "")?;
    ensure!(listed.status.success() && !store.exists(), "{}", String::from_utf8_lossy(&listed.stderr));
    known_hosts_at("--store", &store, &["scan", "127.0.0.1:1"], "")?;
    ensure!(!store.exists(), "who only looks makes a store");
    let added = known_hosts_at("--store", &store, &["add", "-"], &format!("db-1 {key}\n"))?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(std::fs::read_to_string(store.join("known_hosts"))?, format!("db-1 {key}\n"));
    assert_eq!(std::fs::metadata(&store)?.permissions().mode() & 0o777, 0o700);
    Ok(())
}

#[tokio::test]
async fn all_kinds_of_key_are_scanned() -> Result<()> {
    let keys = Sshd::start().await?;
    keys.keygen("rsa", &["-t", "rsa", "-b", "2048", "-N", ""])?;
    keys.keygen("p256", &["-t", "ecdsa", "-b", "256", "-N", ""])?;
    let lines = ["rsa", "p256"].map(|name| format!("HostKey {}", keys.path(name).display()));
    let sshd = Sshd::start_with(&[&lines[0], &lines[1]]).await?;
    let file = keys.path("scanned");
    let scanned = printed(&file, &["scan", &format!("127.0.0.1:{}", sshd.port())], "")?;
    for line in [
        sshd.known_as("host", sshd.port())?,
        keys.known_as("rsa", sshd.port())?,
        keys.known_as("p256", sshd.port())?,
    ] {
        assert!(scanned.contains(&line), "{line} is not in {scanned}");
    }
    Ok(())
}

/// The file of a resolver's aliases is one that nobody ever writes: the name is being looked up for ever.
#[tokio::test]
async fn a_name_that_is_still_being_resolved_does_not_hold_the_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let aliases = folder.path().join("aliases");
    signalbox_testkit::sshd::run(Command::new("mkfifo").arg(&aliases))?;
    let mut scan = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
    scan.args(["known-hosts", "scan", "nowhere", "--store"]).arg(folder.path()).env("HOSTALIASES", &aliases);
    let scan = Daemon::spawn(&mut scan)?;
    let status = scan.wait(PATIENCE).await?;
    assert_eq!(status.code(), Some(1), "{}", scan.stderr()?);
    assert!(scan.stderr()?.contains("resolving nowhere"), "{}", scan.stderr()?);
    Ok(())
}

/// A file of all users stays one, also where what this user makes is for him alone.
#[test]
fn a_file_keeps_its_mode_whatever_is_taken_from_new_ones() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("known_hosts");
    std::fs::write(&file, "")?;
    std::fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    let line = "web-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    let mut add = Command::new("sh");
    add.args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_signalbox-relay")]);
    let added = add.args(["known-hosts", "add", line, "--file"]).arg(&file).output()?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(std::fs::read_to_string(&file)?, format!("{line}\n"));
    assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o644);
    Ok(())
}
