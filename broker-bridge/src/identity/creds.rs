//! NATS login files: a user's token and the seed of its login key, in the format of the broker's own tools.

use std::path::Path;

use nkeys::{KeyPair, KeyPairType};
use signalbox_schemas::relay_files::{SEED_LINES, TOKEN_LINES, login_file};

use super::{
    InitError,
    accounts::{AccountKeys, UserKind},
    jwt,
    keys::{self, Secret},
    state_dir,
};

/// Sees that `path` logs `name` in, and answers its public login key.
///
/// The login key is made once; the token is minted anew when it differs or is past half of its life.
pub(crate) fn ensure(
    path: &Path,
    accounts: &AccountKeys,
    kind: UserKind,
    name: &str,
    now_secs: u64,
) -> Result<String, InitError> {
    let old = state_dir::read_private(path)?.map(Secret::new);
    let login = match &old {
        Some(old) => {
            let unreadable = || InitError::Key { what: path.display().to_string() };
            let seed = between(old.text(), SEED_LINES).ok_or_else(unreadable)?;
            keys::pair_from(&Secret::new(seed.into()), &KeyPairType::User, path)?
        }
        None => KeyPair::new_user(),
    };
    let key = login.public_key();
    let token = old.as_ref().and_then(|old| between(old.text(), TOKEN_LINES));
    let is_current = token.is_some_and(|token| {
        jwt::read(token).is_some_and(|claims| claims.sub == key)
            && accounts.is_current(token, kind, name, now_secs)
    });
    if !is_current {
        let token = accounts.user(kind, name, &key, now_secs)?;
        let text = Secret::new(login_file(&token, keys::seed_of(&login)?.text()).into_bytes());
        state_dir::write_private(path, text.bytes())?;
    }
    Ok(key)
}

fn between<'a>(text: &'a str, (begin, end): (&str, &str)) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(inner, _)| inner.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbox_schemas::{layout::Layout, limit::DAY_MS};

    #[test]
    fn a_login_keeps_its_key_and_renews_its_token() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        let accounts = AccountKeys::at(&Layout::new(dir.path())).unwrap();
        let path = dir.path().join("a.creds");
        let ensure = |now| ensure(&path, &accounts, UserKind::Relay, "web-1", now).unwrap();
        let read = || std::fs::read_to_string(&path).unwrap();

        let key = ensure(1_000);
        let first = read();
        assert_eq!(ensure(1_001), key);
        assert_eq!(read(), first, "written without need");
        assert_eq!(ensure(1_000 + 201 * DAY_MS / 1000), key);
        assert_ne!(read(), first, "not renewed");
    }
}
