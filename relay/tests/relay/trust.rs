//! Whom a relay believes, and what it does about the others.

use anyhow::{Context as _, Result, ensure};
use signalbox_link::Store;
use signalbox_schemas::{
    command::{CommandSpec, Grant},
    id::{MachineToken, Sha256, Workspace},
    limit::DAY_MS,
    mailbox::{AuthorsRef, Mailbox},
    run::{Claim, ExitState, RejectReason, Rejection, WithdrawReason, Withdrawal},
    signed::{Signed, SigningKey},
    subject::{FactKind, Subject},
};
use signalbox_testkit::eventually_within;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    harness::{self, Fleet, Machine, RUN_BOUND, grant, now_ms, sign_offer, spec},
    lines,
};

fn sign(mailbox: &Mailbox, key: &SigningKey) -> Result<Vec<u8>> {
    Ok(Signed::sign(mailbox, key)?.to_json())
}

/// Another relay can have an answer of the broker sent to this machine's live subject, with headers that are none: the
/// client drops its connection each time it meets them.
#[tokio::test]
async fn a_connection_that_is_broken_again_and_again_keeps_no_work_away() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let mut attack = JoinSet::new();
    attack.spawn(break_connections(fleet.broker.port(), "live.mbox.main.web-1"));
    fleet.counted(&machine, "mailbox_by_asking").await?;
    for _ in 0..3 {
        let (cid, offer) = fleet.command(&machine, "echo heard")?;
        fleet.offer(&machine, &[offer]).await?;
        assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Completed);
    }
    assert!(attack.try_join_next().is_none(), "the attack went on all the time");
    Ok(())
}

/// Publishes headers that are none, as fast as the broker takes them, until it is dropped.
async fn break_connections(port: u16, subject: &str) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").await?;
    let block = "NATS/1.0\r\nno colon here\r\n\r\n";
    let message = format!("HPUB {subject} {0} {0}\r\n{block}\r\nPING\r\n", block.len());
    loop {
        write.write_all(message.as_bytes()).await?;
        while lines.next_line().await?.context("the broker hung up")? != "PONG" {}
    }
}

#[tokio::test]
async fn mailboxes_that_are_not_to_be_believed_change_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let script = format!("echo ran >> {}", log.display());
    let (evil, offer) = fleet.command(&machine, &script)?;
    let older = fleet.mailbox(&machine, std::slice::from_ref(&offer));
    let (first, good) = fleet.command(&machine, "true")?;
    let newest = fleet.offer(&machine, &[good]).await?;
    fleet.exit(&machine, first).await?;

    fleet.put(&machine, sign(&older, &fleet.bridge)?).await?;
    fleet.put(&machine, newest).await?;
    let mut foreign = fleet.mailbox(&machine, std::slice::from_ref(&offer));
    foreign.mid = MachineToken::new("web-2")?;
    fleet.put(&machine, sign(&foreign, &fleet.bridge)?).await?;
    fleet
        .put(&machine, sign(&fleet.mailbox(&machine, std::slice::from_ref(&offer)), &fleet.operator)?)
        .await?;
    let mut critical = fleet.mailbox(&machine, std::slice::from_ref(&offer));
    critical.crit = vec!["future".into()];
    fleet.put(&machine, sign(&critical, &fleet.bridge)?).await?;
    let mut forged: serde_json::Value = serde_json::from_slice(&sign(
        &fleet.mailbox(&machine, std::slice::from_ref(&offer)),
        &fleet.bridge,
    )?)?;
    forged["sig"] = "AAAA".into();
    fleet.put(&machine, forged.to_string().into_bytes()).await?;
    let mut ahead = fleet.mailbox(&machine, std::slice::from_ref(&offer));
    ahead.generation = u64::MAX;
    fleet.put(&machine, sign(&ahead, &fleet.bridge)?).await?;
    fleet.put(&machine, b"{rubbish".to_vec()).await?;
    fleet.put(&machine, vec![b'x'; 1_000_000]).await?;

    let (last, good) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[good]).await?;
    fleet.exit(&machine, last).await?;
    assert_eq!(lines(&log), Vec::<String>::new());
    let register: Option<Claim> = fleet.fact(&machine, evil, FactKind::Claim).await?;
    assert_eq!(register, None);
    for reason in [
        "mailbox_older",
        "mailbox_repeated",
        "mailbox_misplaced",
        "mailbox_untrusted",
        "mailbox_critical",
        "mailbox_ahead",
        "mailbox_signature",
        "mailbox_envelope",
        "mailbox_too_large",
    ] {
        assert!(fleet.counted(&machine, reason).await? >= 1, "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn faults_of_an_offer_are_rejected_by_reason() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::with_policy(&fleet, "web-1", 4, r#"["command"]"#)?;
    let _relay = machine.start(&fleet).await?;
    let stranger = &fleet.owner;
    let mut offers = Vec::new();
    let mut expected = Vec::new();
    let mut case = |spec: CommandSpec, grant, key: &_, reason| {
        expected.push((spec.cid, reason));
        offers.push(sign_offer(&spec, &grant, key)?);
        anyhow::Ok(())
    };
    let fresh = || spec("true", |_| {});
    let of = |spec: &_| grant(&machine, spec);
    let spec = fresh();
    case(
        spec.clone(),
        Grant { spec_sha256: Sha256::of(b"x"), ..of(&spec)? },
        &fleet.operator,
        RejectReason::Invalid,
    )?;
    let spec = fresh();
    case(
        spec.clone(),
        Grant { mid: MachineToken::new("web-2")?, ..of(&spec)? },
        &fleet.operator,
        RejectReason::Misplaced,
    )?;
    let spec = fresh();
    case(
        spec.clone(),
        Grant { ws: Workspace::new("other")?, ..of(&spec)? },
        &fleet.operator,
        RejectReason::Misplaced,
    )?;
    let spec = fresh();
    case(
        spec.clone(),
        Grant { cid: harness::new_cid(), ..of(&spec)? },
        &fleet.operator,
        RejectReason::Misplaced,
    )?;
    let spec = fresh();
    case(
        spec.clone(),
        Grant { expires_at: spec.expires_at + 1, ..of(&spec)? },
        &fleet.operator,
        RejectReason::Invalid,
    )?;
    let spec = fresh();
    case(spec.clone(), of(&spec)?, stranger, RejectReason::Forbidden)?;
    let spec = fresh();
    case(spec.clone(), of(&spec)?, &fleet.bridge, RejectReason::Forbidden)?;
    let mut spec = fresh();
    spec.crit = vec!["sandbox".into()];
    case(spec.clone(), of(&spec)?, &fleet.operator, RejectReason::Critical)?;
    let mut spec = fresh();
    spec.timeout_ms = 0;
    case(spec.clone(), of(&spec)?, &fleet.operator, RejectReason::Invalid)?;
    let (forged_cid, mut forged) = fleet.command(&machine, "true")?;
    let mut json = serde_json::to_value(&forged.grant)?;
    json["sig"] = "AAAA".into();
    forged.grant = serde_json::from_value(json)?;
    offers.push(forged);
    expected.push((forged_cid, RejectReason::Signature));

    let (good, offer) = fleet.command(&machine, "true")?;
    offers.push(offer);
    fleet.offer(&machine, &offers).await?;
    for (cid, reason) in expected {
        assert_eq!(fleet.rejection(&machine, cid).await?.reason, reason);
    }
    assert_eq!(fleet.exit(&machine, good).await?.state, ExitState::Completed);
    Ok(())
}

#[tokio::test]
async fn nothing_runs_under_an_authors_document_older_than_named() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let mut revoked = fleet.authors.clone();
    revoked.version = 2;
    revoked.authors.clear();
    let body = Signed::sign(&revoked, &fleet.owner)?.to_json();
    fleet.authors_ref = AuthorsRef { version: 2, sha256: Sha256::of(&body) };
    let (cid, offer) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer]).await?;
    fleet.counted(&machine, "mailbox_waits_for_authors").await?;
    let register: Option<Claim> = fleet.fact(&machine, cid, FactKind::Claim).await?;
    assert_eq!(register, None);
    fleet.publish_authors(&revoked).await?;
    let rejection = eventually_within("the rejection", RUN_BOUND, || async {
        fleet.fact::<Rejection>(&machine, cid, FactKind::Claim).await?.context("none")
    });
    assert_eq!(rejection.await?.reason, RejectReason::Forbidden);
    Ok(())
}

