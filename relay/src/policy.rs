//! Whether this machine runs what it is offered. Pure.
//!
//! An offer is the spec's exact bytes and this machine's grant. Everything that is believed is in the grant's
//! signature; the bridge that composed the mailbox is trusted with the order of offers and nothing else, unless
//! the authors document and the machine's own file let it author commands.

use std::sync::Arc;

use serde::Deserialize;
use signalbox_schemas::{
    authors::{Authors, Right},
    command::CommandSpec,
    id::{CommandId, MachineToken, Sha256, Workspace},
    mailbox::Offer,
    run::RejectReason,
    signed::SignedError,
};

use crate::work::Work;

/// What an offer is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub(crate) ws: &'a Workspace,
    pub(crate) mid: &'a MachineToken,
    pub(crate) authors: &'a Authors,
    /// What a bridge may not author here, by the machine's own file.
    pub(crate) require_operator_signature: &'a [Right],
}

/// Why an offer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: RejectReason,
    /// For people; at most 512 bytes.
    pub(crate) message: String,
}

/// Longest message of a rejection, bytes.
const MESSAGE_BYTES: usize = 512;

impl Fault {
    fn new(reason: RejectReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        Self { reason, message }
    }
}

/// The command that an offer is about, as far as it can be told without believing anything: what the spec says,
/// else what the grant says. `None` when there is no register that a refusal could be written to.
pub(crate) fn claimed_id(offer: &Offer) -> Option<CommandId> {
    #[derive(Deserialize)]
    struct IdOnly {
        cid: CommandId,
    }
    let spec: Option<IdOnly> = serde_json::from_slice(&offer.spec.0).ok();
    spec.map(|spec| spec.cid).or_else(|| offer.grant.peek().ok().map(|grant| grant.cid))
}

/// Judges an offer. The answer is what may run.
pub(crate) fn check(offer: &Offer, policy: Policy<'_>) -> Result<Arc<Work>, Fault> {
    let fault = |reason, message: &str| Err(Fault::new(reason, message));
    let authors = policy.authors;
    let grant = offer.grant.open(|key| authors.author(key).is_some()).map_err(|error| grant_fault(&error))?;
    if grant.ws != *policy.ws || grant.mid != *policy.mid {
        return fault(RejectReason::Misplaced, "the grant is for another machine or workspace");
    }
    if Sha256::of(&offer.spec.0) != grant.spec_sha256 {
        return fault(RejectReason::Invalid, "the spec is not the one that the grant speaks of");
    }
    let spec = CommandSpec::from_bytes(&offer.spec.0).map_err(|invalid| {
        let critical = invalid.member == "crit";
        let reason = if critical { RejectReason::Critical } else { RejectReason::Invalid };
        Fault::new(reason, format!("the spec is not valid: {invalid}"))
    })?;
    if spec.ws != grant.ws || spec.cid != grant.cid {
        return fault(RejectReason::Misplaced, "spec and grant name different commands or workspaces");
    }
    if spec.expires_at != grant.expires_at {
        return fault(RejectReason::Invalid, "spec and grant expire at different times");
    }
    if spec.brings_secret() != grant.sealed.is_some() {
        return fault(
            RejectReason::Invalid,
            "a grant has a sealed key where its spec brings a secret, and only there",
        );
    }
    let right = spec.right();
    let key = offer.grant.key();
    if !authors.may_author(key, right) {
        return fault(
            RejectReason::Forbidden,
            match right {
                Right::Credential => "the author has no right to change credentials",
                Right::Config => "the author has no right to change configuration",
                _ => "the author has no right to give commands",
            },
        );
    }
    if policy.require_operator_signature.contains(&right) && authors.is_bridge(key) {
        return fault(
            RejectReason::Forbidden,
            "this machine takes that only from an operator's own signature",
        );
    }
    Ok(Arc::new(Work { spec, sealed: grant.sealed }))
}

