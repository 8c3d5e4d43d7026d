//! The signing keys by which the machines are known here, and what is sealed for.
//!
//! A bridge says which key a machine has, and nobody trusts a bridge with that: whoever it named could open what is sealed. So the
//! first key that is met of a machine is kept in a file, and another one later is refused until the operator says that it is
//! right. Pure, but for `file`.

mod file;

use std::collections::BTreeMap;

use signalbox_schemas::{
    api::{InventoryView, Target},
    id::{MachineId, MachineToken, Workspace},
    inventory::Inventory,
    sealed::SealingKey,
    signed::{PublicKey, Signed, SignedError},
};

pub use file::{KnownError, KnownFile};

/// The keys that are known, by machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known(BTreeMap<MachineToken, PublicKey>);

/// What a machine says of itself is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Another key than the one that is known.
    #[error(
        "machine {machine} is known here by the key {known}, and {found} is told now; if its relay was given new keys, find its key out on that machine, and where it is this one accept it with '--accept-key {machine}={found}'"
    )]
    Changed {
        /// Which machine.
        machine: MachineId,
        /// The key that is known.
        known: PublicKey,
        /// The one that is told.
        found: PublicKey,
    },
    /// Another key than the one that the operator names.
    #[error("--accept-key names {named} for machine {machine}, and {found} is told")]
    NotNamed {
        /// Which machine.
        machine: MachineId,
        /// The key that the operator names.
        named: PublicKey,
        /// The one that is told.
        found: PublicKey,
    },
    /// The list of what it keeps is not its own.
    #[error("what is told of machine {machine} is not what its relay has said: {source}")]
    Forged {
        /// Which machine.
        machine: MachineId,
        /// Why.
        source: SignedError,
    },
}

/// Why nothing can be sealed for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealable {
    /// Its relay is of the older system.
    NoKeys,
    /// Its relay has not said what it keeps: it is an older one, was never connected, or the broker does not take it.
    Silent,
}

impl Unsealable {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKeys => "its relay is of the older system, and has no keys",
            Self::Silent => {
                "its relay has not said its sealing key; it is an older version, never connected, or the broker has account tokens of before, which do not let it say so"
            }
        }
    }
}

/// Whom something can be sealed for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    /// The sealing key of each machine.
    pub keys: BTreeMap<MachineToken, SealingKey>,
    /// Machines whose key was not known before, with that key.
    pub first_met: Vec<(MachineId, PublicKey)>,
    /// Machines whose key was known as another one, with the one that is accepted.
    pub accepted: Vec<(MachineId, PublicKey)>,
    /// Those for whom nothing can be sealed.
    pub unsealable: Vec<(MachineId, Unsealable)>,
}

/// What a bridge tells of a machine, as far as something is to be sealed for it: a list of what its relay keeps is a hundred
/// times as large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    machine: MachineId,
    token: MachineToken,
    /// Its key, as the bridge says.
    signing_key: Option<PublicKey>,
    /// Who signed its list.
    signer: Option<PublicKey>,
    /// The key to seal for it, if its list is the word of its key.
    sealing_key: Result<Option<SealingKey>, Distrust>,
}

impl Told {
    /// Takes from a list what counts.
    pub fn of(ws: &Workspace, view: InventoryView) -> Self {
        let sealing_key = read(ws, &view).map(|list| list.map(|list| list.sealing_key));
        let signer = view.inventory.as_ref().map(Signed::key).cloned();
        let InventoryView { machine, token, signing_key, .. } = view;
        Self { machine, token, signing_key, signer, sealing_key }
    }

    /// Its token.
    pub fn token(&self) -> &MachineToken {
        &self.token
    }

    /// Whether its relay has keys, as the bridge says.
    pub fn has_keys(&self) -> bool {
        self.signing_key.is_some()
    }
}

/// What a machine's relay has said, if it is signed by the key that is told.
fn read(ws: &Workspace, view: &InventoryView) -> Result<Option<Inventory>, Distrust> {
    let Some(said) = &view.inventory else { return Ok(None) };
    let forged = |source| Distrust::Forged { machine: view.machine.clone(), source };
    let inventory = said.open(|key| Some(key) == view.signing_key.as_ref()).map_err(forged)?;
    if inventory.ws != *ws || inventory.mid != view.token || view.machine.token() != view.token {
        return Err(forged(SignedError::Misplaced("machine")));
    }
    Ok(Some(inventory))
}

/// The keys that the operator names for machines: the only ones that count for those.
pub type Accepted = BTreeMap<MachineToken, PublicKey>;

