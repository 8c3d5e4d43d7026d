//! Changes of what relays keep, on their way through a bridge.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use signalbox_schemas::{
    Base64Url,
    api::{Submit, op},
    authors::Right,
    command::{Change, CommandSpec, Grant, HostKeys, PutCredential},
    credential::{CredentialLabel, CredentialType, StorageMode},
    error::ErrorCode,
    id::{CredentialName, MachineToken},
    label::GivenLabels,
    sealed::WRAPPED_BYTES,
    signed::Signed,
};
use signalbox_testkit::eventually;

use super::{
    bench::{Bench, Console},
    give_rights,
};

fn put() -> Result<Change> {
    let label = CredentialLabel {
        name: CredentialName::new("db")?,
        credential_type: CredentialType::Password,
        target: None,
        username: None,
        storage_mode: StorageMode::RelayOnly,
    };
    Ok(Change::PutCredential(PutCredential { label, body: Base64Url(vec![7; 60]) }))
}

fn host_keys() -> Change {
    Change::HostKeys(HostKeys { add: vec!["db-1 ssh-ed25519 AAAA".to_owned()], remove: vec![] })
}

/// A change for these machines; each grant brings so many bytes, if any.
fn changing(
    console: &Console,
    change: Change,
    machines: &[&str],
    key_bytes: Option<usize>,
) -> Result<(CommandSpec, Submit)> {
    let (spec, _) = console.command(machines)?;
    let spec =
        CommandSpec { command: change.summary(), change: Some(change), crit: vec!["change".into()], ..spec };
    let mut submit = console.grant(&spec, machines)?;
    let seal = |signed: &Signed<Grant>| {
        let mut grant = signed.peek()?;
        grant.sealed = key_bytes.map(|count| Base64Url(vec![9; count]));
        anyhow::Ok(Signed::sign(&grant, &console.key)?)
    };
    submit.grants = submit.grants.iter().map(seal).collect::<Result<_>>()?;
    Ok((spec, submit))
}

#[tokio::test]
async fn a_change_needs_its_own_right() -> Result<()> {
    let bench = Bench::start(&["web-1"]).await?;
    let console = bench.console("local").await?;
    let (_, putting) = changing(&console, put()?, &["web-1"], Some(WRAPPED_BYTES))?;
    let (_, knowing) = changing(&console, host_keys(), &["web-1"], None)?;
    for (submit, right) in [(&putting, "`credential`"), (&knowing, "`config`")] {
        let problem = console.write(op::COMMANDS_SUBMIT, submit).await?.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Forbidden);
        assert!(problem.message.contains(right), "{problem}");
    }
    // One does not stand for the other, nor for a command.
    give_rights(&bench, "local", &[Right::Credential]).await?;
    console.write(op::COMMANDS_SUBMIT, &putting).await??;
    let problem = console.write(op::COMMANDS_SUBMIT, &knowing).await?.unwrap_err();
    assert!(problem.message.contains("`config`"), "{problem}");
    let (_, plain) = console.command(&["web-1"])?;
    let problem = console.write(op::COMMANDS_SUBMIT, &plain).await?.unwrap_err();
    assert!(problem.message.contains("`command`"), "{problem}");
    give_rights(&bench, "local", &[Right::Config]).await?;
    console.write(op::COMMANDS_SUBMIT, &knowing).await??;
    Ok(())
}

#[tokio::test]
async fn grants_bring_a_key_exactly_where_something_is_sealed() -> Result<()> {
    let bench = Bench::start(&["web-1", "web-2"]).await?;
    let console = bench.console("local").await?;
    give_rights(&bench, "local", &[Right::Command, Right::Credential, Right::Config]).await?;
    let all = ["web-1", "web-2"];
    for (change, key_bytes) in
        [(put()?, None), (put()?, Some(WRAPPED_BYTES - 1)), (host_keys(), Some(WRAPPED_BYTES))]
    {
        let (_, submit) = changing(&console, change, &all, key_bytes)?;
        let problem = console.write(op::COMMANDS_SUBMIT, &submit).await?.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Invalid);
        assert!(problem.message.contains("80 bytes"), "{problem}");
    }
    let (_, mut half) = changing(&console, put()?, &all, Some(WRAPPED_BYTES))?;
    let mut bare = half.grants[1].peek()?;
    bare.sealed = None;
    half.grants[1] = Signed::sign(&bare, &console.key)?;
    let problem = console.write(op::COMMANDS_SUBMIT, &half).await?.unwrap_err();
    assert!(problem.message.contains("web-2"), "{problem}");
    let (spec, submit) = changing(&console, put()?, &all, Some(WRAPPED_BYTES))?;
    let accepted = console.write(op::COMMANDS_SUBMIT, &submit).await??;
    assert_eq!(accepted["targets"], json!(all));
    // It is offered as every command is, with its key.
    for machine in all {
        let mid = MachineToken::new(machine)?;
        eventually("the change is on offer", || async {
            let stands = bench.link.last_from_leader("MBOX", &format!("mbox.main.{mid}")).await?;
            let body = stands.context("no mailbox")?.payload;
            let mailbox = Signed::<signalbox_schemas::mailbox::Mailbox>::from_json(&body)?.peek()?;
            let grant = mailbox.offers.first().context("nothing is on offer")?.grant.peek()?;
            ensure!(grant.cid == spec.cid && grant.sealed == Some(Base64Url(vec![9; WRAPPED_BYTES])));
            Ok(())
        })
        .await?;
    }
    // Nor does anybody see what is sealed.
    let shown = bench.http.json(&format!("/api/v1/commands/{}", spec.cid)).await?;
    assert_eq!(shown["command"], "put credential db");
    assert_eq!(shown["changes"], true);
    assert!(!shown.to_string().contains(&data_encoding::BASE64URL_NOPAD.encode(&[7; 60])), "{shown}");
    Ok(())
}

