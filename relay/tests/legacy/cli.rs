//! The command line of the real program: what it prints, where, and how it ends; and where the key is not.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use signalbox_testkit::{eventually, process::Daemon};

use crate::{
    center::{Center, KEY},
    harness::{Machine, PATIENCE, QUICK, lines},
};

#[rstest]
#[case(&["k", "u", "--poll-interval", "999"], "Error: --poll-interval must be a number >= 1000\n", false)]
#[case(&["k", "u", "--heartbeat-interval", "x"], "Error: --heartbeat-interval must be a number >= 5000\n", false)]
#[case(&["k", "u", "--log-level", "loud"], "Error: --log-level must be one of: debug, info, warn, error\n", false)]
#[case(&["k", "u", "--store-dir"], "Error: --store-dir requires a path argument\n", false)]
#[case(&["k", "u", "--deployment-url"], "Error: --deployment-url requires a URL argument\n", false)]
#[case(&["k", "u", "--component-name"], "Error: --component-name requires a name argument\n", false)]
#[case(&["k", "u", "--public-api-module"], "Error: --public-api-module requires a module name argument\n", false)]
#[case(&["k", "u", "--poll-interval=2000"], "Error: Unknown option: --poll-interval=2000\n", false)]
#[case(&["k", "u", "-x"], "Error: Unexpected argument: -x\n", false)]
#[case(&["k"], "Error: API_KEY and CONVEX_URL are required\n", true)]
fn what_is_wrong_is_on_stderr(
    #[case] args: &[&str],
    #[case] message: &str,
    #[case] usage: bool,
) -> Result<()> {
    let output = Machine::new()?.output(args)?;
    assert_eq!(String::from_utf8(output.stderr)?, message);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout)?.starts_with("Usage: "), usage);
    Ok(())
}

#[rstest]
#[case(&["--help"], "Usage: signalbox-relay <API_KEY> <URL>", 0)]
#[case(&["k", "-h", "--nope"], "Usage: signalbox-relay <API_KEY> <URL>", 0)]
#[case(&["--version"], concat!("signalbox-relay ", env!("CARGO_PKG_VERSION"), "\n"), 0)]
#[case(&["-v"], concat!("signalbox-relay ", env!("CARGO_PKG_VERSION"), "\n"), 0)]
#[case(&[], "Usage: signalbox-relay <API_KEY> <URL>", 1)]
fn answers_are_on_stdout(#[case] args: &[&str], #[case] begin: &str, #[case] code: i32) -> Result<()> {
    let output = Machine::new()?.output(args)?;
    let stdout = String::from_utf8(output.stdout)?;
    assert!(stdout.starts_with(begin), "{stdout}");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(code), 0));
    Ok(())
}

#[test]
fn the_words_are_still_there() -> Result<()> {
    let output = Machine::new()?.output(&["run", "--help"])?;
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout)?.contains("--creds"));
    let output = Machine::new()?.output(&["run"])?;
    assert_eq!(output.status.code(), Some(64));
    Ok(())
}

#[test]
fn a_url_that_no_center_can_be_at_is_an_error_and_leaves_nothing() -> Result<()> {
    let machine = Machine::new()?;
    let output = machine.output(&[KEY, "HTTP://x"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains("the URL is not valid"));
    assert_eq!(fs::read_dir(machine.home.path())?.count(), 1);
    Ok(())
}

/// How a key comes to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Argument,
    Variable,
    File,
    Stdin,
    /// By standard input, and another one is in the environment.
    StdinAndVariable,
}

