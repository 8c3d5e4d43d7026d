//! Enrolling at a stub center: which keys it is asked about, what is kept, and what is refused.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use rstest::rstest;
use serde_json::json;
use signalbox_schemas::{
    enrol::{Enrolment, PATH},
    id::MachineId,
    signed::{PublicKey, Signed},
};
use signalbox_testkit::{eventually, eventually_within, process::Daemon};

use crate::{
    center::{Center, Reply, Request},
    harness::{Machine, PATIENCE},
};

const ENROLL: &str = "POST /enroll";
const VERIFY: &str = "POST /relay/verify";

/// What a center says that enrols relays, to a request without an enrolment.
fn misses_the_enrolment() -> Reply {
    Reply::Json(400, json!({"error": "malformed envelope"}))
}

fn fleet_key() -> Result<PublicKey> {
    Ok(KeyPair::new_user().public_key().parse()?)
}

fn enrolment(request: &Request) -> Result<Enrolment> {
    ensure!(request.line.ends_with(PATH), "{}", request.line);
    let signed = Signed::<Enrolment>::from_json(&request.body)?;
    let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    Ok(Enrolment::open(&signed, now_ms)?)
}

/// The answer that enrols whoever asked, at a broker that is not there.
fn enrolled(asked: &Enrolment, machine: &str, fleet: &PublicKey) -> Result<Reply> {
    let token = MachineId::new(machine)?.token();
    let claims = json!({"sub": asked.login_key, "name": token, "iat": 7, "exp": 9}).to_string();
    Ok(Reply::Json(
        200,
        json!({
            "ws": "main", "machine_id": machine, "token": token, "assignment_id": "a1", "name": "web",
            "jwt": format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.as_bytes())),
            "nats": ["nats://127.0.0.1:1"], "fleet_key": fleet,
        }),
    ))
}

async fn creds(store: &Path) -> Result<Vec<u8>> {
    eventually("the login file", || async { Ok(fs::read(store.join("identity/relay.creds"))?) }).await
}

async fn killed(relay: &Daemon) -> Result<()> {
    relay.kill()?;
    relay.wait(PATIENCE).await?;
    Ok(())
}

/// A machine that has enrolled, and whose relay has ended.
async fn enrolled_machine(center: &Center, fleet: &PublicKey) -> Result<(Machine, Enrolment)> {
    let machine = Machine::new()?;
    let held = Reply::Held(PATIENCE, Box::new(Reply::Drop));
    center.script(ENROLL, [misses_the_enrolment(), held]);
    let relay = machine.relay(center)?;
    let asked = enrolment(center.asked(ENROLL, 2, PATIENCE).await?.get(1).context("no second request")?)?;
    // The answer is on its way when the machine fails.
    killed(&relay).await?;
    center.script(ENROLL, [Reply::Drop, enrolled(&asked, "web-1", fleet)?]);
    let relay = machine.relay(center)?;
    creds(&machine.store()).await?;
    killed(&relay).await?;
    Ok((machine, asked))
}

#[tokio::test]
async fn lost_answers_and_a_killed_relay_change_no_keys() -> Result<()> {
    let center = Center::start().await?;
    let (machine, first) = enrolled_machine(&center, &fleet_key()?).await?;
    let requests = center.requests_of(ENROLL);
    assert_eq!(requests.len(), 4, "what has keys need not ask whether the center enrols");
    assert!(requests.first().is_some_and(|knock| knock.body.is_empty()));
    for request in requests.iter().skip(1) {
        let again = enrolment(request)?;
        assert_eq!((&again.login_key, &again.signing_key), (&first.login_key, &first.signing_key));
    }
    assert!(center.requests_of(VERIFY).is_empty());
    // The next start asks for another login, with the same keys and the workspace that it knows.
    let login = creds(&machine.store()).await?;
    let relay = machine.relay(&center)?;
    let last = center.asked(ENROLL, 5, PATIENCE).await?.pop().context("no request")?;
    let last = enrolment(&last)?;
    assert_eq!(
        (last.login_key, last.ws.map(|ws| ws.to_string())),
        (first.login_key, Some("main".to_owned()))
    );
    // The center knows nothing of it this time, and the relay goes on with the login it has.
    eventually("the relay starts", || async {
        ensure!(relay.stdout()?.contains("relay starts"), "{}", relay.stdout()?);
        Ok(())
    })
    .await?;
    assert_eq!(creds(&machine.store()).await?, login);
    assert!(center.requests_of(VERIFY).is_empty());
    Ok(())
}

