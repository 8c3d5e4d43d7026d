//! A change of what relays keep, signed by the operator; what is secret in it is sealed here, for each machine's relay.

use std::{collections::BTreeMap, fmt};

use signalbox_schemas::{
    api::Target,
    command::{Change, CommandSpec, PutCredential},
    credential::{CredentialLabel, CredentialValue, NoValue},
    id::{CommandId, MachineToken},
    limit,
    sealed::{CONTENT_KEY_BYTES, ContentKey, Context, Recipient, SealError, SealingKey},
};
use zeroize::Zeroizing;

use super::{
    Access, ClientError,
    clock::now_ms,
    sign::{Prepared, check_count, check_targets, new_id, principal, sign},
};

/// Bytes of a nonce of what is sealed.
pub(super) const NONCE_BYTES: usize = 24;

/// What shall be changed, where, and for how long it is worth waiting.
#[derive(Debug)]
pub struct Order {
    /// Selector.
    pub on: String,
    /// What.
    pub what: Wish,
    /// How long a relay may take, ms.
    pub timeout_ms: u64,
    /// It is not done later than this from now, ms.
    pub expires_in_ms: u64,
}

/// A change as its author wants it.
#[derive(Debug)]
pub enum Wish {
    /// One with nothing secret in it.
    Plain(Change),
    /// A credential, and the keys that its value is sealed for.
    Put {
        /// All but the value.
        label: CredentialLabel,
        /// The value.
        value: Value,
        /// The sealing key of each machine.
        keys: BTreeMap<MachineToken, SealingKey>,
    },
}

/// A credential's value as it is sealed. Never printed.
pub struct Value(Zeroizing<Vec<u8>>);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value")
    }
}

impl Value {
    /// Takes it as it goes on its way.
    ///
    /// # Errors
    /// How many bytes it has, when those are more than any relay keeps.
    pub fn new(value: &CredentialValue) -> Result<Self, usize> {
        let json = value.to_json();
        if json.len() <= limit::CREDENTIAL_VALUE_BYTES { Ok(Self(json)) } else { Err(json.len()) }
    }

    /// Takes what was sealed before.
    ///
    /// # Errors
    /// [`NoValue`], when it is none.
    pub(super) fn opened(json: Zeroizing<Vec<u8>>) -> Result<Self, NoValue> {
        CredentialValue::from_json(&json).map(|_| Self(json))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Random bytes.
///
/// # Errors
/// [`ClientError::Random`].
pub fn random<const N: usize>() -> Result<[u8; N], ClientError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ClientError::Random)?;
    Ok(bytes)
}

/// A value that is sealed once for all, and the key that it is sealed with.
struct Sealed {
    label: CredentialLabel,
    key: ContentKey,
    keys: BTreeMap<MachineToken, SealingKey>,
}

impl Sealed {
    fn new(
        access: &Access,
        cid: CommandId,
        label: CredentialLabel,
        value: &Value,
        keys: BTreeMap<MachineToken, SealingKey>,
    ) -> Result<(Self, Change), ClientError> {
        let key = ContentKey::new(random::<CONTENT_KEY_BYTES>()?);
        let context = Context { ws: &access.ws, name: label.name.as_str(), cid };
        let body = key.seal(&value.0, context, random::<NONCE_BYTES>()?).map_err(unsealed)?;
        let change = Change::PutCredential(PutCredential { label: label.clone(), body });
        Ok((Self { label, key, keys }, change))
    }
}

pub(super) fn unsealed(error: SealError) -> ClientError {
    ClientError::NotAsMeant(format!("nothing can be sealed for that key: {error}"))
}

