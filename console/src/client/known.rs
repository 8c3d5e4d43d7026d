//! The signing keys by which the machines are known here, and what is sealed for.
//!
//! A bridge says which key a machine has, and nobody trusts a bridge with that: whoever it named could open what is sealed. So the
//! first key that is met of a machine is kept in a file, and another one later is refused until the operator says that it is
//! right. Pure, but for the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    api::{InventoryView, Target},
    id::{MachineId, MachineToken, Workspace},
    inventory::Inventory,
    sealed::SealingKey,
    signed::{PublicKey, Signed, SignedError},
};

/// Largest file: a hundred bytes for each machine, and more of them than a fleet has.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The keys that are known, by machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known(BTreeMap<MachineToken, PublicKey>);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// The system refused.
    #[error("cannot {doing} {}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was not written by this program.
    #[error("line {line} of {} is no machine with its key; put it right, or remove the file to trust all machines anew", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// It is too large.
    #[error("{} is larger than any that this program writes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// What a machine says of itself is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Another key than the one that is known.
    #[error(
        "machine {machine} is known here by the key {known}, and {found} is told now; if its relay was given new keys, accept that with --accept-key {machine}"
    )]
    Changed {
        /// Which machine.
        machine: MachineId,
        /// The key that is known.
        known: PublicKey,
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
    /// Its relay has not said what it keeps: it is an older one, or was never connected.
    Silent,
}

impl Unsealable {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKeys => "its relay is of the older system, and has no keys",
            Self::Silent => {
                "its relay has not said its sealing key; it is an older version, or never connected"
            }
        }
    }
}

/// Whom something can be sealed for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    /// The sealing key of each machine.
    pub keys: BTreeMap<MachineToken, SealingKey>,
    /// Machines whose key was not known before.
    pub first_met: Vec<MachineId>,
    /// Machines whose key was known as another one, and is accepted.
    pub accepted: Vec<MachineId>,
    /// Those for whom nothing can be sealed.
    pub unsealable: Vec<(MachineId, Unsealable)>,
}

impl Known {
    /// The key of a machine.
    pub fn key(&self, mid: &MachineToken) -> Option<&PublicKey> {
        self.0.get(mid)
    }

    /// What a machine's relay has said that it keeps, if that is its own word by the key that it is known by, or by the one that is
    /// told where none is known.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn open(
        &self,
        ws: &Workspace,
        view: &InventoryView,
        accepted: &BTreeSet<String>,
    ) -> Result<Option<Inventory>, Distrust> {
        let machine = view.machine.clone();
        let signer = view.inventory.as_ref().map(Signed::key);
        let is_accepted = accepted.contains(machine.as_str()) || accepted.contains(view.token.as_str());
        if let Some(known) = self.key(&view.token).filter(|_| !is_accepted) {
            let other = view.signing_key.iter().chain(signer).find(|key| *key != known);
            if let Some(found) = other {
                return Err(Distrust::Changed { machine, known: known.clone(), found: found.clone() });
            }
        }
        let Some(said) = &view.inventory else { return Ok(None) };
        let forged = |source| Distrust::Forged { machine: view.machine.clone(), source };
        let inventory = said.open(|key| Some(key) == view.signing_key.as_ref()).map_err(forged)?;
        if inventory.ws != *ws || inventory.mid != view.token || view.machine.token() != view.token {
            return Err(forged(SignedError::Misplaced("machine")));
        }
        Ok(Some(inventory))
    }

    /// Whom of these machines something can be sealed for, by what a bridge tells of them; their keys are known from then on.
    /// `accepted`: machines, by id or token, that may have another key than before.
    ///
    /// # Errors
    /// [`Distrust`] of the first machine that is not to be believed.
    pub fn recipients(
        &mut self,
        ws: &Workspace,
        targets: &[Target],
        views: &[InventoryView],
        accepted: &BTreeSet<String>,
    ) -> Result<Recipients, Distrust> {
        let views: BTreeMap<&MachineToken, &InventoryView> =
            views.iter().map(|view| (&view.token, view)).collect();
        let mut recipients = Recipients::default();
        for Target { id, token, .. } in targets {
            let view = views.get(token).copied();
            let Some(inventory) = view.map(|view| self.open(ws, view, accepted)).transpose()?.flatten()
            else {
                let has_keys = view.is_some_and(|view| view.signing_key.is_some());
                let why = if has_keys { Unsealable::Silent } else { Unsealable::NoKeys };
                recipients.unsealable.push((id.clone(), why));
                continue;
            };
            // It was opened with this one.
            if let Some(key) = view.and_then(|view| view.signing_key.clone()) {
                match self.0.insert(token.clone(), key.clone()) {
                    None => recipients.first_met.push(id.clone()),
                    Some(known) if known != key => recipients.accepted.push(id.clone()),
                    Some(_) => {}
                }
            }
            recipients.keys.insert(token.clone(), inventory.sealing_key);
        }
        Ok(recipients)
    }

    /// Reads the file; without it nothing is known. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn read(path: &Path) -> Result<Self, KnownError> {
        let failed = |source| KnownError::File { doing: "read", path: path.to_owned(), source };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > FILE_BYTES => {
                return Err(KnownError::TooLarge { path: path.to_owned() });
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|line| KnownError::Line { path: path.to_owned(), line })
    }

    /// The text's machines, or the number of the line that is none.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut known = BTreeMap::new();
        for (n, line) in (1..).zip(text.lines()) {
            let read = line
                .split_once(' ')
                .and_then(|(mid, key)| Some((MachineToken::new(mid).ok()?, key.parse::<PublicKey>().ok()?)));
            let (mid, key) = read.ok_or(n)?;
            if known.insert(mid, key).is_some() {
                return Err(n);
            }
        }
        Ok(Self(known))
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (mid, key) in &self.0 {
            // A string takes everything.
            let _ = writeln!(text, "{mid} {key}");
        }
        text
    }

    /// Replaces the file by this: all of it or nothing, also when the power fails. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn write(&self, path: &Path) -> Result<(), KnownError> {
        let failed = |source| KnownError::File { doing: "write", path: path.to_owned(), source };
        let beside = path.with_extension("new");
        let write = || {
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            io::Write::write_all(&mut &file, self.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            fs::File::open(path.parent().unwrap_or(path))?.sync_all()
        };
        write().map_err(failed)
    }
}

