//! A command: what shall run, on whose word, on which machines.
//!
//! In the CMD stream a command is one or more [`Part`]s with a signed [`Grant`] per target, followed by the
//! [`CommandSpec`] itself. The spec's presence is the commit. A grant names the SHA-256 of the spec's *exact
//! bytes*, so those bytes travel unchanged from the author to the machine.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    authors::Right,
    bytes::Base64Url,
    credential::{CredentialLabel, is_username},
    host::{HOST_RULE, is_host},
    id::{CommandId, CredentialName, MachineToken, Sha256, Workspace},
    limit,
    rollout::Rollout,
    sealed::{BODY_EXTRA_BYTES, WRAPPED_BYTES},
    signed::{Message, PublicKey, Signed},
};

/// What shall run. Immutable; its exact bytes are what grants are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Workspace.
    pub ws: Workspace,
    /// The command's id.
    pub cid: CommandId,
    /// Text for `sh -c`, UTF-8 without NUL, 1 byte to 64 KiB.
    pub command: String,
    /// How long it may run, ms, 1 to 172,800,000.
    pub timeout_ms: u64,
    /// When the author made it, Unix ms.
    pub created_at: u64,
    /// It does not start from this moment on, Unix ms; at most 7 d after `created_at`.
    pub expires_at: u64,
    /// It does not start before this moment, Unix ms. Absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// How it spreads over its targets. Absent: all at once. Bridges see to it, and relays make nothing of it, so that `crit`
    /// need not name it: who has no offer cannot begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The command whose runs this one tries once more, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<CommandId>,
    /// Why, for people; up to 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Processes that outlive the shell in its group are left alone.
    #[serde(default)]
    pub leave_children: bool,
    /// Output kept per machine, both streams together, bytes, 0 to 4 GiB.
    pub max_output: u64,
    /// The selector as it was written, or [one that means the machine](crate::selector::Selector::of_machine) when it was
    /// named otherwise; for people: the grants say which machines are meant.
    pub on: String,
    /// How many machines are meant: as many grants as there must be in the parts.
    pub targets: u32,
    /// Who asked: `operator:<id>` or `token:<id>`.
    pub by: String,
    /// In whose name, as that one says; for people, at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Where the machine shall run it. Absent: on itself. A spec that has it names it in `crit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What its relay shall change of what it keeps, in place of running `command`, which then says it for people. A spec
    /// that has it names it in `crit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Members that a reader must understand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crit: Vec<String>,
}

/// Where a machine shall run a command, when not on itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// On a host that it reaches by SSH.
    Ssh(SshTarget),
}

/// A host behind a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshTarget {
    /// Name or address, 1 to 255 bytes.
    pub host: String,
    /// Port, 1 to 65,535.
    pub port: u16,
    /// Login name, 1 to 128 bytes. Absent: the one that goes with the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Hosts to go through, the first one first; at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jump: Vec<SshHop>,
    /// The credential to use. Absent: those whose target means the host, the closest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialName>,
}

/// A host on the way to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshHop {
    /// Name or address, 1 to 255 bytes.
    pub host: String,
    /// Port, 1 to 65,535.
    pub port: u16,
    /// Login name, 1 to 128 bytes. Absent: the one that goes with the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// Where SSH servers listen.
pub const SSH_PORT: u16 = 22;

fn write_place(f: &mut fmt::Formatter<'_>, host: &str, port: u16, username: Option<&str>) -> fmt::Result {
    if let Some(username) = username {
        write!(f, "{username}@")?;
    }
    let address = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    f.write_str(&address)?;
    if port == SSH_PORT { Ok(()) } else { write!(f, ":{port}") }
}

impl fmt::Display for SshHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.host, self.port, self.username.as_deref())
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.host, self.port, self.username.as_deref())?;
        self.jump.iter().enumerate().try_for_each(|(n, hop)| {
            let before = if n == 0 { " through " } else { ", " };
            write!(f, "{before}{hop}")
        })?;
        self.credential.iter().try_for_each(|name| write!(f, " with credential {name}"))
    }
}

/// What a relay shall change of what it keeps. Applying one twice is applying it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Keep a credential, in place of one with the same name.
    PutCredential(PutCredential),
    /// Keep a credential no longer.
    RemoveCredential {
        /// Its name.
        name: CredentialName,
    },
    /// Know these host keys, and others no longer.
    HostKeys(HostKeys),
}