/// Seals and signs a change for `targets`, sorted by token, as previewed.
///
/// # Errors
/// As [`prepare`](super::sign::prepare); [`ClientError::NotAsMeant`] also for a machine without a key to seal for, and
/// [`ClientError::Random`].
pub fn prepare(order: Order, access: &Access, targets: &[Target]) -> Result<Prepared, ClientError> {
    check_targets(&order.on, &[], targets)?;
    let count = check_count(&order.on, targets)?;
    let id = new_id();
    let (sealed, change) = match order.what {
        Wish::Plain(change) => (None, change),
        Wish::Put { label, value, keys } => {
            let (sealed, change) = Sealed::new(access, id, label, &value, keys)?;
            (Some(sealed), change)
        }
    };
    let created_at = now_ms();
    let spec = CommandSpec {
        ws: access.ws.clone(),
        cid: id,
        command: change.summary(),
        timeout_ms: order.timeout_ms,
        created_at,
        expires_at: created_at.saturating_add(order.expires_in_ms),
        not_before: None,
        rollout: None,
        retry_of: None,
        purpose: None,
        leave_children: false,
        max_output: limit::DEFAULT_MAX_OUTPUT,
        on: order.on,
        targets: count,
        by: principal(access.operator.as_str()),
        created_by: None,
        target: None,
        change: Some(change),
        // A relay that does not know the member must not run its description.
        crit: vec!["change".to_owned()],
    };
    sign(&spec, access, targets, |mid| {
        let Some(Sealed { label, key, keys }) = &sealed else { return Ok(None) };
        let to = keys
            .get(mid)
            .ok_or_else(|| ClientError::NotAsMeant(format!("there is no key to seal for `{mid}`")))?;
        let context = Context { ws: &access.ws, name: label.name.as_str(), cid: id };
        let wrapped = key.wrap(to, context, Recipient::Machine(mid), random::<CONTENT_KEY_BYTES>()?);
        wrapped.map(Some).map_err(unsealed)
    })
}