/// The file, held against another console until this is dropped.
#[derive(Debug)]
pub struct KnownFile {
    path: PathBuf,
    _lock: fs::File,
}

impl KnownFile {
    /// Waits for whoever holds it: for as long as somebody seals something. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn hold(path: PathBuf) -> Result<Self, KnownError> {
        let lock = path.with_extension("lock");
        let failed = |source| KnownError::File { doing: "lock", path: lock.clone(), source };
        let mut options = fs::OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Self { path, _lock: file })
    }

    /// Reads what is known. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn read(&self) -> Result<Known, KnownError> {
        Known::read(&self.path)
    }

    /// Writes what is known. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn write(&self, known: &Known) -> Result<(), KnownError> {
        known.write(&self.path)
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

    fn meet(known: &mut Known, view: &InventoryView, accept: &[&str]) -> Result<Recipients, Distrust> {
        let accept = accept.iter().map(|name| (*name).to_owned()).collect();
        let targets = [target(view.machine.as_str())];
        known.recipients(&Workspace::main(), &targets, std::slice::from_ref(view), &accept)
    }

    fn good(name: &str, byte: u8) -> InventoryView {
        view(name, byte, Some((list(name, &key(byte)), byte)))
    }

    #[test]
    fn a_machine_is_trusted_when_it_is_met_and_known_from_then_on() {
        let mut known = Known::default();
        let first = meet(&mut known, &good("web-1", 1), &[]).unwrap();
        assert_eq!(first.first_met, [MachineId::new("web-1").unwrap()]);
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
            let refused = meet(&mut known, view, &["web-2"]).unwrap_err();
            let text = refused.to_string();
            assert!(matches!(refused, Distrust::Changed { .. }), "{refused:?}");
            for said in [key(1).public().as_str(), key(2).public().as_str(), "--accept-key web-1"] {
                assert!(text.contains(said), "{text}");
            }
            assert_eq!(known, before);
        }
        let accepted = meet(&mut known, &good("web-1", 2), &["web-1"]).unwrap();
        assert_eq!(accepted.accepted, [MachineId::new("web-1").unwrap()]);
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
        let refused = meet(&mut known, &view, &["web-1"]).unwrap_err();
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
        let met = known.recipients(&Workspace::main(), &targets, &views, &BTreeSet::new()).unwrap();
        let named: Vec<_> = met.unsealable.iter().map(|(id, why)| (id.as_str(), *why)).collect();
        let (no_keys, silent) = (Unsealable::NoKeys, Unsealable::Silent);
        assert_eq!(named, [("nobody", no_keys), ("old-1", no_keys), ("web-2", silent)]);
        assert_eq!(met.keys.len(), 1);
    }

    #[test]
    fn the_file_is_read_as_it_was_written_and_nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-machines");
        let file = KnownFile::hold(path.clone()).unwrap();
        assert_eq!(file.read().unwrap(), Known::default());
        let mut known = Known::default();
        for (name, byte) in [("web-2", 2), ("web-1", 1)] {
            meet(&mut known, &good(name, byte), &[]).unwrap();
        }
        file.write(&known).unwrap();
        assert_eq!(Known::read(&path).unwrap(), known);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with("web-1 U"));
    }

    #[rstest]
    #[case("web-1 rubbish\n", 1)]
    #[case("web-1\n", 1)]
    #[case("W U\n", 1)]
    #[case("\n", 1)]
    fn a_file_of_somebody_else_is_refused(#[case] text: &str, #[case] line: usize) {
        assert_eq!(Known::parse(text), Err(line));
        let good = format!("web-1 {}\n", key(1).public());
        assert_eq!(Known::parse(&format!("{good}{good}")), Err(2), "a machine has one key");
    }
}
