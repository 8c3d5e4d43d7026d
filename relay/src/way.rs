//! From a host that a command names to a route that the keeper can go: which credentials open it, and as whom.
//!
//! The user that a command names goes before a credential's own, see [`Vault::find`]; where it names none, it is that of the
//! closest credential. Relays of centers that speak HTTP go by the older rule, the other way round: those centers always name
//! one.

use std::path::Path;

use signalbox_schemas::{
    Secret,
    command::SshTarget,
    credential::{CredentialType, CredentialValue},
    error::report,
    id::CredentialName,
    run::RunError,
    ssh::SshFault,
};

use crate::{
    config::Ssh,
    ssh::route::{Hop, Route, WAYS, Way},
    vault::{Entry, Vault, VaultError, hold::Hold},
};

/// Whose user goes first, where command and credential name different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// The command's.
    Command,
    /// The credential's.
    Credential,
}

/// What routes are made by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) ssh: &'a Ssh,
    /// Where host keys are known.
    pub(crate) known_hosts: &'a Path,
    pub(crate) precedence: Precedence,
}

/// A host, as the command names it.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    host: &'a str,
    port: u16,
    user: Option<&'a str>,
    credential: Option<&'a CredentialName>,
}

/// The route to a target, with the vault as it is now. Blocks on it.
///
/// # Errors
/// `no_credential` where nothing opens one of its hosts, `vault` where that cannot be read.
pub(crate) fn find(target: &SshTarget, vault: &Hold, rules: Rules<'_>) -> Result<Route, RunError> {
    vault.with(|vault| Ok(route(target, vault, rules))).unwrap_or_else(|error| Err(unreadable(&error)))
}

/// The route to a target with one key for its host, and nothing else.
///
/// # Errors
/// `no_credential` where the command names no user, or hosts to go through.
pub(crate) fn with_key(
    target: &SshTarget,
    (name, key): (String, Secret),
    rules: Rules<'_>,
) -> Result<Route, RunError> {
    let (host, port) = (target.host.clone(), target.port);
    let user = target.username.clone().filter(|_| target.jump.is_empty());
    let user = user.ok_or_else(|| fault(format!("no login name for {host}")))?;
    let ways = vec![Way::Key { name, key, passphrase: None, certificate: None }];
    let allow_non_strict = rules.ssh.allows_non_strict(&host, port);
    Ok(of_hops(vec![Hop { host, port, user, ways, allow_non_strict }], rules))
}

fn of_hops(hops: Vec<Hop>, rules: Rules<'_>) -> Route {
    Route {
        hops,
        known_hosts: rules.known_hosts.to_owned(),
        host_keys: rules.ssh.host_keys,
        targets: rules.ssh.targets.clone(),
    }
}

fn unreadable(error: &VaultError) -> RunError {
    RunError { code: "vault".to_owned(), message: report(error) }
}

fn route(target: &SshTarget, vault: &Vault, rules: Rules<'_>) -> Result<Route, RunError> {
    let jumps = target.jump.iter().map(|hop| Asked {
        host: &hop.host,
        port: hop.port,
        user: hop.username.as_deref(),
        credential: None,
    });
    let last = Asked {
        host: &target.host,
        port: target.port,
        user: target.username.as_deref(),
        credential: target.credential.as_ref(),
    };
    let hops = jumps.chain([last]).map(|asked| hop(asked, vault, rules)).collect::<Result<_, _>>()?;
    Ok(of_hops(hops, rules))
}

fn hop(asked: Asked<'_>, vault: &Vault, rules: Rules<'_>) -> Result<Hop, RunError> {
    let Asked { host, port, user, credential } = asked;
    let asked_for = user.filter(|_| rules.precedence == Precedence::Command);
    let found = match credential {
        Some(name) => vec![named(name, vault)?],
        None => vault.find(host, port, asked_for),
    };
    let found: Vec<&Entry> = found.into_iter().filter(|entry| opens_a_login(entry)).collect();
    let own = found.first().and_then(|entry| entry.label.username.as_deref());
    let Some(user) = asked_for.or(own).or(user) else { return Err(no_credential(&asked, &found)) };
    let fits = |entry: &&&Entry| {
        asked_for.is_some() || entry.label.username.as_deref().is_none_or(|own| own == user)
    };
    let fitting = found.iter().filter(fits);
    let mut ways = fitting
        .take(WAYS)
        .map(|entry| way(&entry.label.name, vault))
        .collect::<Result<Vec<Way>, RunError>>()?;
    if let Some(socket) = rules.ssh.agent.as_ref().filter(|_| credential.is_none() && ways.len() < WAYS) {
        ways.push(Way::Agent { socket: socket.clone() });
    }
    if ways.is_empty() {
        return Err(no_credential(&asked, &found));
    }
    let allow_non_strict = rules.ssh.allows_non_strict(host, port);
    Ok(Hop { host: host.to_owned(), port, user: user.to_owned(), ways, allow_non_strict })
}

fn named<'a>(name: &CredentialName, vault: &'a Vault) -> Result<&'a Entry, RunError> {
    let found = vault.entries().iter().find(|entry| entry.label.name == *name);
    let found = found.ok_or_else(|| fault(format!("there is no credential `{name}` on this machine")))?;
    if opens_a_login(found) {
        return Ok(found);
    }
    Err(fault(format!("credential `{name}` is an api_key, which opens no SSH login")))
}

fn opens_a_login(entry: &Entry) -> bool {
    entry.label.credential_type != CredentialType::ApiKey
}

fn way(name: &CredentialName, vault: &Vault) -> Result<Way, RunError> {
    let value = vault.value(name).map_err(|error| unreadable(&error))?;
    let name = name.to_string();
    match value {
        CredentialValue::SshKey { key, passphrase, certificate } => {
            Ok(Way::Key { name, key, passphrase, certificate })
        }
        CredentialValue::Password { password } => Ok(Way::Password { name, password }),
        CredentialValue::ApiKey { .. } => {
            Err(fault(format!("credential `{name}` is an api_key, which opens no SSH login")))
        }
    }
}

fn fault(message: String) -> RunError {
    RunError { code: SshFault::NoCredential.as_str().to_owned(), message }
}

/// Says what is missing, and how to bring it.
fn no_credential(asked: &Asked<'_>, found: &[&Entry]) -> RunError {
    let Asked { host, port, .. } = asked;
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    fault(if found.is_empty() {
        format!(
            "no credential for {place} on this machine: push one (`signalbox credential push NAME --target {host}`), or \
             add one there (`signalbox-relay credentials add NAME --target {host}`)"
        )
    } else {
        format!("no login name for {place}: name one in the command (USER@HOST), or with the credential")
    })
}
