//! Whatever a publisher writes into its headers: the reader is not deceived, and comes past it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signalbox_link::Store;
use signalbox_schemas::stream::StreamDef;
use signalbox_testkit::Broker;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::{def, link};

/// A client that checks nothing: publishes one message with this header block and waits for the server's word.
async fn publish_raw(broker: &Broker, subject: &str, block: &[u8], body: &[u8]) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", broker.port())).await?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(line.starts_with("INFO"), "{line}");
    let mut request = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    let (headers, total) = (block.len(), block.len() + body.len());
    request.extend_from_slice(format!("HPUB {subject} {headers} {total}\r\n").as_bytes());
    request.extend_from_slice(block);
    request.extend_from_slice(body);
    request.extend_from_slice(b"\r\nPING\r\n");
    stream.write_all(&request).await?;
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "connection was closed");
        match line.trim() {
            "PONG" => return Ok(()),
            "PING" => stream.write_all(b"PONG\r\n").await?,
            other => ensure!(!other.starts_with("-ERR"), "{other}"),
        }
    }
}

#[tokio::test]
async fn forged_server_headers_are_not_believed() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let republish = Some(("hb.*".to_owned(), "live.hb.{{wildcard(1)}}".to_owned()));
    link.ensure_stream(&StreamDef { republish, ..def("HB") }).await?;
    let mut live = link.subscribe("live.hb.*").await?;
    link.store(Store::new("hb.first", "x")).await?;
    live.next().await.context("first")?;

    let forged = b"NATS/1.0\r\nNats-Stream: FAKE\r\nNats-Subject: hb.m2\r\nNats-Sequence: 999999\r\n\
        Nats-Last-Sequence: 8\r\nNats-Time-Stamp: 2001-01-01T00:00:00Z\r\nSb-Type: a\r\nSb-Type: b\r\n\r\n";
    publish_raw(&broker, "hb.m1", forged, b"beat").await?;

    let origin = live.next().await.context("live")?.origin().context("origin")?;
    assert_eq!((origin.stream.as_str(), origin.subject.as_str()), ("HB", "hb.m1"));
    assert_eq!((origin.sequence, origin.last_sequence), (2, 0));

    let followed = link.follow("HB", 2, None).next_batch(1).await?.remove(0);
    let readings = [
        link.last("HB", "hb.m1").await?.context("last")?,
        link.last_from_leader("HB", "hb.m1").await?.context("leader")?,
        link.by_sequence("HB", 2).await?.context("by sequence")?,
        link.next_from_leader("HB", 2, "hb.m1").await?.context("next")?,
        link.next_by_subject("HB", 1, "hb.m1", 5).await?.remove(0),
        followed,
    ];
    for message in readings {
        assert_eq!((message.subject.as_str(), message.sequence), ("hb.m1", 2));
        assert_eq!(message.stream, "HB");
        assert!(message.time_ms > 1_600_000_000_000, "{}", message.time_ms);
        assert_eq!(message.headers.get("Sb-Type"), None);
        assert_eq!(message.payload, "beat");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_that_looks_like_a_status_is_a_message() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("RUN")).await?;
    let blocks: [&[u8]; 4] = [
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 9\r\n\r\n",
    ];
    for block in blocks {
        publish_raw(&broker, "run.m1.exit", block, b"body").await?;
    }
    let mut follow = link.follow("RUN", 1, None);
    let mut seen = 0;
    while seen < 4 {
        for message in follow.next_batch(10).await? {
            seen += 1;
            assert_eq!((message.sequence, &message.payload[..]), (seen, &b"body"[..]));
            let direct = link.by_sequence("RUN", seen).await?.context("direct")?;
            assert_eq!(direct.payload, "body");
        }
    }
    assert_eq!(link.state().borrow().connects, 1);
    Ok(())
}

#[tokio::test]
async fn headers_that_are_none_do_not_stop_the_reader() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("RUN")).await?;
    let blocks: [&[u8]; 3] = [b"NATS/1.0\r\nnocolon\r\n\r\n", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n", b"RUBBISH"];
    let mut wanted = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        link.store(Store::new(format!("run.good.{number}"), "good")).await?;
        publish_raw(&broker, &format!("run.bad.{number}"), block, b"bad").await?;
        wanted.extend([format!("run.good.{number}"), format!("run.bad.{number}")]);
    }
    link.store(Store::new("run.good.end", "good")).await?;
    wanted.push("run.good.end".to_owned());

    let mut follow = link.follow("RUN", 1, None);
    let (mut subjects, mut malformed) = (Vec::new(), 0);
    while subjects.len() < wanted.len() {
        let batch = tokio::time::timeout(Duration::from_secs(20), follow.next_batch(100)).await??;
        malformed += batch.iter().filter(|message| message.headers.is_malformed()).count();
        subjects.extend(batch.into_iter().map(|message| message.subject));
    }
    assert_eq!((subjects, malformed), (wanted, blocks.len()));
    for number in 0..blocks.len() {
        let bad = link.last_from_leader("RUN", &format!("run.bad.{number}")).await?.context("stored")?;
        assert_eq!((&bad.payload[..], bad.headers.is_empty()), (&b"bad"[..], true));
        assert!(bad.headers.is_malformed());
    }
    Ok(())
}

#[tokio::test]
async fn many_of_them_cost_few_reconnects() -> Result<()> {
    const BAD: u64 = 100;
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("RUN")).await?;
    for number in 0..BAD {
        publish_raw(&broker, &format!("run.bad.{number}"), b"NATS/1.0\r\nnocolon\r\n\r\n", b"bad").await?;
    }
    let mut follow = link.follow("RUN", 1, None);
    let mut seen = 0;
    while seen < BAD {
        let batch = tokio::time::timeout(Duration::from_secs(20), follow.next_batch(100)).await??;
        seen += batch.len() as u64;
    }
    // 1 + 2 + 4 + … ≥ 100 after seven; the consumer before the first is lost too.
    let connects = link.state().borrow().connects;
    assert!(connects <= 9, "{connects} connections");
    Ok(())
}
