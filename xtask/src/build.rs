//! The workspace as cargo describes it, and cargo itself.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The programs that are shipped; packages and programs have one name each.
pub(crate) const SHIPPED: [&str; 3] = ["signalbox", "signalbox-bridge", "signalbox-relay"];

/// Where the workspace and its build results lie, and what its packages depend on.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the top-level `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo puts its results; honours `CARGO_TARGET_DIR` and cargo's configuration.
    pub(crate) target: PathBuf,
    /// `cargo metadata`, members only.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo cannot be started or cannot read the workspace.
    pub(crate) fn locate() -> Result<Self> {
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let output = Command::new(cargo_path())
            .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
            .current_dir(&manifest_dir)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("starting cargo")?;
        ensure!(output.status.success(), "cargo cannot read the workspace ({})", output.status);
        let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo's metadata")?;
        let folder = |key: &str| -> Result<PathBuf> {
            let path = metadata.get(key).and_then(Value::as_str);
            Ok(path.with_context(|| format!("cargo's metadata has no {key}"))?.into())
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")?, metadata })
    }

    /// Where fetched tools are kept. Always below the workspace itself, whatever the build folder is, so that
    /// every build of this checkout shares them.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// `cargo ARGS` in the workspace's root, its stdin closed.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo_path());
        command.args(args).current_dir(&self.root).stdin(Stdio::null());
        command
    }

    /// Builds the three shipped programs in release, and others of the workspace's packages; cargo shows its own progress.
    /// Answers the folder they lie in.
    ///
    /// # Errors
    /// When the build fails; cargo has said why by then.
    pub(crate) fn build_release(&self, others: &[&str]) -> Result<PathBuf> {
        let mut command = self.cargo(&["build", "--release", "--locked"]);
        for package in SHIPPED.iter().chain(others) {
            command.args(["-p", package]);
        }
        let status = command.status().context("starting cargo")?;
        ensure!(status.success(), "the build failed");
        let folder = self.target.join("release");
        for program in SHIPPED.iter().chain(others) {
            ensure!(folder.join(program).is_file(), "the build left no {program} in {}", folder.display());
        }
        Ok(folder)
    }
}

/// The cargo that runs this task, so that its toolchain stays the same.
fn cargo_path() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
