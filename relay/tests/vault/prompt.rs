//! Values that a terminal is asked for.

use std::{fs::File, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use rstest::rstest;
use signalbox_testkit::{eventually, ordinary::Ordinary, process::Signal, pty::Pty};

use crate::harness::{Home, MARKER, key, password};

const BOUND: Duration = Duration::from_secs(20);

/// The program in a terminal, and behind it what the terminal does with what is typed.
fn in_terminal(home: &Home, words: &[&str]) -> Result<Pty> {
    let command = home.command(words);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        r#""$@"; echo "ended with $?"; stty -a | grep -ow -e '-\?echo' -e '-\?icanon' -e '-\?isig'"#,
        "sh",
    ]);
    shell.arg(command.get_program()).args(command.get_args());
    Pty::spawn(&shell, 160, 40)
}

/// The program that the shell started.
async fn program(terminal: &Pty) -> Result<u32> {
    let shell = terminal.pid();
    eventually("the program", || async {
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        Ok(children.trim().parse::<u32>()?)
    })
    .await
}

async fn assert_restored(terminal: &mut Pty, code: i32) -> Result<()> {
    terminal.wait_for(&format!("ended with {code}"), BOUND).await?;
    terminal.wait(BOUND).await?;
    let screen = terminal.screen();
    for mode in ["echo", "icanon", "isig"] {
        assert!(screen.lines().any(|line| line.trim() == mode), "{mode} is off:\n{screen}");
    }
    Ok(())
}

#[tokio::test]
async fn a_password_is_typed_twice_and_not_shown() -> Result<()> {
    let home = Home::new()?;
    let mut terminal = in_terminal(&home, &["add", "a", "--type", "password"])?;
    terminal.wait_for("Password:", BOUND).await?;
    terminal.type_keys(format!("{MARKER}x\u{7f}\r"))?;
    terminal.wait_for("Once more:", BOUND).await?;
    terminal.type_keys(format!("{MARKER}\r"))?;
    assert_restored(&mut terminal, 0).await?;
    assert!(!String::from_utf8_lossy(&terminal.bytes()).contains(MARKER), "it was shown");
    assert_eq!(home.all()?["a"], password(MARKER));
    Ok(())
}

#[tokio::test]
async fn nobody_sees_into_a_program_that_asks_for_a_secret() -> Result<()> {
    let user = Ordinary::new()?;
    let program = user.program(Path::new(env!("CARGO_BIN_EXE_signalbox-relay")))?;
    let mut command = user.command(&program);
    command.args(["credentials", "add", "a", "--type", "password", "--store"]).arg(user.home().join("store"));
    user.answers_unseen(&command, "Password:").await
}

#[tokio::test]
async fn two_that_differ_are_not_kept() -> Result<()> {
    let home = Home::new()?;
    let mut terminal = in_terminal(&home, &["add", "a", "--type", "api_key"])?;
    terminal.wait_for("Token:", BOUND).await?;
    terminal.type_keys("one\r")?;
    terminal.wait_for("Once more:", BOUND).await?;
    terminal.type_keys("two\r")?;
    assert_restored(&mut terminal, 1).await?;
    assert!(home.all()?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_passphrase_of_a_key_is_asked_for() -> Result<()> {
    let home = Home::new()?;
    let key = key("ed25519_locked");
    let words = ["add", "a", "--type", "ssh_key", "--key-file", key.to_str().unwrap()];
    let mut terminal = in_terminal(&home, &words)?;
    terminal.wait_for("Passphrase of", BOUND).await?;
    terminal.type_keys("hunter2\r")?;
    assert_restored(&mut terminal, 0).await?;
    signalbox_relay::vault::key::open(&home.all()?["a"])?;
    Ok(())
}

#[tokio::test]
async fn who_gives_up_has_the_terminal_back() -> Result<()> {
    let home = Home::new()?;
    let mut terminal = in_terminal(&home, &["add", "a", "--type", "password"])?;
    terminal.wait_for("Password:", BOUND).await?;
    terminal.type_keys("half\u{3}")?;
    assert_restored(&mut terminal, 1).await
}

#[tokio::test]
async fn a_program_that_is_told_to_end_gives_the_terminal_back() -> Result<()> {
    let home = Home::new()?;
    let mut terminal = in_terminal(&home, &["add", "a", "--type", "password"])?;
    terminal.wait_for("Password:", BOUND).await?;
    let asking = program(&terminal).await?;
    signalbox_testkit::process::signal(asking, Signal::TERM)?;
    assert_restored(&mut terminal, 1).await
}

#[rstest]
#[case(Signal::INT, 130)]
#[case(Signal::TERM, 143)]
#[tokio::test]
async fn once_it_was_answered_signals_end_the_program_again(
    #[case] signal: Signal,
    #[case] code: i32,
) -> Result<()> {
    let home = Home::new()?;
    let value = home.file("value", MARKER)?;
    home.ok(&["add", "a", "--type", "password", "--value-file", value.to_str().unwrap()], "")?;
    let lock = File::open(home.store().join("vault.lock"))?;
    lock.lock()?;
    let mut terminal = in_terminal(&home, &["add", "a", "--type", "password"])?;
    let waiting = program(&terminal).await?;
    for question in ["Password:", "Once more:"] {
        terminal.wait_for(question, BOUND).await?;
        terminal.type_keys("other\r")?;
    }
    eventually("the end of the last question", || async {
        ensure!(String::from_utf8_lossy(&terminal.bytes()).contains("Once more: \r\n"));
        Ok(())
    })
    .await?;
    // What comes before the terminal has been given back is ignored.
    eventually("its end", || async {
        signalbox_testkit::process::signal(waiting, signal)?;
        ensure!(!std::fs::exists(format!("/proc/{waiting}"))?, "it goes on");
        Ok(())
    })
    .await?;
    assert_restored(&mut terminal, code).await?;
    assert_eq!(home.all()?["a"], password(MARKER));
    Ok(())
}
