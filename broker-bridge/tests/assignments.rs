//! Assignments and what stands beside them, over both fronts and a real broker.

#![expect(clippy::indexing_slicing, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "some of it is for the tests of feeds")]
mod bench;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bench::Bench;
use futures_util::future::join_all;
use serde_json::{Value, json};
use signalbox_bridge::broker_link::BrokerLink;
use signalbox_link::{Link, Options};
use signalbox_schemas::{
    api::op,
    credential::{CredentialType, SharedCredentialRecord},
    id::{BridgeId, CommandId, Workspace},
    record::table,
    signed::{PublicKey, SigningKey},
    stream::{self, STATE},
};
use signalbox_testkit::{
    Broker, eventually,
    http::{Answer, run_on},
};

const NOBODY: &str = "0193a2b4-0000-7000-8000-000000000000";

/// One request that must be answered with this status.
async fn ask(bench: &Bench, method: &str, path: &str, body: &Value, status: u16) -> Result<Answer> {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let answer = bench.http.request(method, &format!("/api/v1{path}"), &[], bytes).await?;
    let said = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == status, "{method} {path} {body} answers {}: {said}", answer.status);
    Ok(answer)
}

async fn post(bench: &Bench, path: &str, body: &Value, status: u16) -> Result<Value> {
    let answer = ask(bench, "POST", path, body, status).await?;
    ensure!(answer.header("signalbox-cursor").is_some(), "POST {path} has no cursor");
    answer.json()
}

async fn show(bench: &Bench, path: &str) -> Result<Value> {
    ask(bench, "GET", path, &Value::Null, 200).await?.json()
}

/// Makes an assignment and answers its id.
async fn assign(bench: &Bench, machine: &str, name: &str) -> Result<String> {
    let made = post(bench, "/assignments", &json!({"machine_id": machine, "name": name}), 201).await?;
    Ok(text(&made, "id")?.to_owned())
}

fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    value[member].as_str().with_context(|| format!("no {member}: {value}"))
}