/// The same on a thread that may be busy: for 10,000 machines it is, for some seconds.
///
/// # Errors
/// As [`prepare`].
pub async fn prepare_aside(
    order: Order,
    access: &Access,
    targets: Vec<Target>,
) -> Result<Prepared, ClientError> {
    let access = access.clone();
    let job = tokio::task::spawn_blocking(move || prepare(order, &access, &targets));
    // It does not panic; if it did, nothing was sent.
    job.await.map_err(|_| ClientError::Malformed("the change"))?
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use nkeys::{KeyPair, KeyPairType};
    use signalbox_link::Login;
    use signalbox_schemas::{
        Base64Url, Secret,
        api::{Liveness, Submit},
        command::Grant,
        credential::{CredentialType, StorageMode},
        id::{CredentialName, MachineId, OperatorId, Workspace},
        sealed::OpeningKey,
        signed::SigningKey,
    };

    use super::*;

    pub(in super::super) fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    pub(in super::super) fn access() -> Access {
        // A token that says who it is for; nobody checks who signed it.
        let claims = format!(r#"{{"sub": "{}", "name": "local"}}"#, key(1).public());
        let token = format!("e30.{}.AAAA", data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes()));
        let seed = KeyPair::new_from_raw(KeyPairType::User, [1; 32]).unwrap().seed().unwrap();
        Access {
            ws: Workspace::main(),
            operator: OperatorId::new("local").unwrap(),
            nats_url: String::new(),
            login: Login::new(&token, &seed).unwrap(),
            key: Arc::new(key(1)),
        }
    }

    fn targets(names: &[&str]) -> Vec<Target> {
        let target = |name: &&str| {
            let id = MachineId::new(*name).unwrap();
            Target { token: id.token(), id, state: Liveness::Online }
        };
        names.iter().map(target).collect()
    }

    fn put(machines: &[(&str, u8)]) -> Order {
        let label = CredentialLabel {
            name: CredentialName::new("db").unwrap(),
            credential_type: CredentialType::Password,
            target: None,
            username: None,
            storage_mode: StorageMode::RelayOnly,
        };
        let value = CredentialValue::Password { password: Secret::new("hunter2".into()) };
        let sealing = |(name, byte): &(&str, u8)| {
            let key = OpeningKey::of_machine(&key(*byte)).unwrap().public().clone();
            (MachineToken::new(*name).unwrap(), key)
        };
        let keys = machines.iter().map(sealing).collect();
        let what = Wish::Put { label, value: Value::new(&value).unwrap(), keys };
        Order { on: "web-*".into(), what, timeout_ms: 1_000, expires_in_ms: 1_000 }
    }

    #[test]
    fn each_relay_opens_what_was_sealed_and_nobody_else_does() {
        let access = access();
        let order = put(&[("web-1", 11), ("web-2", 12)]);
        assert!(!format!("{order:?}").contains("hunter2"));
        let prepared = prepare(order, &access, &targets(&["web-1", "web-2"])).unwrap();
        let Submit { spec, grants, .. } = prepared.submitted();
        assert!(!String::from_utf8_lossy(&spec.0).contains("hunter2"));
        let read = CommandSpec::from_bytes(&spec.0).unwrap();
        let Some(Change::PutCredential(put)) = &read.change else { panic!("no change") };
        let context = Context { ws: &read.ws, name: "db", cid: read.cid };
        for (signed, byte) in grants.iter().zip([11, 12]) {
            let Grant { mid, sealed, .. } = signed.open(|by| by == access.key.public()).unwrap();
            let opened = |byte: u8| {
                let with = OpeningKey::of_machine(&key(byte)).unwrap();
                let wrapped = sealed.as_ref().unwrap();
                let key = ContentKey::unwrap(wrapped, &with, context, Recipient::Machine(&mid)).ok()?;
                CredentialValue::from_json(&key.open(&put.body, context).ok()?).ok()
            };
            let value = CredentialValue::Password { password: Secret::new("hunter2".into()) };
            assert_eq!(opened(byte), Some(value));
            assert_eq!(opened(23 - byte), None);
        }
    }

    #[test]
    fn machines_that_the_selector_cannot_mean_are_refused() {
        let refused = |on: &str, names: &[&str]| check_targets(on, &[], &targets(names)).is_err();
        // Whether the system is one only the bridge knows; the names the console sees.
        assert!(!refused("os=debian", &["web-1"]));
        assert!(!refused("web-* and os=debian", &["web-1", "web-2"]));
        assert!(refused("web-* and os=debian", &["db-1", "web-1"]));
        assert!(refused("not web-1 and cpu>90", &["web-1"]));
        assert!(!refused("web-* limit 2", &["web-1", "web-2"]));
        assert!(refused("web-* limit 2", &["web-1", "web-2", "web-3"]));
        assert!(refused("all sample 1", &["web-1", "web-2"]));
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() {
        let access = access();
        let sealed = || {
            let prepared = prepare(put(&[("web-1", 11)]), &access, &targets(&["web-1"])).unwrap();
            let spec = CommandSpec::from_bytes(&prepared.submitted().spec.0).unwrap();
            let Some(Change::PutCredential(put)) = spec.change else { panic!("no change") };
            put.body
        };
        assert_ne!(sealed(), sealed());
    }

    #[test]
    fn a_machine_without_a_key_to_seal_for_is_refused() {
        let access = access();
        let refused = prepare(put(&[("web-1", 11)]), &access, &targets(&["web-1", "web-2"]));
        assert!(matches!(refused, Err(ClientError::NotAsMeant(why)) if why.contains("web-2")));
        let refused = prepare(put(&[("db-1", 11)]), &access, &targets(&["db-1"]));
        assert!(matches!(refused, Err(ClientError::NotAsMeant(why)) if why.contains("web-*")));
    }

    #[test]
    fn many_machines_have_parts_that_fit_each_with_its_own_key() {
        let names: Vec<String> = (0..1_001).map(|n| format!("web-{n:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let machines: Vec<(&str, u8)> = names.iter().map(|name| (*name, 11)).collect();
        let prepared = prepare(put(&machines), &access(), &targets(&names)).unwrap();
        let ahead = prepared.sent_ahead();
        assert_eq!((ahead.len(), prepared.submitted().grants.len()), (2, 0));
        let mut keys = std::collections::HashSet::new();
        for part in ahead {
            part.check(serde_json::to_vec(part).unwrap().len()).unwrap();
            keys.extend(part.grants.iter().map(|grant| grant.peek().unwrap().sealed.unwrap()));
        }
        assert_eq!(keys.len(), 1_001, "two machines have the same key");
    }

    #[test]
    fn what_is_not_secret_needs_no_key() {
        let access = access();
        let remove = Change::RemoveCredential { name: CredentialName::new("db").unwrap() };
        let order =
            Order { on: "web-*".into(), what: Wish::Plain(remove), timeout_ms: 1_000, expires_in_ms: 1_000 };
        let prepared = prepare(order, &access, &targets(&["web-1"])).unwrap();
        let spec = CommandSpec::from_bytes(&prepared.submitted().spec.0).unwrap();
        assert_eq!((spec.command.as_str(), spec.crit), ("remove credential db", vec!["change".to_owned()]));
        assert_eq!(prepared.submitted().grants[0].peek().unwrap().sealed, None::<Base64Url>);
    }

    #[test]
    fn a_value_that_no_relay_keeps_is_refused() {
        let value = |size| CredentialValue::ApiKey { key: Secret::new("x".repeat(size)) };
        assert!(Value::new(&value(limit::CREDENTIAL_VALUE_BYTES - 100)).is_ok());
        assert!(Value::new(&value(limit::CREDENTIAL_VALUE_BYTES)).is_err());
    }
}
