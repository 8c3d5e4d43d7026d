//! Logging in for real: operator, account and user tokens, permissions, renewal.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use signalbox_link::{ConnectError, Link, Login, Options, Store, StoreError};
use signalbox_testkit::{Broker, eventually};

use crate::{ACK_TIMEOUT, def};

/// An operator with one account that has JetStream.
struct Accounts {
    account: KeyPair,
    config: String,
}

fn token(issuer: &KeyPair, subject: &str, name: &str, exp: Option<u64>, nats: &Value) -> Result<String> {
    let mut claims = json!({
        "jti": "T", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": name, "nats": nats,
    });
    if let Some(exp) = exp {
        claims.as_object_mut().context("claims")?.insert("exp".to_owned(), exp.into());
    }
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let body = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&claims));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(body.as_bytes())?);
    Ok(format!("{body}.{signature}"))
}

impl Accounts {
    fn new() -> Result<Self> {
        let (operator, account, system) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let nats = json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
        let operator_jwt = token(&operator, &operator.public_key(), "op", None, &nats)?;
        let limits = |storage: i32| {
            json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                "conn": -1, "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": -1,
                "consumer": -1,
            })
        };
        let account_jwt = |account: &KeyPair, name: &str, storage: i32| {
            let nats = json!({ "type": "account", "version": 2, "limits": limits(storage) });
            token(&operator, &account.public_key(), name, None, &nats)
        };
        let config = format!(
            "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
            account.public_key(),
            account_jwt(&account, "CTRL", -1)?,
            system.public_key(),
            account_jwt(&system, "SYS", 0)?,
        );
        Ok(Self { account, config })
    }

    fn user(&self, key: &KeyPair, name: &str, exp: Option<u64>, publish: Option<&[&str]>) -> Result<String> {
        let mut nats = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        if let Some(allow) = publish {
            nats.as_object_mut().context("claims")?.insert("pub".to_owned(), json!({ "allow": allow }));
        }
        token(&self.account, &key.public_key(), name, exp, &nats)
    }
}

fn options(broker: &Broker, login: Login) -> Options {
    let mut options = Options::bridge(&broker.url(), login);
    options.ack_timeout = ACK_TIMEOUT;
    options
}

fn now() -> Result<u64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())
}

#[tokio::test]
async fn credentials_log_in_and_permissions_are_felt() -> Result<()> {
    let accounts = Accounts::new()?;
    let broker = Broker::start_with_config_text(&accounts.config).await?;
    let (all, some, stranger) = (KeyPair::new_user(), KeyPair::new_user(), KeyPair::new_user());
    let login = Login::new(&accounts.user(&all, "bridge", None, None)?, &all.seed()?)?;
    let bridge = Link::connect(options(&broker, login)).await?;
    bridge.ensure_stream(&def("OUT")).await?;
    bridge.store(Store::new("out.a", "x")).await?;

    let login = Login::new(&accounts.user(&some, "m1", None, Some(&["out.m1"]))?, &some.seed()?)?;
    let mut relay = Options::relay(&broker.url(), "m1", login);
    relay.ack_timeout = ACK_TIMEOUT;
    let relay = Link::connect(relay).await?;
    relay.store(Store::new("out.m1", "mine")).await?;
    // The server does not answer whom it does not let publish.
    let refused = relay.store(Store::new("out.m2", "not mine")).await;
    assert!(matches!(refused, Err(StoreError::Unanswered { .. })), "{refused:?}");
    relay.publish("out.m2", None, Bytes::from_static(b"x")).await?;
    eventually("denials", || async {
        ensure!(relay.counters().denied >= 2, "{:?}", relay.counters());
        Ok(())
    })
    .await?;
    assert_eq!(bridge.stream_state("OUT").await?.messages, 2);

    let other = Accounts::new()?;
    let login = Login::new(&other.user(&stranger, "x", None, None)?, &stranger.seed()?)?;
    let refused = Link::connect(options(&broker, login)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_renewed_token_is_used_by_the_next_login() -> Result<()> {
    let accounts = Accounts::new()?;
    let broker = Broker::start_with_config_text(&accounts.config).await?;
    let key = KeyPair::new_user();
    let short = accounts.user(&key, "m1", Some(now()? + 3), None)?;
    let login = Login::new(&short, &key.seed()?)?;
    let link = Link::connect(options(&broker, login.clone())).await?;
    link.ensure_stream(&def("OUT")).await?;
    let mut state = link.state();
    assert_eq!(state.borrow().connects, 1);

    login.replace_jwt(&accounts.user(&key, "m1", Some(now()? + 3_600), None)?)?;
    link.reconnect().await;
    state.wait_for(|state| state.connects == 2).await?;
    link.store(Store::new("out.a", "renewed")).await?;

    // Without the new token the server ends the connection when the old one expires.
    let expires_at_ms = login.claims().expires_at_ms.context("expiry")?;
    assert!(expires_at_ms > (now()? + 3_000) * 1_000);
    let ended =
        tokio::time::timeout(Duration::from_secs(5), state.wait_for(|state| !state.is_connected)).await;
    assert!(ended.is_err(), "the connection ended with the old token");
    assert!(link.rtt().await.is_some());
    Ok(())
}
