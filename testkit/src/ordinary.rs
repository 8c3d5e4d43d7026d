//! A user who is not root, and what he sees of his own processes.
//!
//! The system keeps users from each other; what a program can hide beyond that, it hides from its own user. Root sees all of it, so a
//! test that runs as root looks at things as somebody else.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::{eventually, process::Daemon, pty::Pty};

/// A program that begins, asks and ends takes no longer.
const BOUND: Duration = Duration::from_secs(20);
/// Nobody, as all systems call him.
const NOBODY: u32 = 65_534;
/// What takes the rights from a program before it is one.
const LESS: &str = "setpriv";

/// A user who is not root: nobody where this process is root, and else its own.
#[derive(Debug)]
pub struct Ordinary {
    is_nobody: bool,
    /// A folder of his own.
    home: TempDir,
}

impl Ordinary {
    /// Makes him a folder of his own.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> Result<Self> {
        let (is_nobody, home) = (geteuid().is_root(), TempDir::new().context("making a folder")?);
        if is_nobody {
            chown(home.path(), Some(NOBODY), Some(NOBODY)).context("giving a folder away")?;
        }
        Ok(Self { is_nobody, home })
    }

    /// His folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A copy of a program where he can start it: what is built may lie in a folder that is closed to him.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn program(&self, program: &Path) -> Result<PathBuf> {
        let copy = self.home.path().join(program.file_name().context("no program")?);
        fs::copy(program, &copy).with_context(|| format!("copying {}", program.display()))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).context("letting him start it")?;
        Ok(copy)
    }

    /// How he starts a program. It is the process that is started, and has no child for it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(if self.is_nobody { Path::new(LESS) } else { program });
        if self.is_nobody {
            let user = NOBODY.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(program);
        }
        command.current_dir(self.home.path());
        command
    }

    /// Whether he may look into a process that is his own, as a debugger does.
    ///
    /// # Errors
    /// When the process is not there, or he cannot look at anything.
    pub fn sees_into(&self, pid: u32) -> Result<bool> {
        let what = PathBuf::from(format!("/proc/{pid}/environ"));
        ensure!(what.exists(), "there is no process {pid}");
        let mut look = self.command(Path::new("cat"));
        let looked = look.arg(&what).stdin(Stdio::null()).output().context("looking at a process")?;
        let said = String::from_utf8_lossy(&looked.stderr);
        ensure!(looked.status.success() || said.contains("Permission denied"), "he cannot look: {said}");
        Ok(looked.status.success())
    }

    /// Has a program of his ask a question at a terminal, and sees to it that he does not look into it meanwhile.
    ///
    /// # Errors
    /// When it does not ask, or he looks into it.
    pub async fn answers_unseen(&self, program: &Command, question: &str) -> Result<()> {
        let mut terminal = Pty::spawn(program, 160, 40)?;
        terminal.wait_for(question, BOUND).await?;
        ensure!(!self.sees_into(terminal.pid())?, "whoever runs as the same user reads what is typed");
        terminal.type_keys("\u{3}")?;
        terminal.wait(BOUND).await?;
        self.sees_his_own().await
    }

    /// He does see into what is his own and hides nothing.
    async fn sees_his_own(&self) -> Result<()> {
        let own = Daemon::spawn(self.command(Path::new("sleep")).arg("300"))?;
        eventually("he sees into his own process", || async {
            ensure!(self.sees_into(own.pid())?);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn he_sees_into_what_hides_nothing_and_into_nothing_of_others() {
        let user = Ordinary::new().unwrap();
        user.sees_his_own().await.unwrap();
        if geteuid().is_root() {
            let other = Daemon::spawn(Command::new("sleep").arg("300")).unwrap();
            assert!(!user.sees_into(other.pid()).unwrap());
        }
    }
}