/// One member of every item of a list, which must end there.
async fn listed(bench: &Bench, path: &str, member: &str) -> Result<Vec<Value>> {
    let page = show(bench, path).await?;
    ensure!(page["next"].is_null(), "{path} goes on: {page}");
    Ok(page["items"].as_array().context("items")?.iter().map(|item| item[member].clone()).collect())
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_code() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = assign(&bench, "a-1", "one").await?;
    let rows = [
        ("POST", "/assignments", json!({"machine_id": "a-1", "name": "x", "api_key": "too short"}), 422),
        ("POST", "/assignments", json!({"machine_id": "a-1", "name": "x", "created_by": ""}), 422),
        ("POST", "/assignments", json!({"machine_id": "", "name": "x"}), 422),
        ("GET", "/assignments?after=x", Value::Null, 422),
        ("GET", "/assignments?machine=x", Value::Null, 422),
        ("GET", "/assignments/x", Value::Null, 404),
        ("GET", "/assignments/%2a", Value::Null, 404),
        ("GET", "/assignments/NOBODY", Value::Null, 404),
        ("PATCH", "/assignments/NOBODY", json!({"enabled": false}), 404),
        ("PATCH", "/assignments/ID", json!({"enabled": "no"}), 422),
        ("PATCH", "/assignments/ID", json!({"name": ""}), 422),
        ("PATCH", "/assignments/ID", json!({"machine_id": "a-2"}), 422),
        ("PATCH", "/assignments/ID", json!({"id": NOBODY}), 422),
        ("DELETE", "/assignments/NOBODY?cascade=true", Value::Null, 404),
        ("DELETE", "/assignments/ID?cascade=yes", Value::Null, 422),
        ("POST", "/assignments/NOBODY/heartbeat", Value::Null, 404),
        ("GET", "/relays?online=yes", Value::Null, 422),
        ("GET", "/relays/ID", Value::Null, 404),
        ("GET", "/relays/NOBODY", Value::Null, 404),
        ("POST", "/relays/NOBODY/report", json!({"capabilities": []}), 404),
        ("POST", "/relays/ID/report", json!({}), 422),
        ("POST", "/relays/ID/report", json!({"capabilities": ["x".repeat(65)]}), 422),
        ("POST", "/relays/ID/report", json!({"capabilities": [], "metrics": {"cpu_percent": "much"}}), 422),
        ("GET", "/relays/NOBODY/credentials", Value::Null, 404),
        ("GET", "/credentials", Value::Null, 422),
        ("GET", "/credentials?target_host=h&after=x", Value::Null, 422),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "", "credential_type": "password", "encrypted_value": "x"}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "pin", "encrypted_value": "x"}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "password", "encrypted_value": ""}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "password", "encrypted_value": "x".repeat(65_537)}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "password", "encrypted_value": "x", "assigned": [NOBODY]}),
            422,
        ),
        ("GET", "/shared-credentials/NOBODY", Value::Null, 404),
        ("PATCH", "/shared-credentials/NOBODY", json!({"name": "n"}), 404),
        ("DELETE", "/shared-credentials/NOBODY", Value::Null, 404),
        ("GET", "/relays/NOBODY/shared-credentials", Value::Null, 404),
        (
            "POST",
            "/config-pushes",
            json!({"assignment_id": "ID", "push_type": "metrics_interval", "payload": [1]}),
            422,
        ),
        ("POST", "/config-pushes", json!({"assignment_id": "ID", "push_type": "metrics_interval"}), 422),
        (
            "POST",
            "/config-pushes",
            json!({"assignment_id": "ID", "push_type": "metrics_interval", "payload": {"x": "x".repeat(66_000)}}),
            413,
        ),
        (
            "POST",
            "/config-pushes",
            json!({"assignment_id": NOBODY, "push_type": "metrics_interval", "payload": {}}),
            404,
        ),
        ("GET", "/config-pushes?state=gone", Value::Null, 422),
        ("GET", "/config-pushes/NOBODY", Value::Null, 404),
        ("POST", "/config-pushes/NOBODY/sent", Value::Null, 404),
        ("POST", "/config-pushes/NOBODY/ack", json!({"success": true}), 404),
        ("POST", "/config-pushes/NOBODY/retry", Value::Null, 404),
        ("GET", "/runs?state=gone", Value::Null, 422),
        ("GET", "/runs?after=1", Value::Null, 422),
        ("GET", "/runs?machine_id=a-9", Value::Null, 404),
        ("GET", "/machines/a-9/runs", Value::Null, 404),
        ("GET", "/machines/a-1/runs?machine_id=a-1", Value::Null, 422),
        ("POST", "/exec", json!({"on": "a-1", "command": "true"}), 422),
        ("POST", "/exec", json!({"machine_id": "a-1", "command": "true", "wait_ms": 600_001}), 422),
        ("POST", "/exec", json!({"machine_id": "a-1", "command": "true", "wait": 1}), 422),
        ("POST", "/exec", json!({"machine_id": "a-9", "command": "true"}), 422),
    ];
    for (method, path, body, status) in rows {
        let meant = |text: &str| text.replace("ID", &id).replace("NOBODY", NOBODY);
        let body: Value = serde_json::from_str(&meant(&body.to_string()))?;
        let answer = ask(&bench, method, &meant(path), &body, status).await?;
        let codes: &[&str] = match status {
            404 => &["not_found"],
            413 => &["too_large"],
            _ => &["invalid", "no_targets"],
        };
        let problem = answer.json()?;
        assert!(codes.contains(&text(&problem, "code")?), "{method} {path}: {problem}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let unknown = json!({"assignment_id": id, "push_type": "firmware", "payload": {}});
    let problem = ask(&bench, "POST", "/config-pushes", &unknown, 422).await?.json()?;
    for known in ["credential", "ssh_targets", "allowed_commands", "metrics_interval"] {
        assert!(text(&problem, "detail")?.contains(known), "{problem}");
    }
    let gone = ask(&bench, "GET", &format!("/assignments/{NOBODY}"), &Value::Null, 404).await?;
    assert_eq!(gone.json()?["detail"], "Relay assignment not found");
    Ok(())
}

#[tokio::test]
async fn any_machine_is_assigned_and_a_key_only_once() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let own = json!({"machine_id": "New One", "name": "Büro", "api_key": "key-of-an-old-relay", "created_by": "ann"});
    let made = post(&bench, "/assignments", &own, 201).await?;
    for (member, expected) in [
        ("machine_id", json!("New One")),
        ("name", json!("Büro")),
        ("enabled", json!(true)),
        ("api_key", json!("key-of-an-old-relay")),
        ("created_by", json!("ann")),
        ("updated_at", made["created_at"].clone()),
        ("last_seen_at", Value::Null),
        ("is_online", json!(false)),
    ] {
        assert_eq!(made[member], expected, "{member}");
    }
    let first = text(&made, "id")?.to_owned();
    let machines = listed(&bench, "/machines", "id").await?;
    assert_eq!(machines, ["a-1", "New One"]);
    let record = bench.view.machine("New One").context("the machine")?;
    assert_eq!(record.keys, None);
    // It can have work, and more assignments.
    assert_eq!(
        post(&bench, "/commands", &json!({"machine_id": "New One", "command": "true"}), 202).await?["targets"],
        json!(["New One"])
    );
    let second = assign(&bench, "New One", "again").await?;
    let third = assign(&bench, "a-1", "known").await?;

    assert_eq!(listed(&bench, "/assignments", "id").await?, [&*third, &second, &first]);
    assert_eq!(listed(&bench, "/assignments?machine_id=New%20One", "id").await?, [&*second, &first]);
    assert_eq!(listed(&bench, "/assignments?machine_id=nothing", "id").await?, Vec::<Value>::new());
    let page = show(&bench, "/assignments?limit=2").await?;
    assert_eq!(page["next"], *second);
    assert_eq!(listed(&bench, &format!("/assignments?limit=2&after={second}"), "id").await?, [&*first]);
    let shown = show(&bench, &format!("/assignments/{first}")).await?;
    assert_eq!((shown["api_key"].is_null(), &shown["id"]), (true, &json!(first)));

    let taken = |answer: Answer| -> Result<()> {
        let problem = answer.json()?;
        assert_eq!(problem["detail"], "API key is already assigned to a machine", "{problem}");
        Ok(())
    };
    taken(ask(&bench, "POST", "/assignments", &own, 409).await?)?;
    ask(&bench, "DELETE", &format!("/assignments/{first}"), &Value::Null, 200).await?;
    taken(ask(&bench, "POST", "/assignments", &own, 409).await?)?;
    Ok(())
}

