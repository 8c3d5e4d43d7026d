//! The organisation's recovery key: whoever holds its private half can give a shared credential to more machines.
//!
//! The public half stands in the state directory, beside the operator's own keys, and nowhere else: what is sealed for it is as
//! safe as those, and no bridge has a word in which key it is.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use data_encoding::BASE64URL_NOPAD;
use signalbox_schemas::{
    Base64Url, Secret,
    authors::{Authors, Right},
    credential::{CredentialLabel, SharedSecret},
    layout::Layout,
    sealed::{CONTENT_KEY_BYTES, ContentKey, Context, OpeningKey, Recipient, SealingKey},
    signed::{PublicKey, Signed},
};
use zeroize::Zeroizing;

use super::{
    Access, ClientError,
    change::{NONCE_BYTES, Value, random, unsealed},
    clock::now_ms,
    sign::new_id,
};

/// What the file of a private half begins with: it is told from every other secret.
const BEGIN: &str = "signalbox-recovery-key:";
/// Secret bytes that the key is made from.
const MATERIAL_BYTES: usize = 32;

/// A recovery key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
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
    /// The private half would be written over something.
    #[error("{} is there already; name another file, or remove this one if it is left from a key that was never made", .0.display())]
    Taken(PathBuf),
    /// The private half is written, and is not used.
    #[error("the key is not in use, and {} is of no use; remove it", .out.display())]
    Unused {
        /// Where the private half lies.
        out: PathBuf,
        /// Why.
        source: Box<RecoveryError>,
    },
    /// The file holds something else.
    #[error("{} holds no recovery key", .0.display())]
    NoKey(PathBuf),
    /// What is shared was signed by somebody who may not.
    #[error("what is shared as `{name}` is signed by {key}, who may not give credentials; push it anew")]
    Stranger {
        /// What it is called.
        name: String,
        /// Whose key.
        key: PublicKey,
    },
    /// It is not what was asked for, or was changed.
    #[error("what is shared as `{0}` is not what somebody pushed under that name; push it anew")]
    Changed(String),
    /// It was sealed for another recovery key.
    #[error("`{0}` cannot be opened with this recovery key; it was sealed for another one")]
    OtherKey(String),
}

/// Where the public half is.
pub fn public_file(layout: &Layout) -> PathBuf {
    layout.root().join("recovery.pub")
}

/// The public half, if there is one. Blocks.
///
/// # Errors
/// [`RecoveryError`].
pub fn public(layout: &Layout) -> Result<Option<SealingKey>, RecoveryError> {
    let path = public_file(layout);
    match fs::read_to_string(&path) {
        Ok(text) => read_public(&text).map(Some).ok_or(RecoveryError::NoKey(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RecoveryError::File { doing: "read", path, source }),
    }
}

fn read_public(text: &str) -> Option<SealingKey> {
    let bytes = BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok()?;
    Base64Url(bytes).try_into().ok()
}

/// Makes a key: its private half goes into a file that must not be there, its public half is used from then on. Blocks.
///
/// # Errors
/// [`ClientError::Random`] or [`RecoveryError`], within the result.
pub fn create(layout: &Layout, out: &Path) -> Result<Result<SealingKey, RecoveryError>, ClientError> {
    let material = Zeroizing::new(random::<MATERIAL_BYTES>()?);
    let key = OpeningKey::from_material(&material[..]).map_err(unsealed)?;
    let text = Zeroizing::new(format!("{BEGIN}{}\n", *Zeroizing::new(BASE64URL_NOPAD.encode(&material[..]))));
    let public = format!("{}\n", key.public());
    Ok(write_both(out, text.as_bytes(), &public_file(layout), public.as_bytes())
        .map(|()| key.public().clone()))
}

/// First the private half, for good: what is sealed for a key whose private half went with the power nobody opens.
fn write_both(out: &Path, private: &[u8], public_file: &Path, public: &[u8]) -> Result<(), RecoveryError> {
    write_new(out, private).map_err(|error| match error {
        RecoveryError::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            RecoveryError::Taken(out.to_owned())
        }
        error => error,
    })?;
    let written = sync_folder(out).and_then(|()| write_over(public_file, public));
    written.map_err(|error| RecoveryError::Unused { out: out.to_owned(), source: Box::new(error) })
}

/// Has a name that was made in a folder survive a power failure.
fn sync_folder(file: &Path) -> Result<(), RecoveryError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| RecoveryError::File {
        doing: "keep what was written in",
        path: folder.to_owned(),
        source,
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), RecoveryError> {
    let write = || {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path)?;
        io::Write::write_all(&mut &file, bytes)?;
        file.sync_all()
    };
    write().map_err(|source| RecoveryError::File { doing: "make", path: path.to_owned(), source })
}

