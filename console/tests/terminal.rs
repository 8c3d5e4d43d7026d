//! The terminal is given back by a panic, wherever in the program that is: in a real terminal.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use signalbox_console::tui::{TuiError, TuiOptions, run, terminal::Guard};
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
