//! A store has one relay: another one says so and leaves what is there as it is.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_relay::vault::{Vault, VaultPlace};
use signalbox_schemas::{credential::CredentialValue, run::ExitState};
use signalbox_testkit::process::Daemon;

use crate::{
    changes::{label, name, push},
    harness::{Fleet, Machine, RUN_BOUND},
};

/// What a vault is: its files, which ones they are, and what is in them.
fn vault_files(store: &Path) -> Result<BTreeMap<PathBuf, (u64, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vault")) {
            files.insert(path.clone(), (fs::metadata(&path)?.ino(), fs::read(&path)?));
        }
    }
    ensure!(files.len() >= 2, "no vault: {:?}", files.keys());
    Ok(files)
}

fn password(text: &str) -> CredentialValue {
    CredentialValue::Password { password: text.to_owned().into() }
}

async fn is_refused(second: &Daemon, by: u32) -> Result<()> {
    let status = second.wait(RUN_BOUND).await?;
    let stderr = second.stderr()?;
    ensure!(status.code() == Some(1), "{status}: {stderr}");
    let said = stderr.lines().last().context("it says nothing")?;
    let expected = format!("is in use by another relay (pid {by})");
    ensure!(said.contains(&expected), "it is not said what keeps it out: {stderr}");
    ensure!(second.stdout()?.is_empty(), "it says that it is ready");
    Ok(())
}

#[tokio::test]
async fn a_second_relay_says_who_has_the_store_and_leaves_the_vault_as_it_is() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let first = machine.start(&fleet).await?;
    push(&fleet, &machine, label("db", "*.lan")?, &password("first")).await?;
    let store = machine.store();
    let before = vault_files(&store)?;

    let second = machine.spawn(&fleet.broker.url(), &store, &[])?;
    is_refused(&second.daemon, first.daemon.pid()).await?;
    ensure!(vault_files(&store)? == before, "the vault was touched");

    // The first one goes on, and changes it as ever.
    let exit = push(&fleet, &machine, label("db", "*.lan")?, &password("second")).await?;
    assert_eq!(exit.state, ExitState::Completed, "{exit:?}");
    let vault = Vault::open(VaultPlace::new(&store, None))?;
    assert_eq!(vault.value(&name("db")?)?, password("second"));
    Ok(())
}
