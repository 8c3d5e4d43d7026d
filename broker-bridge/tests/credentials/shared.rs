//! Credentials that are shared among relays with keys, beside those of relays of the old contract.

use anyhow::{Context as _, Result};
use serde_json::json;
use signalbox_schemas::{
    Base64Url,
    api::{KeepShared, SharedCredentialView, op},
    authors::Right,
    credential::{CredentialLabel, CredentialType, SharedKept, SharedSecret, StorageMode},
    error::ErrorCode,
    id::{CommandId, CredentialName, MachineToken, Workspace},
    sealed::{OpeningKey, WRAPPED_BYTES},
    signed::{Signed, SigningKey},
};

use super::{
    bench::{Bench, Console},
    give_rights,
};

fn label(name: &str) -> Result<CredentialLabel> {
    Ok(CredentialLabel {
        name: CredentialName::new(name)?,
        credential_type: CredentialType::Password,
        target: Some("*.lan".parse()?),
        username: None,
        storage_mode: StorageMode::Shared,
    })
}

fn secret(label: &CredentialLabel, by: &SigningKey, body: u8) -> Result<Signed<SharedSecret>> {
    let secret = SharedSecret {
        ws: Workspace::main(),
        label: label.clone(),
        cid: CommandId::new(uuid::Uuid::now_v7())?,
        body: Base64Url(vec![body; 60]),
        wrapped: Base64Url(vec![2; WRAPPED_BYTES]),
        recovery_key: OpeningKey::from_material(&[9; 32])?.public().clone(),
        sealed_at: 1,
    };
    Ok(Signed::sign(&secret, by)?)
}

fn machines(names: &[&str]) -> Result<Vec<MachineToken>> {
    names.iter().map(|name| Ok(MachineToken::new(*name)?)).collect()
}

/// A push of `db` to these.
fn pushed(console: &Console, names: &[&str], body: u8) -> Result<KeepShared> {
    let label = label("db")?;
    let secret = Some(secret(&label, &console.key, body)?);
    Ok(KeepShared {
        name: label.name.clone(),
        label: Some(label),
        secret,
        add: machines(names)?,
        remove: vec![],
    })
}

fn only(names: &[&str], removed: &[&str]) -> Result<KeepShared> {
    let name = CredentialName::new("db")?;
    Ok(KeepShared { name, label: None, secret: None, add: machines(names)?, remove: machines(removed)? })
}

async fn kept(console: &Console) -> Result<SharedKept> {
    Ok(serde_json::from_value(console.read(op::SHARED_KEPT, &json!({"name": "db"})).await??)?)
}

#[tokio::test]
async fn a_shared_credential_knows_who_has_it_and_keeps_what_was_pushed_last() -> Result<()> {
    let bench = Bench::start(&["web-1", "web-2"]).await?;
    let admin = bench.console("admin").await?;
    give_rights(&bench, "admin", &[Right::Command, Right::Credential]).await?;
    let nothing = admin.write(op::SHARED_KEEP, &only(&["web-1"], &[])?).await?.unwrap_err();
    assert_eq!(nothing.code, ErrorCode::NotFound);
    let first = pushed(&admin, &["web-1"], 1)?;
    let view: SharedCredentialView = serde_json::from_value(admin.write(op::SHARED_KEEP, &first).await??)?;
    assert_eq!((view.name.as_str(), view.target_host.as_deref()), ("db", Some("*.lan")));
    assert_eq!((view.machines, view.assigned.len()), (machines(&["web-1"])?, 0));
    assert_eq!(
        (kept(&admin).await?.secret, kept(&admin).await?.machines),
        (first.secret, machines(&["web-1"])?)
    );
    // Others get it, and lose it; what is sealed stays.
    admin.write(op::SHARED_KEEP, &only(&["web-2", "web-1"], &[])?).await??;
    admin.write(op::SHARED_KEEP, &only(&[], &["web-1"])?).await??;
    let stands = kept(&admin).await?;
    assert_eq!((stands.machines, stands.secret.is_some()), (machines(&["web-2"])?, true));
    // Pushed anew, what was before is forgotten, also when nothing is sealed for anybody.
    let second = KeepShared { secret: None, ..pushed(&admin, &["web-1"], 2)? };
    let again: SharedCredentialView = serde_json::from_value(admin.write(op::SHARED_KEEP, &second).await??)?;
    assert_eq!((again.id.as_str(), again.created_at), (view.id.as_str(), view.created_at));
    let stands = kept(&admin).await?;
    assert_eq!((stands.machines, stands.secret), (machines(&["web-1", "web-2"])?, None));
    // Removed, it is gone, and may come again.
    admin.write(op::SHARED_REMOVE, &json!({"id": view.id})).await??;
    let gone = admin.read(op::SHARED_KEPT, &json!({"name": "db"})).await?.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);
    assert_eq!(
        admin.write(op::SHARED_KEEP, &only(&["web-1"], &[])?).await?.unwrap_err().code,
        ErrorCode::NotFound
    );
    admin.write(op::SHARED_KEEP, &pushed(&admin, &["web-2"], 3)?).await??;
    assert_eq!(kept(&admin).await?.machines, machines(&["web-2"])?);
    Ok(())
}

