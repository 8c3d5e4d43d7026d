//! What machines are for: set by an operator, brought by an assignment, said by the machine's owner.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::eventually_within,
    http::run_on,
    process::{Daemon, Signal, bin, signal},
    stack::{Options, Stack},
};

use super::{
    main_job::{cli, events},
    store::end_keeper,
};

/// Far above what a debug build on a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machines that a selector means, as they are shown.
async fn machines(stack: &Stack, on: &str) -> Result<Vec<Value>> {
    let (code, stdout, stderr) = cli(stack, &["machines", "--on", on, "--json"]).await?;
    ensure!(code == Some(0), "{stderr}");
    events(&stdout)
}

fn ids(machines: &[Value]) -> Vec<&str> {
    machines.iter().filter_map(|machine| machine["id"].as_str()).collect()
}

/// Waits until a selector means these machines, and answers them as they are shown.
async fn means(stack: &Stack, on: &str, wanted: &[&str]) -> Result<Vec<Value>> {
    eventually_within("the machines that are meant", PATIENCE, || async {
        let found = machines(stack, on).await?;
        ensure!(ids(&found) == wanted, "`{on}` means {found:?}");
        Ok(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_where_labels_say_also_while_nobody_is_heard() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let first = Stack::start(Options::relays(2).state_dir(&state)).await?;
    let owner = first.machine(1)?;
    let toml = owner.creds.with_file_name("relay.toml");
    let text = fs::read_to_string(&toml)?;
    fs::write(&toml, text + "\n[labels]\nrack = \"7\"\nrole = \"db\"\n")?;
    signal(owner.pid, Signal::KILL)?;
    means(&first, "rack=7 and role=db", &["demo-2"]).await?;
    let (code, stdout, stderr) = cli(&first, &["label", "set", "all", "role=web", "dc=fra"]).await?;
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("2 of 2 machines changed"), "{stderr}");
    let (code, ..) = cli(&first, &["label", "rm", "demo-2", "role", "dc"]).await?;
    assert_eq!(code, Some(0));
    let (_, stdout, _) = cli(&first, &["label", "ls", "--json"]).await?;
    let line = |it: &Value| {
        ["machine", "key", "value", "source"]
            .map(|member| it[member].as_str().unwrap_or("").to_owned())
            .join(" ")
    };
    let listed: Vec<String> = events(&stdout)?.iter().map(line).collect();
    let expected =
        ["demo-1 dc fra operator", "demo-1 role web operator", "demo-2 rack 7 relay", "demo-2 role db relay"];
    assert_eq!(listed, expected);
    let (code, stdout, stderr) =
        cli(&first, &["run", "--on", "role=web", "--json", "--", "echo", "here"]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(events(&stdout)?.first().context("no events")?["targets"], json!(["demo-1"]));
    let arch = machines(&first, "demo-2").await?[0]["facts"]["arch"].as_str().context("no arch")?.to_owned();
    first.stop().await?;

    // The broker has forgotten every heartbeat, and no relay runs.
    let second = Stack::start(Options::relays(0).state_dir(&state)).await?;
    let found = means(&second, &format!("rack=7 and role!=web and arch={arch}"), &["demo-2"]).await?;
    assert_eq!((&found[0]["state"], &found[0]["last_seen_at"]), (&json!("offline"), &Value::Null));
    let id = second.http().submit("role=web or dc=lon", "true").await?;
    let command = second.http().json(&format!("/api/v1/commands/{id}")).await?;
    assert_eq!(run_on(&command, "demo-1")?["state"], "pending", "{command}");
    assert_eq!(command["runs"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_brings_labels_and_an_operator_overrules_them() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let made = ["assignment", "create", "web-1", "the first", "--label", "role=web", "--label", "dc=fra"];
    let (code, key, stderr) = cli(&stack, &made).await?;
    assert_eq!(code, Some(0), "{stderr}");
    means(&stack, "role=web", &[]).await?;
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    let mut command = Command::new(bin("signalbox-relay")?);
    command.args([key.trim(), &stack.ready().http, "--store-dir"]).arg(&store);
    let relay = Daemon::spawn(command.env_remove("SIGNALBOX_API_KEY"))?;
    means(&stack, "role=web and dc=fra", &["web-1"]).await?;
    let (code, ..) = cli(&stack, &["label", "set", "web-1", "dc=lon"]).await?;
    assert_eq!(code, Some(0));
    let shown = means(&stack, "role=web and dc=lon", &["web-1"]).await?;
    let overruled =
        json!({"value": "lon", "source": "operator", "overruled": [{"value": "fra", "source": "enrolment"}]});
    assert_eq!(shown[0]["labels"]["dc"], overruled);
    let (_, page, _) = cli(&stack, &["machine", "web-1"]).await?;
    assert!(page.contains("dc=lon (operator), not fra (enrolment); role=web (enrolment)"), "{page}");
    relay.terminate()?;
    relay.wait(PATIENCE).await?;
    end_keeper(&store)?;
    // What it brought goes with it, what the operator has set stays.
    let listed = stack.http().json("/api/v1/assignments").await?;
    let id = listed["items"][0]["id"].as_str().context("no id")?;
    assert_eq!(listed["items"][0]["labels"], json!({"dc": "fra", "role": "web"}));
    let (code, ..) = cli(&stack, &["assignment", "remove", id]).await?;
    assert_eq!(code, Some(0));
    let left = means(&stack, "dc=lon and not role=*", &["web-1"]).await?;
    assert_eq!(left[0]["labels"], json!({"dc": {"value": "lon", "source": "operator"}}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_label_is_refused_before_anybody_is_asked() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    for (args, said) in [
        (vec!["label", "set", "all", "Role=web"], "label key"),
        (vec!["label", "set", "all", "role"], "KEY=VALUE"),
        (vec!["label", "set", "all"], "KEY=VALUE"),
        (vec!["label", "set", "all", "a=1", "a=2"], "given twice"),
        (vec!["label", "rm", "web-[", "role"], "not a selector"),
        (vec!["label", "ls", "--on", "role="], "not a selector"),
    ] {
        let (code, stdout, stderr) = cli(&stack, &args).await?;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = cli(&stack, &["label", "set", "web-9", "role=web"]).await?;
    assert_eq!(code, Some(3), "{stderr}");
    Ok(())
}
