//! A console that asks for a secret keeps its memory from others of the same user before the first key is pressed.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use signalbox_testkit::{eventually::eventually, ordinary::Ordinary, process::Daemon, pty::Pty};

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nobody_sees_into_a_console_that_asks_for_a_secret() -> Result<()> {
    let user = Ordinary::new()?;
    let program = user.program(Path::new(env!("CARGO_BIN_EXE_signalbox")))?;
    let mut command = user.command(&program);
    command.args(["credential", "push", "db", "--type", "password", "--to", "all"]);
    command.env("SIGNALBOX_STATE_DIR", user.home().join("state"));
    let mut terminal = Pty::spawn(&command, 160, 10)?;
    terminal.wait_for("the password:", BOUND).await?;
    assert!(!user.sees_into(terminal.pid())?, "whoever runs as the same user reads what is typed");
    terminal.type_keys("\u{3}")?;
    terminal.wait(BOUND).await?;
    // He does see into what is his own and hides nothing.
    let other = Daemon::spawn(user.command(Path::new("sleep")).arg("300"))?;
    eventually("he looks into another one", || async {
        ensure!(user.sees_into(other.pid())?);
        Ok(())
    })
    .await
}
