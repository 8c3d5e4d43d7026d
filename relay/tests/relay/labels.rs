//! What a relay says that its machine is for, and is.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::eventually;

use crate::harness::{Fleet, Machine, RUN_BOUND};

fn add_to_toml(machine: &Machine, text: &str) -> Result<()> {
    let path = machine.file("relay.toml");
    let toml = fs::read_to_string(&path)? + text;
    Ok(fs::write(&path, toml)?)
}

#[tokio::test]
async fn labels_of_the_owner_and_facts_are_told_by_the_machine_itself() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    add_to_toml(&machine, "[labels]\nrole = \"web\"\n\"example.com/rack\" = \"B\u{fc}ro 1\"\n")?;
    let relay = machine.start(&fleet).await?;
    let told = fleet.inventory(&machine, |_| true).await?;
    let labels: Vec<String> = told.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["example.com/rack=B\u{fc}ro 1", "role=web"]);
    let facts = told.facts.context("no facts")?;
    let heartbeat = eventually("a sign of life", || fleet.heartbeat(&machine)).await?;
    assert_eq!(facts, heartbeat.facts);
    // The next relay says what its file says then.
    relay.stop().await?;
    let toml = fs::read_to_string(machine.file("relay.toml"))?.replace("\"web\"", "\"db\"");
    fs::write(machine.file("relay.toml"), toml)?;
    let _relay = machine.start(&fleet).await?;
    let is_db = |labels: &signalbox_schemas::label::LabelMap| {
        labels.iter().any(|(key, value)| (key.as_str(), value.as_str()) == ("role", "db"))
    };
    fleet.inventory(&machine, |told| is_db(&told.labels)).await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_label_ends_the_start_and_is_named() -> Result<()> {
    let fleet = Fleet::start().await?;
    for (text, said) in [
        ("[labels]\nRole = \"web\"\n", "label key"),
        ("[labels]\nrole = \" web\"\n", "label value"),
        ("[labels]\nrole = 7\n", "expected a string"),
    ] {
        let machine = Machine::new(&fleet, "web-1")?;
        add_to_toml(&machine, text)?;
        let relay = machine.spawn(&fleet.broker.url(), &machine.store(), &[])?;
        let status = relay.daemon.wait(RUN_BOUND).await?;
        let stderr = relay.daemon.stderr()?;
        ensure!(status.code() == Some(1), "{status}: {stderr}");
        for part in ["relay.toml", said] {
            ensure!(stderr.contains(part), "no {part:?} in: {stderr}");
        }
        ensure!(relay.daemon.stdout()?.is_empty(), "it says that it is ready");
    }
    Ok(())
}