fn grant_fault(error: &SignedError) -> Fault {
    Fault::new(RejectReason::from(error), format!("the grant is not to be believed: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nkeys::{KeyPair, KeyPairType};
    use rstest::rstest;
    use signalbox_schemas::{
        Base64Url,
        authors::{Author, Role},
        command::{Change, Grant, HostKeys, PutCredential, SshTarget, Target},
        credential::{CredentialLabel, CredentialType, StorageMode},
        id::CredentialName,
        rollout::Rollout,
        signed::{Signed, SigningKey},
    };

    pub(crate) fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    /// Operator 1 may give commands, 2 configuration, 4 credentials; 3 is a bridge and may give commands and configuration.
    pub(crate) fn authors() -> Authors {
        let author = |byte, rights: &[Right]| Author {
            key: key(byte).public().clone(),
            name: format!("operator:{byte}"),
            role: Role::Member,
            rights: rights.to_vec(),
        };
        Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: 0,
            not_after: 1_000_000,
            authors: vec![
                author(1, &[Right::Command]),
                author(2, &[Right::Config]),
                author(3, &[Right::Command, Right::Config]),
                author(4, &[Right::Credential]),
            ],
            issuers: vec![],
            bridges: vec![key(3).public().clone()],
            former_bridges: Vec::new(),
            next_fleet_key: None,
            crit: vec![],
        }
    }

    pub(crate) fn cid(number: u128) -> CommandId {
        CommandId::new(uuid::Builder::from_custom_bytes(number.to_be_bytes()).into_uuid()).unwrap()
    }

    pub(crate) fn spec(number: u128) -> CommandSpec {
        CommandSpec {
            ws: Workspace::main(),
            cid: cid(number),
            command: "true".into(),
            timeout_ms: 1000,
            created_at: 1_000,
            expires_at: 2_000,
            not_before: None,
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1000,
            on: "all".into(),
            targets: 1,
            by: "operator:1".into(),
            created_by: None,
            target: None,
            crit: vec![],
            change: None,
        }
    }

    pub(crate) fn work(spec: CommandSpec) -> Arc<Work> {
        Arc::new(Work { spec, sealed: None })
    }

    fn grant(spec: &CommandSpec) -> Grant {
        let spec_sha256 = Sha256::of(&serde_json::to_vec(spec).unwrap());
        let mid = MachineToken::new("web-1").unwrap();
        Grant {
            ws: Workspace::main(),
            cid: spec.cid,
            mid,
            spec_sha256,
            expires_at: spec.expires_at,
            sealed: None,
        }
    }

    fn offer(spec: &CommandSpec, grant: &Grant, author: u8) -> Offer {
        let grant = Signed::sign(grant, &key(author)).unwrap();
        Offer { spec: Base64Url(serde_json::to_vec(spec).unwrap()), grant }
    }

    fn judge(offer: &Offer, required: &[Right]) -> Result<Arc<Work>, RejectReason> {
        let mid = MachineToken::new("web-1").unwrap();
        let (ws, authors) = (Workspace::main(), authors());
        let policy = Policy { ws: &ws, mid: &mid, authors: &authors, require_operator_signature: required };
        check(offer, policy).map_err(|fault| {
            assert!(fault.message.len() <= MESSAGE_BYTES);
            fault.reason
        })
    }

    #[test]
    fn who_may_give_commands_may() {
        let spec = spec(1);
        assert_eq!(judge(&offer(&spec, &grant(&spec), 1), &[Right::Command]), Ok(work(spec)));
    }

    #[rstest]
    #[case::stranger(9, &[], RejectReason::Forbidden)]
    #[case::without_right(2, &[], RejectReason::Forbidden)]
    #[case::bridge_where_operators_must_sign(3, &[Right::Command], RejectReason::Forbidden)]
    fn others_may_not(#[case] author: u8, #[case] required: &[Right], #[case] reason: RejectReason) {
        let spec = spec(1);
        assert_eq!(judge(&offer(&spec, &grant(&spec), author), required), Err(reason));
    }

    #[test]
    fn a_bridge_may_where_the_machine_lets_it() {
        let spec = spec(1);
        assert!(judge(&offer(&spec, &grant(&spec), 3), &[Right::Root]).is_ok());
    }

    #[rstest]
    #[case::machine(|g: &mut Grant| g.mid = MachineToken::new("web-2").unwrap(), RejectReason::Misplaced)]
    #[case::workspace(|g: &mut Grant| g.ws = Workspace::new("other").unwrap(), RejectReason::Misplaced)]
    #[case::command(|g: &mut Grant| g.cid = cid(2), RejectReason::Misplaced)]
    #[case::spec(|g: &mut Grant| g.spec_sha256 = Sha256::of(b"x"), RejectReason::Invalid)]
    #[case::expiry(|g: &mut Grant| g.expires_at += 1, RejectReason::Invalid)]
    fn a_grant_is_about_one_thing(#[case] spoil: fn(&mut Grant), #[case] reason: RejectReason) {
        let spec = spec(1);
        let mut grant = grant(&spec);
        spoil(&mut grant);
        assert_eq!(judge(&offer(&spec, &grant, 1), &[]), Err(reason));
    }

    fn on(host: &str) -> Target {
        let (host, username) = (host.to_owned(), Some("ops".to_owned()));
        Target::Ssh(SshTarget { host, port: 22, username, jump: Vec::new(), credential: None })
    }

    #[rstest]
    #[case::range(|s: &mut CommandSpec| s.timeout_ms = 0, RejectReason::Invalid)]
    #[case::rollout(|s: &mut CommandSpec| s.rollout = Some(Rollout { min_wait_ms: Some(0), ..Rollout::default() }), RejectReason::Invalid)]
    #[case::critical(|s: &mut CommandSpec| s.crit = vec!["sandbox".into()], RejectReason::Critical)]
    #[case::accepted_by_a_looser_rule(
        |s: &mut CommandSpec| (s.target, s.crit) = (Some(on("fe80::1%eth0")), vec!["target".into()]),
        RejectReason::Invalid
    )]
    fn a_granted_spec_is_still_checked(#[case] spoil: fn(&mut CommandSpec), #[case] reason: RejectReason) {
        let mut spec = spec(1);
        spoil(&mut spec);
        assert_eq!(judge(&offer(&spec, &grant(&spec), 1), &[]), Err(reason));
    }

    fn changing(change: Change) -> CommandSpec {
        CommandSpec { change: Some(change), crit: vec!["change".into()], ..spec(1) }
    }

    fn host_keys() -> CommandSpec {
        let add = vec!["db-1 ssh-ed25519 AAAA".to_owned()];
        changing(Change::HostKeys(HostKeys { add, remove: vec![] }))
    }

    fn put_credential() -> CommandSpec {
        let label = CredentialLabel {
            name: CredentialName::new("db").unwrap(),
            credential_type: CredentialType::Password,
            target: None,
            username: None,
            storage_mode: StorageMode::RelayOnly,
        };
        changing(Change::PutCredential(PutCredential { label, body: Base64Url(vec![0; 64]) }))
    }

    #[rstest]
    #[case::commands_are_no_configuration(1)]
    #[case::nor_is_a_bridge_an_operator(3)]
    fn a_change_needs_its_own_right(#[case] author: u8) {
        let spec = host_keys();
        let judged = judge(&offer(&spec, &grant(&spec), author), &[Right::Config]);
        assert_eq!(judged, Err(RejectReason::Forbidden));
        assert!(judge(&offer(&spec, &grant(&spec), 2), &[Right::Config]).is_ok());
    }

    #[test]
    fn a_secret_comes_with_its_key_and_nothing_else_does() {
        let with_key = |spec: &CommandSpec| Grant { sealed: Some(Base64Url(vec![1; 80])), ..grant(spec) };
        let spec = put_credential();
        let offered = offer(&spec, &with_key(&spec), 2);
        assert_eq!(judge(&offered, &[]), Err(RejectReason::Forbidden), "configuration is no credential");
        let taken = judge(&offer(&spec, &with_key(&spec), 4), &[Right::Credential]).unwrap();
        assert_eq!(taken.sealed, Some(Base64Url(vec![1; 80])));
        assert_eq!(judge(&offer(&spec, &grant(&spec), 4), &[]), Err(RejectReason::Invalid));
        let plain = super::tests::spec(1);
        assert_eq!(judge(&offer(&plain, &with_key(&plain), 1), &[]), Err(RejectReason::Invalid));
    }

    #[test]
    fn what_is_written_down_is_read_back() {
        let whole = Work { spec: put_credential(), sealed: Some(Base64Url(vec![1; 80])) };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Work>(&text).unwrap(), whole);
        let older = serde_json::to_string(&spec(1)).unwrap();
        assert_eq!(serde_json::from_str::<Work>(&older).unwrap(), *work(spec(1)));
    }

    #[test]
    fn a_changed_signature_is_named_as_such() {
        let spec = spec(1);
        let mut json = serde_json::to_value(Signed::sign(&grant(&spec), &key(1)).unwrap()).unwrap();
        json["payload"] = serde_json::to_value(Base64Url(b"{}".to_vec())).unwrap();
        let offer = Offer {
            spec: Base64Url(serde_json::to_vec(&spec).unwrap()),
            grant: serde_json::from_value(json).unwrap(),
        };
        assert_eq!(judge(&offer, &[]), Err(RejectReason::Signature));
        assert_eq!(claimed_id(&offer), Some(spec.cid));
    }

    #[test]
    fn an_offer_of_rubbish_has_the_id_of_its_grant_or_none() {
        let spec = spec(1);
        let mut offer = offer(&spec, &grant(&spec), 1);
        offer.spec = Base64Url(b"rubbish".to_vec());
        assert_eq!(claimed_id(&offer), Some(spec.cid));
        let envelope = r#"{"payload":"e30","key":"KEY","sig":""}"#.replace("KEY", key(1).public().as_str());
        offer.grant = serde_json::from_str(&envelope).unwrap();
        assert_eq!(claimed_id(&offer), None);
    }
}
