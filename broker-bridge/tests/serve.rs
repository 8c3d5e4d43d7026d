//! The program itself: how it starts, what it says, what it survives, how it ends.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_schemas::layout::Layout;
use signalbox_testkit::{
    Broker,
    broker::nats_server,
    eventually,
    http::{Answer, Http},
    process::{Daemon, Signal, is_alive, signal},
    small_disk::SmallDisk,
};
use tempfile::TempDir;

/// Longest start of a debug build on a busy machine.
const READY: Duration = Duration::from_secs(30);
/// What the bridge promises for its end.
const END: Duration = Duration::from_secs(4);

/// A state directory; a broker that a killed bridge left behind goes with it.
struct State {
    dir: TempDir,
}

impl State {
    fn new() -> Result<Self> {
        let state = Self { dir: tempfile::tempdir()? };
        let made = bridge("init")
            .args(["--machines", "demo-1,demo-2", "--state-dir"])
            .arg(state.root())
            .output()
            .context("running init")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        ensure!(made.stdout.is_empty() && made.stderr.is_empty(), "init has something to say");
        Ok(state)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn layout(&self) -> Layout {
        Layout::new(self.root())
    }

    fn serve(&self, arguments: &[&str]) -> Result<Daemon> {
        let mut command = bridge("serve");
        command.arg("--state-dir").arg(self.root()).args(arguments);
        Daemon::spawn(&mut command)
    }

    fn pid(&self, name: &str) -> Result<u32> {
        Ok(fs::read_to_string(self.layout().pid(name))?.trim().parse()?)
    }

    fn http(&self, ready: &Value) -> Result<Http> {
        let token = fs::read_to_string(self.layout().admin_token())?;
        Ok(Http::new(text(ready, "http"), token.trim()))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid("broker") {
            // It is gone already in all tests but those that failed.
            let _ = signal(pid, Signal::KILL);
        }
    }
}

fn bridge(command: &str) -> Command {
    let mut bridge = Command::new(env!("CARGO_BIN_EXE_signalbox-bridge"));
    bridge.arg(command).env_remove("RUST_LOG").env_remove("SIGNALBOX_NATS");
    if let Ok(server) = nats_server() {
        bridge.env("SIGNALBOX_NATS_SERVER", server);
    }
    bridge
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, member: &str) -> Option<u32> {
    value.get(member).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
}

async fn ready(daemon: &Daemon) -> Result<Value> {
    let line = daemon.first_line(READY).await?;
    serde_json::from_str(&line).with_context(|| line)
}

/// Ends a bridge and sees that it keeps its promise.
async fn end(daemon: &Daemon) -> Result<()> {
    let began = Instant::now();
    daemon.terminate()?;
    let status = daemon.wait(END).await?;
    ensure!(status.success(), "{status}: {}", daemon.stderr()?);
    ensure!(began.elapsed() < END);
    Ok(())
}

/// The one line with which a bridge refused to start.
async fn refusal(daemon: &Daemon) -> Result<String> {
    let status = daemon.wait(READY).await?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(daemon.stdout()?.is_empty());
    let stderr = daemon.stderr()?;
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("signalbox-bridge: ")).collect();
    ensure!(lines.len() == 1 && stderr.trim_end().ends_with(lines.concat().as_str()), "{stderr}");
    Ok(lines.concat())
}

