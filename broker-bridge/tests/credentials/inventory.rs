//! What relays say that they keep: who is believed, and who is asked for what.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use signalbox_schemas::{
    api::op,
    id::MachineId,
    limit,
    record::{MachineRecord, RelayKeys, table},
    signed::{Signed, SigningKey},
};

use super::{
    bench::{Bench, Console},
    list, listed, meta, put, refused, say, shows,
};

#[tokio::test]
async fn a_list_is_shown_as_it_was_signed() -> Result<()> {
    let bench = Bench::start(&["web-1", "web-2"]).await?;
    let viewer = bench.console("viewer").await?;
    say(&bench, "web-1", 5, vec![meta("db", "*.lan"), meta("web", "10.0.0.7:2222")]).await?;
    shows(&viewer, &[("web-1", Some(5)), ("web-2", None)]).await?;
    let all = listed(&viewer, &json!({"on": "web-*"})).await?;
    let key = bench.machine_key("web-1")?;
    let said = all.items[0].inventory.as_ref().context("nothing")?.open(|by| by == key.public())?;
    assert_eq!(said, list("web-1", key, 5, vec![meta("db", "*.lan"), meta("web", "10.0.0.7:2222")])?);
    assert_eq!(all.items[0].signing_key.as_ref(), Some(key.public()));
    assert!(all.items[0].seen_at.is_some() && all.items[1].seen_at.is_none());
    // Page by page, and over HTTP the same.
    let first = listed(&viewer, &json!({"on": "all", "limit": 1})).await?;
    assert_eq!(first.next.as_deref(), Some("web-1"));
    let second = listed(&viewer, &json!({"on": "all", "limit": 1, "after": "web-1"})).await?;
    assert_eq!((second.items[0].token.as_str(), second.next), ("web-2", None));
    let by_http = bench.http.json("/api/v1/inventory?on=web-*").await?;
    assert_eq!(by_http, serde_json::to_value(&all)?);
    // Those that reach a host.
    for (target, machines) in
        [("db-1.lan", vec!["web-1"]), ("10.0.0.7:2222", vec!["web-1"]), ("10.0.0.7", vec![])]
    {
        let found = listed(&viewer, &json!({"on": "all", "target": target})).await?;
        let found: Vec<_> = found.items.iter().map(|view| view.token.as_str()).collect();
        assert_eq!(found, machines, "{target}");
    }
    for args in
        [json!({"on": "["}), json!({"on": "all", "target": "*.lan"}), json!({"on": "all", "after": "X"})]
    {
        let problem = viewer.read(op::INVENTORY_LIST, &args).await?.unwrap_err();
        assert_eq!(problem.code.as_str(), "invalid", "{args}");
    }
    Ok(())
}

#[tokio::test]
async fn nobody_but_the_machine_itself_says_what_it_keeps() -> Result<()> {
    let bench = Bench::start(&["web-1", "web-2"]).await?;
    let viewer = bench.console("viewer").await?;
    let (own, other) = (bench.machine_key("web-1")?, bench.machine_key("web-2")?);
    let request = Console::request(op::INVENTORY_LIST, &json!({}))?;
    let many = (0..=limit::CREDENTIALS).map(|n| meta(&n.to_string(), "h")).collect();
    // What stands in its place and is not its word: by the key of another machine, another machine's list, rubbish, what is too
    // large, what is signed as something else, and too many credentials.
    let foreign = [
        (Signed::sign(&list("web-1", other, 9, vec![])?, other)?.to_json(), None),
        (Signed::sign(&list("web-2", other, 9, vec![])?, other)?.to_json(), Some("misplaced")),
        (b"rubbish".to_vec(), Some("envelope")),
        (vec![b'x'; limit::INVENTORY_BYTES / 3 * 4 + 1025], Some("too_large")),
        (Signed::sign(&request, own)?.to_json(), Some("signature")),
        (Signed::sign(&list("web-1", own, 9, many)?, own)?.to_json(), Some("too_many")),
    ];
    for (body, reason) in foreign {
        say(&bench, "web-1", 5, vec![meta("db", "db-1")]).await?;
        shows(&viewer, &[("web-1", Some(5)), ("web-2", None)]).await?;
        put(&bench, "web-1", body).await?;
        if let Some(reason) = reason {
            refused(&bench, reason, 1).await?;
        }
        // The broker has nothing else of the machine any more: neither would a view that is built anew.
        shows(&viewer, &[("web-1", None), ("web-2", None)]).await?;
    }
    // The last one counts, whatever it counts.
    for revision in [5, 4, 4] {
        say(&bench, "web-1", revision, vec![]).await?;
        shows(&viewer, &[("web-1", Some(revision)), ("web-2", None)]).await?;
    }
    // After all of it the machine itself is still heard, with as much as it may say.
    let many = (0..limit::CREDENTIALS).map(|n| meta(&format!("{n:0>100}"), &"h".repeat(200))).collect();
    let most = list("web-1", own, 6, many)?.fit();
    assert!(most.left_out > 0, "it is not as large as can be");
    put(&bench, "web-1", Signed::sign(&most, own)?.to_json()).await?;
    shows(&viewer, &[("web-1", Some(6)), ("web-2", None)]).await
}

async fn replace_keys(bench: &Bench, machine: &str, key: Option<&SigningKey>) -> Result<()> {
    let record = bench.view.machine(machine).context("no such machine")?;
    let keys =
        key.map(|key| RelayKeys { login_key: key.public().clone(), signing_key: key.public().clone() });
    let record = MachineRecord { revision: record.revision + 1, ..record.with_keys(keys) };
    bench.records.put_record(table::MACHINES, machine, &record).await?;
    Ok(())
}

