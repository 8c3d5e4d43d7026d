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
fn a_secret_that_others_can_read_opens_nothing() {
    let (home, _) = two();
    fs::set_permissions(home.store().join(SECRET), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(home.open(), Err(VaultError::Exposed { mode: 0o640, .. })));
}

#[rstest]
#[case::owner(0o600, true)]
#[case::by_an_access_list(0o440, true)]
#[case::others(0o644, false)]
#[case::writers(0o660, false)]
fn a_named_secret_may_be_its_groups(#[case] bits: u32, #[case] opens: bool) {
    let home = Home::with_secret("from elsewhere\n");
    home.open().unwrap().put(label("a"), &password("x")).unwrap();
    assert!(!home.store().join(SECRET).exists(), "a secret was made beside the one that is named");
    fs::set_permissions(home.place.secret_file(), fs::Permissions::from_mode(bits)).unwrap();
    assert_eq!(home.open().is_ok(), opens);
    // A line end is nobody's secret.
    write_private(&home.place.secret_file(), b"from elsewhere");
    home.open().unwrap();
}

#[rstest]
#[case::empty(b"".to_vec())]
#[case::blank(b" \n".to_vec())]
#[case::long(vec![b'x'; 4097])]
fn what_cannot_be_a_secret_makes_no_vault(#[case] secret: Vec<u8>) {
    let home = Home::with_secret("x");
    write_private(&home.place.secret_file(), &secret);
    let mut vault = home.open().unwrap();
    assert!(matches!(vault.put(label("a"), &password("x")), Err(VaultError::BadSecret { .. })));
    fs::remove_file(home.place.secret_file()).unwrap();
    assert!(matches!(vault.put(label("a"), &password("x")), Err(VaultError::NoSecret { .. })));
    assert!(!home.place.file().exists());
}

#[test]
fn another_secret_or_none_opens_nothing_and_changes_nothing() {
    let (home, _) = two();
    let before = home.file();
    write_private(&home.store().join(SECRET), b"another");
    let error = home.open().unwrap_err();
    assert!(matches!(error, VaultError::WrongSecret { .. }), "{error}");
    assert!(error.to_string().contains("vault.secret") && error.to_string().contains("vault_secret_file"));
    fs::remove_file(home.store().join(SECRET)).unwrap();
    assert!(matches!(home.open(), Err(VaultError::NoSecret { .. })));
    assert_eq!(home.file(), before);
    assert!(!home.store().join(SECRET).exists(), "a secret was made for a vault that has one");
}

#[test]
fn a_file_that_is_cut_off_is_an_error_and_stays() {
    let (home, mut vault) = two();
    let whole = home.file();
    for length in (0..whole.len() - 1).step_by(whole.len() / 40) {
        fs::write(home.place.file(), &whole[..length]).unwrap();
        assert!(matches!(home.open(), Err(VaultError::Damaged { .. })), "{length}");
        assert!(matches!(vault.put(label("c"), &password("x")), Err(VaultError::Damaged { .. })));
        assert_eq!(home.file(), whole[..length]);
    }
    // What was in memory is still there, and what comes back is read.
    assert_eq!(all(&vault).len(), 2);
    fs::write(home.place.file(), &whole).unwrap();
    vault.put(label("c"), &password("x")).unwrap();
}

#[test]
fn whatever_byte_is_another_it_is_noticed_or_means_the_same() {
    let (home, vault) = two();
    let (whole, expected) = (home.file(), all(&vault));
    for at in (0..whole.len()).step_by(5) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(home.place.file(), &changed).unwrap();
        if let Ok(opened) = home.open() {
            assert_eq!(all(&opened), expected, "byte {at}");
            assert_eq!(opened.entries(), vault.entries(), "byte {at}");
        }
    }
}

#[rstest]
#[case::exchanged_values(|file: &mut Value, _: &Value| {
    let sealed = file["records"][0]["sealed"].take();
    file["records"][0]["sealed"] = std::mem::replace(&mut file["records"][1]["sealed"], sealed);
})]
#[case::a_record_less(|file: &mut Value, _: &Value| drop(file["records"].as_array_mut().unwrap().pop()))]
#[case::no_record(|file: &mut Value, _: &Value| file["records"] = json!([]))]
#[case::an_older_record(|file: &mut Value, older: &Value| file["records"][0] = older["records"][0].clone())]
#[case::another_target(|file: &mut Value, _: &Value| file["records"][0]["label"]["target"] = json!("*"))]
#[case::another_time(|file: &mut Value, _: &Value| file["records"][0]["updated_at"] = json!(7))]
#[case::an_older_seal(|file: &mut Value, older: &Value| file["seal"] = older["seal"].clone())]
fn what_was_changed_without_the_key_is_noticed(#[case] change: fn(&mut Value, &Value)) {
    let (home, mut vault) = two();
    let older = serde_json::from_slice(&home.file()).unwrap();
    vault.put(label("a"), &password("newer")).unwrap();
    home.edit(|file| change(file, &older));
    let error = home.open().unwrap_err();
    assert!(matches!(error, VaultError::Tampered { .. }), "{error}");
    assert!(matches!(vault.refresh(), Err(VaultError::Tampered { .. })));
}

#[test]
fn a_header_of_before_a_rotation_is_noticed() {
    let (home, mut vault) = two();
    let older: Value = serde_json::from_slice(&home.file()).unwrap();
    vault.rotate().unwrap();
    home.edit(|file| file["header"] = older["header"].clone());
    assert!(matches!(home.open(), Err(VaultError::Tampered { .. })));
}