#[tokio::test]
async fn it_starts_says_one_line_and_leaves_nothing_running() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker"])?;
    let ready = ready(&daemon).await?;
    let broker = number(&ready, "broker_pid").context("no broker_pid")?;
    assert_eq!(number(&ready, "pid"), Some(daemon.pid()));
    assert_eq!((state.pid("bridge")?, state.pid("broker")?), (daemon.pid(), broker));
    assert_eq!(Path::new(text(&ready, "data")), state.layout().bridge_data());
    assert!(text(&ready, "nats").starts_with("nats://127.0.0.1:"));

    let http = state.http(&ready)?;
    assert_eq!(http.get("/health").await?.status, 200);
    let machines = http.json("/api/v1/machines").await?;
    let items = machines.get("items").and_then(Value::as_array).context("no items")?;
    assert_eq!(items.iter().map(|item| text(item, "id")).collect::<Vec<_>>(), ["demo-1", "demo-2"]);

    end(&daemon).await?;
    assert!(!is_alive(broker), "the broker stayed");
    assert_eq!(daemon.stdout()?.lines().count(), 1);
    let open: Vec<PathBuf> = files(&state.root())?
        .into_iter()
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0))
        .collect();
    assert_eq!(open, Vec::<PathBuf>::new(), "open to others");
    Ok(())
}

/// Every file and directory below `dir`.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        }
        all.push(path);
    }
    Ok(all)
}

#[tokio::test]
async fn a_broker_outlives_its_bridge_and_is_taken_over() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker"])?;
    let first = ready(&daemon).await?;
    daemon.kill()?;
    daemon.wait(END).await?;
    let broker = number(&first, "broker_pid").context("no broker_pid")?;
    assert!(is_alive(broker));
    // Found even when the pid file was never written, and by another name of the directory.
    fs::remove_file(state.layout().pid("broker"))?;
    let alias = state.dir.path().join("alias");
    std::os::unix::fs::symlink(state.root(), &alias)?;

    let daemon = Daemon::spawn(bridge("serve").arg("--state-dir").arg(&alias).arg("--embedded-broker"))?;
    let second = ready(&daemon).await?;
    assert_eq!((text(&second, "nats"), number(&second, "broker_pid")), (text(&first, "nats"), Some(broker)));
    assert_eq!(state.pid("broker")?, broker);

    // A broker that is not our child is watched as well, and started again.
    signal(broker, Signal::KILL)?;
    eventually("another broker", || async {
        let pid = state.pid("broker")?;
        ensure!(pid != broker && is_alive(pid));
        Ok(())
    })
    .await?;
    end(&daemon).await?;
    assert!(!is_alive(state.pid("broker").unwrap_or(broker)));
    Ok(())
}

#[tokio::test]
async fn a_broker_on_another_port_is_replaced() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker"])?;
    let broker = number(&ready(&daemon).await?, "broker_pid").context("no broker_pid")?;
    daemon.kill()?;
    daemon.wait(END).await?;
    let listen = format!("127.0.0.1:{}", signalbox_testkit::broker::free_port()?);
    let daemon = state.serve(&["--embedded-broker", "--nats-listen", &listen])?;
    assert_eq!(text(&ready(&daemon).await?, "nats"), format!("nats://{listen}"));
    assert!(!is_alive(broker), "two brokers on one store");
    end(&daemon).await
}

#[tokio::test]
async fn a_broker_that_dies_is_started_again_on_its_port() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker"])?;
    let ready = ready(&daemon).await?;
    let first = number(&ready, "broker_pid").context("no broker_pid")?;
    signal(first, Signal::KILL)?;
    eventually("another broker", || async {
        let pid = state.pid("broker")?;
        ensure!(pid != first && is_alive(pid));
        Ok(pid)
    })
    .await?;
    let http = state.http(&ready)?;
    eventually("a healthy bridge", || async {
        let status = http.get("/health").await?.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    end(&daemon).await
}

#[tokio::test]
async fn without_restart_it_ends_with_its_broker() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker", "--no-restart"])?;
    ready(&daemon).await?;
    signal(state.pid("broker")?, Signal::KILL)?;
    let status = daemon.wait(READY).await?;
    assert_eq!(status.code(), Some(1));
    assert!(daemon.stderr()?.ends_with("signalbox-bridge: the broker died\n"), "{}", daemon.stderr()?);
    Ok(())
}

#[tokio::test]
async fn a_broker_that_hangs_does_not_hold_the_end() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker"])?;
    ready(&daemon).await?;
    let broker = state.pid("broker")?;
    signal(broker, Signal::STOP)?;
    end(&daemon).await?;
    assert!(!is_alive(broker));
    Ok(())
}