impl Known {
    /// The key of a machine.
    pub fn key(&self, mid: &MachineToken) -> Option<&PublicKey> {
        self.0.get(mid)
    }

    /// What a machine's relay has said that it keeps, if that is its own word by the key that the operator names, or else by the one
    /// that it is known by, or by the one that is told where none is known.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn open(
        &self,
        ws: &Workspace,
        view: &InventoryView,
        accepted: &Accepted,
    ) -> Result<Option<Inventory>, Distrust> {
        let signer = view.inventory.as_ref().map(Signed::key);
        self.check((&view.machine, &view.token), view.signing_key.iter().chain(signer), accepted)?;
        read(ws, view)
    }

    /// Whether all `keys` that are told of a machine are the one that counts for it.
    fn check<'a>(
        &self,
        (machine, token): (&MachineId, &MachineToken),
        mut keys: impl Iterator<Item = &'a PublicKey>,
        accepted: &Accepted,
    ) -> Result<(), Distrust> {
        let mut other = |right: &PublicKey| keys.find(|key| *key != right).cloned();
        let machine = machine.clone();
        if let Some(named) = accepted.get(token) {
            if let Some(found) = other(named) {
                return Err(Distrust::NotNamed { machine, named: named.clone(), found });
            }
        } else if let Some(known) = self.key(token)
            && let Some(found) = other(known)
        {
            return Err(Distrust::Changed { machine, known: known.clone(), found });
        }
        Ok(())
    }

    /// Whom of these machines something can be sealed for, by what a bridge tells of them; their keys are known from then on.
    /// The targets are those that the operator's selector means: that was checked before.
    ///
    /// # Errors
    /// [`Distrust`] of the first machine that is not to be believed.
    pub fn recipients(
        &mut self,
        targets: &[Target],
        told: &[Told],
        accepted: &Accepted,
    ) -> Result<Recipients, Distrust> {
        let told: BTreeMap<&MachineToken, &Told> = told.iter().map(|told| (&told.token, told)).collect();
        let mut recipients = Recipients::default();
        for Target { id, token, .. } in targets {
            let told = told.get(token).copied();
            if let Some(told) = told {
                self.check((&told.machine, token), told.signing_key.iter().chain(&told.signer), accepted)?;
            }
            let sealing = told.map(|told| told.sealing_key.clone()).transpose()?.flatten();
            let (Some(Told { machine, signing_key: Some(key), .. }), Some(sealing)) = (told, sealing) else {
                let has_keys = told.is_some_and(|told| told.signing_key.is_some());
                let why = if has_keys { Unsealable::Silent } else { Unsealable::NoKeys };
                recipients.unsealable.push((id.clone(), why));
                continue;
            };
            match self.0.insert(token.clone(), key.clone()) {
                None => recipients.first_met.push((machine.clone(), key.clone())),
                Some(known) if known != *key => recipients.accepted.push((machine.clone(), key.clone())),
                Some(_) => {}
            }
            recipients.keys.insert(token.clone(), sealing);
        }
        Ok(recipients)
    }
}

#[cfg(test)]
mod tests {
    use nkeys::{KeyPair, KeyPairType};
    use rstest::rstest;
    use signalbox_schemas::{api::Liveness, sealed::OpeningKey, signed::SigningKey};

    use super::*;

    fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    fn target(name: &str) -> Target {
        let id = MachineId::new(name).unwrap();
        Target { token: id.token(), id, state: Liveness::Online }
    }

    fn list(name: &str, by: &SigningKey) -> Inventory {
        Inventory {
            ws: Workspace::main(),
            mid: MachineToken::new(name).unwrap(),
            revision: 1,
            sealing_key: OpeningKey::of_machine(by).unwrap().public().clone(),
            credentials: vec![],
            left_out: 0,
            problem: None,
            labels: signalbox_schemas::label::LabelMap::new(),
            facts: None,
            crit: vec![],
        }
    }

    /// What a bridge tells of a machine that has this key and whose list is signed with that one.
    fn view(name: &str, has: u8, list: Option<(Inventory, u8)>) -> InventoryView {
        let Target { id: machine, token, state } = target(name);
        let inventory = list.map(|(list, by)| Signed::sign(&list, &key(by)).unwrap());
        let signing_key = Some(key(has).public().clone());
        InventoryView { machine, token, state, signing_key, seen_at: Some(1), inventory }
    }

    fn meet(known: &mut Known, view: &InventoryView, accept: &[(&str, u8)]) -> Result<Recipients, Distrust> {
        let accept =
            accept.iter().map(|(name, byte)| (target(name).token, key(*byte).public().clone())).collect();
        let targets = [target(view.machine.as_str())];
        known.recipients(&targets, &[Told::of(&Workspace::main(), view.clone())], &accept)
    }