#[tokio::test]
async fn an_assignment_is_changed_heard_of_and_removed() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = assign(&bench, "a-1", "one").await?;
    let path = format!("/assignments/{id}");
    // At once, and neither loses what the other says.
    let bodies = [json!({"name": "two"}), json!({"enabled": false})];
    for answer in join_all(bodies.iter().map(|body| ask(&bench, "PATCH", &path, body, 200))).await {
        assert!(answer?.header("signalbox-cursor").is_some());
    }
    let changed = show(&bench, &path).await?;
    assert_eq!((&changed["name"], &changed["enabled"]), (&json!("two"), &json!(false)));
    assert!(changed["updated_at"].as_u64() >= changed["created_at"].as_u64());

    ask(&bench, "POST", &format!("{path}/heartbeat"), &Value::Null, 200).await?;
    eventually("it is online", || async {
        let shown = show(&bench, &path).await?;
        ensure!(shown["is_online"] == true && shown["last_seen_at"].is_u64(), "{shown}");
        Ok(())
    })
    .await?;
    // The machine has a relay with keys: only that one speaks for it.
    assert_eq!(show(&bench, "/machines").await?["items"][0]["last_seen_at"], Value::Null);

    let removed = ask(&bench, "DELETE", &path, &Value::Null, 200).await?.json()?;
    assert_eq!(removed, json!({"id": id, "withdrawn": 0}));
    for method in ["GET", "DELETE"] {
        ask(&bench, method, &path, &Value::Null, 404).await?;
    }
    ask(&bench, "PATCH", &path, &json!({"name": "three"}), 404).await?;
    assert_eq!(listed(&bench, "/assignments", "id").await?, Vec::<Value>::new());
    Ok(())
}

/// What a relay says that holds these credentials, each for a host.
fn said(credentials: &[(&str, &str)]) -> Value {
    let credentials: Vec<_> = credentials
        .iter()
        .map(|(name, host)| {
            json!({"credential_name": name, "credential_type": "ssh_key", "target_host": host,
                "storage_mode": "relay_only", "last_updated_at": 5})
        })
        .collect();
    json!({"capabilities": ["local_cmd", "ssh"], "version": "1.0.0", "hostname": "h", "platform": "linux-x64",
        "credentials": credentials, "metrics": {"cpu_percent": 4.5}})
}

