//! A server that chooses what the login key signs gets nothing signed.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use futures_util::future::try_join_all;
use nkeys::KeyPair;
use signalbox_link::{ConnectError, Link, Login, Options};
use signalbox_testkit::eventually;
use signalbox_testkit::process::{Daemon, bin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What clients said on each connection.
type Heard = Arc<Mutex<Vec<String>>>;

fn all(heard: &Heard) -> MutexGuard<'_, Vec<String>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server that greets with this nonce and writes down what it hears. Lives as long as the set.
async fn liar(nonce: &str, tasks: &mut JoinSet<()>) -> Result<(String, Heard)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("nats://{}", listener.local_addr()?);
    let heard = Heard::default();
    let info = serde_json::json!({
        "server_id": "LIAR", "server_name": "liar", "version": "2.15.1", "proto": 1, "go": "go", "host": "127.0.0.1",
        "port": 4222, "headers": true, "auth_required": true, "max_payload": 1_048_576, "client_id": 1, "nonce": nonce,
    });
    let greeting = format!("INFO {info} \r\n");
    let write_down = Arc::clone(&heard);
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut said = Vec::new();
            if stream.write_all(greeting.as_bytes()).await.is_ok() {
                // Until the client closes, or has had every chance to speak.
                let listening = stream.read_to_end(&mut said);
                let _ = tokio::time::timeout(Duration::from_millis(300), listening).await;
            }
            all(&write_down).push(String::from_utf8_lossy(&said).into_owned());
        }
    });
    Ok((url, heard))
}

fn login() -> Result<(Login, KeyPair)> {
    let key = KeyPair::new_user();
    let claims = serde_json::json!({ "sub": key.public_key(), "name": "demo-1" }).to_string();
    let jwt = format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.as_bytes()));
    Ok((Login::new(&jwt, &key.seed()?)?, key))
}

/// Connections that a relay makes to such a server, and what it says on them.
async fn said_to(nonce: &str) -> Result<Vec<String>> {
    let mut tasks = JoinSet::new();
    let (url, heard) = liar(nonce, &mut tasks).await?;
    let (login, _) = login()?;
    let link = Link::connect(Options::relay(&url, "demo-1", login)).await?;
    eventually("four attempts", || async {
        let attempts = all(&heard).len();
        ensure!(attempts >= 4, "{attempts} attempts");
        Ok(())
    })
    .await?;
    ensure!(!link.state().borrow().is_connected);
    let said = all(&heard).clone();
    Ok(said)
}

/// None of these nonces makes a relay log in.
async fn nobody_signs(nonces: &[String]) -> Result<()> {
    let answers = try_join_all(nonces.iter().map(|nonce| said_to(nonce))).await?;
    for (nonce, said) in nonces.iter().zip(answers) {
        assert!(said.iter().all(String::is_empty), "{nonce:?} was answered with {said:?}");
    }
    Ok(())
}

/// What is signed in each fixture of a signed message, by type.
fn preimages() -> Result<Vec<(String, String)>> {
    let mut preimages = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/fixtures/v1"))? {
        let path = entry?.path();
        let fixture: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let member = |name: &str| fixture.pointer(&format!("/envelope/{name}"))?.as_str();
        let Some(payload) = member("payload") else { continue };
        // What holds a signed message of another type is none itself.
        let Some(name) = fixture.get("type").and_then(serde_json::Value::as_str) else { continue };
        let payload = String::from_utf8(BASE64URL_NOPAD.decode(payload.as_bytes())?)?;
        let preimage = format!("signalbox.v1\0{name}\0{payload}");
        let signature = BASE64URL_NOPAD.decode(member("sig").context("no signature")?.as_bytes())?;
        let key = KeyPair::from_public_key(member("key").context("no key")?)?;
        key.verify(preimage.as_bytes(), &signature)?;
        preimages.push((name.to_owned(), preimage));
    }
    Ok(preimages)
}

