//! The terminal is given back by a panic, a stop and the end, and taken again afterwards: in a real terminal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use rustix::process::{Pid, Signal, kill_process};
use signalbox_console::tui::{TuiError, TuiOptions, run, terminal::Guard};
use signalbox_schemas::signed::SigningKey;
use signalbox_testkit::{eventually::eventually, pty::Pty};
use tokio::{sync::mpsc, task::JoinSet};

const BOUND: Duration = Duration::from_secs(20);
/// Names the file that tells the program in the terminal to panic.
const GO: &str = "SIGNALBOX_TEST_GO";

#[tokio::test]
async fn a_panic_gives_the_terminal_back_and_is_read_on_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    for (program, message) in
        [("a_thread_that_panics", "on a thread of its own"), ("a_task_that_panics", "beside the console")]
    {
        let this = std::env::current_exe()?;
        let go = dir.join(program);
        let script = format!(
            "stty -a >{0}/before; {1} --ignored --exact --nocapture {program}; stty -a >{0}/after",
            dir.display(),
            this.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env(GO, &go);
        let pty = Pty::spawn(&command, 100, 30)?;
        eventually("the alternate screen", || async {
            ensure!(pty.is_alternate_screen(), "{}", pty.screen());
            Ok(())
        })
        .await?;
        fs::write(&go, "")?;
        pty.wait(BOUND).await?;
        let bytes = String::from_utf8_lossy(&pty.bytes()).into_owned();
        let taken = bytes.find("\u{1b}[?1049h").context("the terminal was never taken")?;
        let given_back = bytes.rfind("\u{1b}[?1049l").context("it was never given back")?;
        let panicked = bytes.find(message).context("the panic was not told")?;
        assert!(taken < given_back && given_back < panicked, "{program}: {bytes:?}");
        assert!(!pty.is_alternate_screen());
        assert_eq!(
            fs::read_to_string(dir.join("before"))?,
            fs::read_to_string(dir.join("after"))?,
            "{program}: the terminal is not as it was"
        );
    }
    Ok(())
}

/// A shell with job control in a terminal, and a console in it. The shell waits for Enter once the console has
/// stopped, then brings it back with `fg`.
fn console_in_a_shell(dir: &Path) -> Result<Pty> {
    let script = format!(
        "stty -a >{0}/before; {1} --ignored --exact --nocapture a_console; \
         echo STOPPED; stty -a >{0}/stopped; read x; fg; stty -a >{0}/after; echo LEFT",
        dir.display(),
        std::env::current_exe()?.display()
    );
    let mut command = Command::new("sh");
    command.args(["-m", "-c", &script]).env(GO, dir.join("pid"));
    Pty::spawn(&command, 100, 30)
}

/// The screen is drawn whole, and a key is answered: nothing hangs.
async fn is_alive(pty: &mut Pty) -> Result<()> {
    eventually("the alternate screen", || async {
        ensure!(pty.is_alternate_screen(), "{}", pty.screen());
        Ok(())
    })
    .await?;
    pty.wait_for("waiting for the fleet", BOUND).await?;
    pty.type_keys("?")?;
    pty.wait_for("keys: machines", BOUND).await?;
    pty.type_keys("?")?;
    pty.wait_for("waiting for the fleet", BOUND).await?;
    Ok(())
}

fn count(pty: &Pty, sequence: &str) -> usize {
    String::from_utf8_lossy(&pty.bytes()).matches(sequence).count()
}

/// Asks where the cursor is. Nobody would read the answer while the keys are read elsewhere.
const WHERE: &str = "\u{1b}[6n";
const CLEAR: &str = "\u{1b}[2J";

#[tokio::test]
async fn a_redraw_draws_everything_and_asks_the_terminal_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut pty = console_in_a_shell(dir.path())?;
    is_alive(&mut pty).await?;
    let cleared = count(&pty, CLEAR);
    pty.type_keys("\x0c")?;
    eventually("a redraw", || async {
        ensure!(count(&pty, CLEAR) > cleared, "nothing was cleared");
        Ok(())
    })
    .await?;
    is_alive(&mut pty).await?;
    assert_eq!(count(&pty, WHERE), 0, "the terminal was asked where its cursor is");
    Ok(())
}

#[tokio::test]
async fn a_console_that_is_stopped_gives_the_terminal_back_until_it_goes_on() -> Result<()> {
    // By its key, and by somebody else.
    for by_key in [true, false] {
        let dir = tempfile::tempdir()?;
        let dir = dir.path();
        let mut pty = console_in_a_shell(dir)?;
        is_alive(&mut pty).await?;
        if by_key {
            pty.type_keys("\x1a")?;
        } else {
            kill_process(pid(dir)?, Signal::TSTP)?;
        }
        pty.wait_for("STOPPED", BOUND).await?;
        assert!(!pty.is_alternate_screen(), "the alternate screen stays");
        let bytes = String::from_utf8_lossy(&pty.bytes()).into_owned();
        assert!(bytes.rfind("\u{1b}[?25h") > bytes.rfind("\u{1b}[?25l"), "the cursor stays hidden");
        eventually("the shell's terminal", || async {
            ensure!(fs::read(dir.join("before"))? == fs::read(dir.join("stopped"))?, "it is another");
            Ok(())
        })
        .await?;
        pty.type_keys("\r")?;
        is_alive(&mut pty).await?;
        pty.type_keys("q")?;
        pty.wait_for("LEFT", BOUND).await?;
        pty.wait(BOUND).await?;
        assert_eq!(count(&pty, WHERE), 0, "the terminal was asked where its cursor is");
        assert_eq!(fs::read_to_string(dir.join("before"))?, fs::read_to_string(dir.join("after"))?);
    }
    Ok(())
}