/// The room is there again when it is asked, and its store takes nothing on all the same.
#[tokio::test]
async fn a_bridge_whose_disk_was_full_says_so_and_ends_and_the_next_one_serves() -> Result<()> {
    let state = State::new()?;
    let data = state.dir.path().join("data");
    let Some(disk) = SmallDisk::over(&data, 16)? else {
        return Ok(());
    };
    let arguments = ["--embedded-broker", "--data", &data.to_string_lossy()];
    let daemon = state.serve(&arguments)?;
    let http = state.http(&ready(&daemon).await?)?;
    disk.fill(&[])?;
    let command = json!({"on": "demo-1", "command": format!("true {}", "x".repeat(30_000))});
    let failed = eventually("a read or write of the store that fails", || async {
        let submitted = http.post("/api/v1/commands", &command).await;
        let listed = http.get("/api/v1/commands").await;
        let is_refused = |answer: &Result<Answer>| answer.as_ref().is_ok_and(|it| it.status == 503);
        ensure!(is_refused(&submitted) || is_refused(&listed) || daemon.exit_status().is_some(), "not yet");
        Ok(())
    });
    failed.await?;
    disk.make_room()?;
    let told_well = http.get("/health").await.is_ok_and(|health| health.status == 200);
    assert!(!told_well, "it says that all is well: {}", daemon.stderr()?);
    let status = daemon.wait(END).await?;
    assert_eq!(status.code(), Some(1), "{}", daemon.stderr()?);
    let stderr = daemon.stderr()?;
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("signalbox-bridge: the store of the view failed: cannot "), "{stderr}");

    let daemon = state.serve(&arguments)?;
    let http = state.http(&ready(&daemon).await?)?;
    assert_eq!(http.get("/health").await?.status, 200);
    assert_eq!(http.get("/api/v1/commands").await?.status, 200);
    end(&daemon).await
}

#[tokio::test]
async fn a_second_bridge_joins() -> Result<()> {
    let state = State::new()?;
    let first = state.serve(&["--embedded-broker"])?;
    let one = ready(&first).await?;
    let data = state.dir.path().join("second");
    let second = state.serve(&["--nats", text(&one, "nats"), "--data", &data.to_string_lossy()])?;
    let two = ready(&second).await?;
    assert_eq!(two.get("broker_pid"), Some(&Value::Null));
    assert_eq!(state.pid("bridge")?, first.pid(), "the second bridge wrote a pid file");
    let machines = |ready| async move { state_machines(ready).await };
    let token = fs::read_to_string(state.layout().admin_token())?;
    let answers = [machines((&one, token.clone())).await?, machines((&two, token)).await?];
    assert_eq!(answers.first(), answers.last());
    end(&second).await?;
    end(&first).await
}

async fn state_machines((ready, token): (&Value, String)) -> Result<Value> {
    Http::new(text(ready, "http"), token.trim()).json("/api/v1/machines").await
}

#[tokio::test]
async fn what_is_in_use_is_named_and_left_alone() -> Result<()> {
    let state = State::new()?;
    let first = state.serve(&["--embedded-broker"])?;
    let one = ready(&first).await?;
    let (http, nats) = (text(&one, "http"), text(&one, "nats"));
    let (http, listen) = (http.trim_start_matches("http://"), nats.trim_start_matches("nats://"));

    let said = refusal(&state.serve(&["--embedded-broker"])?).await?;
    assert!(said.contains(&format!("in use by the bridge with pid {}", first.pid())), "{said}");
    let said = refusal(&state.serve(&["--nats", nats])?).await?;
    assert!(said.contains("used by another bridge"), "{said}");
    let said = refusal(&state.serve(&["--nats", nats, "--http", http])?).await?;
    assert!(said.contains(&format!("{http} is taken; choose another with --http")), "{said}");
    let other = State::new()?;
    let said = refusal(&other.serve(&["--embedded-broker", "--nats-listen", listen])?).await?;
    assert!(said.contains(&format!("{listen} is taken; choose another with --nats-listen")), "{said}");

    assert_eq!(state.http(&one)?.get("/health").await?.status, 200);
    end(&first).await
}

