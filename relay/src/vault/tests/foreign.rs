//! Files that are not what was written.

use super::*;

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
