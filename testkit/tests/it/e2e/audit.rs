//! The audit chain, as who wants to know reads it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use signalbox_testkit::{
    eventually::eventually,
    stack::{Options, Stack},
};

use super::{main_job::cli, wire::administrator};

async fn audit(stack: &Stack) -> Result<Vec<Value>> {
    let (code, stdout, stderr) = cli(stack, &["audit", "--json"]).await?;
    ensure!(code == Some(0), "{stderr}");
    stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_can_be_read_and_checked() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let (code, _, stderr) = cli(&stack, &["run", "--on", "demo-1", "--", "true"]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    let id = stack.http().run("demo-1", "true").await?["id"].as_str().context("an id")?.to_owned();
    let entries = eventually("both commands are in the audit chain", || async {
        let entries = audit(&stack).await?;
        let by = |actor: &str| {
            entries.iter().any(|it| {
                (&it["entry"]["actor"], &it["entry"]["action"]) == (&actor.into(), &"commands.submit".into())
            })
        };
        ensure!(by("operator:local") && by("token:admin"), "{entries:?}");
        Ok(entries)
    })
    .await?;
    assert!(entries.iter().any(|it| it["entry"]["about"] == id), "{entries:?}");
    assert!(entries.iter().any(|it| it["entry"]["about"] == "demo-1"), "the machine's record: {entries:?}");
    let (code, table, _) = cli(&stack, &["audit"]).await?;
    assert!(code == Some(0) && table.starts_with("N ") && table.contains("token:admin"), "{table}");
    let (code, said, stderr) = cli(&stack, &["audit", "--verify"]).await?;
    assert_eq!(code, Some(0), "{said}{stderr}");
    assert!(said.starts_with("entries 1 to ") && said.contains("the chain holds"), "{said}");

    // Whoever has the keys of the broker can write there, and it shows.
    let (client, _) = administrator(&stack).await?;
    let forged = entries.first().context("one")?["envelope"].to_string();
    let subject = "audit.main.local.operator-local.commands-submit";
    async_nats::jetstream::new(client).publish(subject, forged.into()).await?.await?;
    let (code, said, _) = cli(&stack, &["audit", "--verify", "--json"]).await?;
    let found: Value = serde_json::from_str(&said)?;
    assert_eq!((code, &found["holds"]), (Some(1), &Value::Bool(false)), "{said}");
    let (code, said, _) = cli(&stack, &["audit", "--verify"]).await?;
    assert!(code == Some(1) && said.contains("DOES NOT HOLD"), "{said}");
    Ok(())
}