#[tokio::test]
async fn another_fleet_is_refused() -> Result<()> {
    let center = Center::start().await?;
    let (fleet, other) = (fleet_key()?, fleet_key()?);
    let (machine, asked) = enrolled_machine(&center, &fleet).await?;
    let login = creds(&machine.store()).await?;
    let as_told = |told: &PublicKey| enrolled(&asked, "web-1", told);
    center.script(ENROLL, [as_told(&other)?]);
    let relay = machine.relay(&center)?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
    let said = relay.stderr()?;
    assert!(said.contains("it has become another fleet") && said.contains(other.as_str()), "{said}");
    // The center says nothing that a login could be taken from.
    let before = center.requests_of(ENROLL).len();
    let relay = machine.relay_with(&center, &["--fleet-key", other.as_str()])?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
    let said = relay.stderr()?;
    assert!(said.contains("leave --fleet-key out") && said.contains(other.as_str()), "{said}");
    assert_eq!(center.requests_of(ENROLL).len(), before);
    center.script(ENROLL, [enrolled(&asked, "web-2", &fleet)?]);
    let relay = machine.relay(&center)?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
    assert!(relay.stderr()?.contains("use another --store-dir"), "{}", relay.stderr()?);
    assert_eq!(creds(&machine.store()).await?, login, "the login was changed");
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_refused_leaves_nothing_behind() -> Result<()> {
    let center = Center::start().await?;
    for (status, error) in [(401, "Invalid API key"), (403, "Relay assignment is disabled")] {
        let machine = Machine::new()?;
        let refused = Reply::Json(status, json!({ "error": error }));
        center.script(ENROLL, [refused.clone()]);
        center.script(VERIFY, [refused]);
        let relay = machine.relay(&center)?;
        assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
        assert!(
            relay.stderr()?.contains(&format!("API key verification failed: {error}")),
            "{}",
            relay.stderr()?
        );
        assert!(!machine.store().exists());
    }
    assert_eq!(center.requests_of(VERIFY).len(), 2);
    Ok(())
}

#[rstest]
#[case::unknown(Reply::Json(401, json!({"error": "Unauthorized"})))]
#[case::forbidden(Reply::Json(403, json!({"error": "Forbidden"})))]
#[case::other_words(Reply::Json(400, json!({"error": "Bad request"})))]
#[case::other_refusal(Reply::Json(422, json!({"error": "no"})))]
#[case::unusable(Reply::Json(200, json!({"ok": true})))]
#[tokio::test]
async fn a_center_that_refuses_enrolments_and_knows_the_key_is_spoken_to_by_http(
    #[case] reply: Reply,
) -> Result<()> {
    let center = Center::start().await?;
    center.always(ENROLL, reply);
    for has_keys in [false, true] {
        let machine = Machine::new()?;
        if has_keys {
            // As a lost answer leaves it.
            center.script(ENROLL, [misses_the_enrolment(), Reply::Held(PATIENCE, Box::new(Reply::Drop))]);
            let before = center.requests_of(ENROLL).len();
            let relay = machine.relay(&center)?;
            center.asked(ENROLL, before + 2, PATIENCE).await?;
            killed(&relay).await?;
        }
        let id = format!("c{has_keys}");
        center.queue(&id, "echo on");
        let relay = machine.relay(&center)?;
        assert_eq!(center.result(&id, PATIENCE).await?["output"], "on\n");
        killed(&relay).await?;
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_others_have_replaced_end_the_relay() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.script(ENROLL, [misses_the_enrolment(), Reply::Json(409, json!({"error": "were replaced"}))]);
    let relay = machine.relay(&center)?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
    assert!(
        relay.stderr()?.contains("does not take this relay's keys: were replaced"),
        "{}",
        relay.stderr()?
    );
    Ok(())
}

#[tokio::test]
async fn a_fleet_key_that_is_told_in_the_clear_is_taken_with_a_warning() -> Result<()> {
    let center = Center::start().await?;
    // An address that is not this machine's by name, and leads here.
    let url = center.url.replace("127.0.0.1", "0.0.0.0");
    let fleet = fleet_key()?;
    for args in [&[][..], &["--fleet-key", fleet.as_str()][..]] {
        let machine = Machine::new()?;
        let before = center.requests_of(ENROLL).len();
        let start = || -> Result<Daemon> {
            let mut command = machine.program();
            command.args([crate::center::KEY, &url, "--store-dir"]).arg(machine.store()).args(args);
            Daemon::spawn(&mut command)
        };
        center.script(ENROLL, [misses_the_enrolment(), Reply::Held(PATIENCE, Box::new(Reply::Drop))]);
        let relay = start()?;
        let asked = center.asked(ENROLL, before + 2, PATIENCE).await?.pop().context("no request")?;
        let asked = enrolment(&asked)?;
        killed(&relay).await?;
        center.script(ENROLL, [enrolled(&asked, "web-1", &fleet)?]);
        let relay = start()?;
        creds(&machine.store()).await?;
        killed(&relay).await?;
        let is_warned = relay.stderr()?.contains("anybody on the way could have changed");
        assert_eq!(is_warned, args.is_empty(), "{}", relay.stderr()?);
    }
    Ok(())
}

#[tokio::test]
async fn an_enrolled_relay_goes_on_when_its_center_answers_nonsense() -> Result<()> {
    let center = Center::start().await?;
    let (machine, _) = enrolled_machine(&center, &fleet_key()?).await?;
    center.script(ENROLL, [Reply::Json(200, json!({"ok": true}))]);
    let relay = machine.relay(&center)?;
    eventually("the relay starts", || async {
        ensure!(relay.stdout()?.contains("relay starts"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_was_granted_by_http_is_finished_before_a_relay_enrols() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let (begun, gate) = (machine.file("begun"), machine.file("gate"));
    center.queue("waits", "echo waiting");
    center.always("POST /relay/commands/result", Reply::Json(503, json!({"error": "x"})));
    let relay = machine.relay(&center)?;
    center.asked("POST /relay/commands/result", 1, PATIENCE).await?;
    center.queue(
        "runs",
        &format!("touch {}; until [ -e {} ]; do sleep 0.05; done; echo end", begun.display(), gate.display()),
    );
    eventually_within("it runs", PATIENCE, || async {
        ensure!(begun.exists());
        Ok(())
    })
    .await?;
    killed(&relay).await?;

    // The center has learned to enrol.
    center.always(ENROLL, misses_the_enrolment());
    // It knocks twice, and no answer comes to its enrolment: refused, it would knock once more.
    center.script(ENROLL, [misses_the_enrolment(), misses_the_enrolment(), Reply::Drop]);
    center.queue("new", "true");
    let relay = machine.relay(&center)?;
    center.as_usual("POST /relay/commands/result");
    assert_eq!(center.result("waits", PATIENCE).await?["output"], "waiting\n");
    center.asked("POST /relay/heartbeat", 2, PATIENCE).await?;
    assert!(!machine.store().join("identity").exists(), "it enrolled while a command ran");
    assert_eq!(center.requests_of("POST /relay/commands/claim").len(), 2, "it took more work");
    fs::write(&gate, "")?;
    assert_eq!(center.result("runs", PATIENCE).await?["output"], "end\n");
    let asked = eventually_within("it enrols", PATIENCE, || async {
        let asked = center.requests_of(ENROLL).into_iter().find(|request| !request.body.is_empty());
        enrolment(&asked.context("not yet")?)
    })
    .await?;
    assert!(machine.keeper_pid().await.is_err(), "a keeper is left");
    center.always(ENROLL, enrolled(&asked, "web-1", &fleet_key()?)?);
    creds(&machine.store()).await?;
    killed(&relay).await
}

#[tokio::test]
async fn an_enrolled_relay_does_not_go_back_to_unsigned_work() -> Result<()> {
    let center = Center::start().await?;
    let (machine, _) = enrolled_machine(&center, &fleet_key()?).await?;
    let before = center.requests().len();
    let relay = machine.relay_with(&center, &["--transport", "http"])?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
    assert!(relay.stderr()?.contains("is the store of an enrolled relay"), "{}", relay.stderr()?);
    assert_eq!(center.requests().len(), before);
    let config = fs::read_to_string(machine.store().join("identity/relay.toml"))?;
    assert!(config.contains("require_operator_signature = [\"root\""), "{config}");
    Ok(())
}
