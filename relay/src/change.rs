//! Changing what a relay keeps, on somebody's word: credentials and host keys. Applying a change twice is applying it once.

use signalbox_schemas::{
    Base64Url,
    command::{Change, HostKeys, PutCredential},
    credential::CredentialValue,
    error::report,
    id::{CommandId, CredentialName, MachineToken, Workspace},
    run::RunError,
    sealed::{ContentKey, Context, OpeningKey, Recipient},
    ssh::SshFault,
};

use crate::{
    keepsakes::Keepsakes,
    ssh::known_hosts::file::KnownHosts,
    vault::{
        VaultError,
        key::{self, KeyFault},
    },
};

/// What changes are applied to, and in whose name they came.
pub(crate) struct Scene<'a> {
    pub(crate) ws: &'a Workspace,
    pub(crate) mid: &'a MachineToken,
    pub(crate) cid: CommandId,
    pub(crate) keepsakes: &'a Keepsakes,
    /// Opens what is sealed for this relay.
    pub(crate) opening: &'a OpeningKey,
}

/// Applies a change. Blocks on the disk. The answer says for people what was done.
///
/// # Errors
/// Why not, in words of the contract; nothing was changed then.
pub(crate) fn apply(
    change: &Change,
    sealed: Option<&Base64Url>,
    scene: &Scene<'_>,
) -> Result<String, RunError> {
    match change {
        Change::PutCredential(put) => put_credential(put, sealed, scene),
        Change::RemoveCredential { name } => remove_credential(name, scene),
        Change::HostKeys(keys) => change_host_keys(keys, scene),
    }
}

fn error(code: &str, message: String) -> RunError {
    RunError { code: code.to_owned(), message }
}

fn vault_error(source: &VaultError) -> RunError {
    error("vault", report(source))
}

fn put_credential(
    put: &PutCredential,
    sealed: Option<&Base64Url>,
    scene: &Scene<'_>,
) -> Result<String, RunError> {
    let PutCredential { label, body } = put;
    let value = open(&label.name, body, sealed, scene)?;
    if value.credential_type() != label.credential_type {
        let is = label.credential_type.as_str();
        return Err(error("value", format!("what was sealed is no {is}; push the credential again")));
    }
    check_key(&label.name, &value)?;
    let put = scene.keepsakes.vault.with(|vault| vault.put(label.clone(), &value));
    put.map_err(|source| vault_error(&source))?;
    let target = label.target.as_ref().map_or_else(|| "no host".to_owned(), ToString::to_string);
    Ok(format!("kept credential {} ({}) for {target}", label.name, label.credential_type.as_str()))
}

fn open(
    name: &CredentialName,
    body: &Base64Url,
    sealed: Option<&Base64Url>,
    scene: &Scene<'_>,
) -> Result<CredentialValue, RunError> {
    let context = Context { ws: scene.ws, name: name.as_str(), cid: scene.cid };
    let recipient = Recipient::Machine(scene.mid);
    let opened = sealed
        .ok_or_else(|| error("seal", "the push brings no key for this machine; push it again".to_owned()))
        .and_then(|sealed| {
            let key = ContentKey::unwrap(sealed, scene.opening, context, recipient);
            key.and_then(|key| key.open(body, context)).map_err(|source| {
                error("seal", format!("credential `{name}` cannot be opened: {source}; push it again"))
            })
        })?;
    CredentialValue::from_json(&opened)
        .map_err(|source| error("value", format!("{source}; a newer console may have sealed it")))
}

/// A key or a certificate that nobody can use is refused while the one who gave it is there.
fn check_key(name: &CredentialName, value: &CredentialValue) -> Result<(), RunError> {
    let CredentialValue::SshKey { .. } = value else { return Ok(()) };
    match key::open(value).and_then(|opened| key::certificate(value, &opened)) {
        Ok(_) => Ok(()),
        Err(fault @ KeyFault::Passphrase) => {
            Err(error(SshFault::KeyPassphrase.as_str(), format!("the key of `{name}`: {fault}")))
        }
        Err(fault) => Err(error("value", format!("the key of `{name}`: {fault}"))),
    }
}

fn remove_credential(name: &CredentialName, scene: &Scene<'_>) -> Result<String, RunError> {
    match scene.keepsakes.vault.with(|vault| vault.remove(name)) {
        Ok(true) => Ok(format!("removed credential {name}")),
        Ok(false) => Ok(format!("there was no credential {name}")),
        Err(source) => Err(vault_error(&source)),
    }
}

fn change_host_keys(keys: &HostKeys, scene: &Scene<'_>) -> Result<String, RunError> {
    let file = KnownHosts::at(&scene.keepsakes.known_hosts);
    let changed =
        file.change(&keys.remove, &keys.add).map_err(|source| error("host_keys", report(&source)))?;
    Ok(format!("host keys: {} added, {} removed", changed.added, changed.removed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const KEY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ed25519"));
    const OTHER_KEY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ecdsa_p384"));
    const CERTIFICATE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ed25519-cert.pub"));

    #[rstest]
    #[case::alone(KEY, None, true)]
    #[case::with_its_certificate(KEY, Some(CERTIFICATE), true)]
    #[case::with_another_keys(OTHER_KEY, Some(CERTIFICATE), false)]
    #[case::with_none(KEY, Some("ssh-ed25519 AAAA"), false)]
    fn keys_are_kept_with_certificates_of_their_own(
        #[case] key: &str,
        #[case] certificate: Option<&str>,
        #[case] is_kept: bool,
    ) {
        let value = CredentialValue::SshKey {
            key: key.to_owned().into(),
            passphrase: None,
            certificate: certificate.map(str::to_owned),
        };
        let checked = check_key(&CredentialName::new("deploy").unwrap(), &value);
        assert_eq!(
            checked.map_err(|error| error.code),
            if is_kept { Ok(()) } else { Err("value".to_owned()) }
        );
    }
}
