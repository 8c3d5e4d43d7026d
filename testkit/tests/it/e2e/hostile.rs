//! What a bare NATS client can do with somebody's credentials: nothing to anybody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, ConnectOptions, Subscriber, jetstream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use signalbox_schemas::{
    id::Sha256,
    mailbox::Mailbox,
    signed::Signed,
    stream::{HB, LEASE, MBOX},
};
use signalbox_testkit::{eventually::eventually, stack::Stack};

use super::wire::{administrator, messages, numbers};

/// What the broker holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stored {
    /// Names of consumers by stream.
    consumers: BTreeMap<String, BTreeSet<String>>,
    /// Subject and hash of headers and payload by stream and sequence, except where something moves by itself.
    messages: BTreeMap<(String, u64), (String, Sha256)>,
}

async fn stored(stack: &Stack) -> Result<Stored> {
    let (client, _) = administrator(stack).await?;
    let context = jetstream::new(client);
    let mut all = Stored::default();
    for name in context.stream_names().try_collect::<Vec<String>>().await? {
        let stream = context.get_stream(&name).await?;
        all.consumers.insert(name.clone(), stream.consumer_names().try_collect().await?);
        if [HB, LEASE].contains(&name.as_str()) {
            continue;
        }
        for message in messages(&context, &name).await? {
            let headers: BTreeMap<String, _> =
                message.headers.iter().map(|(name, values)| (name.to_string(), values)).collect();
            let bytes = [format!("{headers:?}").as_bytes(), &message.payload].concat();
            let at = (name.clone(), message.sequence);
            all.messages.insert(at, (message.subject.to_string(), Sha256::of(&bytes)));
        }
    }
    Ok(all)
}

/// What is stored once nothing moves by itself any more: settled offers leave the mailboxes after some seconds.
async fn stored_at_rest(stack: &Stack) -> Result<Stored> {
    let (client, _) = administrator(stack).await?;
    let mailboxes = jetstream::new(client).get_stream(MBOX).await?;
    eventually("empty mailboxes", || async {
        for machine in &stack.ready().machines {
            let subject = format!("mbox.main.{}", machine.token);
            let message = mailboxes.get_last_raw_message_by_subject(&subject).await?;
            let offers = Signed::<Mailbox>::from_json(&message.payload)?.peek()?.offers.len();
            ensure!(offers == 0, "{subject} has {offers}");
        }
        stored(stack).await
    })
    .await
}

/// What arrives before a last message that is sent now, as CTRL.
async fn arrived_before(ctrl: &Client, last: &str, subscription: &mut Subscriber) -> Result<Vec<String>> {
    ctrl.publish(last.to_owned(), "last".into()).await?;
    let mut arrived = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await?;
        let message = next.context("the subscription has ended")?;
        if message.payload == "last" {
            return Ok(arrived);
        }
        arrived.push(format!("{}: {}", message.subject, String::from_utf8_lossy(&message.payload)));
    }
}

