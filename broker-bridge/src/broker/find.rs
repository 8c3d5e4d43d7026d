//! Finding a `nats-server` that is new enough.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::BrokerError;

/// The oldest broker that has what we rely on: replicated streams that sync before they acknowledge, at a useful
/// speed, and the refusals of headers that the streams count on.
const NEEDED: (u32, u32) = (2, 15);
/// Name of the binary.
const BINARY: &str = "nats-server";
/// Longest wait for a binary to tell its version.
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// The binary `named`, or else the first in `search` that is new enough.
///
/// # Errors
/// [`BrokerError::NotFound`], [`BrokerError::TooOld`] or [`BrokerError::NoServer`].
pub(super) async fn server(named: Option<&Path>, search: &[PathBuf]) -> Result<PathBuf, BrokerError> {
    let candidates: Vec<PathBuf> = match named {
        Some(path) => vec![path.to_owned()],
        None => search.iter().map(|dir| dir.join(BINARY)).filter(|path| path.is_file()).collect(),
    };
    let mut refused = None;
    for path in candidates {
        match check(&path).await {
            Ok(()) => return Ok(path),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| BrokerError::NotFound { needed: needed() }))
}

async fn check(path: &Path) -> Result<(), BrokerError> {
    let no_server = || BrokerError::NoServer { path: path.to_owned() };
    let output = Command::new(path).arg("--version").kill_on_drop(true).output();
    let output = timeout(VERSION_WAIT, output).await.map_err(|_| no_server())?.map_err(|_| no_server())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (found, version) = version(&text).ok_or_else(no_server)?;
    if version >= NEEDED {
        return Ok(());
    }
    Err(BrokerError::TooOld { path: path.to_owned(), found: found.to_owned(), needed: needed() })
}

fn needed() -> String {
    format!("{}.{}", NEEDED.0, NEEDED.1)
}

/// Reads `nats-server: v2.15.1`: the version as it stands there, and its first two numbers.
fn version(text: &str) -> Option<(&str, (u32, u32))> {
    let found = text.trim().strip_prefix("nats-server: v")?.split_whitespace().next()?;
    let mut numbers = found.split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((found, (next()?, next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::PermissionsExt as _;

    #[rstest]
    #[case("nats-server: v2.15.1\n", Some((2, 15)))]
    #[case("nats-server: v2.9.25", Some((2, 9)))]
    #[case("nats-server: v3.0.0-RC.1", Some((3, 0)))]
    #[case("bash 5.2", None)]
    #[case("", None)]
    fn versions_are_read(#[case] text: &str, #[case] expected: Option<(u32, u32)>) {
        assert_eq!(version(text).map(|(_, version)| version), expected);
    }

    /// A program that claims to be nats-server `version`.
    fn claims(dir: &Path, version: &str) -> PathBuf {
        let path = dir.join(BINARY);
        std::fs::write(&path, format!("#!/bin/sh\necho 'nats-server: v{version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[tokio::test]
    async fn the_first_that_is_new_enough_is_taken() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        claims(old.path(), "2.10.29");
        let path = claims(new.path(), "2.15.0");
        let search = [old.path().to_owned(), new.path().to_owned()];
        assert_eq!(server(None, &search).await.unwrap(), path);
        let error = server(None, &search[..1]).await.unwrap_err().to_string();
        assert!(error.contains("2.10.29, and 2.15 or newer is needed"), "{error}");
        assert!(matches!(server(None, &[]).await, Err(BrokerError::NotFound { .. })));
        let named = server(Some(Path::new("/bin/true")), &search).await;
        assert!(matches!(named, Err(BrokerError::NoServer { .. })));
    }
}
