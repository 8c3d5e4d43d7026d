use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_schemas::{
    credential::{CredentialLabel, CredentialType, StorageMode},
    limit::CREDENTIALS,
};
use tempfile::TempDir;

use super::*;

mod foreign;
mod secrets;

const MARKER: &str = "correct horse battery staple";

/// A folder with a place for a vault in it.
struct Home {
    folder: TempDir,
    place: VaultPlace,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = VaultPlace::new(&folder.path().join("store"), None);
        Self { folder, place }
    }

    /// One whose secret lies elsewhere.
    fn with_secret(text: &str) -> Self {
        let mut home = Self::new();
        let path = home.folder.path().join("secret");
        write_private(&path, text.as_bytes());
        home.place.secret_file = Some(path);
        home
    }

    fn open(&self) -> Result<Vault, VaultError> {
        Vault::open(self.place.clone())
    }

    fn file(&self) -> Vec<u8> {
        fs::read(self.place.file()).unwrap()
    }

    fn store(&self) -> &Path {
        &self.place.store
    }

    /// Rewrites the file as JSON.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut file: Value = serde_json::from_slice(&self.file()).unwrap();
        change(&mut file);
        fs::write(self.place.file(), file.to_string()).unwrap();
    }
}

fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn name(text: &str) -> CredentialName {
    CredentialName::new(text).unwrap()
}

fn label(text: &str) -> CredentialLabel {
    CredentialLabel {
        name: name(text),
        credential_type: CredentialType::Password,
        target: Some("db-1".parse().unwrap()),
        username: Some("root".to_owned()),
        storage_mode: StorageMode::RelayOnly,
    }
}

fn password(text: &str) -> CredentialValue {
    CredentialValue::Password { password: text.to_owned().into() }
}

fn arrival(text: &str, value: &str, updated_at: u64) -> Arrival {
    Arrival { label: label(text), value: password(value), created_at: 1, updated_at }
}

/// A vault with `a` and `b`.
fn two() -> (Home, Vault) {
    let home = Home::new();
    let mut vault = home.open().unwrap();
    vault.take_in(&[arrival("a", MARKER, 5), arrival("b", "second", 6)]).unwrap();
    (home, vault)
}

fn all(vault: &Vault) -> BTreeMap<String, CredentialValue> {
    let of = |entry: &Entry| (entry.label.name.to_string(), vault.value(&entry.label.name).unwrap());
    vault.entries().iter().map(of).collect()
}

#[test]
fn where_nothing_is_a_vault_is_empty_and_nothing_is_made() {
    let home = Home::new();
    let mut vault = home.open().unwrap();
    assert!(vault.entries().is_empty() && !vault.refresh().unwrap());
    assert!(!vault.remove(&name("a")).unwrap());
    assert!(matches!(vault.value(&name("a")), Err(VaultError::Unknown { .. })));
    assert!(matches!(vault.rotate(), Err(VaultError::NoVault { .. })));
    assert!(matches!(vault.rewrap(&NewSecret::Drawn), Err(VaultError::NoVault { .. })));
    assert!(vault.take_in(&[]).unwrap().is_empty());
    assert!(!home.store().exists());
}

#[test]
fn what_is_put_is_there_and_in_no_file() {
    let home = Home::new();
    let mut vault = home.open().unwrap();
    let value = CredentialValue::SshKey {
        key: MARKER.to_owned().into(),
        passphrase: Some("the passphrase".to_owned().into()),
        certificate: Some("the certificate".to_owned()),
    };
    let label = CredentialLabel { credential_type: CredentialType::SshKey, ..label("a") };
    vault.put(label.clone(), &value).unwrap();
    let other = home.open().unwrap();
    assert_eq!(other.value(&name("a")).unwrap(), value);
    assert_eq!(other.entries()[0].label, label);
    let base64 = data_encoding::BASE64URL_NOPAD.encode(MARKER.as_bytes());
    for file in fs::read_dir(home.store()).unwrap() {
        let text = String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).into_owned();
        for secret in [MARKER, "the passphrase", "the certificate", &base64[..20]] {
            assert!(!text.contains(secret));
        }
    }
    assert_eq!(format!("{other:?}").matches("horse").count(), 0);
}

