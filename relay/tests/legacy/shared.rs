//! Credentials that a center shares with its relays, sealed with a secret that both know.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::process::Daemon;

use crate::{
    center::{Center, KEY, Reply},
    harness::{Machine, PATIENCE, QUICK},
};

/// Sealed with the secret `topsecret`: `hello`.
const SEALED: &str = "000102030405060708090a0b0c0d0e0f:65ae09bef6054db6216ec4164ae794be:52cb3cf5a7";

/// A center that shares two credentials, and one between them that is sealed with another secret.
async fn center() -> Result<Center> {
    let shared = |name: &str, sealed: &str| {
        json!({
            "name": name, "credentialType": "password", "targetHost": "db-1", "encryptedValue": sealed, "updatedAt": 5,
        })
    };
    let foreign = SEALED.replace("a7", "a8");
    let credentials = [shared("db", SEALED), shared("foreign", &foreign), shared("web", SEALED)];
    let center = Center::start().await?;
    center.always("GET /relay/credentials/shared", Reply::Json(200, json!({"credentials": credentials})));
    Ok(center)
}

/// A relay that knows the secret, with variables of its own.
fn relay(machine: &Machine, center: &Center, variables: &[(&str, &str)]) -> Result<Daemon> {
    let secret = machine.file("secret");
    fs::write(&secret, "topsecret\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let mut command = machine.program();
    command.args([KEY, &center.url]).args(QUICK).arg("--store-dir").arg(machine.store());
    command.arg("--shared-secret-file").arg(secret).envs(variables.iter().copied());
    Daemon::spawn(&mut command)
}

/// The names of what the vault keeps.
fn kept(machine: &Machine) -> Result<Vec<String>> {
    let store = machine.store();
    let store = store.to_str().context("the path is no text")?;
    let listed = machine.output(&["credentials", "list", "--json", "--store", store])?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout)?;
    let name = |one: &Value| Some(one.get("credential_name")?.as_str()?.to_owned());
    listed.iter().map(|one| name(one).context("it has no name")).collect()
}

#[tokio::test]
async fn what_the_secret_opens_is_kept() -> Result<()> {
    let (center, machine) = (center().await?, Machine::new()?);
    let relay = relay(&machine, &center, &[])?;
    // They are asked for before the first of these.
    center.asked("POST /relay/heartbeat", 1, PATIENCE).await?;
    assert_eq!(kept(&machine)?, ["db", "web"]);
    let said = relay.stderr()?;
    ensure!(said.contains("not kept") && said.contains("foreign"), "{said}");
    ensure!(!said.contains("topsecret") && !said.contains("hello"), "a secret is in the log");
    Ok(())
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_none() -> Result<()> {
    let (center, machine) = (center().await?, Machine::new()?);
    let secret = machine.file("secret");
    fs::write(&secret, "topsecret\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644))?;
    let secret = secret.to_str().context("the path is no text")?;
    let ended = machine.output(&[KEY, &center.url, "--shared-secret-file", secret])?;
    let said = String::from_utf8(ended.stderr)?;
    ensure!(!ended.status.success() && said.contains(secret) && !said.contains("topsecret"), "{said}");
    assert!(center.requests().is_empty(), "it began without its secret");
    Ok(())
}

/// Killed once the vault was written: one step has brought all that can be kept.
#[cfg(feature = "crash-points")]
#[tokio::test]
async fn shared_credentials_are_kept_all_in_one_step() -> Result<()> {
    use std::os::unix::process::ExitStatusExt as _;

    let (center, machine) = (center().await?, Machine::new()?);
    let relay = relay(&machine, &center, &[("SIGNALBOX_CRASH_AT", "relay:vault.replaced")])?;
    assert_eq!(relay.wait(PATIENCE).await?.signal(), Some(9), "{}", relay.stderr()?);
    assert_eq!(kept(&machine)?, ["db", "web"]);
    Ok(())
}