#[tokio::test]
async fn a_preimage_of_a_signature_gets_no_signature() -> Result<()> {
    let preimages = preimages()?;
    assert!(preimages.len() >= 15, "signed types: {preimages:?}");
    // The shortest there could be of each type would pass for its length.
    let shortest = preimages.iter().map(|(name, _)| format!("signalbox.v1\0{name}\0{{}}"));
    let nonces: Vec<String> = shortest.chain(preimages.iter().map(|(_, whole)| whole.clone())).collect();
    nobody_signs(&nonces).await
}

#[tokio::test]
async fn what_is_no_nonce_gets_no_signature() -> Result<()> {
    let nonces = ["a\u{1}b", "two words", "caf\u{e9}", ""].map(str::to_owned);
    nobody_signs(&[&nonces[..], &["a".repeat(65)]].concat()).await
}

/// A relay as it is installed, with the credentials of a new fleet's machine.
fn relay(fleet: &Path, store: &Path, url: &str) -> Result<Daemon> {
    let mut command = Command::new(bin("signalbox-relay")?);
    command.arg("run").arg("--store").arg(store).arg("--nats").arg(url);
    command.arg("--creds").arg(fleet.join("machines/demo-1/relay.creds"));
    Daemon::spawn(&mut command)
}

#[tokio::test]
async fn the_relay_itself_signs_no_grant_and_a_proper_nonce() -> Result<()> {
    let fleet = tempfile::tempdir()?;
    let mut init = Command::new(bin("signalbox-bridge")?);
    init.args(["init", "--machines", "demo-1", "--state-dir"]).arg(fleet.path());
    ensure!(init.status()?.success(), "no fleet");
    let grant = preimages()?.into_iter().find(|(name, _)| name == "grant").context("no grant")?.1;
    let mut tasks = JoinSet::new();
    let store = tempfile::tempdir()?;
    for (nonce, is_signed) in [(grant.as_str(), false), ("u7GqIYHJxGbXK3k", true)] {
        let (url, heard) = liar(nonce, &mut tasks).await?;
        let _relay = relay(fleet.path(), store.path(), &url)?;
        let said = eventually("three attempts", || async {
            let said = all(&heard).clone();
            ensure!(said.len() >= 3, "{said:?}");
            Ok(said)
        })
        .await?;
        let signs = |said: &String| said.starts_with("CONNECT ") && said.contains("\"sig\":");
        assert!(said.iter().all(|said| signs(said) == is_signed), "{nonce:?} was answered with {said:?}");
        assert!(is_signed || said.iter().all(String::is_empty), "{nonce:?} was answered with {said:?}");
    }
    // Its keeper ends with the lock.
    std::fs::remove_file(store.path().join("keeper.lock"))?;
    Ok(())
}

#[tokio::test]
async fn a_proper_nonce_is_signed_by_the_login_key() -> Result<()> {
    let nonce = "u7GqIYHJxGbXK3k";
    let mut tasks = JoinSet::new();
    let (url, heard) = liar(nonce, &mut tasks).await?;
    let (login, key) = login()?;
    let _link = Link::connect(Options::relay(&url, "demo-1", login)).await?;
    let said =
        eventually("an attempt", || async { all(&heard).first().cloned().context("none yet") }).await?;
    let connect = said.strip_prefix("CONNECT ").and_then(|rest| rest.lines().next()).context("no CONNECT")?;
    let connect: serde_json::Value = serde_json::from_str(connect)?;
    let signature = BASE64URL_NOPAD.decode(connect["sig"].as_str().context("no signature")?.as_bytes())?;
    key.verify(nonce.as_bytes(), &signature)?;
    assert!(connect["jwt"].as_str().is_some());
    Ok(())
}

#[tokio::test]
async fn an_operator_is_told_at_once() -> Result<()> {
    let mut tasks = JoinSet::new();
    let (url, _) = liar("signalbox.v1\0x", &mut tasks).await?;
    let refused = Link::connect(Options::operator(&url, login()?.0)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    Ok(())
}