fn write_over(path: &Path, bytes: &[u8]) -> Result<(), RecoveryError> {
    let beside = path.with_extension("new");
    let failed = |source| RecoveryError::File { doing: "write", path: path.to_owned(), source };
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write_new(&beside, bytes)?;
    fs::rename(&beside, path).map_err(failed)?;
    sync_folder(path)
}

/// The private half as its file holds it.
///
/// # Errors
/// [`RecoveryError::NoKey`].
pub fn private(path: &Path, text: &Secret) -> Result<OpeningKey, RecoveryError> {
    let none = || RecoveryError::NoKey(path.to_owned());
    let digits = text.expose().trim().strip_prefix(BEGIN).ok_or_else(none)?;
    let material = Zeroizing::new(BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| none())?);
    if material.len() != MATERIAL_BYTES {
        return Err(none());
    }
    OpeningKey::from_material(&material).map_err(|_| none())
}

/// Seals a value for the recovery key, as this operator's word.
///
/// # Errors
/// [`ClientError::Random`], [`ClientError::NotAsMeant`] for a key that is none, [`ClientError::Sign`].
pub fn seal(
    access: &Access,
    label: &CredentialLabel,
    value: &Value,
    recovery: &SealingKey,
) -> Result<Signed<SharedSecret>, ClientError> {
    let cid = new_id();
    let context = Context { ws: &access.ws, name: label.name.as_str(), cid };
    let key = ContentKey::new(random::<CONTENT_KEY_BYTES>()?);
    let body = key.seal(value.bytes(), context, random::<NONCE_BYTES>()?).map_err(unsealed)?;
    let wrapped =
        key.wrap(recovery, context, Recipient::Recovery, random::<CONTENT_KEY_BYTES>()?).map_err(unsealed)?;
    let secret = SharedSecret {
        ws: access.ws.clone(),
        label: label.clone(),
        cid,
        body,
        wrapped,
        recovery_key: recovery.clone(),
        sealed_at: now_ms(),
    };
    Signed::sign(&secret, &access.key).map_err(ClientError::Sign)
}

/// Opens what was sealed for the recovery key, by somebody who may give credentials. Without an authors document that is this
/// operator alone.
///
/// # Errors
/// [`RecoveryError`].
pub fn open(
    access: &Access,
    authors: Option<&Authors>,
    name: &str,
    signed: &Signed<SharedSecret>,
    with: &OpeningKey,
) -> Result<(SharedSecret, Value), RecoveryError> {
    let may = |key: &PublicKey| {
        key == access.key.public()
            || authors.is_some_and(|authors| authors.may_author(key, Right::Credential))
    };
    if !may(signed.key()) {
        return Err(RecoveryError::Stranger { name: name.to_owned(), key: signed.key().clone() });
    }
    let changed = || RecoveryError::Changed(name.to_owned());
    let secret = signed.open(may).map_err(|_| changed())?;
    if secret.ws != access.ws || secret.label.name.as_str() != name || secret.validate().is_err() {
        return Err(changed());
    }
    let context = Context { ws: &secret.ws, name, cid: secret.cid };
    let key = ContentKey::unwrap(&secret.wrapped, with, context, Recipient::Recovery)
        .map_err(|_| RecoveryError::OtherKey(name.to_owned()))?;
    let value = key.open(&secret.body, context).map_err(|_| changed())?;
    let value = Value::opened(value).map_err(|_| changed())?;
    Ok((secret, value))
}