async fn relay_client(stack: &Stack, n: usize) -> Result<Client> {
    let machine = stack.machine(n)?;
    let options = ConnectOptions::with_credentials_file(&machine.creds).await?;
    let options = options.custom_inbox_prefix(format!("_INBOX_{}", machine.token));
    Ok(options.connect(&stack.ready().nats).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relays_credentials_touch_nothing_of_another_machine() -> Result<()> {
    let stack = Stack::demo().await?;
    let command = stack.http().run("all", "echo secret").await?;
    let id = command["id"].as_str().context("no id")?;
    let before = stored_at_rest(&stack).await?;
    let evil = relay_client(&stack, 0).await?;
    let victim = "demo-2";
    for subject in [
        format!("$JS.API.DIRECT.GET.MBOX.mbox.main.{victim}"),
        "$JS.API.DIRECT.GET.MBOX.mbox.main.*".to_owned(),
        "$JS.API.DIRECT.GET.MBOX".to_owned(),
        format!("$JS.API.DIRECT.GET.RUN.run.main.{victim}.{id}.claim"),
        "$JS.API.STREAM.INFO.MBOX".to_owned(),
        "$JS.API.STREAM.MSG.GET.MBOX".to_owned(),
        "$JS.API.STREAM.PURGE.RUN".to_owned(),
        "$JS.API.CONSUMER.CREATE.MBOX".to_owned(),
        "$JS.API.CONSUMER.CREATE.MBOX.evil.mbox.main.demo-1".to_owned(),
        "$JS.API.CONSUMER.DURABLE.CREATE.MBOX.evil".to_owned(),
    ] {
        let body = json!({"last_by_subj": format!("mbox.main.{victim}"), "stream_name": "MBOX", "config": {"deliver_subject": "_INBOX_demo-1.x", "ack_policy": "none"}});
        let request = evil.request(subject.clone(), serde_json::to_vec(&body)?.into());
        let answer = tokio::time::timeout(Duration::from_millis(400), request).await;
        ensure!(!matches!(answer, Ok(Ok(_))), "{subject} answered {answer:?}");
    }
    // A body that asks for another subject than the permission speaks of.
    let body = serde_json::to_vec(&json!({"last_by_subj": format!("mbox.main.{victim}")}))?;
    let answer = evil.request("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1", body.into()).await?;
    ensure!(!String::from_utf8_lossy(&answer.payload).contains(victim), "got another's mailbox");
    for subject in [
        format!("mbox.main.{victim}"),
        format!("live.mbox.main.{victim}"),
        format!("run.main.{victim}.{id}.exit"),
        format!("out.main.{victim}.{id}"),
        format!("hb.main.{victim}"),
        "cmd.main.x.spec".to_owned(),
        "api.main.local.commands.submit.abcdefgh".to_owned(),
        "feed.main.local.abcdefgh".to_owned(),
    ] {
        evil.publish(subject, "evil".into()).await?;
    }
    // Its own subjects with somebody else's as the reply: the broker answers, and stores nothing there.
    for reply in [
        format!("mbox.main.{victim}"),
        format!("run.main.{victim}.{id}.lost"),
        format!("out.main.{victim}.{id}"),
        format!("live.mbox.main.{victim}"),
        "cmd.main.x.spec".to_owned(),
    ] {
        evil.publish_with_reply("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1", reply, "".into()).await?;
    }
    evil.flush().await?;
    eventually("all refused", || async {
        let after = stored(&stack).await?;
        ensure!(after == before, "before {before:?}\nafter {after:?}");
        Ok(())
    })
    .await?;
    let command = stack.http().run("all", "echo fine").await?;
    assert_eq!(command["counts"], json!({"completed": 3}));
    Ok(())
}

/// Stores messages of its own under these ids; with them, the second one of each id is swallowed.
async fn burn(relay: &jetstream::Context, own: &str, ids: &[String]) -> Result<()> {
    for id in ids {
        for is_repeated in [false, true] {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            let ack = relay.publish_with_headers(own.to_owned(), headers, "x".into()).await?.await?;
            assert_eq!(ack.duplicate, is_repeated, "{id}: this burns nothing");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn message_ids_cannot_be_burnt() -> Result<()> {
    let stack = Stack::demo().await?;
    let (client, _) = administrator(&stack).await?;
    let ctrl = jetstream::new(client);
    let evil = jetstream::new(relay_client(&stack, 0).await?);
    let gate = tempfile::NamedTempFile::new()?;
    let command = format!("while [ -e {} ]; do sleep 0.02; done; seq 1 20000", gate.path().display());
    let id = stack.http().submit("demo-2", &command).await?;
    eventually("the claim", || async {
        let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        ensure!(command["counts"] == json!({"executing": 1}), "{command}");
        Ok(())
    })
    .await?;
    let guesses = ["0", "1", "2", "stdout.0", "stdout.1"].map(|guess| format!("{id}.demo-2.{guess}"));
    burn(&evil, &format!("out.main.demo-1.{id}"), &guesses).await?;
    burn(&evil, &format!("run.main.demo-1.{id}.exit"), &[format!("{id}.demo-2.exit")]).await?;
    gate.close()?;
    let command = stack.http().settled(&id).await?;
    assert_eq!(command["counts"], json!({"completed": 1}));
    let output = stack.http().output(&id, "demo-2", "stdout").await?;
    assert!(output == numbers(20_000).as_bytes(), "the bytes differ");
    for (stream, of_run) in
        [("OUT", format!("out.main.demo-2.{id}")), ("RUN", format!("run.main.demo-2.{id}."))]
    {
        let mut stored = messages(&ctrl, stream).await?;
        stored.retain(|message| message.subject.starts_with(&of_run));
        assert!(stored.len() > 1, "{} under {of_run}", stored.len());
        for message in stored {
            let burnt = message.headers.get("Nats-Msg-Id");
            assert_eq!(burnt, None, "{} {}", message.subject, message.sequence);
        }
    }
    Ok(())
}

/// A bare client with an operator's login.
async fn operator_client(stack: &Stack) -> Result<Client> {
    let creds = stack.ready().state_dir.join("creds/operator-local.creds");
    Ok(ConnectOptions::with_credentials_file(&creds).await?.connect(&stack.ready().nats).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_credentials_reach_the_api_under_its_own_name_only() -> Result<()> {
    let stack = Stack::demo().await?;
    let operator = operator_client(&stack).await?;
    let mut own = operator.subscribe("feed.main.local.abcdefgh").await?;
    let mut others = operator.subscribe("feed.main.other.>").await?;
    let mut all = operator.subscribe("feed.main.>").await?;
    let mut mailboxes = operator.subscribe("live.mbox.main.>").await?;
    operator.flush().await?;
    operator.publish("api.main.other.machines.list.abcdefgh", "{}".into()).await?;
    operator.publish("api.main.local.machines.list.abcdefgh", "{}".into()).await?;
    let answer = tokio::time::timeout(Duration::from_secs(5), own.next()).await?;
    assert!(String::from_utf8_lossy(&answer.context("no answer")?.payload).contains("demo-1"));
    stack.http().run("all", "true").await?;
    let (ctrl, _) = administrator(&stack).await?;
    ctrl.publish("feed.main.other.abcdefgh", "secret".into()).await?;
    arrived_before(&ctrl, "feed.main.local.abcdefgh", &mut own).await?;
    for subscription in [&mut others, &mut all, &mut mailboxes] {
        let next = subscription.next().now_or_never();
        ensure!(!matches!(next, Some(Some(_))), "received {next:?}");
    }
    Ok(())
}

/// Its answers could come where an operator may listen: on its own feed.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_credentials_reach_no_stream() -> Result<()> {
    let stack = Stack::demo().await?;
    stack.http().run("all", "echo secret").await?;
    let before = stored_at_rest(&stack).await?;
    let operator = operator_client(&stack).await?;
    let mut feed = operator.subscribe("feed.main.local.>").await?;
    operator.flush().await?;
    let push = json!({"stream_name": "RUN", "config": {"name": "evil", "durable_name": "evil",
        "ack_policy": "none", "deliver_policy": "all", "deliver_subject": "feed.main.local.spy00000"}});
    let all = json!({"seq": 1, "last_by_subj": "mbox.main.demo-1", "next_by_subj": ">", "batch": 100});
    for (api, body) in [
        ("INFO", json!({})),
        ("STREAM.NAMES", json!({})),
        ("STREAM.INFO.RUN", json!({})),
        ("STREAM.MSG.GET.RUN", json!({"seq": 1})),
        ("STREAM.MSG.DELETE.RUN", json!({"seq": 1})),
        ("STREAM.PURGE.RUN", json!({})),
        ("STREAM.DELETE.OUT", json!({})),
        ("STREAM.CREATE.EVIL", json!({"name": "EVIL", "subjects": ["evil"]})),
        ("DIRECT.GET.MBOX", all.clone()),
        ("DIRECT.GET.MBOX.mbox.main.demo-1", json!({})),
        ("DIRECT.GET.DOC.doc.main.authors", json!({})),
        ("CONSUMER.CREATE.RUN", push.clone()),
        ("CONSUMER.CREATE.RUN.evil", push.clone()),
        ("CONSUMER.DURABLE.CREATE.RUN.evil", push.clone()),
    ] {
        let body = serde_json::to_vec(&body)?;
        let subject = format!("$JS.API.{api}");
        operator.publish_with_reply(subject, "feed.main.local.answer00", body.into()).await?;
    }
    operator.flush().await?;
    // The broker is asked for all of this after what came from the operator, and the last message follows that.
    let after = stored(&stack).await?;
    let (ctrl, _) = administrator(&stack).await?;
    assert_eq!(arrived_before(&ctrl, "feed.main.local.last0000", &mut feed).await?, Vec::<String>::new());
    assert_eq!(after, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_refuses_politely() -> Result<()> {
    let stack = Stack::demo().await?;
    let http = stack.http();
    assert_eq!(http.with_token("").get("/api/v1/machines").await?.status, 401);
    assert_eq!(http.with_token("sbt_wrong").get("/api/v1/machines").await?.status, 401);
    for (method, path, body, status) in [
        ("GET", "/api/v1/nothing", "", 404),
        ("GET", "/api/v1/commands/0193a2b4-0000-7000-8000-000000000000", "", 404),
        ("GET", "/api/v1/commands/nonsense", "", 404),
        ("POST", "/api/v1/commands", "{broken", 422),
        ("POST", "/api/v1/commands", r#"{"on":"nobody","command":"true"}"#, 422),
        ("POST", "/api/v1/commands", r#"{"on":"all"}"#, 422),
    ] {
        let answer = http.request(method, path, &[("content-type", "application/json")], body.into()).await?;
        assert_eq!(answer.status, status, "{method} {path}");
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{method} {path} answers {kind}");
        assert!(answer.json()?["code"].is_string());
    }
    let huge = vec![b' '; 10_000_000];
    match http.request("POST", "/api/v1/commands", &[("content-type", "application/json")], huge).await {
        Ok(answer) => assert_eq!(answer.status, 413),
        // The server may close while the body is still being sent.
        Err(error) => println!("closed: {error:#}"),
    }
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let one = br#"{"on":"all","command":"echo 1"}"#.to_vec();
    let first = http.request("POST", "/api/v1/commands", &headers, one.clone()).await?;
    let again = http.request("POST", "/api/v1/commands", &headers, one).await?;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.json()?, again.json()?);
    let other = br#"{"on":"all","command":"echo 2"}"#.to_vec();
    let conflict = http.request("POST", "/api/v1/commands", &headers, other).await?;
    assert_eq!((conflict.status, conflict.json()?["code"].as_str()), (409, Some("id_conflict")));
    stack.http().run("all", "echo fine").await?;
    Ok(())
}