/// A credential for each machine that a command is granted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutCredential {
    /// All but its value.
    pub label: CredentialLabel,
    /// The [value](crate::credential::CredentialValue), sealed with a content key; each machine's grant has that key,
    /// wrapped for its relay.
    pub body: Base64Url,
}

/// Host keys as `known_hosts` has them: a line each, `[@marker] hosts type key`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeys {
    /// Lines that are to be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Hosts, as `host` or `[host]:port`, whose keys are to be forgotten, before any is added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl Change {
    /// The right that its author needs.
    pub fn right(&self) -> Right {
        match self {
            Self::PutCredential(_) | Self::RemoveCredential { .. } => Right::Credential,
            Self::HostKeys(_) => Right::Config,
        }
    }

    /// What it does, for people.
    pub fn summary(&self) -> String {
        match self {
            Self::PutCredential(put) => format!("put credential {}", put.label.name),
            Self::RemoveCredential { name } => format!("remove credential {name}"),
            Self::HostKeys(keys) => {
                format!("host keys: {} added, those of {} removed", keys.add.len(), keys.remove.len())
            }
        }
    }
}

/// How far a spec has come: what was accepted once is not read by a stricter rule later, or the view could not be built again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Accepted,
    Settled,
}

/// The rule by which hosts were accepted before [`is_host`].
fn was_host(text: &str) -> bool {
    (1..=limit::SSH_HOST_BYTES).contains(&text.len())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// A member of a spec is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {rule}")]
pub struct InvalidSpec {
    /// Which member.
    pub member: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl CommandSpec {
    /// Members that `crit` may name.
    pub const CRIT: &'static [&'static str] =
        &["not_before", "leave_children", "max_output", "timeout_ms", "target", "change", "rollout"];

    /// Reads a spec from its exact bytes.
    ///
    /// # Errors
    /// [`InvalidSpec`] when the bytes are too many, no spec, or out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSpec> {
        let spec = Self::parse(bytes)?;
        spec.validate()?;
        Ok(spec)
    }

    /// Reads a spec that was accepted, maybe by an earlier version: its hosts may be what is accepted as none today. Whoever is to
    /// run it reads it with [`Self::from_bytes`].
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn from_stored_bytes(bytes: &[u8]) -> Result<Self, InvalidSpec> {
        let spec = Self::parse(bytes)?;
        spec.check(Age::Accepted)?;
        Ok(spec)
    }

    /// Reads a spec as history keeps it: the same, and its sealed value may be gone, see [`Self::without_secret`].
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn from_settled_bytes(bytes: &[u8]) -> Result<Self, InvalidSpec> {
        let spec = Self::parse(bytes)?;
        spec.check(Age::Settled)?;
        Ok(spec)
    }

    fn parse(bytes: &[u8]) -> Result<Self, InvalidSpec> {
        if bytes.len() > limit::SPEC_BYTES {
            return Err(InvalidSpec { member: "spec", rule: "at most 96 KiB encoded" });
        }
        serde_json::from_slice(bytes).map_err(|_| InvalidSpec { member: "spec", rule: "not a command spec" })
    }

    /// Whether its grants must bring a key for what is sealed in it.
    pub fn brings_secret(&self) -> bool {
        matches!(self.change, Some(Change::PutCredential(_)))
    }

    /// The same without what is sealed in it, as history keeps it; `None` where nothing is.
    #[must_use]
    pub fn without_secret(&self) -> Option<Self> {
        let mut kept = self.clone();
        let Some(Change::PutCredential(put)) = &mut kept.change else { return None };
        put.body = Base64Url::default();
        Some(kept)
    }

    /// Whether a relay of the old contract can be told what it asks for: no change, and of an SSH target all that those know.
    pub fn is_of_old_contract(&self) -> bool {
        let target = match &self.target {
            None => true,
            Some(Target::Ssh(ssh)) => {
                ssh.username.is_some() && ssh.jump.is_empty() && ssh.credential.is_none()
            }
        };
        target && self.change.is_none()
    }

    /// The right that its author needs.
    pub fn right(&self) -> Right {
        self.change.as_ref().map_or(Right::Command, Change::right)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`InvalidSpec`] naming the first member that is out of range.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        self.check(Age::New)
    }

    fn check(&self, age: Age) -> Result<(), InvalidSpec> {
        let rule = |good: bool, member, rule| if good { Ok(()) } else { Err(InvalidSpec { member, rule }) };
        let text = self.command.as_bytes();
        rule(
            !self.command.trim().is_empty() && text.len() <= limit::COMMAND_TEXT_BYTES && !text.contains(&0),
            "command",
            "1 byte to 64 KiB of UTF-8 without NUL",
        )?;
        rule(limit::TIMEOUT_MS.contains(&self.timeout_ms), "timeout_ms", "1 to 172800000")?;
        let life = self.expires_at.checked_sub(self.created_at);
        rule(
            life.is_some_and(|ms| (1..=limit::MAX_EXPIRES_IN_MS).contains(&ms)),
            "expires_at",
            "1 ms to 7 days after created_at",
        )?;
        rule(
            self.not_before.is_none_or(|at| at < self.expires_at),
            "not_before",
            "a moment before the command expires",
        )?;
        if let Some(Err(why)) = self.rollout.as_ref().map(Rollout::validate) {
            return Err(InvalidSpec { member: "rollout", rule: why });
        }
        rule(
            self.purpose.as_ref().is_none_or(|text| text.len() <= limit::PURPOSE_BYTES),
            "purpose",
            "at most 1 KiB",
        )?;
        rule(self.max_output <= limit::MAX_MAX_OUTPUT, "max_output", "0 to 4294967296")?;
        rule(self.on.len() <= limit::SELECTOR_BYTES, "on", "at most 4 KiB")?;
        rule(self.targets >= 1 && self.targets as usize <= limit::TARGETS, "targets", "1 to 10000 machines")?;
        rule(self.by.len() <= limit::PRINCIPAL_BYTES, "by", "at most 128 bytes")?;
        rule(
            self.created_by.as_ref().is_none_or(|name| name.len() <= limit::PRINCIPAL_BYTES),
            "created_by",
            "at most 128 bytes",
        )?;
        self.check_target(age)?;
        self.check_change(age)?;
        rule(
            self.crit.iter().all(|name| Self::CRIT.contains(&name.as_str())),
            "crit",
            "names a member that this version does not know",
        )
    }
}