/// The authors document of a state directory, if it is signed with the fleet key that stands beside it. Blocks.
pub fn authors(layout: &Layout) -> Option<Authors> {
    let fleet: PublicKey = fs::read_to_string(layout.fleet_pub()).ok()?.trim().parse().ok()?;
    let document = Signed::<Authors>::from_json(&fs::read(layout.authors()).ok()?).ok()?;
    document.open(|key| *key == fleet).ok().filter(|authors| authors.is_valid_at(now_ms()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::{
        authors::{Author, Role},
        credential::{CredentialType, CredentialValue, StorageMode},
        id::{CredentialName, Workspace},
    };

    use super::*;
    use crate::client::change::tests::{access, key};

    fn label(name: &str) -> CredentialLabel {
        CredentialLabel {
            name: CredentialName::new(name).unwrap(),
            credential_type: CredentialType::Password,
            target: None,
            username: None,
            storage_mode: StorageMode::Shared,
        }
    }

    fn value() -> Value {
        Value::new(&CredentialValue::Password { password: Secret::new("hunter2".into()) }).unwrap()
    }

    fn opening(byte: u8) -> OpeningKey {
        OpeningKey::from_material(&[byte; 32]).unwrap()
    }

    fn authors(rights: &[Right]) -> Authors {
        let author = Author {
            key: key(7).public().clone(),
            name: "operator:other".into(),
            role: Role::Admin,
            rights: rights.to_vec(),
        };
        Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: 0,
            not_after: 1,
            authors: vec![author],
            issuers: vec![],
            bridges: vec![],
            former_bridges: vec![],
            next_fleet_key: None,
            crit: vec![],
        }
    }

    #[test]
    fn whoever_holds_the_key_opens_what_was_shared() {
        let access = access();
        let signed = seal(&access, &label("db"), &value(), opening(9).public()).unwrap();
        assert!(!String::from_utf8_lossy(signed.payload()).contains("hunter2"));
        let (secret, opened) = open(&access, None, "db", &signed, &opening(9)).unwrap();
        assert_eq!((secret.label, opened.bytes()), (label("db"), value().bytes()));
        let other = open(&access, None, "db", &signed, &opening(8)).unwrap_err();
        assert!(matches!(other, RecoveryError::OtherKey(_)), "{other:?}");
        let renamed = open(&access, None, "web", &signed, &opening(9)).unwrap_err();
        assert!(matches!(renamed, RecoveryError::Changed(_)), "{renamed:?}");
    }

    #[rstest]
    #[case(&[Right::Credential], true)]
    #[case(&[Right::Command, Right::Config], false)]
    fn what_a_bridge_or_a_stranger_has_sealed_is_refused(#[case] rights: &[Right], #[case] is_opened: bool) {
        // The recovery key is public: anybody can seal something for it.
        let theirs = Access { key: std::sync::Arc::new(key(7)), ..access() };
        let signed = seal(&theirs, &label("db"), &value(), opening(9).public()).unwrap();
        let opened = open(&access(), Some(&authors(rights)), "db", &signed, &opening(9));
        assert_eq!(opened.is_ok(), is_opened);
        let stranger = open(&access(), None, "db", &signed, &opening(9)).unwrap_err();
        assert!(matches!(stranger, RecoveryError::Stranger { .. }), "{stranger:?}");
    }

    #[test]
    fn a_private_half_that_is_left_over_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, out) = (Layout::new(dir.path().join("state")), dir.path().join("recovery.key"));
        // The state directory is not there.
        let error = create(&layout, &out).unwrap().unwrap_err();
        assert!(matches!(error, RecoveryError::Unused { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("{}", out.display())) && out.exists(), "{error}");
        fs::create_dir(layout.root()).unwrap();
        let error = create(&layout, &out).unwrap().unwrap_err().to_string();
        assert!(error.contains("remove this one"), "{error}");
        fs::remove_file(&out).unwrap();
        create(&layout, &out).unwrap().unwrap();
    }

    #[test]
    fn a_signature_is_looked_at() {
        let (access, signed) =
            (access(), seal(&access(), &label("db"), &value(), opening(9).public()).unwrap());
        let other = seal(&access, &label("db"), &value(), opening(9).public()).unwrap();
        let mut json = serde_json::to_value(&signed).unwrap();
        json["payload"] = serde_json::to_value(&other).unwrap()["payload"].clone();
        let mixed = serde_json::from_value(json).unwrap();
        let changed = open(&access, None, "db", &mixed, &opening(9)).unwrap_err();
        assert!(matches!(changed, RecoveryError::Changed(_)), "{changed:?}");
    }

    #[test]
    fn a_key_that_was_made_is_read_and_used_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (layout, out) = (Layout::new(dir.path()), dir.path().join("recovery.key"));
        assert_eq!(public(&layout).unwrap(), None);
        let made = create(&layout, &out).unwrap().unwrap();
        assert_eq!(public(&layout).unwrap(), Some(made.clone()));
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        let text = Secret::new(fs::read_to_string(&out).unwrap());
        assert_eq!(private(&out, &text).unwrap().public(), &made);
        let again = create(&layout, &out).unwrap().unwrap_err();
        assert!(matches!(again, RecoveryError::Taken(_)), "{again:?}");
        assert_eq!(public(&layout).unwrap(), Some(made));
        for other in ["", "rubbish", "signalbox-recovery-key:", "signalbox-recovery-key:AAAA"] {
            assert!(private(&out, &Secret::new(other.to_owned())).is_err(), "{other}");
        }
    }
}
