//! The same over NATS, by role.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use signalbox_schemas::{api::op, api_key::ApiKey};

use super::{
    ask,
    bench::{Bench, Console},
    text,
};

#[tokio::test]
async fn a_key_does_not_pass_the_broker() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let admin = bench.console("admin").await?;
    let key = ApiKey::new("key-of-an-old-relay")?;
    let new = |member: &str, value: Value| json!({"machine_id": "a-1", "name": "one", member: value});
    for (wrong, said) in [
        (new("api_key", key.reveal().into()), "unknown field `api_key`"),
        (json!({"machine_id": "a-1", "name": "one"}), "missing field `key_hash`"),
        (new("key_hash", "x".into()), "64 lower-case"),
    ] {
        let refused = admin.write(op::ASSIGNMENTS_CREATE, &wrong).await?.err().context("it is made")?;
        assert_eq!(refused.code.as_str(), "invalid");
        assert!(refused.message.contains(said), "{refused}");
    }
    let by_hash = new("key_hash", key.hash().to_string().into());
    let made = admin.write(op::ASSIGNMENTS_CREATE, &by_hash).await?.context("made")?;
    assert_eq!((&made["machine_id"], made.get("api_key")), (&json!("a-1"), None));
    // The key counts, and its hash is none.
    for (brought, status) in [(key.reveal().to_owned(), 200), (key.hash().to_string(), 401)] {
        let headers = [("x-api-key", brought.as_str())];
        let answer = bench.http.request("GET", "/relay/commands", &headers, Vec::new()).await?;
        assert_eq!(answer.status, status, "{brought}");
    }
    // It is the same key for whoever says it over HTTP, where a hash may come, too, and one of the two alone.
    for (body, status) in [
        (new("api_key", key.reveal().into()), 409),
        (by_hash.clone(), 409),
        (json!({"machine_id": "a-1", "name": "n", "api_key": key.reveal(), "key_hash": key.hash()}), 422),
    ] {
        ask(&bench, "POST", "/assignments", &body, status).await?;
    }
    let other = new("key_hash", ApiKey::new("key-of-another-relay")?.hash().to_string().into());
    let made = ask(&bench, "POST", "/assignments", &other, 201).await?.json()?;
    assert_eq!(made.get("api_key"), None, "nobody here knows it");
    Ok(())
}

#[tokio::test]
async fn consoles_do_the_same_by_their_roles() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (admin, member, viewer) =
        (bench.console("admin").await?, bench.console("local").await?, bench.console("viewer").await?);
    let new = json!({"machine_id": "old", "name": "one", "key_hash": ApiKey::from_random([1; 32]).hash()});
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
    let (ended, _) = (bench.submit("old").await?, bench.submit("old").await?);
    let claim = json!({"id": ended, "assignment_id": id});
    let complete = json!({"id": ended, "assignment_id": id, "success": true});
    let claimed = admin.write(op::RUNS_CLAIM, &claim).await?.context("claimed")?;
    assert_eq!(claimed, json!({"claimed": true}));
    let started = admin.write(op::RUNS_START, &claim).await?.context("started")?;
    assert_eq!(started, json!({"started": true}));
    let accepted = admin.write(op::RUNS_COMPLETE, &complete).await?.context("accepted")?;
    assert_eq!(accepted, json!({"accepted": true}));

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
        (op::RUNS_CLAIM, claim.clone()),
        (op::RUNS_START, claim),
        (op::RUNS_COMPLETE, complete),
    ] {
        let refused = member.write(op, &args).await?.err().with_context(|| format!("{op} is done"))?;
        assert_eq!(refused.code.as_str(), "forbidden", "{op}");
        // Nobody does any of it without a signature.
        let unsigned = admin.read(op, &args).await?.err().with_context(|| format!("{op} is done"))?;
        assert_eq!(unsigned.code.as_str(), "invalid", "{op}");
    }
    a_push_and_a_credential_go_their_way(&admin, &push_id, &shared_id).await?;
    let removal = json!({"id": id, "cascade": true});
    let removed = admin.write(op::ASSIGNMENTS_REMOVE, &removal).await?.context("removed")?;
    assert_eq!(removed, json!({"id": id, "withdrawn": 1}));
    let gone = viewer.read(op::ASSIGNMENTS_GET, &by_id).await?.err().context("it is gone")?;
    assert_eq!((gone.code.as_str(), gone.message.as_str()), ("not_found", "Relay assignment not found"));
    let nothing = viewer.read("assignments.praise", &json!({})).await?.err().context("no such thing")?;
    assert_eq!(nothing.code.as_str(), "invalid");
    Ok(())
}

async fn a_push_and_a_credential_go_their_way(
    admin: &Console,
    push_id: &Value,
    shared_id: &Value,
) -> Result<()> {
    for (op, args, state) in [
        (op::PUSHES_SENT, push_id.clone(), "sent"),
        (op::PUSHES_ACK, json!({"id": push_id["id"], "success": false, "error": "no"}), "failed"),
        (op::PUSHES_RETRY, push_id.clone(), "pending"),
    ] {
        assert_eq!(admin.write(op, &args).await?.context("push")?["state"], state, "{op}");
    }
    let renamed = json!({"id": shared_id["id"], "name": "other"});
    assert_eq!(admin.write(op::SHARED_UPDATE, &renamed).await?.context("renamed")?["name"], "other");
    admin.write(op::SHARED_REMOVE, shared_id).await?.context("removed")?;
    Ok(())
}