#[tokio::test]
async fn a_relay_reports_and_nothing_is_written_that_stands_there() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (one, two) = (assign(&bench, "a-1", "one").await?, assign(&bench, "m-2", "two").await?);
    let report = |id: &str| format!("/relays/{id}/report");
    let body = said(&[("k", "db-1"), ("k", "db-1"), ("other", "DB-1")]);
    let nothing_waits = json!({"pending_config_pushes": 0, "shared_credentials_count": 0});
    assert_eq!(post(&bench, &report(&one), &body, 200).await?, nothing_waits);
    post(&bench, &report(&two), &json!({"capabilities": ["local_cmd"]}), 200).await?;
    let written = async || Ok::<_, anyhow::Error>(bench.link.stream_state(STATE).await?.last);
    let before = written().await?;
    let mut again = body.clone();
    again["metrics"] = json!({"cpu_percent": 99, "disk_percent": 7.25});
    post(&bench, &report(&one), &again, 200).await?;
    assert_eq!(written().await?, before, "metrics alone are no news");

    eventually("the newest metrics are known", || async {
        let relay = show(&bench, &format!("/relays/{one}")).await?;
        ensure!(relay["metrics"] == json!({"cpu_percent": 99.0, "disk_percent": 7.25}), "{relay}");
        ensure!(relay["is_online"] == true, "{relay}");
        Ok(())
    })
    .await?;
    let relay = show(&bench, &format!("/relays/{one}")).await?;
    for (member, expected) in [
        ("assignment_id", json!(one)),
        ("machine_id", json!("a-1")),
        ("capabilities", json!(["local_cmd", "ssh"])),
        ("version", json!("1.0.0")),
        ("hostname", json!("h")),
        ("platform", json!("linux-x64")),
    ] {
        assert_eq!(relay[member], expected, "{member}");
    }
    assert_eq!(listed(&bench, "/relays", "assignment_id").await?, [&*one, &two]);
    assert_eq!(listed(&bench, "/relays?capability=ssh", "assignment_id").await?, [&*one]);
    assert_eq!(
        listed(&bench, "/relays?capability=local_cmd&online=false", "assignment_id").await?,
        Vec::<Value>::new()
    );
    assert_eq!(show(&bench, "/relays?limit=1").await?["next"], *one);
    assert_eq!(listed(&bench, &format!("/relays?after={one}"), "assignment_id").await?, [&*two]);

    let names = ["k", "k", "other"];
    assert_eq!(listed(&bench, &format!("/relays/{one}/credentials"), "credential_name").await?, names);
    assert_eq!(
        listed(&bench, &format!("/relays/{two}/credentials"), "credential_name").await?,
        Vec::<Value>::new()
    );
    // Hosts are compared letter by letter, and a page goes on where the one before ended.
    assert_eq!(listed(&bench, "/credentials?target_host=DB-1", "credential_name").await?, ["other"]);
    let page = show(&bench, "/credentials?target_host=db-1&limit=1").await?;
    assert_eq!(page["items"][0]["machine_id"], "a-1");
    let next = text(&page, "next")?;
    assert_eq!(
        listed(&bench, &format!("/credentials?target_host=db-1&after={next}"), "assignment_id").await?,
        [&*one]
    );
    // Without an inventory it stays as it was; what else is absent is gone.
    post(&bench, &report(&one), &json!({"capabilities": []}), 200).await?;
    assert_eq!(listed(&bench, &format!("/relays/{one}/credentials"), "credential_name").await?, names);
    assert_eq!(show(&bench, &format!("/relays/{one}")).await?["version"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn shared_credentials_show_no_value_and_lose_it_when_they_go() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (one, two) = (assign(&bench, "a-1", "one").await?, assign(&bench, "a-1", "two").await?);
    let body = json!({"name": "db", "credential_type": "password", "encrypted_value": "iv:tag:sealed",
        "target_host": "db-1", "assigned": [two, one, two]});
    let made = post(&bench, "/shared-credentials", &body, 201).await?;
    let id = text(&made, "id")?;
    assert_eq!(made["assigned"], json!([one, two]), "sorted, each once");
    assert_eq!((&made["storage_mode"], &made["created_by"]), (&json!("shared"), &json!("token:admin")));
    assert!(made.get("encrypted_value").is_none());
    let path = format!("/shared-credentials/{id}");
    assert_eq!(show(&bench, &path).await?, made);
    let stored = || bench.view.shared_credential(id);
    assert_eq!(stored().context("stored")?.encrypted_value, "iv:tag:sealed");
    assert_eq!(listed(&bench, &format!("/relays/{one}/shared-credentials"), "id").await?, [id]);
    let waits = post(&bench, &format!("/relays/{one}/report"), &json!({"capabilities": []}), 200).await?;
    assert_eq!(waits["shared_credentials_count"], 1);

    let change = json!({"assigned": [two], "encrypted_value": "iv:tag:other"});
    let changed = ask(&bench, "PATCH", &path, &change, 200).await?.json()?;
    assert_eq!((&changed["assigned"], &changed["name"]), (&json!([two]), &json!("db")));
    assert_eq!(stored().context("stored")?.encrypted_value, "iv:tag:other");
    assert_eq!(
        listed(&bench, &format!("/relays/{one}/shared-credentials"), "id").await?,
        Vec::<Value>::new()
    );
    let again = post(&bench, "/shared-credentials", &body, 201).await?;
    assert_eq!(listed(&bench, "/shared-credentials", "name").await?, ["db", "db"]);
    assert_eq!(show(&bench, "/shared-credentials?limit=1").await?["next"], id);
    assert_eq!(
        listed(&bench, &format!("/shared-credentials?after={id}"), "id").await?,
        [again["id"].clone()]
    );

    ask(&bench, "DELETE", &path, &Value::Null, 200).await?;
    for method in ["GET", "DELETE"] {
        ask(&bench, method, &path, &Value::Null, 404).await?;
    }
    let subject = format!("$KV.state.main.{}.{id}", table::SHARED_CREDENTIALS);
    let last = bench.link.last(STATE, &subject).await?.context("the last edition")?;
    let signed = signalbox_schemas::signed::Signed::<SharedCredentialRecord>::from_json(&last.payload)?;
    let record = signed.peek()?;
    assert_eq!((record.encrypted_value.as_str(), record.removed_at.is_some()), ("", true));
    Ok(())
}

#[tokio::test]
async fn a_push_goes_from_pending_to_its_answer_and_back() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = assign(&bench, "a-1", "one").await?;
    let body =
        json!({"assignment_id": id, "push_type": "metrics_interval", "payload": {"intervalMs": 5000.0}});
    let text_of_body = body.to_string();
    assert!(text_of_body.contains("5000.0"), "{text_of_body}");
    let made = post(&bench, "/config-pushes", &body, 201).await?;
    let push = text(&made, "id")?;
    let stored = bench.view.config_push(push)?.context("stored")?;
    assert_eq!(stored.payload, r#"{"intervalMs":5000}"#);
    assert_eq!(
        (&made["state"], &made["error"], &made["created_by"]),
        (&json!("pending"), &Value::Null, &json!("token:admin"))
    );

    let path = format!("/config-pushes/{push}");
    let step = async |verb: &str, body: Value| post(&bench, &format!("{path}/{verb}"), &body, 200).await;
    let sent = step("sent", Value::Null).await?;
    assert_eq!((&sent["state"], sent["sent_at"].is_u64()), (&json!("sent"), true));
    assert_eq!(step("sent", Value::Null).await?, sent, "told once");
    let failed = step("ack", json!({"success": false, "error": "é".repeat(300)})).await?;
    assert_eq!((&failed["state"], text(&failed, "error")?.len()), (&json!("failed"), 512));
    let acked = step("ack", json!({"success": true, "error": "no matter"})).await?;
    assert_eq!((&acked["state"], &acked["error"]), (&json!("acked"), &Value::Null));
    for verb in ["sent", "retry"] {
        ask(&bench, "POST", &format!("{path}/{verb}"), &Value::Null, 422).await?;
    }
    step("ack", json!({"success": false})).await?;
    let waits = step("retry", Value::Null).await?;
    assert_eq!(
        (&waits["state"], &waits["error"], &waits["acked_at"]),
        (&json!("pending"), &Value::Null, &Value::Null)
    );
    assert_eq!(waits["sent_at"], sent["sent_at"], "when it was first sent");
    let waiting = post(&bench, &format!("/relays/{id}/report"), &json!({"capabilities": []}), 200).await?;
    assert_eq!(waiting["pending_config_pushes"], 1);

    let other = json!({"assignment_id": id, "push_type": "ssh_targets", "payload": {"z": 1, "a": [0.5]}});
    let second = post(&bench, "/config-pushes", &other, 201).await?;
    assert_eq!(second["payload"].to_string(), r#"{"z":1,"a":[0.5]}"#);
    post(&bench, &format!("/config-pushes/{}/ack", text(&second, "id")?), &json!({"success": true}), 200)
        .await?;
    let ids = [made["id"].clone(), second["id"].clone()];
    assert_eq!(listed(&bench, "/config-pushes", "id").await?, ids);
    assert_eq!(listed(&bench, "/config-pushes?state=acked", "id").await?, ids[1..]);
    assert_eq!(
        listed(&bench, &format!("/config-pushes?assignment_id={id}&state=pending"), "id").await?,
        ids[..1]
    );
    assert_eq!(
        listed(&bench, &format!("/config-pushes?assignment_id={NOBODY}"), "id").await?,
        Vec::<Value>::new()
    );
    assert_eq!(show(&bench, "/config-pushes?limit=1").await?["next"], ids[0]);
    assert_eq!(listed(&bench, &format!("/config-pushes?after={push}"), "id").await?, ids[1..]);
    Ok(())
}

#[tokio::test]
async fn a_removal_takes_along_what_nobody_else_can_do() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (one, two) = (assign(&bench, "old", "one").await?, assign(&bench, "old", "two").await?);
    post(&bench, &format!("/relays/{one}/report"), &said(&[("k", "db-1")]), 200).await?;
    let shared =
        json!({"name": "db", "credential_type": "password", "encrypted_value": "x", "assigned": [one, two]});
    let shared = post(&bench, "/shared-credentials", &shared, 201).await?;
    let push = json!({"assignment_id": one, "push_type": "metrics_interval", "payload": {}});
    let open = post(&bench, "/config-pushes", &push, 201).await?;
    let answered = post(&bench, "/config-pushes", &push, 201).await?;
    post(&bench, &format!("/config-pushes/{}/ack", text(&answered, "id")?), &json!({"success": true}), 200)
        .await?;
    let [claimed, waiting, of_other] =
        [bench.submit("old").await?, bench.submit("old").await?, bench.submit("a-1").await?];
    bench.claim_via("old", claimed, &one).await?;
    let state = async |id: CommandId, state: &str| {
        eventually(&format!("{id} is {state}"), || async {
            let command = show(&bench, &format!("/commands/{id}")).await?;
            ensure!(command["runs"][0]["state"] == state, "{command}");
            Ok(())
        })
        .await
    };
    state(claimed, "executing").await?;

    // The other assignment can still do what waits; what this one has begun nobody can end.
    let path = |id: &str| format!("/assignments/{id}?cascade=true");
    let removed = ask(&bench, "DELETE", &path(&one), &Value::Null, 200).await?;
    assert!(removed.header("signalbox-cursor").is_some());
    assert_eq!(removed.json()?["withdrawn"], 1);
    state(claimed, "lost").await?;
    let lost = show(&bench, &format!("/commands/{claimed}")).await?;
    assert_eq!(run_on(&lost, "old")?["error"]["code"], "keeper_gone");
    state(waiting, "pending").await?;
    for gone in [
        format!("/assignments/{one}"),
        format!("/relays/{one}"),
        format!("/config-pushes/{}", text(&open, "id")?),
        format!("/config-pushes/{}", text(&answered, "id")?),
    ] {
        ask(&bench, "GET", &gone, &Value::Null, 404).await?;
    }
    assert_eq!(listed(&bench, "/credentials?target_host=db-1", "machine_id").await?, Vec::<Value>::new());
    assert_eq!(listed(&bench, "/relays", "assignment_id").await?, Vec::<Value>::new());
    let shared = show(&bench, &format!("/shared-credentials/{}", text(&shared, "id")?)).await?;
    assert_eq!(shared["assigned"], json!([two]));
    ask(&bench, "DELETE", &path(&one), &Value::Null, 404).await?;

    // The last one takes the work along, even in a second step.
    assert_eq!(
        ask(&bench, "DELETE", &format!("/assignments/{two}"), &Value::Null, 200).await?.json()?["withdrawn"],
        0
    );
    state(waiting, "pending").await?;
    assert_eq!(ask(&bench, "DELETE", &path(&two), &Value::Null, 200).await?.json()?["withdrawn"], 1);
    state(waiting, "cancelled").await?;
    ask(&bench, "DELETE", &path(&two), &Value::Null, 404).await?;
    // A machine with keys has a relay of its own.
    let third = assign(&bench, "a-1", "three").await?;
    assert_eq!(ask(&bench, "DELETE", &path(&third), &Value::Null, 200).await?.json()?["withdrawn"], 0);
    state(of_other, "pending").await
}

#[tokio::test]
async fn runs_are_listed_by_machine_and_state() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(bench.submit("all").await?);
    }
    let relay = bench.relay("a-2")?;
    relay.claim(ids[1]).await?;
    relay.exit(ids[1], 0, false).await?;
    eventually("the run has ended", || async {
        ensure!(!listed(&bench, "/runs?state=completed", "machine").await?.is_empty());
        Ok(())
    })
    .await?;
    let runs = async |query: &str| {
        let page = show(&bench, &format!("/runs?{query}")).await?;
        let items = page["items"].as_array().context("items")?;
        let runs = items.iter().map(|run| {
            format!(
                "{} {}",
                run["command"]["id"].as_str().unwrap_or(""),
                run["machine"].as_str().unwrap_or("")
            )
        });
        Ok::<_, anyhow::Error>((runs.collect::<Vec<_>>(), page["next"].clone()))
    };
    let all: Vec<String> =
        ids.iter().rev().flat_map(|id| [format!("{id} a-1"), format!("{id} a-2")]).collect();
    assert_eq!(runs("").await?, (all.clone(), Value::Null));
    assert_eq!(runs("state=completed").await?.0, [format!("{} a-2", ids[1])]);
    let of_two: Vec<_> = all.iter().filter(|run| run.ends_with("a-2")).cloned().collect();
    assert_eq!(runs("machine_id=a-2").await?.0, of_two);
    assert_eq!(runs("machine_id=a-2&state=pending").await?.0, [of_two[0].clone(), of_two[2].clone()]);
    let of_machine = listed(&bench, "/machines/a-2/runs?state=completed", "state").await?;
    assert_eq!(of_machine, ["completed"]);
    // Pages of every size tell the same.
    for limit in 1..=7 {
        let (mut told, mut after) = (Vec::new(), String::new());
        loop {
            let (page, next) = runs(&format!("limit={limit}{after}")).await?;
            assert!(page.len() <= limit);
            told.extend(page);
            let Some(next) = next.as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(told, all, "limit {limit}");
    }
    Ok(())
}

