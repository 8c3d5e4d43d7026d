use rstest::rstest;

use super::*;

/// Keys that open nothing; those that are locked are so with `hunter2`.
macro_rules! key {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/", $name))
    };
}

fn value(key: &str, passphrase: Option<&str>, certificate: Option<&str>) -> CredentialValue {
    CredentialValue::SshKey {
        key: key.to_owned().into(),
        passphrase: passphrase.map(|text| text.to_owned().into()),
        certificate: certificate.map(str::to_owned),
    }
}

#[rstest]
#[case::openssh(key!("ed25519"), "ssh-ed25519")]
#[case::openssh_ecdsa(key!("ecdsa_p384"), "ecdsa-sha2-nistp384")]
#[case::pkcs1(key!("rsa_pkcs1"), "ssh-rsa")]
#[case::pkcs8(key!("rsa_pkcs8"), "ssh-rsa")]
#[case::pkcs8_ed25519(key!("ed25519_pkcs8"), "ssh-ed25519")]
#[case::sec1(key!("ec_sec1"), "ecdsa-sha2-nistp256")]
fn keys_that_are_not_encrypted_open(#[case] key: &str, #[case] algorithm: &str) {
    // A passphrase that nobody needs is not looked at, and neither is how lines end.
    for value in [
        value(key, None, None),
        value(key, Some("x"), None),
        value(&format!("\n  {}", key.replace('\n', " \r\n")), None, None),
    ] {
        assert_eq!(open(&value).unwrap().algorithm().as_str(), algorithm);
    }
    assert_eq!(is_encrypted(&key.to_owned().into()), Ok(false));
}

#[rstest]
#[case::openssh(key!("ed25519_locked"))]
#[case::pkcs1(key!("rsa_pkcs1_locked"))]
#[case::pkcs8(key!("ec_pkcs8_locked"))]
#[case::pkcs8_scrypt(key!("ec_pkcs8_scrypt"))]
fn keys_that_are_encrypted_open_with_their_passphrase(#[case] key: &str) {
    open(&value(key, Some("hunter2"), None)).unwrap();
    assert_eq!(is_encrypted(&key.to_owned().into()), Ok(true));
    for wrong in [None, Some(""), Some("hunter3"), Some("Hunter2")] {
        assert_eq!(open(&value(key, wrong, None)).err(), Some(KeyFault::Passphrase), "{wrong:?}");
    }
}

#[rstest]
#[case::bcrypt(key!("ed25519_costly"))]
#[case::pbkdf2(key!("ec_pkcs8_costly"))]
#[case::scrypt(key!("ec_pkcs8_scrypt_costly"))]
fn a_key_that_costs_too_much_is_not_tried(#[case] text: &str) {
    let fault = open(&value(text, Some("hunter2"), None)).unwrap_err().to_string();
    assert!(fault.contains("it asks for more"), "{fault}");
}

#[rstest]
#[case::long_ago(key!("ec_pkcs8_v1"))]
#[case::cipher(key!("rsa_pkcs1_aes256"))]
#[case::locked_sec1(key!("ec_sec1_locked"))]
#[case::algorithm(key!("ed448_pkcs8"))]
#[case::putty("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")]
#[case::public("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHHH demo")]
#[case::nothing("")]
#[case::begin_alone("-----BEGIN OPENSSH PRIVATE KEY-----\n")]
#[case::no_base64("-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n")]
fn what_is_no_key_is_refused(#[case] text: &str) {
    let fault = open(&value(text, Some("hunter2"), None)).unwrap_err();
    assert!(matches!(fault, KeyFault::Malformed(_)), "{fault}");
}

#[test]
fn a_key_that_is_cut_off_is_refused() {
    for key in
        [key!("ed25519"), key!("rsa_pkcs1"), key!("rsa_pkcs8"), key!("ec_sec1"), key!("ed25519_locked")]
    {
        let lines: Vec<&str> = key.lines().collect();
        let cut = [&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat().join("\n");
        let fault = open(&value(&cut, Some("hunter2"), None)).unwrap_err();
        assert!(matches!(fault, KeyFault::Malformed(_)), "{fault}");
    }
}

#[test]
fn a_certificate_goes_with_its_key() {
    let certificate_text = key!("ed25519-cert.pub");
    let with = value(key!("ed25519"), None, Some(certificate_text));
    let key = open(&with).unwrap();
    assert_eq!(certificate(&with, &key).unwrap().unwrap().key_id(), "demo");
    assert!(certificate(&value(key!("ed25519"), None, None), &key).unwrap().is_none());
    let other = open(&value(key!("ecdsa_p384"), None, None)).unwrap();
    assert!(matches!(certificate(&with, &other), Err(KeyFault::Malformed(_))));
    let none = value(key!("ed25519"), None, Some("ssh-ed25519-cert-v01@openssh.com AAAA"));
    assert!(matches!(certificate(&none, &key), Err(KeyFault::Malformed(_))));
}

#[test]
fn other_credentials_are_no_keys() {
    let password = CredentialValue::Password { password: "x".to_owned().into() };
    assert!(matches!(open(&password), Err(KeyFault::Malformed(_))));
}
