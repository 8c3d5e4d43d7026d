//! The store of an older relay, taken over.

use std::{fs, path::PathBuf};

use aes_gcm::{
    AesGcm,
    aead::{Aead as _, KeyInit as _, consts},
    aes,
};
use anyhow::Result;
use data_encoding::HEXLOWER;
use orion::hazardous::kdf::pbkdf2::{Pbkdf2, SHA256};
use serde_json::{Value, json};
use signalbox_relay::vault::seed::machine_id;

use crate::harness::{Home, MARKER, key, password};

const SALT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A store as it was made on `old-host`.
pub(crate) fn store(home: &Home, credentials: &[Value]) -> Result<PathBuf> {
    let secret = format!("sk_test:{}", machine_id("old-host", "linux", "abcdef"));
    let mut key = [0; 32];
    Pbkdf2::<SHA256>::derive_key(secret.as_bytes(), SALT.as_bytes(), 100_000, &mut key)?;
    let text = json!({"version": 1, "salt": SALT, "credentials": credentials}).to_string();
    let cipher = AesGcm::<aes::Aes256, consts::U16>::new((&key).into());
    let sealed = cipher.encrypt((&[7; 16]).into(), text.as_bytes());
    let mut sealed = sealed.map_err(|_| anyhow::anyhow!("it cannot be sealed"))?;
    let tag = sealed.split_off(sealed.len() - 16);
    let data = [&[7; 16][..], &tag, &sealed].map(|part| HEXLOWER.encode(part)).join(":");
    home.file("credentials.enc", &json!({"salt": SALT, "data": data}).to_string())
}

pub(crate) fn kept(name: &str, kind: &str, value: &str, updated_at: u64) -> Value {
    json!({"name": name, "type": kind, "value": value, "targetHost": "db-1", "storageMode": "relay_only",
        "createdAt": 1_600_000_000_000_u64, "updatedAt": updated_at})
}

/// The words that import it.
pub(crate) fn words(store: &str) -> Vec<&str> {
    vec!["import", store, "--api-key-file", "-", "--hostname", "old-host", "--machine-id", "abcdef"]
}

#[test]
fn what_an_older_relay_kept_is_taken_once() -> Result<()> {
    let home = Home::new()?;
    let pem = fs::read_to_string(key("rsa_pkcs1"))?;
    let locked =
        json!({"username": "deploy", "privateKey": fs::read_to_string(key("ed25519_locked"))?}).to_string();
    let list = [
        kept("key", "ssh_key", &pem, 1_700_000_000_000),
        kept("locked", "ssh_key", &locked, 1_700_000_000_000),
        kept("pass", "password", MARKER, 1_700_000_000_000),
    ];
    let path = store(&home, &list)?;
    let path = path.to_str().unwrap();
    let said = home.ok(&words(path), "sk_test\n")?;
    assert!(
        said.starts_with("added `key`\nadded `locked`\nadded `pass`\nnote: `locked` cannot be used"),
        "{said}"
    );
    assert_eq!(home.all()?["pass"], password(MARKER));
    let listed = home.ok(&["list"], "")?;
    assert!(listed.contains("deploy") && listed.contains("2023-11-14T22:13:20Z"), "{listed}");
    let before = fs::read(home.place().file())?;
    let said = home.ok(&words(path), "sk_test")?;
    assert_eq!(said.matches("left `").count(), 3, "{said}");
    assert_eq!(fs::read(home.place().file())?, before);
    // A newer one counts, and one that was changed here since does not give way to it.
    home.add("pass", "changed here")?;
    let list = [
        kept("key", "ssh_key", &pem, 1_700_000_000_001),
        kept("pass", "password", "older", 1_700_000_000_001),
    ];
    let path = store(&home, &list)?;
    let said = home.ok(&words(path.to_str().unwrap()), "sk_test")?;
    assert_eq!(said.lines().count(), 2);
    assert!(said.contains("replaced `key`") && said.contains("left `pass`"), "{said}");
    assert_eq!(home.all()?["pass"], password("changed here"));
    Ok(())
}

#[test]
fn what_cannot_be_taken_is_named_and_the_rest_is_taken() -> Result<()> {
    let home = Home::new()?;
    let mut star = kept("star", "password", "x", 5);
    star["targetHost"] = "*.lan".into();
    let path = store(&home, &[kept(" spaced", "password", "x", 5), star, kept("good", "password", "x", 5)])?;
    let output = home.output(&words(path.to_str().unwrap()), "sk_test")?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    assert!(
        said.contains("added `good`")
            && said.contains("refused \" spaced\"")
            && said.contains("refused \"star\""),
        "{said}"
    );
    assert!(String::from_utf8(output.stderr)?.contains("not all of"));
    assert_eq!(home.all()?.len(), 1);
    Ok(())
}

#[test]
fn what_does_not_open_makes_no_vault() -> Result<()> {
    let home = Home::new()?;
    let path = store(&home, &[kept("good", "password", "x", 5)])?;
    let path = path.to_str().unwrap();
    let error = home.fails(1, &words(path), "sk_tesT")?;
    assert!(error.contains("API key") && error.contains("--hostname"), "{error}");
    home.fails(1, &["import", path, "--api-key-file", "-", "--hostname", "new-host"], "sk_test")?;
    let half = fs::read(path)?;
    fs::write(path, &half[..half.len() / 2])?;
    let error = home.fails(1, &words(path), "sk_test")?;
    assert!(error.contains("no such store"), "{error}");
    assert!(!home.store().exists());
    Ok(())
}