/// Plays the relay of `a-1` for the next command: takes it and ends it with this output.
async fn play(bench: &Bench, stdout: &[u8]) -> Result<()> {
    let cid: CommandId = eventually("a command waits", || async {
        let waiting = listed(bench, "/runs?state=pending", "command").await?;
        Ok(text(waiting.first().context("none waits")?, "id")?.parse()?)
    })
    .await?;
    let relay = bench.relay("a-1")?;
    relay.claim(cid).await?;
    relay.exit_inline(cid, stdout).await
}

#[tokio::test]
async fn a_command_is_answered_with_its_end_and_its_output() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let body = serde_json::to_vec(&json!({"machine_id": "a-1", "command": "true", "wait_ms": 20_000}))?;
    let key = [("idempotency-key", "k")];
    let exec = async || bench.http.request("POST", "/api/v1/exec", &key, body.clone()).await;
    let (answer, played) = tokio::join!(exec(), play(&bench, b"a\xffb\n"));
    played?;
    let done = answer?.json()?;
    for (member, expected) in [
        ("settled", json!(true)),
        ("state", json!("completed")),
        ("exit_code", json!(0)),
        ("machine", json!("a-1")),
        ("output", json!("a\u{fffd}b\n")),
        ("output_cut", json!(false)),
        ("stderr_output", json!("")),
        ("stderr_output_cut", json!(false)),
        ("error", Value::Null),
    ] {
        assert_eq!(done[member], expected, "{member}: {done}");
    }
    assert_eq!(exec().await?.json()?, done, "the same key is the same command");
    // It was not to start after its caller had left.
    let command = show(&bench, &format!("/commands/{}", text(&done, "id")?)).await?;
    let life =
        command["expires_at"].as_u64().zip(command["created_at"].as_u64()).map(|(end, start)| end - start);
    assert_eq!(life, Some(20_000));
    Ok(())
}