#[rstest]
#[case(By::Argument)]
#[case(By::Variable)]
#[case(By::File)]
#[case(By::Stdin)]
#[case(By::StdinAndVariable)]
#[tokio::test]
async fn the_key_is_in_no_argument_and_no_environment(#[case] by: By) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let file = machine.file("key");
    fs::write(&file, format!("{KEY}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let mut command = machine.program();
    match by {
        By::Argument => command.args([KEY, &center.url]),
        By::Variable => command.env("SIGNALBOX_API_KEY", KEY).arg(&center.url),
        By::File => command.arg("--api-key-file").arg(&file).arg(&center.url),
        By::Stdin => command.args(["-", &center.url]),
        By::StdinAndVariable => command.env("SIGNALBOX_API_KEY", "sk_other").args(["-", &center.url]),
    };
    command.args(QUICK).arg("--store-dir").arg(machine.store());
    let has_stdin = matches!(by, By::Stdin | By::StdinAndVariable);
    let relay = if has_stdin { behind_a_pipe(&command)? } else { Daemon::spawn(&mut command)? };
    center.queue("c1", "env; tr '\\0' '\\n' < /proc/self/environ");
    let result = center.result("c1", PATIENCE).await?;
    let text = result["output"].as_str().context("no output")?;
    assert!(text.contains("HOME="), "{text}");
    let keeper = machine.keeper_pid().await?;
    let pids = if has_stdin { vec![keeper] } else { vec![relay.pid(), keeper] };
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let seen = fs::read(format!("/proc/{pid}/{file}"))?;
            let seen = String::from_utf8_lossy(&seen).into_owned();
            assert!(!seen.contains("sk_"), "{file} of {pid}: {seen}");
        }
    }
    assert!(!text.contains("sk_") && !relay.stdout()?.contains("sk_") && !relay.stderr()?.contains("sk_"));
    let told = center.asked("POST /relay/verify", 1, PATIENCE).await?;
    assert_eq!(told[0].json()?["apiKey"], KEY);
    Ok(())
}

/// The program behind a pipe that the key comes through.
fn behind_a_pipe(command: &Command) -> Result<Daemon> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("echo {KEY} | exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    Daemon::spawn(&mut shell)
}

#[rstest]
#[case("", "holds no API key")]
#[case("two words\n", "holds no API key")]
fn a_key_that_is_none_is_an_error(#[case] stdin: &str, #[case] message: &str) -> Result<()> {
    let machine = Machine::new()?;
    let mut command = machine.program();
    let mut child = command
        .args(["-", "http://127.0.0.1:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes())?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.starts_with("Error: ") && stderr.contains(message), "{stderr}");
    Ok(())
}

#[test]
fn a_key_file_that_others_can_read_is_refused() -> Result<()> {
    let machine = Machine::new()?;
    let file = machine.file("key");
    fs::write(&file, KEY)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let path = file.display().to_string();
    let output = machine.output(&["http://127.0.0.1:1", "--api-key-file", &path])?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("can be read by others"), "{stderr}");
    Ok(())
}

#[tokio::test]
async fn log_lines_are_those_that_are_read_elsewhere() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo top-secret");
    center.script("POST /relay/heartbeat", [crate::center::Reply::Drop]);
    let relay = machine.relay_with(&center, &["--component-name", "x"])?;
    center.result("c1", PATIENCE).await?;
    eventually("both streams", || async {
        ensure!(relay.stdout()?.contains("Command ended") && relay.stderr()?.contains("Heartbeat not sent"));
        Ok(())
    })
    .await?;
    let (stdout, stderr) = (relay.stdout()?, relay.stderr()?);
    for (text, levels) in [(&stdout, ["] DEBUG ", "] INFO  "]), (&stderr, ["] WARN  ", "] ERROR "])] {
        for line in text.lines() {
            ensure!(line.starts_with("[20") && line.get(24..26) == Some("Z]"), "no time: {line}");
            ensure!(levels.iter().any(|level| line.get(25..33) == Some(level)), "another level: {line}");
        }
    }
    assert!(stderr.contains("Option has no effect {\"option\":\"--component-name\"}"), "{stderr}");
    assert!(!stdout.contains("top-secret") && !stderr.contains("top-secret"), "{stdout}");
    assert!(stdout.contains(r#""command":"c1""#), "{stdout}");
    Ok(())
}

#[tokio::test]
async fn the_store_is_at_home_and_made_only_for_a_good_key() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let output = tokio::task::spawn_blocking({
        let mut command = machine.program();
        command.args(["sk_wrong", &center.url]);
        move || command.output()
    })
    .await??;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains("API key verification failed: Invalid API key"));
    assert_eq!(fs::read_dir(machine.home.path())?.count(), 1, "a wrong key left something behind");
    let mut command = machine.program();
    let _relay = Daemon::spawn(command.args([KEY, &center.url]))?;
    center.asked("GET /relay/commands", 1, PATIENCE).await?;
    let store = machine.file(".signalbox-relay");
    assert_eq!(fs::metadata(&store)?.permissions().mode() & 0o777, 0o700);
    assert_eq!(lines(&store.join("relay.lock"))?.len(), 1);
    Ok(())
}