impl CommandSpec {
    fn check_target(&self, age: Age) -> Result<(), InvalidSpec> {
        let Some(Target::Ssh(ssh)) = &self.target else { return Ok(()) };
        let rule = |good: bool, rule| if good { Ok(()) } else { Err(InvalidSpec { member: "target", rule }) };
        let hops = ssh.jump.iter().map(|hop| (&hop.host, hop.port, hop.username.as_deref()));
        for (host, port, username) in hops.chain([(&ssh.host, ssh.port, ssh.username.as_deref())]) {
            rule(if age == Age::New { is_host(host) } else { was_host(host) }, HOST_RULE)?;
            rule(
                port > 0 && username.is_none_or(is_username),
                "a port from 1 on, and a login name of 1 to 128 bytes without white space",
            )?;
        }
        if ssh.jump.len() > limit::SSH_JUMPS {
            return Err(InvalidSpec { member: "target", rule: "at most 4 hosts to go through" });
        }
        // A relay that does not know the member would run the command on itself.
        self.check_names_in_crit("target", "must name `target` where there is one")
    }

    fn check_change(&self, age: Age) -> Result<(), InvalidSpec> {
        let Some(change) = &self.change else { return Ok(()) };
        let invalid = |rule| Err(InvalidSpec { member: "change", rule });
        if self.target.is_some() {
            return invalid("a change is made on the machine itself, and has no target");
        }
        match change {
            Change::PutCredential(put) => {
                if let Err(rule) = put.label.validate() {
                    return invalid(rule);
                }
                let most = limit::CREDENTIAL_VALUE_BYTES + BODY_EXTRA_BYTES;
                let is_gone = age == Age::Settled && put.body.0.is_empty();
                if !is_gone && !(BODY_EXTRA_BYTES + 1..=most).contains(&put.body.0.len()) {
                    return invalid("a sealed value has 1 byte to 24 KiB");
                }
            }
            Change::RemoveCredential { .. } => {}
            Change::HostKeys(keys) => {
                let lines = keys.add.iter().chain(&keys.remove);
                let fits = |line: &String| {
                    line.len() <= limit::HOST_KEY_BYTES
                        && !line.contains(char::is_control)
                        && !line.is_empty()
                };
                if !(1..=limit::HOST_KEYS).contains(&lines.clone().count()) || !lines.clone().all(fits) {
                    return invalid("1 to 256 lines of 1 byte to 4 KiB, without control characters");
                }
            }
        }
        self.check_names_in_crit("change", "must name `change` where there is one")
    }

    fn check_names_in_crit(&self, member: &str, rule: &'static str) -> Result<(), InvalidSpec> {
        if self.crit.iter().any(|name| name == member) {
            return Ok(());
        }
        Err(InvalidSpec { member: "crit", rule })
    }
}