#[tokio::test]
async fn a_caller_who_gives_up_is_told_so_and_can_take_its_wish_back() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let asked = json!({"machine_id": "a-1", "command": "true", "wait_ms": 100, "expires_in_ms": 60_000});
    let waits = post(&bench, "/exec", &asked, 200).await?;
    assert_eq!((&waits["settled"], &waits["state"]), (&json!(false), &json!("pending")));
    assert_eq!(waits["error"]["code"], "wait_over");
    assert_eq!(waits["error"]["message"], "RPC timeout: command did not complete within 100ms");
    let mut asked = asked;
    asked["cancel_on_give_up"] = json!(true);
    let cancelled = post(&bench, "/exec", &asked, 200).await?;
    assert_eq!(cancelled["settled"], false);
    let command = bench.http.settled(text(&cancelled, "id")?).await?;
    assert_eq!(command["counts"], json!({"cancelled": 1}));
    assert_eq!(
        show(&bench, &format!("/commands/{}", text(&waits, "id")?)).await?["counts"],
        json!({"pending": 1})
    );
    // Not to wait at all is no reason to have nothing started.
    let at_once =
        post(&bench, "/exec", &json!({"machine_id": "a-1", "command": "true", "wait_ms": 0}), 200).await?;
    let command = show(&bench, &format!("/commands/{}", text(&at_once, "id")?)).await?;
    let life =
        command["expires_at"].as_u64().zip(command["created_at"].as_u64()).map(|(end, start)| end - start);
    assert_eq!(life, Some(86_400_000));
    Ok(())
}

