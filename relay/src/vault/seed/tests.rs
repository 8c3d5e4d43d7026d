use rstest::rstest;

use super::*;

const SALT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const MACHINE: &str = "0123456789abcdef0123456789abcdef";
const DATA: &str = "000102030405060708090a0b0c0d0e0f:26d7ad99f51dadbca2fbf962d0e61044:f942158628e5bf2c5b456e3d100661b31041efbe515c7874d8047d8ec2261be8b598a1fcfb15b0a2ab52ebd0cc056d11bdedcf8913de7df1f890db7ef41b96662239cfb7d3291265a704feea0f0c131a48f5904fba0600653e95a2ce0445c7f53ab06270de8f007b";

fn store(salt: &str, data: &str) -> Vec<u8> {
    serde_json::json!({"salt": salt, "data": data}).to_string().into_bytes()
}

/// A store as an older relay makes it.
pub(in crate::vault) fn sealed(inner: &serde_json::Value) -> Vec<u8> {
    use aes_gcm::{
        AesGcm,
        aead::{Aead as _, KeyInit as _, consts},
    };
    let cipher =
        AesGcm::<aes::Aes256, consts::U16>::new((&*store_key("sk_test", MACHINE, SALT).unwrap()).into());
    let mut sealed = cipher.encrypt((&[9; 16]).into(), inner.to_string().as_bytes()).unwrap();
    let tag = sealed.split_off(sealed.len() - 16);
    let data = [&[9; 16][..], &tag, &sealed].map(|part| HEXLOWER.encode(part)).join(":");
    store(SALT, &data)
}

fn kept(name: &str, credential_type: &str, value: &str) -> serde_json::Value {
    serde_json::json!({
        "name": name, "type": credential_type, "value": value, "targetHost": "db-1", "storageMode": "relay_only",
        "createdAt": 1_700_000_000_000.5, "updatedAt": 1_700_000_000_001_u64,
    })
}

#[test]
fn the_key_of_a_store_is_derived_as_it_always_was() {
    let key = store_key("sk_test", MACHINE, SALT).unwrap();
    assert_eq!(HEXLOWER.encode(&key[..]), "bf460cc04654245d6a2f6eb8c5955f6f10da84755ccc19b0b3c329bec9d41cdb");
}

#[test]
fn an_empty_store_opens() {
    let seed = open_store(&store(SALT, DATA), "sk_test", MACHINE).unwrap();
    assert_eq!(seed, Seed { arrivals: vec![], refused: vec![] });
}

#[test]
fn a_shared_value_opens() {
    let text = "000102030405060708090a0b0c0d0e0f:65ae09bef6054db6216ec4164ae794be:52cb3cf5a7";
    assert_eq!(open_shared_value("topsecret", text).unwrap().expose(), "hello");
    assert_eq!(open_shared_value("topsecre", text), Err(SeedFault::Sealed));
    assert_eq!(open_shared_value("topsecret", &text.replace("65ae", "65af")), Err(SeedFault::Sealed));
    for bad in [
        "",
        ":",
        "::",
        "00:00:00",
        &text.replace(':', "-"),
        &format!("{text}:00"),
        &"0".repeat(MAX_SHARED_BYTES + 1),
    ] {
        assert!(matches!(open_shared_value("topsecret", bad), Err(SeedFault::Malformed(_))), "{bad:.80}");
    }
}

#[rstest]
#[case("abcdef", "7afed881c720f83130d85d60d1832c7e")]
#[case(" abcdef\n", "7afed881c720f83130d85d60d1832c7e")]
#[case("default", "63e6840da169e669b463be3a294b4fa7")]
#[case("\n", "63e6840da169e669b463be3a294b4fa7")]
fn machines_have_the_id_that_they_always_had(#[case] specific: &str, #[case] id: &str) {
    assert_eq!(machine_id("host1", "linux", specific), id);
}

#[rstest]
#[case::another_key("sk_tesT", MACHINE)]
#[case::another_machine("sk_test", "1123456789abcdef0123456789abcdef")]
fn another_key_or_machine_opens_nothing(#[case] api_key: &str, #[case] machine: &str) {
    assert_eq!(open_store(&store(SALT, DATA), api_key, machine), Err(SeedFault::Sealed));
}

