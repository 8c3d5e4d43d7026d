//! Coming back, and knowing about it.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use signalbox_link::{ConnectError, Link, Options};
use signalbox_schemas::stream::StreamDef;
use signalbox_testkit::{Broker, broker::free_port, eventually};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use crate::{def, link};

#[tokio::test]
async fn it_comes_back_with_its_subscriptions() -> Result<()> {
    let mut broker = Broker::start().await?;
    let link = link(&broker).await?;
    let mut state = link.state();
    assert!(state.borrow().is_connected);
    assert_eq!(state.borrow().connects, 1);
    let mut subscription = link.subscribe("news.*").await?;
    broker.kill()?;
    state.wait_for(|state| !state.is_connected).await?;
    broker.restart().await?;
    let back = *state.wait_for(|state| state.is_connected).await?;
    assert_eq!(back.connects, 2);
    // The subscription travels before what is published after it on the same connection.
    link.publish("news.a", None, Bytes::from_static(b"hello")).await?;
    let delivery = subscription.next().await.unwrap();
    assert_eq!((delivery.subject.as_str(), &delivery.payload[..]), ("news.a", &b"hello"[..]));
    assert!(!delivery.has_reply);
    Ok(())
}

#[tokio::test]
async fn one_that_retries_for_ever_needs_no_broker_yet() -> Result<()> {
    let port = free_port()?;
    let mut options = Options::plain(&format!("nats://127.0.0.1:{port}"), "test", None);
    options.retry_forever = true;
    let waiting = Link::connect(options.clone()).await?;
    assert!(!waiting.state().borrow().is_connected);
    options.retry_forever = false;
    let impatient = Link::connect(options.clone()).await;
    assert!(matches!(impatient, Err(ConnectError::Unreachable { .. })), "{impatient:?}");
    options.url = "not a url".to_owned();
    assert!(matches!(Link::connect(options).await, Err(ConnectError::Url { .. })));
    Ok(())
}

#[tokio::test]
async fn a_forced_reconnect_is_counted_and_short() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let mut state = link.state();
    for connects in 2..5 {
        let asked = Instant::now();
        link.reconnect().await;
        state.wait_for(|state| state.connects == connects && state.is_connected).await?;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(link.rtt().await.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn a_silent_broker_is_no_connection() -> Result<()> {
    let broker = Broker::start().await?;
    broker.stop()?;
    let asked = Instant::now();
    let refused = link(&broker).await;
    broker.cont()?;
    assert!(matches!(refused.unwrap_err().downcast_ref(), Some(ConnectError::Unreachable { .. })));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    Ok(())
}

/// A broker that names another one, answers a ping, and hangs up.
async fn name_another(listener: &TcpListener, other: u16) -> Result<()> {
    let (stream, _) = listener.accept().await?;
    let mut stream = BufReader::new(stream);
    let info = format!(
        "INFO {{\"server_id\":\"x\",\"version\":\"2.15.0\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"connect_urls\":[\"127.0.0.1:{other}\"]}}\r\n"
    );
    stream.write_all(info.as_bytes()).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 && line.trim() != "PING" {
        line.clear();
    }
    stream.write_all(b"PONG\r\n").await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_only_named_is_not_dialled() -> Result<()> {
    let (listener, other) =
        (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let mut options = Options::plain(&format!("nats://{}", listener.local_addr()?), "test", None);
    options.retry_forever = true;
    let _link = Link::connect(options).await?;
    let port = other.local_addr()?.port();
    let dialled = async {
        // Both are tried in turn: six times are more than enough.
        for _ in 0..6 {
            name_another(&listener, port).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        dialled = dialled => dialled,
        _ = other.accept() => anyhow::bail!("a server that was only named was dialled"),
    }
}

#[tokio::test]
async fn one_of_a_group_gets_each_message() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let mut members =
        [link.queue_subscribe("api.>", "bridges").await?, link.queue_subscribe("api.>", "bridges").await?];
    for number in 0..40 {
        link.publish("api.x", None, Bytes::from(number.to_string())).await?;
    }
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let [one, two] = &mut members;
        let delivery = tokio::select! { d = one.next() => d, d = two.next() => d };
        seen.push(String::from_utf8(delivery.unwrap().payload.to_vec())?.parse::<u32>()?);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn messages_of_a_slow_reader_are_dropped_and_counted() -> Result<()> {
    let broker = Broker::start().await?;
    let mut options = Options::plain(&broker.url(), "slow", None);
    options.subscription_capacity = 8;
    options.probe = Some("$JS.API.INFO".to_owned());
    let slow = Link::connect(options).await?;
    let _unread = slow.subscribe("flood").await?;
    // An answer means that the server knows the subscription.
    assert!(slow.rtt().await.is_some());
    let fast = link(&broker).await?;
    for _ in 0..100 {
        fast.publish("flood", None, Bytes::from_static(b"more")).await?;
    }
    eventually("drops", || async {
        anyhow::ensure!(slow.counters().slow_messages >= 80, "{:?}", slow.counters());
        Ok(())
    })
    .await?;
    assert!(slow.state().borrow().is_connected);
    Ok(())
}

#[tokio::test]
async fn republished_messages_say_where_they_are_stored() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let republish = Some(("mbox.*".to_owned(), "live.mbox.{{wildcard(1)}}".to_owned()));
    link.ensure_stream(&StreamDef { republish, max_msgs_per_subject: Some(1), ..def("MBOX") }).await?;
    let mut live = link.subscribe("live.mbox.m1").await?;
    for (body, last) in [("one", 0), ("two", 1)] {
        link.store(signalbox_link::Store::new("mbox.m1", body)).await?;
        let origin = live.next().await.unwrap().origin().unwrap();
        assert_eq!((origin.stream.as_str(), origin.subject.as_str()), ("MBOX", "mbox.m1"));
        assert_eq!((origin.sequence, origin.last_sequence), (last + 1, last));
    }
    Ok(())
}

#[tokio::test]
async fn closing_sends_what_waits_and_ends_readers() -> Result<()> {
    let broker = Broker::start().await?;
    let (link, other) = (link(&broker).await?, link(&broker).await?);
    other.ensure_stream(&def("OUT")).await?;
    let mut subscription = link.subscribe("x").await?;
    for number in 0..100 {
        link.publish("out.a", None, Bytes::from(number.to_string())).await?;
    }
    link.close().await;
    assert!(subscription.next().await.is_none());
    assert!(link.publish("out.a", None, Bytes::new()).await.is_err());
    assert!(matches!(
        link.follow("OUT", 1, None).next_batch(1).await,
        Err(signalbox_link::FollowError::Closed)
    ));
    eventually("all messages", || async {
        anyhow::ensure!(other.stream_state("OUT").await?.messages == 100);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn any_of_several_brokers_will_do() -> Result<()> {
    let broker = Broker::start().await?;
    let urls = format!("nats://127.0.0.1:1,{}", broker.url());
    let link =
        Link::connect(Options { probe: Some("anybody".to_owned()), ..Options::plain(&urls, "test", None) });
    assert!(link.await?.state().borrow().is_connected);
    let wrong = format!("{},nats://broker:no", broker.url());
    let refused = Link::connect(Options::plain(&wrong, "test", None)).await;
    assert!(matches!(refused, Err(ConnectError::Url { .. })), "{refused:?}");
    Ok(())
}