#[tokio::test]
async fn long_output_is_cut_and_said_to_be() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let body = json!({"machine_id": "a-1", "command": "true", "wait_ms": 20_000});
    let long = 1024 * 1024 + 1;
    let playing = async {
        let cid: CommandId = eventually("a command waits", || async {
            let waiting = listed(&bench, "/runs?state=pending", "command").await?;
            Ok(text(waiting.first().context("none waits")?, "id")?.parse()?)
        })
        .await?;
        let relay = bench.relay("a-1")?;
        relay.claim(cid).await?;
        let whole = vec![b'x'; long];
        for (n, bytes) in whole.chunks(100_000).enumerate() {
            relay
                .output(
                    cid,
                    signalbox_schemas::output::OutputStream::Stdout,
                    n as u64 * 100_000,
                    bytes.to_vec(),
                )
                .await?;
        }
        relay.exit(cid, long as u64, false).await
    };
    let (done, played) = tokio::join!(post(&bench, "/exec", &body, 200), playing);
    played?;
    let done = done?;
    assert_eq!((text(&done, "output")?.len(), &done["output_cut"]), (long - 1, &json!(true)));
    assert_eq!(done["stdout"]["bytes"], long);
    Ok(())
}

#[tokio::test]
async fn consoles_do_the_same_by_their_roles() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (admin, member, viewer) =
        (bench.console("admin").await?, bench.console("local").await?, bench.console("viewer").await?);
    let new = json!({"machine_id": "old", "name": "one"});
    let made = admin.write(op::ASSIGNMENTS_CREATE, &new).await?.context("made")?;
    let id = text(&made, "id")?;
    assert_eq!(made["created_by"], "operator:admin");
    let by_id = json!({"id": id});
    let shared =
        json!({"name": "db", "credential_type": "password", "encrypted_value": "x", "assigned": [id]});
    let push = json!({"assignment_id": id, "push_type": "metrics_interval", "payload": {"b": 1.0, "a": 2}});

    admin.write(op::RELAYS_REPORT, &json!({"id": id, "capabilities": ["ssh"]})).await?.context("report")?;
    let beat = admin.write(op::ASSIGNMENTS_HEARTBEAT, &by_id).await?.context("heartbeat")?;
    assert_eq!(beat["id"], id);
    let updated =
        admin.write(op::ASSIGNMENTS_UPDATE, &json!({"id": id, "name": "two"})).await?.context("updated")?;
    assert_eq!(updated["name"], "two");
    let shared_id = admin.write(op::SHARED_CREATE, &shared).await?.context("shared")?;
    let shared_id = json!({"id": text(&shared_id, "id")?});
    let pushed = admin.write(op::PUSHES_CREATE, &push).await?.context("push")?;
    let push_id = json!({"id": text(&pushed, "id")?});
    let stored = bench.view.config_push(text(&pushed, "id")?)?.context("stored")?;
    assert_eq!(stored.payload, r#"{"b":1,"a":2}"#, "the order is kept through a signature");
    bench.submit("old").await?;

    // Whoever may look, may look at all of it.
    for (op, args) in [
        (op::ASSIGNMENTS_LIST, json!({})),
        (op::ASSIGNMENTS_GET, by_id.clone()),
        (op::RELAYS_LIST, json!({"capability": "ssh"})),
        (op::RELAYS_GET, by_id.clone()),
        (op::CREDENTIALS_LIST, json!({"assignment_id": id})),
        (op::SHARED_LIST, json!({})),
        (op::SHARED_GET, shared_id.clone()),
        (op::PUSHES_LIST, json!({"assignment_id": id})),
        (op::PUSHES_GET, push_id.clone()),
        (op::RUNS_LIST, json!({"machine_id": "old"})),
    ] {
        let answer = viewer.read(op, &args).await?.with_context(|| op.to_owned())?;
        let is_full =
            answer["items"].as_array().is_none_or(|items| !items.is_empty() || op == op::CREDENTIALS_LIST);
        assert!(is_full, "{op}: {answer}");
    }
    // A member runs commands, and manages nothing.
    for (op, args) in [
        (op::ASSIGNMENTS_CREATE, new),
        (op::ASSIGNMENTS_UPDATE, json!({"id": id, "enabled": false})),
        (op::ASSIGNMENTS_REMOVE, by_id.clone()),
        (op::ASSIGNMENTS_HEARTBEAT, by_id.clone()),
        (op::RELAYS_REPORT, json!({"id": id, "capabilities": []})),
        (op::SHARED_CREATE, shared),
        (op::SHARED_UPDATE, json!({"id": shared_id["id"], "name": "x"})),
        (op::SHARED_REMOVE, shared_id.clone()),
        (op::PUSHES_CREATE, push),
        (op::PUSHES_SENT, push_id.clone()),
        (op::PUSHES_ACK, json!({"id": push_id["id"], "success": true})),
        (op::PUSHES_RETRY, push_id.clone()),
    ] {
        let refused = member.write(op, &args).await?.err().with_context(|| format!("{op} is done"))?;
        assert_eq!(refused.code.as_str(), "forbidden", "{op}");
        // Nobody does any of it without a signature.
        let unsigned = admin.read(op, &args).await?.err().with_context(|| format!("{op} is done"))?;
        assert_eq!(unsigned.code.as_str(), "invalid", "{op}");
    }
    for (op, args, state) in [
        (op::PUSHES_SENT, push_id.clone(), "sent"),
        (op::PUSHES_ACK, json!({"id": push_id["id"], "success": false, "error": "no"}), "failed"),
        (op::PUSHES_RETRY, push_id.clone(), "pending"),
    ] {
        assert_eq!(admin.write(op, &args).await?.context("push")?["state"], state, "{op}");
    }
    let renamed = json!({"id": shared_id["id"], "name": "other"});
    assert_eq!(admin.write(op::SHARED_UPDATE, &renamed).await?.context("renamed")?["name"], "other");
    admin.write(op::SHARED_REMOVE, &shared_id).await?.context("removed")?;
    let removal = json!({"id": id, "cascade": true});
    let removed = admin.write(op::ASSIGNMENTS_REMOVE, &removal).await?.context("removed")?;
    assert_eq!(removed, json!({"id": id, "withdrawn": 1}));
    let gone = viewer.read(op::ASSIGNMENTS_GET, &by_id).await?.err().context("it is gone")?;
    assert_eq!((gone.code.as_str(), gone.message.as_str()), ("not_found", "Relay assignment not found"));
    let nothing = viewer.read("assignments.praise", &json!({})).await?.err().context("no such thing")?;
    assert_eq!(nothing.code.as_str(), "invalid");
    Ok(())
}

