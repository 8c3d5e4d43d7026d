//! Streams: made once, checked ever after.

use anyhow::Result;
use signalbox_link::{Store, StreamError};
use signalbox_schemas::stream::{StreamDef, all};
use signalbox_testkit::Broker;

use crate::{def, link, write_once};

#[tokio::test]
async fn every_stream_of_the_contract_is_made_and_found_again() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    for def in all() {
        let made = link.ensure_stream(&def).await?;
        assert_eq!((made.last, made.max_bytes), (0, def.max_bytes), "{}", def.name);
        assert_eq!(link.ensure_stream(&def).await?, made, "{}", def.name);
        assert_eq!(link.stream_state(def.name).await?, made, "{}", def.name);
    }
    Ok(())
}

#[tokio::test]
async fn what_must_hold_is_reported_and_the_rest_is_the_administrators() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    let made = link.ensure_stream(&StreamDef { max_bytes: Some(1 << 20), ..write_once("RUN") }).await?;
    let other_sizes = StreamDef { max_bytes: Some(1 << 30), max_age_ms: Some(60_000), ..write_once("RUN") };
    assert_eq!(link.ensure_stream(&other_sizes).await?, made);

    let cases = [
        ("discard_new_per_subject", StreamDef { discard_new_per_subject: false, ..write_once("RUN") }),
        ("max_msgs_per_subject", StreamDef { max_msgs_per_subject: Some(2), ..write_once("RUN") }),
        ("subjects", StreamDef { subjects: vec!["run.>".into(), "more".into()], ..write_once("RUN") }),
        ("deny_delete", StreamDef { deny_delete: true, ..write_once("RUN") }),
        ("allow_atomic", StreamDef { allow_atomic: true, ..write_once("RUN") }),
        (
            "republish",
            StreamDef { republish: Some(("run.>".into(), "live.run.>".into())), ..write_once("RUN") },
        ),
    ];
    for (wanted, def) in cases {
        let found = link.ensure_stream(&def).await;
        assert!(
            matches!(&found, Err(StreamError::Mismatch { setting, .. }) if *setting == wanted),
            "{wanted}: {found:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn messages_are_taken_out_by_subject_and_by_sequence() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("CMD")).await?;
    for subject in ["cmd.a.p0", "cmd.a.p1", "cmd.b.spec", "cmd.c.spec"] {
        link.store(Store::new(subject, "x")).await?;
    }
    assert_eq!(link.purge_subject("CMD", "cmd.a.*").await?, 2);
    assert_eq!(link.purge_subject("CMD", "cmd.a.*").await?, 0);
    assert!(link.delete_message("CMD", 3).await?);
    assert!(!link.delete_message("CMD", 3).await?, "it is gone");
    assert!(!link.delete_message("CMD", 99).await?, "it never was");
    assert_eq!(link.by_sequence("CMD", 3).await?, None);
    assert_eq!(link.by_sequence("CMD", 4).await?.unwrap().subject, "cmd.c.spec");
    assert_eq!(link.stream_state("CMD").await?.messages, 1);

    link.ensure_stream(&StreamDef { deny_delete: true, deny_purge: true, ..def("AUDIT") }).await?;
    link.store(Store::new("audit.a", "x")).await?;
    assert!(matches!(link.purge_subject("AUDIT", "audit.>").await, Err(StreamError::Refused { .. })));
    assert!(matches!(link.delete_message("AUDIT", 1).await, Err(StreamError::Refused { .. })));
    assert!(matches!(link.stream_state("NONE").await, Err(StreamError::Missing { .. })));
    Ok(())
}

#[tokio::test]
async fn a_question_of_a_lost_connection_is_asked_again() -> Result<()> {
    let broker = Broker::start().await?;
    let link = link(&broker).await?;
    link.ensure_stream(&def("RUN")).await?;
    broker.stop()?;
    let asked = async {
        let began = std::time::Instant::now();
        link.stream_state("RUN").await.map(|_| began.elapsed())
    };
    let lost = async {
        // The question is in the old connection's buffers by then, and its answer goes nowhere.
        link.flush().await;
        link.reconnect().await;
        broker.cont()
    };
    let (asked, lost) = tokio::join!(asked, lost);
    lost?;
    let waited = asked?;
    assert!(waited < std::time::Duration::from_secs(5), "answered after {waited:?}");
    Ok(())
}
