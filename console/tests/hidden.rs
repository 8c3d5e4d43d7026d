//! A console that asks for a secret keeps its memory from others of the same user before the first key is pressed.

use std::path::Path;

use anyhow::Result;
use signalbox_testkit::ordinary::Ordinary;

#[tokio::test]
async fn nobody_sees_into_a_console_that_asks_for_a_secret() -> Result<()> {
    let user = Ordinary::new()?;
    let program = user.program(Path::new(env!("CARGO_BIN_EXE_signalbox")))?;
    let mut command = user.command(&program);
    command.args(["credential", "push", "db", "--type", "password", "--to", "all"]);
    command.env("SIGNALBOX_STATE_DIR", user.home().join("state"));
    user.answers_unseen(&command, "the password:").await
}