fn new_key() -> Result<SigningKey> {
    Ok(SigningKey::from_seed(&nkeys::KeyPair::new_user().seed()?)?)
}

#[tokio::test]
async fn two_bridges_that_change_one_record_lose_nothing() -> Result<()> {
    const EACH: usize = 25;
    let broker = Broker::start().await?;
    let keys = [Arc::new(new_key()?), Arc::new(new_key()?)];
    let publics: Vec<PublicKey> = keys.iter().map(|key| key.public().clone()).collect();
    let mut bridges = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let link = Link::connect(Options::plain(&broker.url(), "bridge", None)).await?;
        let id = BridgeId::new(format!("b{n}"))?;
        bridges.push(BrokerLink::new(link, Workspace::main(), id, Arc::clone(key)));
    }
    bridges[0].ensure_streams().await?;
    let first = SharedCredentialRecord {
        ws: Workspace::main(),
        id: NOBODY.to_owned(),
        name: "n".to_owned(),
        credential_type: CredentialType::Password,
        target_host: None,
        encrypted_value: "x".to_owned(),
        assigned: Vec::new(),
        created_by: "token:admin".to_owned(),
        created_at: 1,
        updated_at: 1,
        removed_at: None,
        revision: 0,
    };
    let known = |key: &PublicKey, _| publics.contains(key);
    let edit = async |bridge: &BrokerLink, name: String| {
        let add = |stands: Option<SharedCredentialRecord>| {
            let mut record = stands.unwrap_or_else(|| first.clone());
            if !record.assigned.contains(&name) {
                record.assigned.push(name.clone());
            }
            Some(record)
        };
        bridge.edit_record(table::SHARED_CREDENTIALS, NOBODY, known, add).await
    };
    let of_one = async |n: usize| {
        for i in 0..EACH {
            edit(&bridges[n], format!("{n}-{i}")).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (a, b) = tokio::join!(of_one(0), of_one(1));
    a.and(b)?;
    let untouched = bridges[0].edit_record(table::SHARED_CREDENTIALS, NOBODY, known, |_| None);
    let (record, cursors) = untouched.await?;
    let mut record: SharedCredentialRecord = record.context("it stands there")?;
    record.assigned.sort();
    let mut all: Vec<_> = (0..2).flat_map(|n| (0..EACH).map(move |i| format!("{n}-{i}"))).collect();
    all.sort();
    assert_eq!(record.assigned, all);
    let last = bridges[1].link().stream_state(stream::STATE).await?.last;
    assert_eq!((cursors.get(STATE).sequence, last), (last, 2 * EACH as u64), "each is one edition");

    // What is no bridge's does not count, also when it is the newest.
    let stranger = |key: &PublicKey, _| *key == publics[0];
    let seen = bridges[0].edit_record(table::SHARED_CREDENTIALS, "other", stranger, |stands| {
        stands.or_else(|| Some(SharedCredentialRecord { id: "other".to_owned(), ..first.clone() }))
    });
    seen.await?;
    let foreign = SharedCredentialRecord { name: "foreign".to_owned(), ..first.clone() };
    bridges[1].put_record(table::SHARED_CREDENTIALS, "other", &foreign).await?;
    let (seen, _) = bridges[0].edit_record(table::SHARED_CREDENTIALS, "other", stranger, |_| None).await?;
    assert_eq!(seen.map(|record: SharedCredentialRecord| record.name).as_deref(), Some("n"));
    Ok(())
}
