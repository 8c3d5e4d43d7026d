//! Storing: every answer has its own meaning.

use std::time::{Duration, Instant};

use anyhow::Result;
use signalbox_link::{Headers, Store, StoreError};
use signalbox_schemas::stream::{Discard, StreamDef};
use signalbox_testkit::{Broker, eventually};

use crate::{ACK_TIMEOUT, def, link, write_once};

#[tokio::test]
async fn the_first_message_of_a_subject_decides() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&write_once("RUN")).await?;
    let claim = |body: &'static str| Store::new("run.main.m1.c1.claim", body).only_first();

    let first = link.store(claim("mine")).await?;
    assert_eq!((first.stream.as_str(), first.sequence), ("RUN", 1));
    let second = link.store(claim("theirs")).await.unwrap_err();
    assert!(matches!(second, StoreError::Taken { last: Some(1) }), "{second:?}");
    assert!(!second.is_retryable());

    // Without the expectation a taken subject looks like a full stream; the first message stays all the same.
    let third = link.store(Store::new("run.main.m1.c1.claim", "late")).await.unwrap_err();
    assert!(matches!(third, StoreError::Full), "{third:?}");
    let stands = link.last("RUN", "run.main.m1.c1.claim").await?.unwrap();
    assert_eq!((&stands.payload[..], stands.sequence), (&b"mine"[..], 1));
    Ok(())
}

#[tokio::test]
async fn a_full_stream_is_told_from_a_taken_subject() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&StreamDef { max_bytes: Some(4_096), ..write_once("RUN") }).await?;
    let body = vec![b'x'; 1_500];
    let mut full = None;
    for run in 0..4 {
        let message = Store::new(format!("run.main.m1.c{run}.claim"), body.clone()).only_first();
        if let Err(error) = link.store(message).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(StoreError::Full)), "{full:?}");
    assert!(full.unwrap().is_retryable());
    let taken = link.store(Store::new("run.main.m1.c0.claim", "again").only_first()).await;
    assert!(matches!(taken, Err(StoreError::Taken { last: Some(1) })), "{taken:?}");
    Ok(())
}

#[tokio::test]
async fn pipelined_messages_keep_their_order() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("OUT")).await?;
    let mut pending = Vec::new();
    for number in 0..200 {
        pending.push(link.store_pipelined(Store::new("out.main.m1.c1", number.to_string())).await?);
    }
    for (index, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.stored().await?.sequence, index as u64 + 1);
    }
    let read = link.next_by_subject("OUT", 1, "out.main.m1.c1", 500).await?;
    let bodies: Vec<String> = read.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect();
    assert_eq!(bodies, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    Ok(())
}

/// What several write is one order, if each names the last one of all.
#[tokio::test]
async fn a_message_can_be_the_next_of_many_subjects() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("AUDIT")).await?;
    let next = |subject: &str, after| Store::new(subject, "x").only_after_all("audit.a.>", after);
    assert_eq!(link.store(next("audit.a.one", 0)).await?.sequence, 1);
    assert_eq!(link.store(next("audit.a.two", 1)).await?.sequence, 2);
    for after in [0, 1, 3] {
        let refused = link.store(next("audit.a.two", after)).await;
        assert!(matches!(refused, Err(StoreError::Taken { .. })), "{after}: {refused:?}");
    }
    // Others are not asked about.
    link.store(Store::new("audit.b.one", "x")).await?;
    let mut sent = Vec::new();
    for after in [2, 4, 5, 5, 6] {
        sent.push(link.store_pipelined(next("audit.a.one", after)).await?);
    }
    let mut sequences = Vec::new();
    for pending in sent {
        sequences.push(pending.stored().await.ok().map(|stored| stored.sequence));
    }
    assert_eq!(sequences, [Some(4), Some(5), Some(6), None, Some(7)]);
    Ok(())
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&StreamDef { allow_atomic: true, ..def("KV") }).await?;
    let record = |key: &str, body: &'static str| Store::new(format!("kv.{key}"), body);

    let stored = link.store_batch(vec![record("a", "1").only_first(), record("b", "1").only_first()]).await?;
    assert_eq!(stored.sequence, 2);

    // The member in the middle expects what is not so: the others are not stored either.
    let batch = vec![record("c", "2"), record("b", "2").only_first(), record("d", "2")];
    let refused = link.store_batch(batch).await.unwrap_err();
    assert!(matches!(refused, StoreError::Taken { .. }), "{refused:?}");
    for key in ["kv.c", "kv.d"] {
        assert_eq!(link.last("KV", key).await?, None, "{key} is stored");
    }
    assert_eq!(link.stream_state("KV").await?.last, 2);

    // The last member fails.
    let batch = vec![record("e", "3"), record("a", "3").only_after(99)];
    assert!(matches!(link.store_batch(batch).await, Err(StoreError::Taken { .. })));
    assert_eq!(link.stream_state("KV").await?.messages, 2);

    // A right expectation on one that exists.
    link.store_batch(vec![record("e", "4"), record("a", "4").only_after(1)]).await?;
    assert_eq!(link.last("KV", "kv.a").await?.unwrap().payload, "4");

    assert!(matches!(link.store_batch(Vec::new()).await, Err(StoreError::Refused { code: 0, .. })));
    let many = (0..1_001).map(|n| record(&n.to_string(), "5")).collect();
    assert!(matches!(link.store_batch(many).await, Err(StoreError::Refused { code: 0, .. })));
    let most = (0..1_000).map(|n| record(&n.to_string(), "5")).collect();
    assert_eq!(link.store_batch(most).await?.sequence, 1_004);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_relays_write_to_takes_no_batch() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("OUT")).await?;
    let refused = link.store_batch(vec![Store::new("out.a", "1"), Store::new("out.b", "1")]).await;
    assert!(matches!(refused, Err(StoreError::Refused { code: 10174, .. })), "{refused:?}");
    assert_eq!(link.stream_state("OUT").await?.messages, 0);
    Ok(())
}

