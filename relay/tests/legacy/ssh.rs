//! Commands on hosts behind the machine, for a center that speaks HTTP: a real SSH server.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{process::Daemon, sshd::Sshd};

use crate::{
    center::{Center, KEY},
    harness::{Machine, PATIENCE, QUICK},
};

/// A relay whose store is named as people name it, from where they are.
fn relay(machine: &Machine, center: &Center) -> Result<Daemon> {
    let mut command = machine.program();
    command.args([KEY, &center.url]).args(QUICK).args(["--log-level", "debug", "--store-dir", "../store"]);
    Daemon::spawn(&mut command)
}

async fn run(center: &Center, sshd: &Sshd, id: &str, command: &str) -> Result<Value> {
    let members = json!({
        "targetType": "ssh", "targetHost": "127.0.0.1", "targetPort": sshd.port(), "targetUsername": sshd.user(),
    });
    center.queue_with(id, command, members);
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
    ensure!(denied["error"].as_str().is_some_and(|error| error.contains("targets")), "{denied}");
    Ok(())
}