#[tokio::test]
async fn a_list_counts_as_long_as_its_key_does() -> Result<()> {
    let mut bench = Bench::start(&["web-1"]).await?;
    let viewer = bench.console("viewer").await?;
    say(&bench, "web-1", 900, vec![meta("db", "db-1")]).await?;
    shows(&viewer, &[("web-1", Some(900))]).await?;
    let next = SigningKey::from_seed(&nkeys::KeyPair::new_user().seed()?)?;
    replace_keys(&bench, "web-1", Some(&next)).await?;
    // What was sealed for the former key, nobody could open any more.
    shows(&viewer, &[("web-1", None)]).await?;
    put(&bench, "web-1", Signed::sign(&list("web-1", &next, 3, vec![])?, &next)?.to_json()).await?;
    shows(&viewer, &[("web-1", Some(3))]).await?;
    // The former key says nothing any more, however high it counts; but what stood there is gone.
    say(&bench, "web-1", 1_000, vec![]).await?;
    shows(&viewer, &[("web-1", None)]).await?;
    put(&bench, "web-1", Signed::sign(&list("web-1", &next, 4, vec![])?, &next)?.to_json()).await?;
    shows(&viewer, &[("web-1", Some(4))]).await?;
    // A view that is built anew says the same.
    let again = bench.start_again().await?;
    let http = signalbox_testkit::http::Http::new(&again.base, super::bench::TOKEN);
    let shown: Value = http.json("/api/v1/inventory?on=all").await?;
    let shown: Signed<signalbox_schemas::inventory::Inventory> =
        serde_json::from_value(shown["items"][0]["inventory"].clone())?;
    assert_eq!(shown.open(|by| by == next.public())?.revision, 4);
    // Without keys it is nobody's.
    replace_keys(&bench, "web-1", None).await?;
    signalbox_testkit::eventually("it is not shown", || async {
        let shown: Value = http.json("/api/v1/inventory?on=all").await?;
        anyhow::ensure!(shown["items"][0].get("inventory").is_none(), "{shown}");
        anyhow::ensure!(shown["items"][0].get("signing_key").is_none(), "{shown}");
        Ok(())
    })
    .await?;
    bench.end().await
}

#[tokio::test]
async fn one_question_finds_relays_of_both_kinds() -> Result<()> {
    let bench = Bench::start(&["web-1", "web-2"]).await?;
    let viewer = bench.console("viewer").await?;
    let report = |host: &str| {
        json!({"capabilities": ["ssh"], "credentials": [{"credential_name": "old", "credential_type": "password",
            "target_host": host, "storage_mode": "relay_only", "last_updated_at": 1}]})
    };
    let mut assignments = Vec::new();
    for (machine, host) in [("old-1", "db-1.lan"), ("old-2", "*.lan"), ("web-1", "db-1.lan")] {
        let made = bench
            .http
            .post("/api/v1/assignments", &json!({"machine_id": machine, "name": machine}))
            .await?
            .json()?;
        let id = made["id"].as_str().context("no id")?.to_owned();
        let said = bench.http.post(&format!("/api/v1/relays/{id}/report"), &report(host)).await?;
        assert_eq!(said.status, 200);
        assignments.push(id);
    }
    say(&bench, "web-1", 1, vec![meta("all", "*"), meta("lan", "*.lan"), meta("db", "db-1.lan:22")]).await?;
    say(&bench, "web-2", 1, vec![meta("db", "db-1.lan:2222")]).await?;
    shows(&viewer, &[("old-1", None), ("old-2", None), ("web-1", Some(1)), ("web-2", Some(1))]).await?;
    let reach = |args: Value| {
        let viewer = &viewer;
        async move {
            let found = viewer.read(op::CREDENTIALS_REACH, &args).await??;
            let items = found["items"].as_array().context("no items")?.clone();
            let line = |item: &Value| {
                let names = item["credentials"].as_array().into_iter().flatten();
                let names: Vec<_> = names.filter_map(|it| it["credential_name"].as_str()).collect();
                format!("{}: {}", item["machine"].as_str().unwrap_or_default(), names.join(" "))
            };
            anyhow::Ok(items.iter().map(line).collect::<Vec<_>>())
        }
    };
    // The closest first; old relays by the letter, and not for a machine that takes no work through them.
    assert_eq!(reach(json!({"target": "db-1.lan"})).await?, ["old-1: old", "web-1: db lan all"]);
    assert_eq!(reach(json!({"target": "db-1.lan", "on": "old-*"})).await?, ["old-1: old"]);
    assert_eq!(
        reach(json!({"target": "db-1.lan:2222"})).await?,
        ["old-1: old", "web-1: lan all", "web-2: db"]
    );
    let by_http = bench.http.json("/api/v1/reach?target=db-1.lan&on=web-1").await?;
    assert_eq!(by_http["items"][0]["credentials"][0]["credential_name"], "db");
    // In the old shape, where the machine has an assignment.
    let held = bench.http.json(&format!("/api/v1/relays/{}/credentials", assignments[2])).await?;
    let names: Vec<_> = held["items"]
        .as_array()
        .context("no items")?
        .iter()
        .map(|it| it["credential_name"].clone())
        .collect();
    assert_eq!(names, ["all", "lan", "db"]);
    let held = bench.http.json("/api/v1/credentials?target_host=*.lan").await?;
    let machines: Vec<_> =
        held["items"].as_array().context("no items")?.iter().map(|it| it["machine_id"].clone()).collect();
    assert_eq!(machines, [MachineId::new("old-2")?.as_str(), "web-1"]);
    Ok(())
}
