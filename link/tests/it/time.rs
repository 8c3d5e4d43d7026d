//! Reading by time, and what the server says of itself.

use anyhow::{Context as _, Result};
use signalbox_link::{Message, Store};
use signalbox_testkit::{Broker, eventually};

use crate::{def, link};

#[tokio::test]
async fn a_stored_message_is_found_by_when_it_was_stored() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("HIST")).await?;
    let mut stored = Vec::new();
    for body in ["one", "two", "three"] {
        let sequence = link.store(Store::new("hist.main.0", body)).await?.sequence;
        link.store(Store::new("hist.main.1", "other")).await?;
        let message = link.by_sequence("HIST", sequence).await?.context("it was stored")?;
        // The next one is stored in another millisecond.
        eventually("a millisecond is over", || async {
            let at = std::time::UNIX_EPOCH.elapsed()?.as_millis();
            anyhow::ensure!(at > u128::from(message.time_ms) + 2, "not yet");
            Ok(())
        })
        .await?;
        stored.push(message);
    }
    let [one, two, three] = stored.as_slice() else { anyhow::bail!("there are three") };
    let subject = "hist.main.0";
    for (at, last, next) in [
        (one.time_ms - 1, None, Some(one)),
        (one.time_ms, Some(one), Some(one)),
        (two.time_ms - 1, Some(one), Some(two)),
        (two.time_ms, Some(two), Some(two)),
        (two.time_ms + 1, Some(two), Some(three)),
        (three.time_ms + 1, Some(three), None),
        (u64::MAX, Some(three), None),
        (0, None, Some(one)),
    ] {
        let sequence = |message: Option<&Message>| message.map(|message| message.sequence);
        let found = link.last_at("HIST", at, subject).await?;
        assert_eq!(sequence(found.as_ref()), sequence(last), "last at {at}");
        let found = link.next_at("HIST", at, subject).await?;
        assert_eq!(sequence(found.as_ref()), sequence(next), "next at {at}");
    }
    assert_eq!(link.last_at("HIST", u64::MAX, "hist.main.7").await?, None);
    Ok(())
}

#[tokio::test]
async fn the_server_says_how_it_is() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("HIST")).await?;
    let empty = link.stream_report("HIST").await?;
    assert_eq!((empty.first_ms, empty.last_ms, empty.max_age_ms), (None, None, None));
    link.store(Store::new("hist.main.0", "one")).await?;
    let mut follow = link.follow("HIST", 1, None);
    follow.next_batch(1).await?;
    let report = link.stream_report("HIST").await?;
    assert_eq!((report.state.messages, report.consumers.count), (1, 1));
    assert!(report.first_ms.is_some_and(|at| Some(at) == report.last_ms), "{report:?}");
    assert!(link.server_report().version.starts_with("2."), "{:?}", link.server_report());
    assert!(link.account_report().await?.store_bytes > 0);
    assert!(link.stream_report("NONE").await.is_err());
    Ok(())
}