#[test]
fn how_long_a_password_is_cannot_be_seen() {
    let home = Home::new();
    let mut vault = home.open().unwrap();
    let longest = "x".repeat(24 * 1024 - password("").to_json().len());
    for (text, value) in [("a", "x"), ("b", "a longer one"), ("c", &longest)] {
        vault.put(label(text), &password(value)).unwrap();
        assert_eq!(home.open().unwrap().value(&name(text)).unwrap(), password(value));
    }
    let entries = vault.entries();
    assert_eq!(entries[0].sealed.0.len(), entries[1].sealed.0.len());
}

#[test]
fn a_value_that_is_put_again_keeps_its_time_of_making() {
    let (_home, mut vault) = two();
    let before = vault.entry(&name("a")).unwrap().clone();
    vault.put(label("a"), &password("other")).unwrap();
    let after = vault.entry(&name("a")).unwrap();
    assert_eq!((before.created_at, after.created_at), (1, 1));
    assert!(after.updated_at > before.updated_at);
    assert_eq!(vault.value(&name("a")).unwrap(), password("other"));
}

#[test]
fn everything_is_private_and_becomes_so_again() {
    let (home, mut vault) = two();
    let files = || ["vault.json", "vault.lock", "vault.secret"].map(|file| mode(&home.store().join(file)));
    assert_eq!((mode(home.store()), files()), (0o700, [0o600; 3]));
    fs::set_permissions(home.place.file(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(home.store(), fs::Permissions::from_mode(0o755)).unwrap();
    home.open().unwrap();
    vault.put(label("c"), &password("x")).unwrap();
    assert_eq!((mode(home.store()), files()), (0o700, [0o600; 3]));
}

#[test]
fn others_changes_are_seen_and_nothing_is_read_twice() {
    let (home, mut vault) = two();
    let mut other = home.open().unwrap();
    assert!(!other.refresh().unwrap());
    vault.put(label("c"), &password("third")).unwrap();
    assert!(!vault.refresh().unwrap(), "its own change");
    assert!(other.refresh().unwrap());
    assert_eq!(all(&other), all(&vault));
    vault.rotate().unwrap();
    assert!(other.refresh().unwrap());
    assert_eq!(all(&other), all(&vault));
    fs::remove_file(home.place.file()).unwrap();
    assert!(other.refresh().unwrap() && other.entries().is_empty());
}

#[test]
fn what_breaks_a_rule_is_not_kept() {
    let (home, mut vault) = two();
    let before = home.file();
    let user = CredentialLabel { username: Some("a b".to_owned()), ..label("c") };
    assert!(matches!(vault.put(user, &password("x")), Err(VaultError::Label { .. })));
    let key = CredentialLabel { credential_type: CredentialType::ApiKey, ..label("c") };
    assert!(matches!(vault.put(key, &password("x")), Err(VaultError::Type { .. })));
    let long = password(&"x".repeat(24 * 1024));
    assert!(matches!(vault.put(label("c"), &long), Err(VaultError::TooLarge { .. })));
    assert!(!vault.remove(&name("c")).unwrap());
    assert_eq!(home.file(), before);
}

#[test]
fn a_vault_that_is_full_says_so_and_takes_what_it_has() {
    let home = Home::new();
    let mut vault = home.open().unwrap();
    let arrivals: Vec<_> = (0..CREDENTIALS).map(|n| arrival(&n.to_string(), "x", 5)).collect();
    assert!(vault.take_in(&arrivals).unwrap().iter().all(|arrived| *arrived == Arrived::Added));
    assert!(matches!(vault.put(label("one more"), &password("x")), Err(VaultError::Full)));
    assert_eq!(
        vault.take_in(&[arrival("one more", "x", 9), arrival("7", "y", 9)]).unwrap(),
        [Arrived::Full, Arrived::Replaced]
    );
    vault.put(label("7"), &password("z")).unwrap();
    assert_eq!(home.open().unwrap().entries().len(), CREDENTIALS);
}

#[test]
fn of_arrivals_the_newer_ones_count() {
    let (home, mut vault) = two();
    let before = home.file();
    assert_eq!(
        vault.take_in(&[arrival("a", "older", 4), arrival("b", "same", 6)]).unwrap(),
        [Arrived::Known; 2]
    );
    assert_eq!(home.file(), before);
    let arrived = vault.take_in(&[arrival("a", "newer", 6), arrival("c", "new", 1)]).unwrap();
    assert_eq!(arrived, [Arrived::Replaced, Arrived::Added]);
    let values = all(&home.open().unwrap());
    assert_eq!(values.into_values().collect::<Vec<_>>(), ["newer", "second", "new"].map(password));
    assert_eq!(vault.entry(&name("a")).unwrap().updated_at, 6);
}

#[test]
fn others_are_told_labels_and_times() {
    let (_home, vault) = two();
    let meta = serde_json::to_value(vault.entries()[0].meta()).unwrap();
    assert_eq!(
        meta,
        json!({"credential_name": "a", "credential_type": "password", "target_host": "db-1",
            "storage_mode": "relay_only", "last_updated_at": 5, "username": "root", "created_at": 1})
    );
}

/// What can be done with a vault.
#[derive(Debug, Clone)]
enum Op {
    Put(u8, String),
    TakeIn(Vec<(u8, String, u64)>),
    Remove(u8),
    Rotate,
    Rewrap,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0_u8..6;
    let value = "[a-z]{1,8}";
    prop_oneof![
        4 => (name.clone(), value).prop_map(|(name, value)| Op::Put(name, value)),
        2 => prop::collection::vec((name.clone(), value, any::<u64>()), 0..4).prop_map(Op::TakeIn),
        3 => name.prop_map(Op::Remove),
        1 => Just(Op::Rotate),
        1 => Just(Op::Rewrap),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_vault_is_a_map(ops in prop::collection::vec(op(), 1..16)) {
        let home = Home::new();
        let mut vault = home.open().unwrap();
        let mut map: BTreeMap<String, (CredentialValue, u64)> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put(at, value) => {
                    vault.put(label(&at.to_string()), &password(&value)).unwrap();
                    let updated_at = vault.entry(&name(&at.to_string())).unwrap().updated_at;
                    map.insert(at.to_string(), (password(&value), updated_at));
                }
                Op::TakeIn(items) => {
                    let arrivals: Vec<_> = items.iter().map(|(at, value, time)| arrival(&at.to_string(), value, *time)).collect();
                    vault.take_in(&arrivals).unwrap();
                    for (at, value, time) in items {
                        if map.get(&at.to_string()).is_none_or(|(_, known)| *known < time) {
                            map.insert(at.to_string(), (password(&value), time));
                        }
                    }
                }
                Op::Remove(at) => {
                    let was_there = vault.remove(&name(&at.to_string())).unwrap();
                    prop_assert_eq!(was_there, map.remove(&at.to_string()).is_some());
                }
                Op::Rotate => prop_assert_eq!(vault.rotate().is_ok(), home.place.file().exists()),
                Op::Rewrap => prop_assert_eq!(vault.rewrap(&NewSecret::Drawn).is_ok(), home.place.file().exists()),
                Op::Reopen => vault = home.open().unwrap(),
            }
            let expected: BTreeMap<_, _> = map.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
            prop_assert_eq!(all(&vault), expected);
        }
        prop_assert_eq!(all(&home.open().unwrap()), all(&vault));
    }
}
