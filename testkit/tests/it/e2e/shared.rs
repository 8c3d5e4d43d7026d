//! A shared credential that is taken back is gone from where it was: console, bridge and relays, with nothing played.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_schemas::{inventory::Inventory, signed::Signed};
use signalbox_testkit::{
    eventually::eventually_within,
    process::{Daemon, bin},
    stack::{Options, Stack},
};

use super::main_job::cli;

const BOUND: Duration = Duration::from_mins(1);

struct Place {
    stack: Stack,
    own: tempfile::TempDir,
}

impl Place {
    async fn start() -> Result<Self> {
        let place = Self { stack: Stack::start(Options::relays(2)).await?, own: tempfile::tempdir()? };
        let secret = place.file("secret");
        fs::write(&secret, "hunter2 and more\n")?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        Ok(place)
    }

    fn file(&self, name: &str) -> String {
        self.own.path().join(name).display().to_string()
    }

    async fn does(&self, args: &[&str]) -> Result<String> {
        let (code, stdout, stderr) = cli(&self.stack, args).await?;
        ensure!(code == Some(0), "{args:?} ends with {code:?}: {stderr}");
        Ok(stdout)
    }

    async fn push(&self, name: &str, mode: &str, to: &str) -> Result<String> {
        let secret = self.file("secret");
        let args =
            ["credential", "push", name, "--type", "password", "--mode", mode, "--value-file", &secret];
        self.does(&[&args[..], &["--to", to]].concat()).await
    }

    /// The names that a machine's vault has, as somebody sees them who sits there.
    async fn in_the_vault(&self, n: usize) -> Result<Vec<String>> {
        let mut command = Command::new(bin("signalbox-relay")?);
        command.args(["credentials", "list", "--json", "--store"]).arg(&self.stack.machine(n)?.store);
        let program = Daemon::spawn(&mut command)?;
        let status = program.wait(BOUND).await?;
        ensure!(status.success(), "{status}: {}", program.stderr()?);
        let listed: Vec<Value> = serde_json::from_str(&program.stdout()?)?;
        listed.iter().map(|one| Ok(one["credential_name"].as_str().context("no name")?.to_owned())).collect()
    }

    /// Waits until a machine's relay has said that it keeps these and no others.
    async fn says(&self, n: usize, names: &[&str]) -> Result<()> {
        let path = format!("/api/v1/inventory?on={}", self.stack.machine(n)?.token);
        eventually_within("what the relay says that it keeps", BOUND, || async {
            let listed = self.stack.http().json(&path).await?;
            let signed: Signed<Inventory> = serde_json::from_value(listed["items"][0]["inventory"].clone())?;
            let said = signed.peek()?.credentials;
            let said: Vec<&str> = said.iter().map(|meta| meta.credential_name.as_str()).collect();
            ensure!(said == names, "it says {said:?}");
            Ok(())
        })
        .await
    }

    async fn assigned(&self) -> Result<Value> {
        let listed = self.stack.http().json("/api/v1/shared-credentials").await?;
        Ok(listed["items"][0]["machines"].clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unassigned_is_gone_from_the_vault_and_from_the_inventory() -> Result<()> {
    let place = Box::pin(Place::start()).await?;
    place.does(&["recovery-key", "create", "--out", &place.file("recovery")]).await?;
    place.push("db", "shared", "demo-*").await?;
    place.push("own", "relay_only", "demo-1").await?;
    place.says(0, &["db", "own"]).await?;
    place.says(1, &["db"]).await?;
    assert_eq!(place.in_the_vault(0).await?, ["db", "own"]);
    assert_eq!(place.assigned().await?, json!(["demo-1", "demo-2"]));

    let done = place.does(&["credential", "unassign", "db", "--to", "demo-1"]).await?;
    assert_eq!(done, "removed credential db\ndemo-1: completed\n");
    assert_eq!(place.in_the_vault(0).await?, ["own"], "it is still there");
    let vault = fs::read_to_string(place.stack.machine(0)?.store.join("vault.json"))?;
    ensure!(vault.contains("\"own\"") && !vault.contains("\"db\""), "its label is still there: {vault}");
    place.says(0, &["own"]).await?;
    assert_eq!(place.assigned().await?, json!(["demo-2"]));
    let listed = place.does(&["credential", "list", "--json"]).await?;
    assert_eq!(listed.matches("\"db\"").count(), 1, "{listed}");
    // Whoever was not meant has it as before.
    assert_eq!(place.in_the_vault(1).await?, ["db"]);
    place.says(1, &["db"]).await?;

    place.does(&["credential", "unassign", "db", "--to", "demo-2"]).await?;
    assert_eq!(place.in_the_vault(1).await?, [""; 0]);
    place.says(1, &[]).await?;
    // What is nobody's is not listed any more.
    assert_eq!(place.assigned().await?, Value::Null);
    Ok(())
}