#[test]
fn a_newer_version_is_named_and_not_touched() {
    let (home, mut vault) = two();
    let newer = json!({"format": "signalbox-vault", "version": 2, "something": "else"}).to_string();
    fs::write(home.place.file(), &newer).unwrap();
    let error = home.open().unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("up to 1") && error.contains("upgrade"), "{error}");
    assert!(matches!(vault.put(label("c"), &password("x")), Err(VaultError::Newer { version: 2, .. })));
    assert_eq!(home.file(), newer.as_bytes());
}

#[rstest]
#[case::another_format(json!({"format": "signalbox-vaults"}))]
#[case::version_0(json!({"version": 0}))]
#[case::another_member(json!({"more": 1}))]
#[case::too_much_memory(json!({"header": {"kdf": {"memory_kib": 300_000}}}))]
#[case::another_algorithm(json!({"header": {"kdf": {"algorithm": "argon2i"}}}))]
#[case::short_key(json!({"header": {"wrapped_key": "AAAA"}}))]
#[case::short_seal(json!({"seal": "AAAA"}))]
#[case::no_name(json!({"records": [{"label": {"name": ""}}]}))]
#[case::a_user_with_a_space(json!({"records": [{"label": {"username": "a b"}}]}))]
#[case::no_value(json!({"records": [{"sealed": ""}]}))]
#[case::twice(json!({"records": [{"label": {"name": "b"}}]}))]
fn what_has_not_its_form_is_damaged(#[case] patch: Value) {
    fn merge(into: &mut Value, patch: &Value) {
        match patch {
            Value::Object(members) => members.iter().for_each(|(name, patch)| merge(&mut into[name], patch)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, patch)| merge(&mut into[at], patch));
            }
            value => *into = value.clone(),
        }
    }
    let (home, _) = two();
    home.edit(|file| merge(file, &patch));
    let error = home.open().unwrap_err();
    assert!(matches!(error, VaultError::Damaged { .. }), "{error}");
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
fn a_rotation_changes_the_key_and_no_value() {
    let (home, mut vault) = two();
    let (before, expected) = (vault.content.clone().unwrap(), all(&vault));
    vault.rotate().unwrap();
    let opened = home.open().unwrap();
    assert_eq!(all(&opened), expected);
    let after = opened.content.as_ref().unwrap();
    assert_ne!(after.header.wrapped_key, before.header.wrapped_key);
    for (old, new) in before.entries.iter().zip(&after.entries) {
        assert_eq!(
            (&old.label, old.created_at, old.updated_at),
            (&new.label, new.created_at, new.updated_at)
        );
        assert_ne!(old.sealed, new.sealed);
        // The old key opens nothing of the new file.
        assert!(before.open(new, &home.place).is_err());
    }
}

#[test]
fn a_drawn_secret_takes_the_place_of_the_old_one() {
    let (home, mut vault) = two();
    let mut relay = home.open().unwrap();
    let (old, expected) = (fs::read(home.store().join(SECRET)).unwrap(), all(&vault));
    vault.rewrap(&NewSecret::Drawn).unwrap();
    assert_ne!(fs::read(home.store().join(SECRET)).unwrap(), old);
    assert!(!home.store().join(NEXT_SECRET).exists());
    assert_eq!(all(&home.open().unwrap()), expected);
    write_private(&home.store().join(SECRET), &old);
    assert!(matches!(home.open(), Err(VaultError::WrongSecret { .. })));
    // Who had it open goes on with the key, which is the same, and can change it; but not its key with the old secret.
    assert!(relay.refresh().unwrap());
    relay.put(label("c"), &password("x")).unwrap();
    assert!(matches!(relay.rotate(), Err(VaultError::WrongSecret { .. })));
}

#[test]
fn a_secret_of_another_place_leaves_none_in_the_store() {
    let (home, mut vault) = two();
    let path = home.folder.path().join("elsewhere");
    write_private(&path, b"from elsewhere");
    vault.rewrap(&NewSecret::File(path.clone())).unwrap();
    assert!(!home.store().join(SECRET).exists());
    assert!(matches!(home.open(), Err(VaultError::NoSecret { .. })));
    let moved = VaultPlace::new(home.store(), Some(&path));
    let mut opened = Vault::open(moved).unwrap();
    assert_eq!(all(&opened), all(&vault));
    opened.rewrap(&NewSecret::Drawn).unwrap();
    assert_eq!(all(&home.open().unwrap()), all(&vault));
    let missing = PathBuf::from("/nowhere/secret");
    assert!(matches!(opened.rewrap(&NewSecret::File(missing)), Err(VaultError::NoSecret { .. })));
}

#[test]
fn a_change_of_secrets_that_was_cut_short_is_ended() {
    let (home, mut vault) = two();
    let (own, next) = (home.store().join(SECRET), home.store().join(NEXT_SECRET));
    let (old_secret, expected) = (fs::read(&own).unwrap(), all(&vault));
    // Before the vault was wrapped with it: the next one is nobody's.
    write_private(&next, b"never used");
    assert_eq!(all(&home.open().unwrap()), expected);
    home.open().unwrap().put(label("c"), &password("x")).unwrap();
    assert!(!next.exists());
    assert_eq!(fs::read(&own).unwrap(), old_secret);
    // After that: it is the one.
    vault.rewrap(&NewSecret::Drawn).unwrap();
    fs::rename(&own, &next).unwrap();
    write_private(&own, &old_secret);
    assert_eq!(all(&home.open().unwrap()).len(), 3);
    home.open().unwrap().remove(&name("c")).unwrap();
    assert!(!next.exists());
    assert_eq!(all(&home.open().unwrap()), expected);
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
