//! The console in a real terminal: the main job by key presses, and a terminal that is left as it was.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::{
    broker::nats_server,
    eventually::eventually,
    process::{Signal, bin, signal},
    pty::Pty,
    slow_link::{SlowLink, Slowness},
    stack::{Options, Stack},
    tmux::Tmux,
};

const BOUND: Duration = Duration::from_secs(20);

fn console(stack: &Stack, cols: u16, rows: u16) -> Result<Pty> {
    Pty::spawn(&stack.cli(&[])?, cols, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_starts_everything_and_one_key_ends_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let command = format!(
        "SIGNALBOX_NATS_SERVER={} {} up --state-dir {} --http 127.0.0.1:0 --nats 127.0.0.1:0",
        nats_server()?.display(),
        bin("signalbox")?.display(),
        state.display()
    );
    let tmux = Tmux::start(
        &format!(
            "stty -a > {0}/before; {command}; code=$?; stty -a > {0}/after; exit $code",
            dir.path().display()
        ),
        120,
        36,
    )?;
    tmux.wait_for("3 online", BOUND).await?;
    // Marks demo-1 and demo-3, and runs something on both.
    tmux.keys(&["Space", "j", "j"])?;
    tmux.keys(&["Space", "x"])?;
    tmux.wait_for("run on 2 machines", BOUND).await?;
    tmux.type_text("echo hello-$((40+2)); sleep 2; echo bye; exit 3")?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("demo-1 │ hello-42", BOUND).await?;
    tmux.wait_for("demo-3 │ bye", BOUND).await?;
    tmux.wait_for("2 failed", BOUND).await?;
    tmux.resize(40, 10)?;
    tmux.wait_for("\u{2716}", BOUND).await?;
    tmux.resize(80, 24)?;
    tmux.keys(&["m"])?;
    tmux.wait_for("machines", BOUND).await?;
    let broker: u32 = std::fs::read_to_string(state.join("run/broker.pid"))?.trim().parse()?;
    tmux.keys(&["q"])?;
    assert_eq!(tmux.wait(BOUND).await?, 0);
    // The first line of `stty` tells the size, which was changed from outside.
    let modes = |name: &str| -> Result<String> {
        let text = std::fs::read_to_string(dir.path().join(name))?;
        Ok(text.split_once('\n').context("one line")?.1.to_owned())
    };
    assert_eq!(modes("before")?, modes("after")?, "the terminal is not as it was");
    assert!(!signalbox_testkit::process::is_alive(broker), "the broker is alive");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_leaves_nothing_behind() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let command = format!(
        "SIGNALBOX_NATS_SERVER={} {} up --state-dir {} --http 127.0.0.1:0 --nats 127.0.0.1:0 --relays 1",
        nats_server()?.display(),
        bin("signalbox")?.display(),
        state.display()
    );
    let tmux = Tmux::start(&command, 100, 30)?;
    tmux.wait_for("1 online", BOUND).await?;
    let mut pids = Vec::new();
    for name in ["broker", "bridge", "demo-1"] {
        let pid: u32 = std::fs::read_to_string(state.join(format!("run/{name}.pid")))?.trim().parse()?;
        pids.push(pid);
    }
    let lock = std::fs::read(state.join("machines/demo-1/store/keeper.lock"))?;
    let lock: serde_json::Value = serde_json::from_slice(&lock)?;
    pids.push(u32::try_from(lock["pid"].as_u64().context("no pid")?)?);
    drop(tmux);
    eventually("the end of all that was started", || async {
        for pid in &pids {
            ensure!(!signalbox_testkit::process::is_alive(*pid), "{pid} is alive");
        }
        Ok(())
    })
    .await
}

/// A console in a shell that keeps what `stty` says `before` and `after` it, and its `pid`.
fn console_between_stty(stack: &Stack, dir: &Path) -> Result<Pty> {
    let script = "stty -a >before; sh -c 'echo $$ >pid; exec \"$0\"' \"$0\"; stty -a >after";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(bin("signalbox")?).current_dir(dir);
    Pty::spawn(command.env("SIGNALBOX_STATE_DIR", &stack.ready().state_dir), 100, 30)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_on_a_signal() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    for ending in [Signal::TERM, Signal::INT, Signal::HUP] {
        let dir = tempfile::tempdir()?;
        let kept = |name: &str| std::fs::read_to_string(dir.path().join(name)).context(name.to_owned());
        let pty = console_between_stty(&stack, dir.path())?;
        pty.wait_for("demo-1", BOUND).await?;
        assert!(pty.is_alternate_screen());
        signal(kept("pid")?.trim().parse()?, ending)?;
        pty.wait(BOUND).await?;
        assert!(!pty.is_alternate_screen(), "left in the alternate screen by {ending:?}");
        assert_eq!(kept("before")?, kept("after")?, "{ending:?}: the terminal is not as it was");
        let bytes = pty.bytes();
        let last = |sequence: &[u8]| bytes.windows(sequence.len()).rposition(|found| found == sequence);
        assert!(last(b"\x1b[?25h") > last(b"\x1b[?25l"), "{ending:?}: the cursor stays hidden");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_colour_no_colour_is_written() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let mut command = stack.cli(&[])?;
    command.env("NO_COLOR", "1");
    let pty = Pty::spawn(&command, 100, 30)?;
    let screen = pty.wait_for("demo-1", BOUND).await?;
    assert!(screen.contains("online"), "states have no words: {screen}");
    let bytes = String::from_utf8_lossy(&pty.bytes()).into_owned();
    for sequence in bytes.split("\u{1b}[").skip(1) {
        let Some((parameters, _)) = sequence.split_once('m') else { continue };
        let colour = |p: &str| p.parse::<u8>().is_ok_and(|p| matches!(p, 30..=38 | 40..=48 | 90..=107));
        assert!(!parameters.split(';').any(colour), "a colour: {parameters:?}");
    }
    Ok(())
}

/// Presses a key; how long it took until the screen was as it must be then.
async fn press(pty: &mut Pty, key: &str, is_so: impl Fn(&str) -> bool) -> Result<Duration> {
    let pressed = Instant::now();
    pty.type_keys(key)?;
    pty.wait_until(&format!("effect of {key:?}"), BOUND, is_so).await?;
    Ok(pressed.elapsed())
}

/// Help, and away again; how long each took.
async fn look_at_help(pty: &mut Pty) -> Result<[Duration; 2]> {
    let shown = press(pty, "?", |screen| screen.contains("keys: ")).await?;
    let hidden = press(pty, "\u{1b}", |screen| !screen.contains("keys: ")).await?;
    Ok([shown, hidden])
}

/// Types a command, asks for it, and leaves the prompt; how long each key took.
async fn ask_for(pty: &mut Pty, command: &str) -> Result<Vec<Duration>> {
    let mut waits = vec![press(pty, "x", |screen| screen.contains("run on")).await?];
    for (n, key) in command.char_indices() {
        let typed = &command[..n + key.len_utf8()];
        waits.push(press(pty, &key.to_string(), |screen| screen.contains(typed)).await?);
    }
    pty.type_keys("\r\u{1b}")?;
    pty.wait_until("end of the prompt", BOUND, |screen| !screen.contains("run on")).await?;
    Ok(waits)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_show_while_the_broker_stands_still() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let mut pty = console(&stack, 100, 30)?;
    pty.wait_for("demo-1", BOUND).await?;
    let broker = stack.pid("broker")?;
    signal(broker, Signal::STOP)?;
    let since = Instant::now();
    let mut waits = Vec::new();
    while since.elapsed() < Duration::from_secs(5) {
        waits.extend(look_at_help(&mut pty).await?);
    }
    // A command that nobody can take.
    waits.extend(ask_for(&mut pty, "echo later").await?);
    while since.elapsed() < Duration::from_secs(10) {
        waits.extend(look_at_help(&mut pty).await?);
    }
    signal(broker, Signal::CONT)?;
    waits.sort();
    let of = |percent: usize| waits[waits.len() * percent / 100];
    println!("{} keys: median {:?}, p95 {:?}, slowest {:?}", waits.len(), of(50), of(95), waits.last());
    assert!(of(95) < Duration::from_millis(50), "one key in twenty took {:?}", of(95));
    pty.wait_for("online", BOUND).await?;
    pty.type_keys("q")?;
    pty.wait(BOUND).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_without_a_fleet_says_what_to_do() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(bin("signalbox")?);
    command.env("SIGNALBOX_STATE_DIR", dir.path().join("nothing"));
    let pty = Pty::spawn(&command, 100, 30)?;
    let status = pty.wait(BOUND).await?;
    assert!(!status.success());
    assert!(pty.screen().contains("signalbox up"), "{}", pty.screen());
    Ok(())
}

/// An output of 21 MiB fills the screen: its end and its beginning, a line in the middle, and all of it in a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_is_looked_at_searched_and_saved() -> Result<()> {
    const LINES: usize = 1_000_000;
    let stack = Stack::start(Options::relays(1)).await?;
    let id = stack.http().submit("demo-1", &format!("seq -f 'line %08.0f of many' 1 {LINES}")).await?;
    stack.http().settled(&id).await?;
    let mut pty = console(&stack, 100, 30)?;
    pty.wait_for("demo-1", BOUND).await?;
    pty.type_keys("c")?;
    pty.wait_for("seq -f", BOUND).await?;
    pty.type_keys("\ro")?;
    pty.wait_for("output of demo-1", BOUND).await?;
    pty.wait_for("100% of 21 MiB", BOUND).await?;
    pty.wait_for(&format!("line {LINES:08} of many"), BOUND).await?;
    pty.type_keys("g")?;
    pty.wait_for("line 00000001 of many", BOUND).await?;
    pty.type_keys("/00500000\r")?;
    pty.wait_for("line 00500000 of many", BOUND).await?;
    pty.wait_for("1 of 1+", BOUND).await?;

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("log");
    pty.type_keys(format!("s\u{15}{}\r", path.display()))?;
    pty.wait_for("saved 21 MiB in 1 file", BOUND).await?;
    let saved = std::fs::read(&path)?;
    let expected: Vec<u8> = (1..=LINES).flat_map(|n| format!("line {n:08} of many\n").into_bytes()).collect();
    ensure!(saved == expected, "the file has {} bytes, and other ones", saved.len());
    let whole = stack.http().output(&id, "demo-1", "stdout").await?;
    ensure!(whole == expected, "what is stored are other bytes");
    Ok(())
}

/// What ended with much output is not read to be looked at: its end, and its beginning when it is gone to.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_is_opened_without_all_of_it_on_the_way() -> Result<()> {
    const LINES: usize = 1_000_000;
    const MIB: u64 = 1024 * 1024;
    let stack = Stack::start(Options::relays(1)).await?;
    let id = stack.http().submit("demo-1", &format!("seq -f 'line %08.0f of many' 1 {LINES}")).await?;
    stack.http().settled(&id).await?;
    let slowness = Slowness { rate: 4_000_000, delay: Duration::from_millis(5) };
    let (_, port) = stack.ready().nats.rsplit_once(':').context("an address without a port")?;
    let link = SlowLink::to(port.parse()?, slowness).await?;
    let mut pty =
        Pty::spawn(&stack.cli(&["--nats", &format!("nats://127.0.0.1:{}", link.port())])?, 100, 30)?;
    pty.wait_for("demo-1", BOUND).await?;
    pty.type_keys("c")?;
    pty.wait_for("seq -f", BOUND).await?;
    pty.type_keys("\r")?;
    pty.wait_for("21 MiB, read when this output is opened", BOUND).await?;
    let brought = link.brought_bytes();
    ensure!(brought < MIB, "{brought} bytes came before the output was opened");
    pty.type_keys("o")?;
    pty.wait_for(&format!("line {LINES:08} of many"), BOUND).await?;
    pty.type_keys("g")?;
    pty.wait_for("line 00000001 of many", BOUND).await?;
    let brought = link.brought_bytes();
    ensure!(brought < 4 * MIB, "{brought} bytes came for two screens");
    Ok(())
}
