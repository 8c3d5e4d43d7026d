//! A store with a vault, and the program that keeps it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_relay::vault::{Vault, VaultPlace};
use signalbox_schemas::credential::CredentialValue;
use tempfile::TempDir;

/// What must be found nowhere.
pub(crate) const MARKER: &str = "correct-horse-battery-staple";

/// Keys that open nothing.
pub(crate) fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

/// A folder with a store in it.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// `signalbox-relay credentials WORDS --store …`, without a terminal.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
        command.arg("credentials").args(words).arg("--store").arg(self.store());
        command.env_remove("SIGNALBOX_API_KEY").stdin(Stdio::null());
        command
    }

    /// Its output, with this on its standard input.
    pub(crate) fn output(&self, words: &[&str], stdin: &str) -> Result<Output> {
        // In a session of its own it has no terminal, whoever runs the tests.
        let mut command = Command::new("setsid");
        let inner = self.command(words);
        command.arg("--wait").arg(inner.get_program()).args(inner.get_args()).env_remove("SIGNALBOX_API_KEY");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting it")?;
        // It may end without reading.
        drop(child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes()));
        Ok(child.wait_with_output()?)
    }

    /// What it prints when it succeeds.
    pub(crate) fn ok(&self, words: &[&str], stdin: &str) -> Result<String> {
        let output = self.output(words, stdin)?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it says when it ends with this code.
    pub(crate) fn fails(&self, code: i32, words: &[&str], stdin: &str) -> Result<String> {
        let output = self.output(words, stdin)?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code), "{words:?} ended with {}: {stderr}", output.status);
        Ok(stderr)
    }

    pub(crate) fn add(&self, name: &str, value: &str) -> Result<String> {
        self.ok(&["add", name, "--type", "password", "--value-file", "-"], value)
    }

    pub(crate) fn place(&self) -> VaultPlace {
        VaultPlace::new(&self.store(), None)
    }

    /// Everything in the vault, opened anew.
    pub(crate) fn all(&self) -> Result<BTreeMap<String, CredentialValue>> {
        let vault = Vault::open(self.place())?;
        let of = |entry: &signalbox_relay::vault::Entry| {
            Ok((entry.label.name.to_string(), vault.value(&entry.label.name)?))
        };
        vault.entries().iter().map(of).collect()
    }

    /// The names of what lies in the store.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let names =
            fs::read_dir(self.store())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

pub(crate) fn password(text: &str) -> CredentialValue {
    CredentialValue::Password { password: text.to_owned().into() }
}
