//! The secret and the key that a vault opens with, and changes of both.

use super::*;

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