/// The word of an author that one machine may run one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Workspace.
    pub ws: Workspace,
    /// The command.
    pub cid: CommandId,
    /// The machine.
    pub mid: MachineToken,
    /// SHA-256 of the spec's exact bytes.
    pub spec_sha256: Sha256,
    /// The spec's `expires_at`, Unix ms.
    pub expires_at: u64,
    /// The key that opens what the spec brings, [wrapped](crate::sealed) for this machine's relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Base64Url>,
}

impl Message for Grant {
    const TYPE: &'static str = "grant";
    const MAX_BYTES: usize = 2048;
}

/// Grants of one command, 1 to 1,000; `cmd.<ws>.<cid>.p<n>`. They are sorted by machine over all parts. One of several is at
/// most 512 KiB, encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The command.
    pub cid: CommandId,
    /// Which part, from 1.
    pub n: u32,
    /// Of how many.
    pub of: u32,
    /// One per target, sorted by machine token.
    pub grants: Vec<Signed<Grant>>,
}

/// A part is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// It is not one of 1 to [`limit::PARTS`].
    #[error("it is not one of 1 to {} parts", limit::PARTS)]
    Number,
    /// It has no grants, or more than [`limit::PART_GRANTS`].
    #[error("it has {0} grants; a part has 1 to {most}", most = limit::PART_GRANTS)]
    Count(usize),
    /// It is one of several, and more than [`limit::PART_BYTES`].
    #[error("it is {0} bytes; one of several parts is at most {most}", most = limit::PART_BYTES)]
    TooLarge(usize),
}

impl Part {
    /// Checks its numbers and its size, encoded `bytes`. What its grants speak of is [`granted`]'s business.
    ///
    /// # Errors
    /// [`PartError`] naming the first thing that is out of range.
    pub fn check(&self, bytes: usize) -> Result<(), PartError> {
        if !(1..=limit::PARTS).contains(&self.of) || !(1..=self.of).contains(&self.n) {
            return Err(PartError::Number);
        }
        if !(1..=limit::PART_GRANTS).contains(&self.grants.len()) {
            return Err(PartError::Count(self.grants.len()));
        }
        if self.of > 1 && bytes > limit::PART_BYTES {
            return Err(PartError::TooLarge(bytes));
        }
        Ok(())
    }

    /// The spec that its first grant speaks of. Parts of two tries of a submit have the same numbers: this tells them apart.
    pub fn spec_sha256(&self) -> Option<Sha256> {
        Some(self.grants.first()?.peek().ok()?.spec_sha256)
    }
}

/// Cuts the grants of a command, sorted by machine, into its parts: one as long as it can be one, else as few as there can
/// be.
pub fn parts(cid: CommandId, grants: Vec<Signed<Grant>>) -> Vec<Part> {
    if grants.len() <= limit::PART_GRANTS {
        return vec![Part { cid, n: 1, of: 1, grants }];
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut bytes = usize::MAX;
    for grant in grants {
        // With its comma. An envelope of texts always has a JSON form.
        let size = serde_json::to_vec(&grant).map_or(0, |json| json.len() + 1);
        match parts.last_mut() {
            Some(part) if part.grants.len() < limit::PART_GRANTS && bytes + size <= limit::PART_BYTES => {
                bytes += size;
                part.grants.push(grant);
            }
            _ => {
                bytes = PART_FRAME_BYTES + size;
                let n = u32::try_from(parts.len() + 1).unwrap_or(u32::MAX);
                parts.push(Part { cid, n, of: 0, grants: vec![grant] });
            }
        }
    }
    let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    for part in &mut parts {
        part.of = of;
    }
    parts
}

/// What a part takes beside its grants: its id and two numbers are below this, encoded.
const PART_FRAME_BYTES: usize = 128;

/// What the grants of a command say, when they fit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Who signed all of them.
    pub author: PublicKey,
    /// The machines, sorted.
    pub machines: Vec<MachineToken>,
}

