//! Assignments and what stands beside them, over both fronts and a real broker.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "some of it is for the tests of feeds")]
mod bench;
#[path = "assignments/bridges.rs"]
mod bridges;
#[path = "assignments/consoles.rs"]
mod consoles;
#[path = "assignments/refusals.rs"]
mod refusals;
#[path = "assignments/runs.rs"]
mod runs;

use anyhow::{Context as _, Result, ensure};
use bench::Bench;
use futures_util::future::join_all;
use serde_json::{Value, json};
use signalbox_schemas::{
    api::op, config::ConfigPushRecord, credential::SharedCredentialRecord, id::CommandId, record::table,
    signed::Signed, stream::STATE,
};
use signalbox_testkit::{
    eventually,
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
    let renamed = ask(&bench, "PATCH", &path, &json!({"name": "three"}), 200).await?.json()?;
    assert_eq!(
        (&renamed["name"], &renamed["enabled"]),
        (&json!("three"), &json!(false)),
        "what is absent stays"
    );

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
        ensure!(relay["metrics"] == json!({"cpu_percent": 99, "disk_percent": 7.25}), "{relay}");
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
    let signed = Signed::<SharedCredentialRecord>::from_json(&last.payload)?;
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
async fn a_credential_that_is_pushed_is_shown_to_nobody_and_goes_with_its_assignment() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = assign(&bench, "old", "one").await?;
    let body = json!({"assignment_id": id, "push_type": "credential",
        "payload": {"name": "n", "credentialType": "password", "encryptedValue": "iv:tag:sealed", "updatedAt": 1}});
    let made = post(&bench, "/config-pushes", &body, 201).await?;
    let push = text(&made, "id")?;
    let shown = json!({"name": "n", "credentialType": "password", "encryptedValue": "", "updatedAt": 1});
    assert_eq!(made["payload"], shown);
    assert_eq!(show(&bench, &format!("/config-pushes/{push}")).await?["payload"], shown);
    assert_eq!(listed(&bench, "/config-pushes", "payload").await?, std::slice::from_ref(&shown));
    assert_eq!(
        bench.console("viewer").await?.read(op::PUSHES_GET, &json!({"id": push})).await??["payload"],
        shown
    );
    // Its relay gets it whole.
    let stored = async || {
        let subject = format!("$KV.state.main.{}.{push}", table::CONFIG_PUSHES);
        let last = bench.link.last(STATE, &subject).await?.context("the last edition")?;
        Ok::<_, anyhow::Error>(Signed::<ConfigPushRecord>::from_json(&last.payload)?.peek()?)
    };
    assert!(stored().await?.payload.contains("iv:tag:sealed"));
    ask(&bench, "DELETE", &format!("/assignments/{id}?cascade=true"), &Value::Null, 200).await?;
    let gone = stored().await?;
    assert_eq!((gone.payload.as_str(), gone.removed_at.is_some()), ("", true));
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
    let claim = json!({"assignment_id": one});
    let answer = post(&bench, &format!("/commands/{claimed}/claim"), &claim, 200).await?;
    assert_eq!(answer, json!({"claimed": true}));
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