#[tokio::test]
async fn an_unanswered_store_ends_in_time_and_so_do_all_others() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("OUT")).await?;
    broker.stop()?;
    let asked = Instant::now();
    let (one, read, leader, batch, rtt) = tokio::join!(
        link.store(Store::new("out.a", "1")),
        link.last("OUT", "out.a"),
        link.last_from_leader("OUT", "out.a"),
        link.next_by_subject("OUT", 1, "out.a", 10),
        link.rtt(),
    );
    let took = asked.elapsed();
    broker.cont()?;
    assert!(matches!(one, Err(StoreError::Unanswered { .. })), "{one:?}");
    assert!(read.is_err() && leader.is_err() && batch.is_err() && rtt.is_none());
    assert!(took >= ACK_TIMEOUT && took < ACK_TIMEOUT + Duration::from_secs(2), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn without_a_connection_everything_is_bounded_and_memory_too() -> Result<()> {
    let mut broker = Broker::start().await?;
    let mut options = signalbox_link::Options::plain(&broker.url(), "test", None);
    options.ack_timeout = ACK_TIMEOUT;
    options.client_capacity = 4;
    let link = signalbox_link::Link::connect(options).await?;
    link.ensure_stream(&def("OUT")).await?;
    broker.kill()?;
    let mut state = link.state();
    state.wait_for(|state| !state.is_connected).await?;

    let asked = Instant::now();
    let stores = (0..40).map(|n| link.store(Store::new("out.a", n.to_string())));
    let answers = futures_util::future::join_all(stores).await;
    assert!(answers.iter().all(|a| matches!(a, Err(StoreError::Unanswered { .. }))), "{answers:?}");
    assert!(asked.elapsed() < ACK_TIMEOUT + Duration::from_secs(2), "{:?}", asked.elapsed());

    broker.restart().await?;
    state.wait_for(|state| state.is_connected).await?;
    eventually("a store", || async { Ok(link.store(Store::new("out.b", "x")).await?) }).await?;
    // Only what had found room in the queue of 4 was sent later.
    let late = link.next_by_subject("OUT", 1, "out.a", 100).await?.len();
    assert!(late <= 4, "{late} of 40 messages waited");
    Ok(())
}

#[tokio::test]
async fn what_is_too_large_never_leaves() -> Result<()> {
    let broker = Broker::start().await?;
    let mut options = signalbox_link::Options::plain(&broker.url(), "test", None);
    options.max_message_bytes = 1_000;
    let link = signalbox_link::Link::connect(options).await?;
    link.ensure_stream(&def("OUT")).await?;
    let headers = Headers::new().with("Sb-Note", "0123456789");
    let fits = 1_000 - headers.wire_bytes();
    link.store(Store::new("out.a", vec![0; fits]).with_headers(headers.clone())).await?;
    let large = link.store(Store::new("out.a", vec![0; fits + 1]).with_headers(headers.clone())).await;
    assert!(matches!(large, Err(StoreError::TooLarge { size: 1_001, limit: 1_000 })), "{large:?}");
    assert!(link.publish("x", Some(headers), vec![0; fits + 1].into()).await.is_err());
    let batch = vec![Store::new("out.a", "1"), Store::new("out.a", vec![0; 1_000])];
    assert!(matches!(link.store_batch(batch).await, Err(StoreError::TooLarge { .. })));
    assert_eq!(link.stream_state("OUT").await?.messages, 1);
    Ok(())
}

#[tokio::test]
async fn nobody_there_is_unanswered() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let nobody = link.store(Store::new("nothing.here", "x")).await;
    assert!(matches!(nobody, Err(StoreError::Unanswered { .. })), "{nobody:?}");
    let malformed = link.store(Store::new("two words", "x")).await;
    assert!(matches!(malformed, Err(StoreError::Refused { code: 0, .. })), "{malformed:?}");
    Ok(())
}

#[tokio::test]
async fn discarding_old_never_refuses() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&StreamDef { max_bytes: Some(4_096), discard: Discard::Old, ..def("OUT") }).await?;
    for _ in 0..20 {
        link.store(Store::new("out.a", vec![0; 1_000])).await?;
    }
    let state = link.stream_state("OUT").await?;
    assert_eq!((state.last, state.max_bytes), (20, Some(4_096)));
    assert!(state.first > 15 && state.bytes <= 4_096, "{state:?}");
    Ok(())
}