#[tokio::test]
async fn a_register_that_was_decided_elsewhere_is_left_alone() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let (cid, offer) = fleet.command(&machine, &format!("echo ran >> {}", log.display()))?;
    let withdrawal = Withdrawal {
        ws: Workspace::main(),
        mid: machine.mid.clone(),
        cid,
        reason: WithdrawReason::Cancelled,
        withdrawn_at: now_ms(),
    };
    let subject = Subject::Run(Workspace::main(), machine.mid.clone(), cid, FactKind::Claim).to_string();
    let body = Signed::sign(&withdrawal, &fleet.bridge)?.to_json();
    fleet.link.store(Store::new(subject, body).only_first()).await?;
    let (next, other) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer, other]).await?;
    fleet.exit(&machine, next).await?;
    fleet.counted(&machine, "claim_decided_elsewhere").await?;
    assert_eq!(lines(&log), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn an_expired_authors_document_runs_nothing() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let mut expired = fleet.authors.clone();
    expired.version = 2;
    (expired.issued_at, expired.not_after) = (now_ms() - DAY_MS, now_ms() - 1);
    fleet.authors_ref = fleet.publish_authors(&expired).await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let (cid, offer) = fleet.command(&machine, "true")?;
    fleet.offer(&machine, &[offer]).await?;
    fleet.counted(&machine, "mailbox_authors_expired").await?;
    let register: Option<Claim> = fleet.fact(&machine, cid, FactKind::Claim).await?;
    assert_eq!(register, None);
    Ok(())
}

#[tokio::test]
async fn under_an_expired_authors_document_what_runs_can_be_cancelled() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    // It is held for as long as the command takes to begin.
    let mut short = fleet.authors.clone();
    (short.version, short.not_after) = (2, now_ms() + 3_000);
    fleet.authors_ref = fleet.publish_authors(&short).await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let (cid, offer) = fleet.command(&machine, "sleep 300")?;
    fleet.offer(&machine, std::slice::from_ref(&offer)).await?;
    eventually_within("the claim", RUN_BOUND, || async {
        fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    eventually_within("the document's end", RUN_BOUND, || async {
        ensure!(now_ms() > short.not_after);
        Ok(())
    })
    .await?;
    let (other, late) = fleet.command(&machine, "true")?;
    let mut mailbox = fleet.mailbox(&machine, &[offer, late]);
    mailbox.cancels = vec![cid];
    fleet.put(&machine, sign(&mailbox, &fleet.bridge)?).await?;
    assert_eq!(fleet.exit(&machine, cid).await?.state, ExitState::Cancelled);
    let register: Option<Claim> = fleet.fact(&machine, other, FactKind::Claim).await?;
    assert_eq!(register, None, "something began");
    Ok(())
}