/// The grants do not fit the spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantsError {
    /// Not one per target, or more than [`limit::TARGETS`].
    #[error("it has {grants} grants for {targets} targets")]
    Count {
        /// Grants there are.
        grants: usize,
        /// Targets that the spec names.
        targets: u32,
    },
    /// One has no readable payload.
    #[error("a grant cannot be read")]
    Payload,
    /// One speaks of other bytes, or of another command, workspace or time.
    #[error("the grant for {0} speaks of another command")]
    Misplaced(MachineToken),
    /// Not all are by one author.
    #[error("the grant for {0} is not signed with the same key as the first")]
    Author(MachineToken),
    /// They are not sorted by machine, or name one twice.
    #[error("the grants are not sorted by machine, or name one twice")]
    Order,
    /// It brings no key for what the spec has sealed, or one where nothing is sealed.
    #[error(
        "the grant for {0} must bring a wrapped key of 80 bytes if its command puts a credential, and none otherwise"
    )]
    Sealed(MachineToken),
}

impl GrantsError {
    /// A short constant for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Count { .. } => "grants_count",
            Self::Payload => "grants_payload",
            Self::Misplaced(_) => "grants_misplaced",
            Self::Author(_) => "grants_author",
            Self::Order => "grants_order",
            Self::Sealed(_) => "grants_sealed",
        }
    }
}