#[tokio::test]
async fn what_is_not_an_administrators_word_about_his_own_is_refused() -> Result<()> {
    let bench = Bench::start(&["web-1"]).await?;
    let (admin, local) = (bench.console("admin").await?, bench.console("local").await?);
    let made = bench.http.post("/api/v1/assignments", &json!({"machine_id": "old-1", "name": "old"})).await?;
    assert_eq!(made.status, 201);
    // Without the right, and without the role.
    let problem = admin.write(op::SHARED_KEEP, &pushed(&admin, &["web-1"], 1)?).await?.unwrap_err();
    assert!(problem.message.contains("`credential`"), "{problem}");
    give_rights(&bench, "local", &[Right::Credential]).await?;
    let problem = local.write(op::SHARED_KEEP, &pushed(&local, &["web-1"], 1)?).await?.unwrap_err();
    assert_eq!(problem.code, ErrorCode::Forbidden);
    let problem = local.read(op::SHARED_KEPT, &json!({"name": "db"})).await?.unwrap_err();
    assert_eq!(problem.code, ErrorCode::Forbidden);
    give_rights(&bench, "admin", &[Right::Credential]).await?;
    let good = pushed(&admin, &["web-1"], 1)?;
    let other = label("other")?;
    for (wrong, said) in [
        (KeepShared { secret: Some(secret(&label("db")?, &local.key, 1)?), ..good.clone() }, "may not sign"),
        (KeepShared { secret: Some(secret(&other, &admin.key, 1)?), ..good.clone() }, "another label"),
        (KeepShared { label: Some(other), ..good.clone() }, "its name"),
        (KeepShared { add: machines(&["old-1"])?, ..good.clone() }, "old-1 with keys"),
        (KeepShared { add: machines(&["nobody"])?, ..good.clone() }, "nobody with keys"),
        (KeepShared { label: None, ..good.clone() }, "another label"),
    ] {
        let problem = admin.write(op::SHARED_KEEP, &wrong).await?.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Invalid);
        assert!(problem.message.contains(said), "{problem} instead of {said}");
    }
    Ok(())
}

#[tokio::test]
async fn each_kind_of_relay_gets_its_own_and_the_old_one_as_it_always_was() -> Result<()> {
    let bench = Bench::start(&["web-1"]).await?;
    let admin = bench.console("admin").await?;
    give_rights(&bench, "admin", &[Right::Command, Right::Credential]).await?;
    let made = bench
        .http
        .post(
            "/api/v1/assignments",
            &json!({"machine_id": "old-1", "name": "o", "api_key": "key-of-an-old-relay"}),
        )
        .await?
        .json()?;
    let assignment = made["id"].as_str().context("no id")?;
    let opaque = json!({"name": "db", "credential_type": "password", "target_host": "db-1",
        "encrypted_value": "00:11:gänzlich opak", "assigned": [assignment]});
    assert_eq!(bench.http.post("/api/v1/shared-credentials", &opaque).await?.status, 201);
    let view = admin.write(op::SHARED_KEEP, &pushed(&admin, &["web-1"], 1)?).await??;
    // The old route says the same, to the letter, and nothing of the other.
    let key = [("x-api-key", "key-of-an-old-relay")];
    let given = bench.http.request("GET", "/relay/credentials/shared", &key, Vec::new()).await?.json()?;
    let given = given["credentials"].as_array().context("no list")?;
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0]["encryptedValue"], "00:11:gänzlich opak");
    // Nor can the other be made one of these.
    let path = format!("/api/v1/shared-credentials/{}", view["id"].as_str().context("no id")?);
    for change in
        [json!({"assigned": [assignment]}), json!({"encrypted_value": "x"}), json!({"name": "other"})]
    {
        let bytes = serde_json::to_vec(&change)?;
        let answer = bench.http.request("PATCH", &path, &[], bytes).await?;
        assert_eq!(answer.status, 422, "{change}");
    }
    let listed = bench.http.json("/api/v1/shared-credentials").await?;
    assert!(!listed.to_string().contains("secret"), "{listed}");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}
