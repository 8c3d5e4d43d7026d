//! 100 MiB of output from one relay: to a feed, to the command line, and beside that through a pipe and through SSH.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Scope, float64, peer_row, shell, timed};
use crate::{
    peers::Sshd,
    place::Place,
    probe::{memory_kib, peak_kib},
    report::{Budget, Report, Row, Samples, Unit},
};

const BYTES: u64 = 100 * 1024 * 1024;
const ROUNDS: usize = 10;
const PIPE: &str = "floor: 100 MiB through a local pipe";
const SSH: &str = "peer: 100 MiB through `ssh` over a warm master";
/// Between two looks at a program's memory.
const LOOK: Duration = Duration::from_millis(5);

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let place = Place::start(&[], 1).await?;
    let operator = place.operator().await?;
    let command = format!("head -c {BYTES} /dev/zero");
    let machine = place.stack.machine(0)?;
    let [bridge, broker] = place.servers()?;
    let parts = [("relay", machine.pid), ("keeper", machine.keeper_pid), bridge, broker];
    for (name, pid) in parts {
        let (rss, _) = memory_kib(pid)?;
        report.add(Row::one(&format!("{name} before it: RSS"), Unit::Kib, float64(rss)));
    }
    let sshd = Sshd::start().await;
    let (mut pipe, mut ssh, mut feed, mut cli) = (Samples::ms(), Samples::ms(), Samples::ms(), Samples::ms());
    let mut client = 0;
    for _ in 0..scope.of(ROUNDS) {
        pipe.took(timed(shell(&format!("{command} | cat")))?);
        if let Ok(sshd) = &sshd {
            let mut through = sshd.warm_connection()?;
            through.arg(&command);
            ssh.took(timed(through)?);
        }
        let took = operator.run("demo-1", &command).await?;
        ensure!(took.output_bytes == BYTES, "{} bytes", took.output_bytes);
        feed.took(took.from_submit);
        let (took, peak) = watched(place.stack.cli(&["run", "--on", "demo-1", "--", &command])?).await?;
        cli.took(took);
        client = client.max(peak);
    }
    report.add(Row::new(PIPE, &pipe));
    report.add(peer_row(SSH, &ssh, sshd.as_ref().err()));
    let feed = Row::new("100 MiB, submit to last byte and exit in a feed", &feed).over(PIPE);
    report.add(feed.within(Budget::most(1_500.0, "1.5 s")));
    let cli = Row::new("100 MiB, `signalbox run` from its start to its end", &cli).over(SSH);
    report.add(cli.within(Budget::most(1_500.0, "1.5 s")));
    for (name, pid) in parts {
        let row = Row::one(&format!("{name}: highest RSS"), Unit::Kib, float64(peak_kib(pid)?));
        report.add(if name == "relay" { row.within(Budget::most(32.0 * 1024.0, "32 MiB")) } else { row });
    }
    report.add(Row::one("`signalbox run`: highest RSS", Unit::Kib, float64(client)));
    Ok(())
}

/// Runs a program to its end; how long it took, and its highest memory in KiB as far as it was seen.
async fn watched(command: Command) -> Result<(Duration, u64)> {
    let since = Instant::now();
    let mut command = tokio::process::Command::from(command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let pid = child.id().context("no pid")?;
    let mut peak = 0;
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                ensure!(status.success(), "{command:?} ended with {status}");
                return Ok((since.elapsed(), peak));
            }
            // It may end between two looks.
            () = tokio::time::sleep(LOOK) => peak = peak.max(peak_kib(pid).unwrap_or(0)),
        }
    }
}