#[tokio::test]
async fn what_cannot_work_is_one_line() -> Result<()> {
    let state = State::new()?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let said = refusal(&state.serve(&["--nats", &format!("nats://{nobody}")])?).await?;
    assert!(said.contains("no connection to the broker at"), "{said}");

    // A broker that does not know our accounts.
    let stranger = Broker::start_with_config_text("authorization { token: \"x\" }").await?;
    let said = refusal(&state.serve(&["--nats", &stranger.url()])?).await?;
    assert!(said.contains("refused the login"), "{said}");

    let old = state.dir.path().join("nats-server");
    fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.10.29'\n")?;
    fs::set_permissions(&old, fs::Permissions::from_mode(0o700))?;
    let old_path = old.to_string_lossy().into_owned();
    let said = refusal(&state.serve(&["--embedded-broker", "--nats-server", &old_path])?).await?;
    assert!(said.contains("is nats-server 2.10.29, and 2.15 or newer is needed"), "{said}");

    // A broker that ends at once: its last words are passed on.
    fs::write(
        &old,
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'nats-server: v2.15.1' && exit\necho 'no luck today' >&2\n",
    )?;
    let said = refusal(&state.serve(&["--embedded-broker", "--nats-server", &old_path])?).await?;
    assert!(said.ends_with("the broker ended at its start: no luck today"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_foreign_state_directory_is_refused_and_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("letter"), "dear")?;
    for command in ["init", "serve"] {
        let mut bridge = bridge(command);
        bridge.arg("--state-dir").arg(dir.path());
        if command == "serve" {
            bridge.arg("--embedded-broker");
        }
        let said = refusal(&Daemon::spawn(&mut bridge)?).await?;
        let expected = format!(
            "signalbox-bridge: {} is not a Signalbox state directory; choose another with --state-dir",
            dir.path().display()
        );
        assert_eq!(said, expected);
    }
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    Ok(())
}

#[tokio::test]
async fn usage_errors_come_before_anything_is_opened() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("never");
    for (command, arguments) in [
        ("serve", &["--embedded-broker", "--http", "nowhere"][..]),
        ("serve", &["--embedded-broker", "--log", "a=b=c"]),
        ("serve", &[]),
        ("init", &["--machines", "a,a"]),
        ("init", &["--operators", "Not A Token"]),
    ] {
        let mut bridge = bridge(command);
        let daemon = Daemon::spawn(bridge.arg("--state-dir").arg(&root).args(arguments))?;
        assert_eq!(daemon.wait(READY).await?.code(), Some(64), "{arguments:?}: {}", daemon.stderr()?);
    }
    assert!(!root.exists());
    Ok(())
}

#[tokio::test]
async fn what_machines_are_for_outlives_the_bridge_and_its_view() -> Result<()> {
    let state = State::new()?;
    let daemon = state.serve(&["--embedded-broker"])?;
    let http = state.http(&ready(&daemon).await?)?;
    let set = http.post("/api/v1/labels", &json!({"on": "demo-1", "set": {"role": "web"}})).await?;
    ensure!(set.status == 200, "{}", set.text());
    end(&daemon).await?;
    // What the state directory knows of the machine is published again at each start.
    fs::remove_dir_all(state.layout().bridge_data())?;
    let daemon = state.serve(&["--embedded-broker"])?;
    let http = state.http(&ready(&daemon).await?)?;
    eventually("the label is there", || async {
        let machines = http.json("/api/v1/machines").await?;
        let role = machines.pointer("/items/0/labels/role/value").and_then(Value::as_str);
        ensure!(role == Some("web"), "{machines}");
        Ok(())
    })
    .await?;
    end(&daemon).await
}
