//! What relays say of themselves, and what is kept for them: pushes and credentials.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_schemas::{
    api::{Listed, MachineView},
    config::{PushState, PushType},
    credential::{CredentialType, SharedCredentialRecord, StorageMode},
    heartbeat::{Facts, Heartbeat, Metrics},
    id::{MachineId, Workspace},
    record::{MachineRecord, RelayKeys},
    signed::PublicKey,
};
use signalbox_testkit::{eventually, old_relay::status_of};

use super::{
    bench::now_ms,
    world::{Assigned, World, said, says},
};

const YES: &str = r#"{"success":true}"#;

#[tokio::test]
async fn a_heartbeat_makes_a_relay_online() -> Result<()> {
    let world = World::start().await?;
    let (own, other) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let contact = |assigned: &Assigned| world.bench.view.contact(&assigned.id, now_ms());
    assert_eq!((contact(&own).seen_at, contact(&own).is_online), (None, false));
    assert_eq!(said(&world.relay(&own).heartbeat().await?)?, says(200, YES));
    let seen = contact(&own).seen_at.context("not seen")?;
    assert!(contact(&own).is_online && now_ms().abs_diff(seen) < 5_000, "{:?}", contact(&own));
    assert!(!contact(&other).is_online);
    // So it is for an hour less than it takes to be forgotten.
    let later = |ms| world.bench.view.contact(&own.id, seen + ms).is_online;
    assert!(later(30_000) && !later(120_000));
    eventually("the machine is online too", || async {
        let machines = world.bench.http.json("/api/v1/machines").await?;
        ensure!(machines["items"][0]["state"] == "online", "{machines}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_request_is_a_sign_of_life() -> Result<()> {
    let world = World::start().await?;
    for (n, route) in ["verify", "poll", "claim", "result", "status", "pushes"].into_iter().enumerate() {
        let assigned = world.assign(&format!("m-{n}")).await?;
        let mut relay = world.relay(&assigned);
        match route {
            "verify" => relay.verify().await?,
            "poll" => relay.poll().await?,
            "claim" => relay.claim("x").await?,
            "result" => relay.result("x", 0, "").await?,
            "status" => relay.status("x").await?,
            _ => relay.ask("GET", "/relay/config/pending", None).await?,
        };
        assert!(world.bench.view.contact(&assigned.id, now_ms()).is_online, "{route}");
    }
    Ok(())
}

#[tokio::test]
async fn a_report_replaces_the_one_before() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut relay = world.relay(&assigned);
    let kept = || world.bench.view.relay(&assigned.id);
    assert_eq!(kept(), None);
    relay.ask("POST", "/relay/status", Some(&status_of(&assigned.id))).await?;
    let first = kept().context("nothing is kept")?;
    assert_eq!(first.capabilities, ["local_cmd", "ssh", "perf_metrics"]);
    assert_eq!((first.version.as_deref(), first.platform.as_deref()), (Some("1.0.0"), Some("linux-x64")));
    let metrics = world.bench.view.contact(&assigned.id, now_ms()).metrics.context("no metrics")?;
    assert_eq!((metrics.cpu_percent, metrics.memory_total_mb), (Some(17.52), Some(24_106.0)));
    assert_eq!((metrics.load_avg_15m, metrics.disk_percent), (Some(0.9), Some(5.44)));
    // Without metrics, as from a system that has none, and with credentials.
    let body = json!({
        "relayId": assigned.id, "capabilities": ["local_cmd"], "credentials": [
            {"credentialName": "a", "credentialType": "ssh_key", "targetHost": "db-1", "storageMode": "relay_only", "lastUpdatedAt": 1_795_000_000_000_u64},
            {"credentialName": "b", "credentialType": "password", "storageMode": "shared", "lastUpdatedAt": 1.5},
        ],
    });
    let answer = relay.ask("POST", "/relay/status", Some(&body.to_string())).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = kept().context("nothing is kept")?;
    assert_eq!((second.version, second.hostname, second.created_at), (None, None, first.created_at));
    let credentials: Vec<_> = second.credentials.iter().map(|known| known.credential_name.as_str()).collect();
    assert_eq!(credentials, ["a", "b"]);
    assert_eq!(second.credentials[0].target_host.as_deref(), Some("db-1"));
    assert_eq!(second.credentials[1].storage_mode, StorageMode::Shared);
    assert_eq!(world.bench.view.contact(&assigned.id, now_ms()).metrics, None);
    // What is not held any more is gone.
    relay.ask("POST", "/relay/status", Some(&status_of(&assigned.id))).await?;
    assert_eq!(kept().context("nothing is kept")?.credentials, []);
    Ok(())
}

/// What a relay says for which an `f32` has no number.
#[rstest]
#[case::of_an_old_relay("status")]
#[case::in_its_name("report")]
#[case::of_a_relay_with_keys("heartbeat")]
#[tokio::test]
async fn figures_out_of_range_spoil_nobodys_list(#[case] way: &str) -> Result<()> {
    let world = World::start_with(&["a-1"], None).await?;
    let (bench, assigned) = (&world.bench, world.assign("m-1").await?);
    let mut relay = world.relay(&assigned);
    let machine = if way == "heartbeat" { "a-1" } else { "m-1" };
    let answer = match way {
        "status" => {
            let report = r#"{"relayId":"x","capabilities":[],"credentials":[],"metrics":{"cpuPercent":1e39,"memoryTotalMb":1e300,"loadAvg1m":-1}}"#;
            relay.ask("POST", "/relay/status", Some(report)).await?
        }
        "report" => {
            let report = br#"{"capabilities":[],"metrics":{"cpu_percent":1e39,"memory_total_mb":1e300,"load_avg_1m":-1}}"#;
            let path = format!("/api/v1/relays/{}/report", assigned.id);
            bench.http.request("POST", &path, &[], report.to_vec()).await?
        }
        _ => {
            let beat = r#"{"ws":"main","mid":"a-1","at":1,"relay":"1","generation":0,"authors":0,"running":0,"outbox":0,
                "started_at":1,"facts":{},"metrics":{"cpu_percent":1e39,"cpus":1,"memory_used_bytes":0,
                "memory_total_bytes":18446744073709551615,"swap_used_bytes":0,"swap_total_bytes":0,"load":[-1,1e300,0],
                "uptime_secs":0}}"#;
            bench.link.publish("hb.main.a-1", None, beat.into()).await?;
            relay.heartbeat().await?
        }
    };
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = eventually("its metrics", || async {
        let machines = bench.http.json("/api/v1/machines").await?;
        let listed = machines["items"].as_array().context("items")?;
        let shown = listed.iter().find(|shown| shown["id"] == machine).context("the machine")?.clone();
        ensure!(shown["metrics"].is_object(), "{shown}");
        Ok(shown)
    })
    .await?;
    assert_eq!(
        (&shown["metrics"]["cpu_percent"], &shown["metrics"]["load"][0]),
        (&json!(100.0), &json!(0.0))
    );
    assert_eq!(shown["metrics"]["memory_total_bytes"], u64::MAX);
    // As consoles read the page: all of it, with every figure.
    let page: Listed<MachineView> = serde_json::from_value(bench.http.json("/api/v1/machines").await?)?;
    assert_eq!(page.items.iter().filter(|it| it.metrics.is_some()).count(), 1);
    Ok(())
}

/// Says so of a relay with keys: its heartbeat, with these metrics.
async fn beat(world: &World, machine: &str, metrics: Option<Metrics>) -> Result<()> {
    let facts = Facts {
        hostname: "native".to_owned(),
        os: "Debian 12.11".to_owned(),
        arch: "x86_64".to_owned(),
        ..Facts::default()
    };
    let beat = Heartbeat {
        ws: Workspace::main(),
        mid: MachineId::new(machine)?.token(),
        at: now_ms(),
        relay: "0.9".to_owned(),
        generation: 0,
        authors: 0,
        running: 0,
        outbox: 0,
        started_at: 1,
        counters: BTreeMap::new(),
        facts,
        metrics,
        legacy: None,
    };
    let body = serde_json::to_vec(&beat)?;
    world.bench.link.publish(&format!("hb.main.{machine}"), None, body.into()).await?;
    Ok(())
}

/// As a relay of this assignment does when it makes keys of its own.
async fn enrol(world: &World, machine: &str, assigned: &Assigned) -> Result<()> {
    let key: PublicKey = nkeys::KeyPair::new_user().public_key().parse()?;
    let keys = RelayKeys { login_key: key.clone(), signing_key: key };
    let edit = |record: MachineRecord| MachineRecord {
        enrolled_by: Some(assigned.id.clone()),
        enrolled_at: now_ms(),
        ..record.with_keys(Some(keys.clone()))
    };
    world.edit_machine(machine, edit).await
}

#[tokio::test]
async fn a_relay_that_has_enrolled_is_shown_as_it_is_now() -> Result<()> {
    let world = World::start().await?;
    let http = &world.bench.http;
    let (former, new) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let mut relay = world.relay(&former);
    assert_eq!(relay.status(&former.id).await?.status, 200);
    let show = async |assigned: &Assigned| http.json(&format!("/api/v1/relays/{}", assigned.id)).await;
    assert_eq!(show(&former).await?["metrics"]["cpu_percent"], 17.52);
    assert_eq!(http.get(&format!("/api/v1/relays/{}", new.id)).await?.status, 404);

    enrol(&world, "m-1", &former).await?;
    enrol(&world, "m-2", &new).await?;
    let unheard = show(&new).await?;
    assert_eq!(unheard["capabilities"], json!(["local_cmd", "perf_metrics"]), "{unheard}");
    for member in ["metrics", "version", "hostname", "platform", "last_heartbeat_at"] {
        assert_eq!(unheard[member], Value::Null, "{member}");
    }
    let metrics = Metrics { cpu_percent: 7.5, memory_total_bytes: 1 << 30, ..Metrics::default() };
    beat(&world, "m-1", Some(metrics.clone())).await?;
    beat(&world, "m-2", Some(metrics)).await?;
    for assigned in [&former, &new] {
        let shown = eventually("its own words", || async {
            let shown = show(assigned).await?;
            ensure!(shown["version"] == "0.9" && shown["is_online"] == true, "{shown}");
            Ok(shown)
        })
        .await?;
        assert_eq!(
            (&shown["metrics"]["cpu_percent"], &shown["metrics"]["memory_total_mb"]),
            (&json!(7.5), &json!(1024))
        );
        assert_eq!(
            (&shown["hostname"], &shown["platform"]),
            (&json!("native"), &json!("Debian 12.11 x86_64"))
        );
        assert!(shown["created_at"].as_u64() > Some(1), "{shown}");
    }
    let listed = async |query: &str| {
        let page = http.json(&format!("/api/v1/relays{query}")).await?;
        let ids = page["items"].as_array().context("items")?.iter();
        Ok::<_, anyhow::Error>(ids.map(|it| it["assignment_id"].clone()).collect::<Vec<_>>())
    };
    let both = [json!(former.id), json!(new.id)];
    for query in ["", "?capability=local_cmd", "?online=true"] {
        assert_eq!(listed(query).await?, both, "{query}");
    }
    assert_eq!(listed("?capability=ssh").await?, Vec::<Value>::new(), "what it once could");
    // What an application says in its name brings nothing old back, and what is not known any more is not shown.
    world.relay(&new).heartbeat().await?;
    assert_eq!(show(&new).await?["metrics"]["cpu_percent"], 7.5);
    beat(&world, "m-1", None).await?;
    eventually("no metrics", || async {
        let shown = show(&former).await?;
        ensure!(shown["metrics"].is_null() && shown["version"] == "0.9", "{shown}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_is_pushed_to_a_relay_that_asks_no_more() -> Result<()> {
    let world = World::start().await?;
    let (http, own) = (&world.bench.http, world.assign("m-1").await?);
    let body =
        json!({"assignment_id": own.id, "push_type": "metrics_interval", "payload": {"intervalMs": 5000}});
    let push = async || http.post("/api/v1/config-pushes", &body).await;
    let before = push().await?;
    assert_eq!(before.status, 201, "{}", before.text());
    let id = before.json()?["id"].as_str().context("id")?.to_owned();
    enrol(&world, "m-1", &own).await?;
    let again = http.post(&format!("/api/v1/config-pushes/{id}/retry"), &json!({})).await?;
    for (refused, doing) in [(push().await?, "queue"), (again, "retry")] {
        let problem = refused.json()?;
        assert_eq!((refused.status, &problem["code"]), (422, &json!("invalid")), "{problem}");
        let why = format!(
            "cannot {doing} the push: the relay of machine m-1 has enrolled with this assignment, and pushes to relays with keys are not built yet; change `relay.toml` on the machine instead"
        );
        assert_eq!(problem["detail"], json!(why));
    }
    // Where old relays may go on, one of them may ask.
    world.edit_machine("m-1", |record| MachineRecord { allow_legacy: true, ..record }).await?;
    assert_eq!(push().await?.status, 201);
    Ok(())
}

#[tokio::test]
async fn a_later_sign_of_life_is_a_later_one() -> Result<()> {
    let world = World::start().await?;
    let own = world.assign("m-1").await?;
    let mut relay = world.relay(&own);
    let seen = async || {
        let view = world.bench.http.json(&format!("/api/v1/relays/{}", own.id)).await?;
        let contact = world.bench.view.contact(&own.id, now_ms()).seen_at;
        ensure!(view["last_heartbeat_at"].as_u64() == contact, "{view}");
        contact.context("not seen")
    };
    relay.status(&own.id).await?;
    // What is read first may be older by one sign of life.
    let mut last = eventually("seen", &seen).await?;
    for way in ["heartbeat", "report"] {
        // Told at most once a second.
        eventually(way, || async {
            let mut relay = world.relay(&own);
            match way {
                "heartbeat" => relay.heartbeat().await?,
                _ => relay.status(&own.id).await?,
            };
            let now = seen().await?;
            ensure!(now >= last + 1_000, "{now} after {last}");
            Ok(())
        })
        .await?;
        let now = seen().await?;
        // Any request would do after ten.
        assert!(now - last < 9_000, "{way}: {now} after {last}");
        last = now;
    }
    Ok(())
}

#[tokio::test]
async fn pushes_wait_in_their_order_under_both_names() -> Result<()> {
    let world = World::start().await?;
    let (own, other) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let mut relay = world.relay(&own);
    let payloads = [
        (PushType::SshTargets, r#"{"targets":["a","b"]}"#),
        (PushType::AllowedCommands, r#"{"commands":["ls"]}"#),
        (PushType::MetricsInterval, r#"{"intervalMs":60000}"#),
        (
            PushType::Credential,
            r#"{"name":"n","credentialType":"password","encryptedValue":"a:b:c","updatedAt":1}"#,
        ),
    ];
    let mut ids = Vec::new();
    for (push_type, payload) in payloads {
        ids.push(world.push(&own, push_type, payload).await?);
        world.push(&other, PushType::SshTargets, r#"{"targets":[]}"#).await?;
    }
    let mut items = Vec::new();
    for (id, (push_type, payload)) in ids.iter().zip(payloads) {
        let created = world.pushed(id)?.created_at;
        let (push_type, payload) = (push_type.as_str(), Value::from(payload));
        items.push(format!(
            r#"{{"_id":"{id}","pushType":"{push_type}","payload":{payload},"createdAt":{created}}}"#
        ));
    }
    let items = items.join(",");
    let list = format!(r#"{{"configPushes":[{items}],"pushes":[{items}]}}"#);
    assert!(list.contains(r#""payload":"{\"targets\":[\"a\",\"b\"]}""#), "a document as a text: {list}");
    let named = format!("/relay/config-pushes?relayId={}", own.id);
    for path in ["/relay/config/pending", &named, "/relay/config/pending"] {
        assert_eq!(said(&relay.ask("GET", path, None).await?)?, says(200, &list));
    }
    let counted = r#"{"success":true,"pendingConfigPushes":4,"sharedCredentialsCount":0}"#;
    assert_eq!(said(&relay.status(&own.id).await?)?, says(200, counted));
    // Answered ones are offered no more, whatever the answer.
    for (n, path) in ["/relay/config/ack", "/relay/config-pushes/ack"].into_iter().enumerate() {
        let body = match n {
            0 => json!({"pushId": ids[0], "success": true}),
            _ => json!({"pushId": ids[1], "success": false, "errorMessage": "Processing failed"}),
        };
        assert_eq!(said(&relay.ask("POST", path, Some(&body.to_string())).await?)?, says(200, YES));
    }
    assert_eq!(world.pushed(&ids[0])?.state, PushState::Acked);
    let failed = world.pushed(&ids[1])?;
    assert_eq!((failed.state, failed.error.as_deref()), (PushState::Failed, Some("Processing failed")));
    let left = relay.ask("GET", "/relay/config/pending", None).await?.json()?;
    let left: Vec<_> =
        left["pushes"].as_array().context("no list")?.iter().map(|push| &push["_id"]).collect();
    assert_eq!(left, [&ids[2], &ids[3]]);
    let counted = r#"{"success":true,"pendingConfigPushes":2,"sharedCredentialsCount":0}"#;
    assert_eq!(said(&relay.status(&own.id).await?)?, says(200, counted));
    Ok(())
}

#[tokio::test]
async fn a_push_may_be_answered_again_and_the_last_answer_stands() -> Result<()> {
    let world = World::start().await?;
    let own = world.assign("m-1").await?;
    let mut relay = world.relay(&own);
    let id = world.push(&own, PushType::MetricsInterval, r#"{"intervalMs":1}"#).await?;
    let failure = json!({"pushId": id, "success": false, "errorMessage": "no"}).to_string();
    let success = json!({"pushId": id, "success": true, "errorMessage": "ignored"}).to_string();
    let answers = [(&failure, PushState::Failed, Some("no")), (&success, PushState::Acked, None)];
    for (body, state, error) in answers.into_iter().chain(answers) {
        assert_eq!(said(&relay.ask("POST", "/relay/config/ack", Some(body)).await?)?, says(200, YES));
        let push = world.pushed(&id)?;
        assert_eq!((push.state, push.error.as_deref()), (state, error));
        assert!(push.acked_at.is_some());
    }
    let none = r#"{"configPushes":[],"pushes":[]}"#;
    assert_eq!(said(&relay.ask("GET", "/relay/config/pending", None).await?)?, says(200, none));
    Ok(())
}

#[tokio::test]
async fn shared_credentials_go_to_those_they_are_meant_for() -> Result<()> {
    let world = World::start().await?;
    let (own, other) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let credential = |name: &str, host: Option<&str>, assigned: &[&Assigned]| {
        let mut assigned: Vec<String> = assigned.iter().map(|assigned| assigned.id.clone()).collect();
        assigned.sort_unstable();
        SharedCredentialRecord {
            ws: Workspace::main(),
            id: uuid::Uuid::now_v7().to_string(),
            name: name.to_owned(),
            credential_type: CredentialType::SshKey,
            target_host: host.map(str::to_owned),
            encrypted_value: format!("iv:tag:{name}"),
            assigned,
            created_by: "token:admin".to_owned(),
            created_at: 1,
            updated_at: 1_795_000_000_000,
            kept: None,
            removed_at: None,
            revision: 0,
        }
    };
    world.share(credential("both", Some("db-1"), &[&own, &other])).await?;
    world.share(credential("theirs", None, &[&other])).await?;
    world.share(credential("ours", None, &[&own])).await?;
    world.share(credential("nobodys", None, &[])).await?;
    let list = concat!(
        r#"{"credentials":[{"name":"both","credentialType":"ssh_key","targetHost":"db-1","encryptedValue":"iv:tag:both","updatedAt":1795000000000},"#,
        r#"{"name":"ours","credentialType":"ssh_key","encryptedValue":"iv:tag:ours","updatedAt":1795000000000}]}"#
    );
    let mut relay = world.relay(&own);
    let named = format!("/relay/shared-credentials?relayId={}", own.id);
    for path in ["/relay/credentials/shared", &named] {
        assert_eq!(said(&relay.ask("GET", path, None).await?)?, says(200, list));
    }
    let counted = r#"{"success":true,"pendingConfigPushes":0,"sharedCredentialsCount":2}"#;
    assert_eq!(said(&relay.status("whoever").await?)?, says(200, counted));
    world.disable(&own).await?;
    assert_eq!(
        said(&relay.ask("GET", "/relay/credentials/shared", None).await?)?,
        says(200, r#"{"credentials":[]}"#)
    );
    Ok(())
}
