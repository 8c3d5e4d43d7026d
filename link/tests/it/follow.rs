//! Following: nothing lost, nothing doubled, whatever happens to the broker.

use std::time::Duration;

use anyhow::{Result, ensure};
use signalbox_link::{Follow, FollowError, Link, Message, Store};
use signalbox_schemas::stream::{Storage, StreamDef};
use signalbox_testkit::{Broker, eventually_within};
use tokio::task::JoinSet;

use crate::{def, link};

/// Reads until `count` messages are there.
async fn read(follow: &mut Follow, count: usize) -> Result<Vec<Message>> {
    let mut read = Vec::new();
    while read.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(20), follow.next_batch(64)).await??;
        ensure!(!batch.is_empty() && batch.len() <= 64);
        read.extend(batch);
    }
    Ok(read)
}

/// Stores `count` messages that carry their number, trying again until each is acknowledged. A message may so
/// be stored twice; its subject is write-once by expectation, so it is not.
async fn write(link: Link, numbers: std::ops::Range<u32>) -> Result<()> {
    for number in numbers {
        let message = Store::new(format!("evt.{number}"), number.to_string()).only_first();
        eventually_within("store", Duration::from_secs(30), || async {
            match link.store(message.clone()).await {
                Ok(_) | Err(signalbox_link::StoreError::Taken { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn it_reads_from_where_it_is_told_in_order() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    write(link.clone(), 0..1_200).await?;

    let all = read(&mut link.follow("EVT", 0, None), 1_200).await?;
    let sequences: Vec<u64> = all.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, (1..=1_200).collect::<Vec<_>>());
    assert!(all.iter().all(|m| m.stream == "EVT" && m.time_ms > 1_600_000_000_000));

    let mut rest = link.follow("EVT", 1_150, None);
    let read_rest = read(&mut rest, 51).await?;
    assert_eq!(read_rest[0].sequence, 1_150);
    assert_eq!((rest.pending(), rest.next_sequence()), (0, 1_201));
    assert_eq!(rest.created_ms(), Some(link.stream_state("EVT").await?.created_ms));

    let one = read(&mut link.follow("EVT", 1, Some("evt.77")), 1).await?;
    assert_eq!((one[0].subject.as_str(), one[0].sequence), ("evt.77", 78));
    Ok(())
}

#[tokio::test]
async fn pending_says_when_all_is_read() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    write(link.clone(), 0..100).await?;
    let mut follow = link.follow("EVT", 1, None);
    let mut seen = 0;
    while seen < 100 {
        seen += follow.next_batch(7).await?.len() as u64;
        assert_eq!(follow.pending(), 100 - seen);
    }
    // And then waits for the next one.
    let (next, written) = tokio::join!(follow.next_batch(10), write(link.clone(), 100..101));
    written?;
    assert_eq!(next?[0].sequence, 101);
    Ok(())
}

#[tokio::test]
async fn it_runs_in_a_task_of_its_own() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    let mut tasks = JoinSet::new();
    let mut follow = link.follow("EVT", 1, None);
    tasks.spawn(async move { follow.next_batch(1).await });
    write(link.clone(), 0..1).await?;
    let read = tasks.join_next().await.transpose()?.transpose()?.unwrap_or_default();
    assert_eq!(read.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    let mut follow = link.follow("EVT", 1, None);
    let mut writer = JoinSet::new();
    writer.spawn(write(link.clone(), 0..500));
    let mut read = Vec::new();
    while read.len() < 500 {
        // Far too short for most: the future is dropped in all of its states.
        if let Ok(batch) = tokio::time::timeout(Duration::from_micros(300), follow.next_batch(3)).await {
            read.extend(batch?.into_iter().map(|message| message.sequence));
        }
    }
    assert_eq!(read, (1..=500).collect::<Vec<_>>());
    writer.join_next().await.unwrap()??;
    Ok(())
}

#[tokio::test]
async fn attempts_that_are_given_up_leave_no_consumers_behind() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    let mut follow = link.follow("EVT", 1, None);
    for micros in (0..1_000).step_by(5) {
        let read = tokio::time::timeout(Duration::from_micros(micros), follow.next_batch(1)).await;
        assert!(read.is_err(), "the stream is empty");
    }
    let bare = async_nats::connect(broker.url()).await?;
    let names = bare.request("$JS.API.CONSUMER.NAMES.EVT", "".into()).await?;
    let names: serde_json::Value = serde_json::from_slice(&names.payload)?;
    assert_eq!(names["total"], 1, "{names}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_broker_loses_and_doubles_nothing() -> Result<()> {
    let mut broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(write(link.clone(), 0..3_000));
    let mut follow = link.follow("EVT", 1, None);
    let mut read = Vec::new();
    let mut kills = [300, 1_200, 2_100].into_iter().peekable();
    while read.len() < 3_000 {
        let batch = tokio::time::timeout(Duration::from_secs(30), follow.next_batch(50)).await??;
        read.extend(batch.into_iter().map(|message| (message.sequence, message.payload)));
        if kills.next_if(|at| read.len() >= *at).is_some() {
            broker.kill()?;
            broker.restart().await?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    assert!(link.state().borrow().connects >= 4);
    for (index, (sequence, payload)) in read.iter().enumerate() {
        assert_eq!(*sequence, index as u64 + 1);
        assert_eq!(*payload, index.to_string());
    }
    Ok(())
}

#[tokio::test]
async fn a_reconnect_in_mid_stream_loses_and_doubles_nothing() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    write(link.clone(), 0..2_000).await?;
    let mut follow = link.follow("EVT", 1, None);
    let mut sequences = Vec::new();
    while sequences.len() < 2_000 {
        sequences.extend(follow.next_batch(100).await?.into_iter().map(|message| message.sequence));
        if sequences.len() % 500 < 100 {
            link.reconnect().await;
        }
    }
    assert_eq!(sequences, (1..=2_000).collect::<Vec<_>>());
    assert!(link.state().borrow().connects > 1);
    Ok(())
}

#[tokio::test]
async fn a_deleted_consumer_is_made_anew() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("EVT")).await?;
    write(link.clone(), 0..10).await?;
    let mut follow = link.follow("EVT", 1, None);
    assert_eq!(read(&mut follow, 10).await?.len(), 10);
    let admin = async_nats::jetstream::new(async_nats::connect(broker.url()).await?);
    let stream = admin.get_stream("EVT").await?;
    let names: Vec<_> = futures_util::TryStreamExt::try_collect(stream.consumer_names()).await?;
    assert_eq!(names.len(), 1, "{names:?}");
    stream.delete_consumer(&names[0]).await?;
    write(link.clone(), 10..12).await?;
    let rest: Vec<u64> = read(&mut follow, 2).await?.into_iter().map(|message| message.sequence).collect();
    assert_eq!(rest, [11, 12]);
    // A dropped reader leaves no consumer behind.
    drop(follow);
    signalbox_testkit::eventually("no consumer", || async {
        let names: Vec<String> = futures_util::TryStreamExt::try_collect(stream.consumer_names()).await?;
        ensure!(names.is_empty(), "{names:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stream_that_is_gone_or_another_is_an_error() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let gone = link.follow("EVT", 1, None).next_batch(1).await;
    assert!(matches!(gone, Err(FollowError::Gone { .. })), "{gone:?}");

    link.ensure_stream(&def("EVT")).await?;
    write(link.clone(), 0..3).await?;
    let mut follow = link.follow("EVT", 1, None);
    read(&mut follow, 3).await?;
    let admin = async_nats::jetstream::new(async_nats::connect(broker.url()).await?);
    admin.delete_stream("EVT").await?;
    link.ensure_stream(&def("EVT")).await?;
    write(link.clone(), 0..9).await?;
    let other = tokio::time::timeout(Duration::from_secs(15), follow.next_batch(1)).await?;
    assert!(matches!(other, Err(FollowError::Recreated { .. })), "{other:?}");

    let beyond = link.follow("EVT", 100, None).next_batch(1).await;
    assert!(matches!(beyond, Err(FollowError::Rewound { last: 9, position: 99, .. })), "{beyond:?}");
    Ok(())
}

#[tokio::test]
async fn a_memory_stream_does_not_survive_its_broker() -> Result<()> {
    let mut broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&StreamDef { storage: Storage::Memory, ..def("EVT") }).await?;
    write(link.clone(), 0..3).await?;
    let mut follow = link.follow("EVT", 1, None);
    read(&mut follow, 3).await?;
    broker.kill()?;
    broker.restart().await?;
    let gone = tokio::time::timeout(Duration::from_secs(20), follow.next_batch(1)).await?;
    assert!(matches!(gone, Err(FollowError::Gone { .. })), "{gone:?}");
    Ok(())
}

#[tokio::test]
async fn large_messages_wait_in_bounded_memory() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("OUT")).await?;
    let chunk = bytes::Bytes::from(vec![7; 900 * 1024]);
    for _ in 0..24 {
        link.store(Store::new("out.a", chunk.clone())).await?;
    }
    // More than one pull may hold in bytes, far less than in messages.
    let all = read(&mut link.follow("OUT", 1, None), 24).await?;
    assert!(all.iter().all(|message| message.payload == chunk));
    assert_eq!(all.last().unwrap().sequence, 24);
    Ok(())
}