    fn good(name: &str, byte: u8) -> InventoryView {
        view(name, byte, Some((list(name, &key(byte)), byte)))
    }

    #[test]
    fn a_machine_is_trusted_when_it_is_met_and_known_from_then_on() {
        let mut known = Known::default();
        let first = meet(&mut known, &good("web-1", 1), &[]).unwrap();
        assert_eq!(first.first_met, [(MachineId::new("web-1").unwrap(), key(1).public().clone())]);
        let again = meet(&mut known, &good("web-1", 1), &[]).unwrap();
        assert_eq!((again.first_met.len(), again.accepted.len()), (0, 0));
        assert_eq!(again.keys[&target("web-1").token], *OpeningKey::of_machine(&key(1)).unwrap().public());
    }

    #[test]
    fn another_key_is_refused_until_it_is_accepted() {
        let mut known = Known::default();
        meet(&mut known, &good("web-1", 1), &[]).unwrap();
        let before = known.clone();
        // With its list, without one, and with a list by the known key under the name of another.
        let other =
            [good("web-1", 2), view("web-1", 2, None), view("web-1", 2, Some((list("web-1", &key(1)), 1)))];
        for view in &other {
            let refused = meet(&mut known, view, &[("web-2", 2)]).unwrap_err();
            let text = refused.to_string();
            assert!(matches!(refused, Distrust::Changed { .. }), "{refused:?}");
            let (old, new) = (key(1).public().clone(), key(2).public().clone());
            for said in [old.as_str(), new.as_str(), &format!("--accept-key web-1={new}")] {
                assert!(text.contains(said), "{text}");
            }
            assert_eq!(known, before);
        }
        // Only the one that the operator names, whatever is told next, and the one of before no more.
        for told in [good("web-1", 3), good("web-1", 1), view("web-1", 3, None)] {
            let refused = meet(&mut known, &told, &[("web-1", 2)]).unwrap_err();
            assert!(matches!(refused, Distrust::NotNamed { .. }), "{refused:?}");
            assert_eq!(known, before);
        }
        let accepted = meet(&mut known, &good("web-1", 2), &[("web-1", 2)]).unwrap();
        assert_eq!(accepted.accepted, [(MachineId::new("web-1").unwrap(), key(2).public().clone())]);
        meet(&mut known, &good("web-1", 2), &[]).unwrap();
        assert!(matches!(meet(&mut known, &good("web-1", 1), &[]), Err(Distrust::Changed { .. })));
    }

    #[rstest]
    #[case::by_another_key(view("web-1", 1, Some((list("web-1", &key(2)), 2))))]
    #[case::of_another_machine(view("web-1", 1, Some((list("web-2", &key(1)), 1))))]
    #[case::of_another_workspace(view("web-1", 1, Some((Inventory { ws: Workspace::new("other").unwrap(), ..list("web-1", &key(1)) }, 1))))]
    #[case::with_a_key_of_the_bridges(forged())]
    fn what_a_relay_has_not_said_is_refused(#[case] view: InventoryView) {
        let mut known = Known::default();
        let refused = meet(&mut known, &view, &[]).unwrap_err();
        assert!(matches!(refused, Distrust::Forged { .. }), "{refused:?}");
        assert_eq!(known, Known::default());
    }

    /// A list whose sealing key was replaced by whoever passed it on.
    fn forged() -> InventoryView {
        let mut json = serde_json::to_value(good("web-1", 1)).unwrap();
        let theirs = serde_json::to_value(list("web-1", &key(9))).unwrap();
        json["inventory"]["payload"] =
            data_encoding::BASE64URL_NOPAD.encode(theirs.to_string().as_bytes()).into();
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn machines_that_nothing_can_be_sealed_for_are_named() {
        let mut known = Known::default();
        let old = InventoryView { signing_key: None, ..view("old-1", 1, None) };
        let views = [good("web-1", 1), view("web-2", 2, None), old];
        let targets = ["nobody", "old-1", "web-1", "web-2"].map(target);
        let told = views.map(|view| Told::of(&Workspace::main(), view));
        let met = known.recipients(&targets, &told, &Accepted::new()).unwrap();
        let named: Vec<_> = met.unsealable.iter().map(|(id, why)| (id.as_str(), *why)).collect();
        let (no_keys, silent) = (Unsealable::NoKeys, Unsealable::Silent);
        assert_eq!(named, [("nobody", no_keys), ("old-1", no_keys), ("web-2", silent)]);
        assert_eq!(met.keys.len(), 1);
    }
}