/// Reads the grants of a spec: exactly one per target, sorted by machine, by one author, and all about these very
/// bytes. `spec_sha256` is the hash of the spec's exact bytes. Signatures are not checked: each relay checks its own, and a
/// bridge those for relays that have no key.
///
/// Whoever accepts a command and whoever reads it later must agree on this, or an accepted command is none.
///
/// # Errors
/// [`GrantsError`] naming the first thing that does not fit.
pub fn granted(
    spec: &CommandSpec,
    spec_sha256: Sha256,
    grants: &[Signed<Grant>],
) -> Result<Granted, GrantsError> {
    let count = GrantsError::Count { grants: grants.len(), targets: spec.targets };
    if grants.len() != spec.targets as usize || grants.len() > limit::TARGETS {
        return Err(count);
    }
    let author = grants.first().ok_or(count)?.key().clone();
    let mut machines: Vec<MachineToken> = Vec::with_capacity(grants.len());
    for signed in grants {
        let grant = signed.peek().map_err(|_| GrantsError::Payload)?;
        let fits = grant.ws == spec.ws
            && grant.cid == spec.cid
            && grant.spec_sha256 == spec_sha256
            && grant.expires_at == spec.expires_at;
        if !fits {
            return Err(GrantsError::Misplaced(grant.mid));
        }
        if *signed.key() != author {
            return Err(GrantsError::Author(grant.mid));
        }
        if machines.last().is_some_and(|last| *last >= grant.mid) {
            return Err(GrantsError::Order);
        }
        let brings = grant.sealed.as_ref().map(|wrapped| wrapped.0.len());
        if brings != spec.brings_secret().then_some(WRAPPED_BYTES) {
            return Err(GrantsError::Sealed(grant.mid));
        }
        machines.push(grant.mid);
    }
    Ok(Granted { author, machines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credential::{CredentialType, StorageMode},
        signed::SigningKey,
    };
    use nkeys::{KeyPair, KeyPairType};
    use rstest::rstest;

    fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    fn grant(spec: &CommandSpec, mid: &str, by: u8) -> Signed<Grant> {
        let (ws, cid, expires_at) = (spec.ws.clone(), spec.cid, spec.expires_at);
        let mid = MachineToken::new(mid).unwrap();
        Signed::sign(
            &Grant { ws, cid, mid, spec_sha256: Sha256::of(b"spec"), expires_at, sealed: None },
            &key(by),
        )
        .unwrap()
    }

    #[test]
    fn grants_fit_when_there_is_one_per_target_by_one_author_in_order() {
        let spec = CommandSpec { targets: 2, ..spec() };
        let two = [grant(&spec, "a", 1), grant(&spec, "b", 1)];
        let fits = granted(&spec, Sha256::of(b"spec"), &two).unwrap();
        assert_eq!(fits.machines.iter().map(MachineToken::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(fits.author, *key(1).public());
    }

    #[rstest]
    #[case::too_few(|_: &CommandSpec, g: &mut Vec<Signed<Grant>>| drop(g.pop()), "grants_count")]
    #[case::too_many(|s: &CommandSpec, g: &mut Vec<Signed<Grant>>| g.push(grant(s, "c", 1)), "grants_count")]
    #[case::none(|_: &CommandSpec, g: &mut Vec<Signed<Grant>>| g.clear(), "grants_count")]
    #[case::unsorted(|_: &CommandSpec, g: &mut Vec<Signed<Grant>>| g.reverse(), "grants_order")]
    #[case::twice(|_: &CommandSpec, g: &mut Vec<Signed<Grant>>| g[1] = g[0].clone(), "grants_order")]
    #[case::two_authors(|s: &CommandSpec, g: &mut Vec<Signed<Grant>>| g[1] = grant(s, "b", 2), "grants_author")]
    #[case::other_time(
        |s: &CommandSpec, g: &mut Vec<Signed<Grant>>| g[0] = grant(&CommandSpec { expires_at: 3_000, ..s.clone() }, "a", 1),
        "grants_misplaced"
    )]
    fn grants_that_do_not_fit_are_refused(
        #[case] spoil: fn(&CommandSpec, &mut Vec<Signed<Grant>>),
        #[case] reason: &str,
    ) {
        let spec = CommandSpec { targets: 2, ..spec() };
        let mut grants = vec![grant(&spec, "a", 1), grant(&spec, "b", 1)];
        spoil(&spec, &mut grants);
        assert_eq!(granted(&spec, Sha256::of(b"spec"), &grants).unwrap_err().reason(), reason);
    }

    fn put() -> Change {
        let label = CredentialLabel {
            name: CredentialName::new("db").unwrap(),
            credential_type: CredentialType::Password,
            target: None,
            username: None,
            storage_mode: StorageMode::RelayOnly,
        };
        Change::PutCredential(PutCredential { label, body: Base64Url(vec![7; 60]) })
    }

    fn changing(change: Change) -> CommandSpec {
        CommandSpec { change: Some(change), crit: vec!["change".into()], ..spec() }
    }

    #[rstest]
    #[case::for_nothing(None, Some(80), false)]
    #[case::none(Some(put()), None, false)]
    #[case::short(Some(put()), Some(79), false)]
    #[case::long(Some(put()), Some(81), false)]
    #[case::as_it_must(Some(put()), Some(80), true)]
    #[case::nothing_to_open(Some(Change::RemoveCredential { name: CredentialName::new("db").unwrap() }), Some(80), false)]
    fn grants_bring_a_key_where_something_is_sealed(
        #[case] change: Option<Change>,
        #[case] key_bytes: Option<usize>,
        #[case] fits: bool,
    ) {
        let spec = change.map_or_else(spec, changing);
        let mut grant = grant(&spec, "a", 1).peek().unwrap();
        grant.sealed = key_bytes.map(|count| Base64Url(vec![1; count]));
        let checked = granted(&spec, Sha256::of(b"spec"), &[Signed::sign(&grant, &key(1)).unwrap()]);
        assert_eq!(checked.map_err(|error| error.reason()).err(), (!fits).then_some("grants_sealed"));
    }

    #[test]
    fn history_keeps_a_change_without_what_is_sealed() {
        assert_eq!(spec().without_secret(), None);
        let whole = changing(put());
        let kept = whole.without_secret().unwrap();
        let bytes = serde_json::to_vec(&kept).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("BwcHB"), "the body is still there");
        assert_eq!(CommandSpec::from_settled_bytes(&bytes), Ok(kept.clone()));
        assert_eq!(CommandSpec::from_settled_bytes(&serde_json::to_vec(&whole).unwrap()), Ok(whole.clone()));
        // Nothing without its value is accepted as new, or taken from CMD.
        assert_eq!(CommandSpec::from_bytes(&bytes).unwrap_err().member, "change");
        assert_eq!(CommandSpec::from_stored_bytes(&bytes).unwrap_err().member, "change");
        assert_eq!((whole.right(), spec().right()), (Right::Credential, Right::Command));
    }

    #[test]
    fn grants_about_other_bytes_are_refused() {
        let spec = spec();
        let refused = granted(&spec, Sha256::of(b"other"), &[grant(&spec, "a", 1)]).unwrap_err();
        assert_eq!(refused.reason(), "grants_misplaced");
    }

    /// A grant for each of so many machines, whose names are as long as `width`.
    fn grants_for(count: usize, width: usize) -> Vec<Signed<Grant>> {
        grants_of(&spec(), count, width)
    }

    fn grants_of(spec: &CommandSpec, count: usize, width: usize) -> Vec<Signed<Grant>> {
        // One signature is as long as another.
        let one = serde_json::to_value(grant(spec, "x", 1)).unwrap();
        let named = |n: usize| {
            let mut json = one.clone();
            let payload = grant_payload(spec, &format!("{n:0width$}"));
            json["payload"] = serde_json::to_value(crate::Base64Url(payload)).unwrap();
            serde_json::from_value(json).unwrap()
        };
        (0..count).map(named).collect()
    }

    fn grant_payload(spec: &CommandSpec, mid: &str) -> Vec<u8> {
        let (ws, cid, mid) = (spec.ws.clone(), spec.cid, MachineToken::new(mid).unwrap());
        let grant =
            Grant { ws, cid, mid, spec_sha256: Sha256::of(b"spec"), expires_at: u64::MAX, sealed: None };
        serde_json::to_vec(&grant).unwrap()
    }

    #[rstest]
    #[case(1, 8, &[1])]
    #[case(1_000, 63, &[1_000])]
    #[case(1_001, 8, &[1_000, 1])]
    #[case(2_500, 8, &[1_000, 1_000, 500])]
    fn grants_are_cut_into_as_few_parts_as_there_can_be(
        #[case] count: usize,
        #[case] width: usize,
        #[case] sizes: &[usize],
    ) {
        let grants = grants_for(count, width);
        let parts = parts(spec().cid, grants.clone());
        assert_eq!(parts.iter().map(|part| part.grants.len()).collect::<Vec<_>>(), sizes);
        for (n, part) in (1..).zip(&parts) {
            assert_eq!((part.n, part.of as usize), (n, sizes.len()));
            part.check(serde_json::to_vec(part).unwrap().len()).unwrap();
            assert_eq!(part.spec_sha256(), Some(Sha256::of(b"spec")));
        }
        assert_eq!(parts.into_iter().flat_map(|part| part.grants).collect::<Vec<_>>(), grants);
    }

    #[test]
    fn the_most_machines_with_the_longest_names_have_parts_enough() {
        let spec = CommandSpec { ws: Workspace::new("w".repeat(32)).unwrap(), ..spec() };
        let parts = parts(spec.cid, grants_of(&spec, limit::TARGETS, 63));
        assert!(parts.len() > 10, "bytes decide nothing here");
        for part in &parts {
            part.check(serde_json::to_vec(part).unwrap().len()).unwrap();
        }
        assert_eq!(parts.iter().map(|part| part.grants.len()).sum::<usize>(), limit::TARGETS);
    }

    #[rstest]
    #[case(|part: &mut Part| part.n = 0, PartError::Number)]
    #[case(|part: &mut Part| part.n = 3, PartError::Number)]
    #[case(|part: &mut Part| part.of = 17, PartError::Number)]
    #[case(|part: &mut Part| part.grants.clear(), PartError::Count(0))]
    #[case(|part: &mut Part| part.grants = grants_for(1_001, 8), PartError::Count(1_001))]
    fn parts_out_of_range_are_refused(#[case] spoil: fn(&mut Part), #[case] refused: PartError) {
        let mut part = Part { cid: spec().cid, n: 1, of: 2, grants: grants_for(1, 8) };
        spoil(&mut part);
        assert_eq!(part.check(1), Err(refused));
    }

    #[test]
    fn only_one_of_several_parts_is_bounded_by_itself() {
        let size = limit::PART_BYTES + 1;
        let part = |of| Part { cid: spec().cid, n: 1, of, grants: grants_for(1, 8) };
        assert_eq!(part(2).check(size), Err(PartError::TooLarge(size)));
        assert_eq!((part(2).check(size - 1), part(1).check(size)), (Ok(()), Ok(())));
    }

    #[rstest]
    #[case(1_000, true)]
    #[case(1_001, true)]
    #[case(10_000, true)]
    #[case(10_001, false)]
    #[case(0, false)]
    fn a_command_has_1_to_10_000_targets(#[case] targets: u32, #[case] is_good: bool) {
        let checked = CommandSpec { targets, ..spec() }.validate();
        assert_eq!(checked.err().map(|error| error.member), (!is_good).then_some("targets"));
    }

    fn spec() -> CommandSpec {
        CommandSpec {
            ws: Workspace::main(),
            cid: "0193a2b4-0000-7000-8000-000000000000".parse().unwrap(),
            command: "uptime".into(),
            timeout_ms: 30_000,
            created_at: 1_000,
            expires_at: 2_000,
            not_before: None,
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1,
            on: "all".into(),
            targets: 1,
            by: "operator:local".into(),
            created_by: None,
            target: None,
            crit: vec![],
            change: None,
        }
    }

    fn ssh(host: &str, port: u16, username: &str) -> Target {
        Target::Ssh(SshTarget {
            host: host.into(),
            port,
            username: Some(username.into()),
            credential: None,
            jump: Vec::new(),
        })
    }

    #[rstest]
    #[case::empty(|s: &mut CommandSpec| s.command = " ".into(), "command")]
    #[case::nul(|s: &mut CommandSpec| s.command = "a\0b".into(), "command")]
    #[case::long(|s: &mut CommandSpec| s.command = "x".repeat(65_537), "command")]
    #[case::no_time(|s: &mut CommandSpec| s.timeout_ms = 0, "timeout_ms")]
    #[case::too_much_time(|s: &mut CommandSpec| s.timeout_ms = 172_800_001, "timeout_ms")]
    #[case::born_expired(|s: &mut CommandSpec| s.expires_at = s.created_at, "expires_at")]
    #[case::far_away(|s: &mut CommandSpec| s.expires_at = s.created_at + 604_800_001, "expires_at")]
    #[case::rollout(|s: &mut CommandSpec| s.rollout = Some(Rollout { min_wait_ms: Some(0), ..Rollout::default() }), "rollout")]
    #[case::long_purpose(|s: &mut CommandSpec| s.purpose = Some("x".repeat(1_025)), "purpose")]
    #[case::purpose_in_bytes(|s: &mut CommandSpec| s.purpose = Some("é".repeat(513)), "purpose")]
    #[case::output(|s: &mut CommandSpec| s.max_output = (4 << 30) + 1, "max_output")]
    #[case::nobody(|s: &mut CommandSpec| s.targets = 0, "targets")]
    #[case::critical(|s: &mut CommandSpec| s.crit = vec!["sandbox".into()], "crit")]
    #[case::long_name(|s: &mut CommandSpec| s.created_by = Some("x".repeat(129)), "created_by")]
    #[case::uncritical(|s: &mut CommandSpec| s.target = Some(ssh("h", 22, "u")), "crit")]
    #[case::no_host(|s: &mut CommandSpec| s.target = Some(ssh("", 22, "u")), "target")]
    #[case::odd_host(|s: &mut CommandSpec| s.target = Some(ssh("a b", 22, "u")), "target")]
    #[case::no_port(|s: &mut CommandSpec| s.target = Some(ssh("h", 0, "u")), "target")]
    #[case::no_user(|s: &mut CommandSpec| s.target = Some(ssh("h", 22, "")), "target")]
    fn refuses(#[case] spoil: fn(&mut CommandSpec), #[case] member: &str) {
        let mut bad = spec();
        spoil(&mut bad);
        assert_eq!(bad.validate().unwrap_err().member, member);
    }

    #[rstest]
    #[case("fe80::1%eth0", true)]
    #[case("a#b", true)]
    #[case("", false)]
    #[case("a b", false)]
    #[case("a\u{7}", false)]
    fn what_was_accepted_before_is_read_and_not_accepted_again(
        #[case] host: &str,
        #[case] was_accepted: bool,
    ) {
        let mut old = CommandSpec { crit: vec!["target".into()], target: Some(ssh(host, 22, "u")), ..spec() };
        for as_jump in [false, true] {
            if as_jump {
                let hop = SshHop { host: host.into(), port: 22, username: None };
                let Target::Ssh(target) = ssh("h", 22, "u");
                old.target = Some(Target::Ssh(SshTarget { jump: vec![hop], ..target }));
            }
            let bytes = serde_json::to_vec(&old).unwrap();
            assert_eq!(
                CommandSpec::from_bytes(&bytes),
                Err(InvalidSpec { member: "target", rule: HOST_RULE })
            );
            assert_eq!(CommandSpec::from_stored_bytes(&bytes).is_ok(), was_accepted, "{host:?}");
            assert_eq!(CommandSpec::from_settled_bytes(&bytes).is_ok(), was_accepted, "{host:?}");
        }
    }

    #[rstest]
    #[case(|s: &mut CommandSpec| s.timeout_ms = 1)]
    #[case(|s: &mut CommandSpec| s.timeout_ms = 172_800_000)]
    #[case(|s: &mut CommandSpec| s.command = "x".repeat(65_536))]
    #[case(|s: &mut CommandSpec| s.purpose = Some("x".repeat(1_024)))]
    #[case(|s: &mut CommandSpec| s.max_output = 0)]
    #[case(|s: &mut CommandSpec| (s.target, s.crit) = (Some(ssh(&"h".repeat(255), 65_535, "u")), vec!["target".into()]))]
    fn accepts_the_limits_themselves(#[case] set: fn(&mut CommandSpec)) {
        let mut good = spec();
        set(&mut good);
        assert_eq!(good.validate(), Ok(()));
        let bytes = serde_json::to_vec(&good).unwrap();
        assert_eq!(CommandSpec::from_bytes(&bytes), Ok(good));
    }
}
