//! Doors for the fuzzer, of a build that only it makes (`cargo xtask fuzz`).

use signalbox_schemas::credential::CredentialValue;

use crate::{
    legacy_link::{
        http::{Answer, StatusCode},
        wire,
    },
    ssh::known_hosts::{Lines, Verdict, hashed, host_and_port, name_of},
    vault,
};

/// A file of known hosts, and a host that is looked for in it.
pub fn known_hosts(text: &[u8], host: &str) {
    let Ok(lines) = Lines::parse(text) else { return };
    let name = host_and_port(host).map_or_else(|| host.to_owned(), |(host, port)| name_of(&host, port));
    let about = lines.about(&name);
    for line in &lines {
        let verdict = lines.look_up(&name, &line.key);
        assert_eq!(about.look_up(&name, &line.key), verdict, "what speaks of a host is not all that does");
        let is_revoked = lines.revocation(&name, &line.key).is_some();
        assert_eq!(matches!(verdict, Verdict::Revoked(_)), is_revoked, "a revoked key is known");
        if line.marker.is_none() && line.means(&name) && !is_revoked {
            assert_eq!(verdict, Verdict::Known, "a key that stands there is not known");
        }
        if line.names(&name) && !line.hosts.contains(['!', ',']) {
            assert!(line.means(&name), "a line names a host that it does not mean");
        }
    }
    if !name.is_empty() && !name.contains(char::is_whitespace) {
        let line = format!("{} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", hashed(&name, &[7; 20]));
        assert!(Lines::parse(line.as_bytes()).is_ok_and(|lines| lines.iter().all(|line| line.means(&name))));
    }
}

/// What a center may answer, read as the answer to every question.
pub fn center_answer(status: u16, content_type: &str, body: &[u8]) {
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let answer = Answer {
        status,
        content_type: content_type.to_owned(),
        body: body.to_vec(),
        has_key: status.as_u16() % 2 == 0,
    };
    drop(wire::verdict(&answer));
    if let Some((commands, _)) = wire::commands(&answer) {
        for command in commands {
            assert!(!command.id.is_empty() && command.id.len() <= 1024, "an id that nobody can answer to");
            assert!((1..=172_800_000).contains(&command.timeout_ms), "a time limit out of its range");
        }
    }
    let _ = (wire::is_granted(&answer), wire::pending_pushes(&answer), wire::pushes(&answer).len());
}

/// What may lie where a vault should be: read, and checked against a key that it was not made with.
pub fn vault_file(bytes: &[u8]) {
    vault::fuzzing::file(bytes);
}

/// A store of an older relay, up to where its key is derived, which would take all the time.
pub fn seed_store(bytes: &[u8]) {
    vault::seed::fuzzing::store(bytes);
}

/// A shared value of an older center.
pub fn shared_value(secret: &str, text: &str) {
    if let Ok(value) = vault::seed::open_shared_value(secret, text) {
        assert!(value.expose().len() < text.len(), "more came out than went in");
    }
}

/// The text of a private key, with and without a passphrase.
pub fn private_key(text: &str, passphrase: Option<&str>, certificate: Option<&str>) {
    let value = CredentialValue::SshKey {
        key: text.to_owned().into(),
        passphrase: passphrase.map(|text| text.to_owned().into()),
        certificate: certificate.map(str::to_owned),
    };
    if let Ok(key) = vault::key::open(&value) {
        let _ = (key.public_key().to_openssh().is_ok(), vault::key::certificate(&value, &key).is_ok());
    }
}
