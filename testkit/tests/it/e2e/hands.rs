//! What the README says that hands can do in the console, done in a real terminal on a real system.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use signalbox_testkit::{
    broker::nats_server,
    eventually::eventually,
    process::{Signal, bin, signal},
    pty::Pty,
    stack::Stack,
    tmux::Tmux,
};

const BOUND: Duration = Duration::from_secs(20);

/// The console of a running system, in tmux; `config` is its configuration.
async fn console(stack: &Stack, dir: &Path, config: &str) -> Result<Tmux> {
    let file = dir.join("config.toml");
    std::fs::write(&file, config)?;
    let command = format!(
        "SIGNALBOX_CONFIG={} SIGNALBOX_STATE_DIR={} SIGNALBOX_NATS_SERVER={} {}",
        file.display(),
        stack.ready().state_dir.display(),
        nats_server()?.display(),
        bin("signalbox")?.display()
    );
    let tmux = Tmux::start(&command, 120, 36)?;
    tmux.wait_for("3 online", BOUND).await?;
    Ok(tmux)
}

#[tokio::test(flavor = "multi_thread")]
async fn waves_are_written_paused_and_aborted() -> Result<()> {
    let (stack, dir) = (Stack::demo().await?, tempfile::tempdir()?);
    let tmux = console(&stack, dir.path(), "").await?;
    tmux.type_text("ax")?;
    tmux.wait_for("run on 3 machines", BOUND).await?;
    tmux.type_text("exit 7")?;
    tmux.keys(&["Tab", "Tab"])?;
    tmux.type_text("canary 1, 1, pause after 1")?;
    tmux.keys(&["Enter"])?;
    // The canary fails, and nobody else begins.
    tmux.wait_for("wave 1 of 3 paused", BOUND).await?;
    tmux.wait_for("2 held", BOUND).await?;
    tmux.type_text("P")?;
    tmux.wait_for("2 of 3 machines wait to be let go", BOUND).await?;
    tmux.keys(&["Escape"])?;
    // Together they would be another key: alt and B.
    tmux.wait_for("esc back", BOUND).await?;
    tmux.type_text("B")?;
    tmux.wait_for("2 of 3 machines are never let go then", BOUND).await?;
    tmux.type_text("l")?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("2 cancelled", BOUND).await?;
    // What failed, once more.
    tmux.type_text("r")?;
    tmux.wait_for("run again on demo-", BOUND).await?;
    tmux.keys(&["C-u"])?;
    tmux.type_text("echo mended")?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("1 completed", BOUND).await?;
    tmux.type_text("q")?;
    assert_eq!(tmux.wait(BOUND).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_typed_texts_are_found_and_saved_commands_run() -> Result<()> {
    let (stack, dir) = (Stack::demo().await?, tempfile::tempdir()?);
    let config = r#"
[run]
confirm_above = 2
[[command]]
name = "greet"
text = "echo hello {{who}}"
on = "demo-[1-3]"
[keys.machines]
"Z" = "quit"
"#;
    let tmux = console(&stack, dir.path(), config).await?;
    tmux.type_text(":saved greet who=operators")?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("echo hello operators", BOUND).await?;
    tmux.wait_for("run on 3 machines", BOUND).await?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("they are more than 2", BOUND).await?;
    tmux.type_text("3")?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("\u{2502} hello operators", BOUND).await?;
    tmux.wait_for("3 completed", BOUND).await?;
    // Found by its words, and run on one machine.
    tmux.keys(&["Escape"])?;
    tmux.wait_for("sort:", BOUND).await?;
    tmux.type_text("x")?;
    tmux.wait_for("run on demo-1", BOUND).await?;
    tmux.keys(&["C-r"])?;
    tmux.type_text("operators echo")?;
    tmux.wait_for("\u{258c}echo hello operators", BOUND).await?;
    tmux.keys(&["Enter", "Enter"])?;
    tmux.wait_for("1 completed", BOUND).await?;
    // A key of one's own.
    tmux.keys(&["Escape"])?;
    tmux.wait_for("sort:", BOUND).await?;
    tmux.type_text("Z")?;
    assert_eq!(tmux.wait(BOUND).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_filtered_by_selectors_and_other_machines_looked_up() -> Result<()> {
    let (stack, dir) = (Stack::demo().await?, tempfile::tempdir()?);
    let tmux = console(&stack, dir.path(), "").await?;
    tmux.type_text("/cpus>0 and not demo-2")?;
    tmux.wait_for("2 of 3", BOUND).await?;
    tmux.keys(&["Enter"])?;
    tmux.type_text("x")?;
    tmux.wait_for("run on demo-1", BOUND).await?;
    tmux.type_text("echo on $((6*7))")?;
    tmux.keys(&["Tab", "C-u"])?;
    tmux.type_text("demo-[2-9] and state=online")?;
    tmux.keys(&["Tab"])?;
    tmux.wait_for("run on 2 machines", BOUND).await?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("demo-3 \u{2502} on 42", BOUND).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_sizes_leaves_a_screen_that_is_right() -> Result<()> {
    let stack = Stack::demo().await?;
    let mut pty = Pty::spawn(&stack.cli(&[])?, 120, 36)?;
    pty.wait_for("3 online", BOUND).await?;
    pty.type_keys("jax")?;
    pty.wait_for("run on 3 machines", BOUND).await?;
    for n in 0..300_u16 {
        // From what nothing can be drawn on to more than any screen has.
        pty.resize(1 + n * 37 % 300, 1 + n * 23 % 100)?;
        if n % 50 == 0 {
            pty.type_keys("w")?;
        }
    }
    pty.resize(90, 28)?;
    let screen = pty.wait_until("the prompt", BOUND, |screen| screen.contains("command  wwwwww")).await?;
    assert!(screen.lines().count() <= 28 && screen.contains("run on 3 machines"), "{screen}");
    pty.type_keys("\x1b")?;
    pty.wait_until("the cursor where it was", BOUND, |screen| {
        let is_here = |line: &str| line.starts_with('\u{258c}') && line.contains("demo-2");
        screen.lines().any(is_here) && !screen.contains("run on 3 machines")
    })
    .await?;
    pty.type_keys("q")?;
    assert!(pty.wait(BOUND).await?.success());
    Ok(())
}

/// Commands with a text in them.
async fn commands(stack: &Stack, text: &str) -> Result<Vec<Value>> {
    let all = stack.http().json("/api/v1/commands?limit=500").await?;
    let all = all["commands"].as_array().or(all["items"].as_array()).context("no list")?.clone();
    Ok(all.into_iter().filter(|one| one["command"].as_str().is_some_and(|it| it.contains(text))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_is_killed_leaves_no_command_half_sent() -> Result<()> {
    let stack = Stack::demo().await?;
    let mut sent = 0;
    for n in 0..12 {
        let mut pty = Pty::spawn(&stack.cli(&[])?, 100, 30)?;
        pty.wait_for("3 online", BOUND).await?;
        pty.type_keys(format!("axecho killed-{n}"))?;
        pty.wait_for(&format!("echo killed-{n}"), BOUND).await?;
        pty.type_keys("\r")?;
        // At once, once it is on its way, and once it is there.
        match n % 3 {
            0 => {}
            1 => {
                let is_sent =
                    |screen: &str| screen.contains("asking the bridge") || screen.contains("\u{25b8} echo");
                pty.wait_until("the command on its way", BOUND, is_sent).await?;
            }
            _ => {
                pty.wait_for("\u{25b8} echo", BOUND).await?;
            }
        }
        signal(pty.pid(), Signal::KILL)?;
        pty.wait(BOUND).await?;
        let whole = |one: &Value| {
            let counts =
                one["counts"].as_object().map(|counts| counts.values().filter_map(Value::as_u64).sum());
            counts == Some(3_u64)
        };
        let found = commands(&stack, &format!("killed-{n}")).await?;
        ensure!(found.len() <= 1 && found.iter().all(whole), "{found:?}");
        for one in &found {
            sent += 1;
            let id = one["id"].as_str().context("no id")?;
            eventually("the end of all of its runs", || async {
                let settled = stack.http().settled(id).await?;
                ensure!(settled["counts"] == serde_json::json!({"completed": 3}), "{settled}");
                Ok(())
            })
            .await?;
        }
    }
    assert!(sent >= 4, "only {sent} of 12 were sent before the console was killed");
    Ok(())
}