#[tokio::test]
async fn relays_of_the_old_contract_hear_of_no_change() -> Result<()> {
    let bench = Bench::start(&["web-1"]).await?;
    let console = bench.console("local").await?;
    give_rights(&bench, "local", &[Right::Command, Right::Credential, Right::Config]).await?;
    let made = bench
        .http
        .post(
            "/api/v1/assignments",
            &json!({"machine_id": "old-1", "name": "old", "api_key": "key-of-an-old-relay"}),
        )
        .await?;
    assert_eq!(made.status, 201);
    // For a machine without keys it is not even taken, alone or among others.
    for machines in [vec!["old-1"], vec!["old-1", "web-1"]] {
        let (_, submit) = changing(&console, host_keys(), &machines, None)?;
        let problem = console.write(op::COMMANDS_SUBMIT, &submit).await?.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Invalid);
        assert!(problem.message.contains("old-1 has no keys"), "{problem}");
    }
    // For one that has keys, and lets old relays take its work, it is not in their lists, and cannot be claimed there.
    let record = bench.view.machine("web-1").context("no machine")?;
    let record = signalbox_schemas::record::MachineRecord {
        allow_legacy: true,
        labels: GivenLabels::default(),
        revision: record.revision + 1,
        ..record
    };
    bench.records.put_record("machines", "web-1", &record).await?;
    let made = bench
        .http
        .post(
            "/api/v1/assignments",
            &json!({"machine_id": "web-1", "name": "web", "api_key": "key-of-another-relay"}),
        )
        .await?;
    assert_eq!(made.status, 201);
    let (spec, submit) = changing(&console, host_keys(), &["web-1"], None)?;
    console.write(op::COMMANDS_SUBMIT, &submit).await??;
    let (plain, submit) = console.command(&["web-1"])?;
    console.write(op::COMMANDS_SUBMIT, &submit).await??;
    let key = [("x-api-key", "key-of-another-relay"), ("content-type", "application/json")];
    let listed = bench.http.request("GET", "/relay/commands", &key, Vec::new()).await?.json()?;
    let ids: Vec<_> =
        listed["commands"].as_array().context("no list")?.iter().map(|it| it["_id"].clone()).collect();
    assert_eq!(ids, [json!(plain.cid)]);
    let claim = serde_json::to_vec(&json!({"commandId": spec.cid}))?;
    let claimed = bench.http.request("POST", "/relay/commands/claim", &key, claim).await?;
    assert_eq!(claimed.status, 400);
    Ok(())
}

#[tokio::test]
async fn a_relay_with_keys_needs_no_login_name_and_goes_through_hosts() -> Result<()> {
    let bench = Bench::start(&["web-1"]).await?;
    let made = bench.http.post("/api/v1/assignments", &json!({"machine_id": "old-1", "name": "old"})).await?;
    assert_eq!(made.status, 201);
    let ssh = |machine: &str, member: &str, value: serde_json::Value| json!({"machine_id": machine, "command": "true", "target_type": "ssh", "target_host": "db-1", member: value});
    for (body, status) in [
        (ssh("web-1", "target_port", json!(2222)), 202),
        (ssh("web-1", "target_jump", json!([{"host": "gate", "username": "ops"}])), 202),
        (ssh("web-1", "target_credential", json!("db")), 202),
        (ssh("old-1", "target_username", json!("ops")), 202),
        (ssh("old-1", "target_port", json!(2222)), 422),
        (ssh("old-1", "target_jump", json!([{"host": "gate", "username": "ops"}])), 422),
    ] {
        let answer = bench.http.post("/api/v1/commands", &body).await?;
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{body}: {said}");
        let why = "an SSH target requires target_host and target_username";
        assert!(status == 202 || said.contains(why), "{said}");
    }
    let listed = bench.http.json("/api/v1/commands?limit=2").await?;
    assert_eq!(listed["items"][1]["target"]["ssh"]["credential"], "db");
    Ok(())
}