#[rstest]
#[case::nothing(b"".to_vec())]
#[case::no_json(b"iv:tag:ct".to_vec())]
#[case::no_salt(store("", DATA))]
#[case::short_salt(store(&SALT[1..], DATA))]
#[case::no_digits(store(&SALT.replace('0', "x"), DATA))]
#[case::two_parts(store(SALT, &DATA.replacen(':', "", 1)))]
#[case::four_parts(store(SALT, &format!("{DATA}:00")))]
#[case::half_a_tag(store(SALT, &DATA.replacen("26d7", "", 1)))]
fn what_is_no_store_is_refused_before_a_key_is_derived(#[case] bytes: Vec<u8>) {
    assert!(matches!(open_store(&bytes, "sk_test", MACHINE), Err(SeedFault::Malformed(_))));
}

#[test]
fn a_store_of_another_version_or_form_is_refused() {
    for inner in [serde_json::json!({"version": 2, "credentials": []}), serde_json::json!([1])] {
        let opened = open_store(&sealed(&inner), "sk_test", MACHINE);
        assert!(matches!(opened, Err(SeedFault::Malformed(_))), "{opened:?}");
    }
}

#[test]
fn credentials_become_ours() {
    let user_key = serde_json::json!({"username": "deploy", "privateKey": "KEY"}).to_string();
    let list = [
        kept("json key", "ssh_key", &user_key),
        kept("pem key", "ssh_key", "-----BEGIN"),
        kept("pass", "password", "hunter2"),
        kept("token", "api_key", "tok"),
    ];
    let seed =
        open_store(&sealed(&serde_json::json!({"version": 1, "credentials": list})), "sk_test", MACHINE)
            .unwrap();
    assert_eq!(seed.refused, []);
    let users: Vec<_> = seed.arrivals.iter().map(|arrival| arrival.label.username.as_deref()).collect();
    assert_eq!(users, [Some("deploy"), Some("root"), None, None]);
    let first = &seed.arrivals[0];
    assert_eq!(first.label.target, Some("db-1".parse().unwrap()));
    assert_eq!((first.created_at, first.updated_at), (1_700_000_000_000, 1_700_000_000_001));
    let ssh_key = |text: &str| CredentialValue::SshKey {
        key: text.to_owned().into(),
        passphrase: None,
        certificate: None,
    };
    assert_eq!(first.value, ssh_key("KEY"));
    assert_eq!(seed.arrivals[1].value, ssh_key("-----BEGIN"));
    assert_eq!(seed.arrivals[2].value, CredentialValue::Password { password: "hunter2".to_owned().into() });
    assert_eq!(seed.arrivals[3].value, CredentialValue::ApiKey { key: "tok".to_owned().into() });
}

#[test]
fn what_cannot_be_kept_is_named_and_the_rest_is_kept() {
    let mut list = vec![
        kept(" spaced", "password", "x"),
        kept("bell\u{7}", "password", "x"),
        kept("empty", "password", ""),
        kept("json", "ssh_key", "{}"),
        kept("user", "ssh_key", r#"{"username": "a b", "privateKey": "K"}"#),
        kept("long", "password", &"x".repeat(30_000)),
        kept("good", "password", "x"),
    ];
    for (name, host) in [("glob", "*.lan"), ("port", "db:22"), ("none", "")] {
        let mut entry = kept(name, "password", "x");
        entry["targetHost"] = host.into();
        list.push(entry);
    }
    let seed =
        open_store(&sealed(&serde_json::json!({"version": 1, "credentials": list})), "sk_test", MACHINE)
            .unwrap();
    let refused: Vec<&str> = seed.refused.iter().map(|refused| refused.name.as_str()).collect();
    assert_eq!(refused, [" spaced", "bell\u{fffd}", "empty", "json", "user", "long", "glob", "port", "none"]);
    assert_eq!(seed.arrivals.len(), 1);
}