#[tokio::test]
async fn a_console_that_goes_on_after_a_stop_it_could_not_hear_takes_the_terminal_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut pty = console_in_a_shell(dir.path())?;
    is_alive(&mut pty).await?;
    // It is stopped wherever it is: in the middle of a drawing the terminal would take the shell's words for its rest.
    eventually("the last line of the screen", || async {
        ensure!(!pty.screen().contains("esc back"), "{}", pty.screen());
        Ok(())
    })
    .await?;
    kill_process(pid(dir.path())?, Signal::STOP)?;
    pty.wait_for("STOPPED", BOUND).await?;
    let taken = count(&pty, "\u{1b}[?1049h");
    // The terminal is still raw: nobody makes a line end of a return.
    pty.type_keys("\n")?;
    eventually("the terminal is taken again", || async {
        ensure!(count(&pty, "\u{1b}[?1049h") > taken, "{}", pty.screen());
        Ok(())
    })
    .await?;
    is_alive(&mut pty).await?;
    pty.type_keys("q")?;
    pty.wait_for("LEFT", BOUND).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_shell_to_come_back_from_nothing_stops() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--ignored", "--exact", "--nocapture", "a_console"]).env(GO, dir.path().join("pid"));
    let mut pty = Pty::spawn(&command, 100, 30)?;
    is_alive(&mut pty).await?;
    pty.type_keys("\x1a")?;
    pty.wait_for("no shell to come back from", BOUND).await?;
    is_alive(&mut pty).await
}

#[tokio::test]
async fn an_address_that_is_none_ends_the_console_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let seed = include_str!("seven.seed").trim();
    let key = SigningKey::from_seed(seed)?;
    let claims = serde_json::json!({ "sub": key.public(), "name": "local" }).to_string();
    let jwt = format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.as_bytes()));
    let block = |name: &str, text: &str| format!("-----BEGIN {name}-----\n{text}\n------END {name}------\n");
    fs::create_dir(dir.join("creds"))?;
    fs::create_dir(dir.join("keys"))?;
    fs::create_dir(dir.join("log"))?;
    fs::write(dir.join("state.json"), "{}")?;
    fs::write(dir.join("keys/operator-local.seed"), seed)?;
    let creds = block("NATS USER JWT", &jwt) + &block("USER NKEY SEED", seed);
    fs::write(dir.join("creds/operator-local.creds"), creds)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    command.args(["--nats", "nats://[", "--state-dir"]).arg(dir);
    let pty = Pty::spawn(&command, 100, 30)?;
    let status = pty.wait(BOUND).await?;
    assert!(!status.success());
    assert!(!pty.is_alternate_screen());
    assert!(pty.screen().contains("the broker cannot be reached"), "{}", pty.screen());
    Ok(())
}

#[tokio::test]
async fn a_terminal_that_knows_no_sequences_gets_none() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for term in ["dumb", ""] {
        for args in [&[][..], &["up"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
            command.args(args).arg("--state-dir").arg(dir.path()).env("TERM", term);
            let pty = Pty::spawn(&command, 100, 30)?;
            let status = pty.wait(BOUND).await?;
            assert_eq!(status.exit_code(), 2, "{}", pty.screen());
            assert!(pty.screen().contains("TERM is not set or says `dumb`"), "{}", pty.screen());
            assert_eq!(count(&pty, "\u{1b}"), 0);
        }
    }
    Ok(())
}

fn pid(dir: &Path) -> Result<Pid> {
    let text = fs::read_to_string(dir.join("pid"))?;
    Pid::from_raw(text.trim().parse()?).context("a pid")
}

#[tokio::test]
#[ignore = "a program that the tests above start in a terminal"]
async fn a_console() -> Result<()> {
    fs::write(std::env::var_os(GO).context("this is no test by itself")?, std::process::id().to_string())?;
    let (_telling, told) = mpsc::channel(1);
    let (asks, _asked) = mpsc::channel(1);
    Ok(run(told, asks, TuiOptions::default()).await?)
}

#[tokio::test]
#[ignore = "a program that the test above starts in a terminal"]
async fn a_thread_that_panics() -> Result<()> {
    let taken = Guard::take()?;
    told_to_go().await?;
    let ended = std::thread::spawn(|| panic!("on a thread of its own")).join();
    assert!(ended.is_err());
    // As if everything stood still afterwards: the hook alone gives the terminal back.
    std::mem::forget(taken);
    Ok(())
}

#[tokio::test]
#[ignore = "a program that the test above starts in a terminal"]
async fn a_task_that_panics() -> Result<()> {
    // Held: the console goes on as long as somebody could tell it something.
    let (_telling, told) = mpsc::channel(1);
    let (asks, _asked) = mpsc::channel(1);
    let mut console = JoinSet::new();
    console.spawn(run(told, asks, TuiOptions::default()));
    told_to_go().await?;
    let mut other = JoinSet::new();
    other.spawn(async { panic!("beside the console") });
    assert!(other.join_next().await.context("a task")?.is_err());
    let shown = console.join_next().await.context("a console")??;
    assert!(matches!(shown, Err(TuiError::Panicked)), "it went on without its terminal: {shown:?}");
    Ok(())
}

async fn told_to_go() -> Result<()> {
    let go = PathBuf::from(std::env::var_os(GO).context("this is no test by itself")?);
    eventually("the word to go", || async {
        ensure!(go.exists(), "{} is not there", go.display());
        Ok(())
    })
    .await
}
