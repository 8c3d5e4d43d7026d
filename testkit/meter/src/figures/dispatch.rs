//! One command on one machine that has nothing else to do: floors, the chain, and peers, interleaved, so that drift of the
//! machine hits all of them.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result};
use signalbox_link::Store;

use super::{Scope, peer_row, shell, timed};
use crate::{
    fleet::{Fleet, Nature},
    peers::Sshd,
    place::{Place, simulated},
    report::{Budget, Report, Row, Samples},
};

const ROUNDS: usize = 300;
/// Of whole programs: of these every fifth round is enough.
const EVERY: usize = 5;

const TRIP: &str = "floor: NATS, through the broker and back";
const ACK: &str = "floor: JetStream acknowledgement";
const SPAWN: &str = "floor: spawn and reap `/bin/true`";
const SHELL: &str = "floor: spawn and reap `sh -c /bin/true`";
const BARE: &str = "chain without a process: submit to exit visible in a feed";
const REAL: &str = "chain with `sh -c /bin/true`: submit to exit visible";
const MASTER: &str = "peer: `ssh` through a warm master, the whole program";
const WARM: &str = "peer: asyncssh, `/bin/true` on a warm connection";

#[derive(Debug)]
struct All {
    trip: Samples,
    ack: Samples,
    spawn: Samples,
    shell: Samples,
    bare: Samples,
    real: Samples,
    preview: Samples,
    cli: Samples,
    asyncssh: Samples,
    master: Samples,
    ssh: Samples,
}

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let names = simulated(1);
    let machine = names.first().context("no machine")?;
    let place = Place::start(&names, 1).await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::SILENT).await?;
    let (link, operator) = (place.admin().await?, place.operator().await?);
    let mut pings = link.subscribe("meter.ping").await?;
    let sshd = Sshd::start().await;
    let warm = match &sshd {
        Ok(sshd) => sshd.asyncssh(1).await,
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let (mut warm, no_asyncssh) = split(warm);
    let (sshd, no_sshd) = split(sshd);
    let mut all = All::new();
    for round in 0..scope.of(ROUNDS) {
        let since = Instant::now();
        link.publish("meter.ping", None, "x".into()).await?;
        pings.next().await.context("no round trip")?;
        all.trip.took(since.elapsed());
        let since = Instant::now();
        link.store(Store::new("evt.main.meter", "x")).await?;
        all.ack.took(since.elapsed());
        all.spawn.took(timed(Command::new("/bin/true"))?);
        all.shell.took(timed(shell("/bin/true"))?);
        all.bare.took(operator.run(machine, "/bin/true").await?.from_submit);
        let took = operator.run("demo-1", "/bin/true").await?;
        all.real.took(took.from_submit);
        all.preview.took(took.from_preview);
        if let Some(warm) = &mut warm {
            all.asyncssh.took(warm.run(1).await?);
        }
        if round % EVERY == 0 {
            programs(&place, sshd.as_ref(), &mut all)?;
        }
    }
    fleet.is_well()?;
    all.tell(report, no_asyncssh.as_ref(), no_sshd.as_ref());
    Ok(())
}

pub(super) fn split<T>(result: Result<T>) -> (Option<T>, Option<anyhow::Error>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error)),
    }
}

/// Programs from their start to their end.
fn programs(place: &Place, sshd: Option<&Sshd>, all: &mut All) -> Result<()> {
    all.cli.took(timed(place.stack.cli(&["run", "--on", "demo-1", "--", "/bin/true"])?)?);
    if let Some(sshd) = sshd {
        let run = |mut command: Command| {
            command.arg("/bin/true");
            timed(command)
        };
        all.master.took(run(sshd.warm_connection()?)?);
        all.ssh.took(run(sshd.new_connection()?)?);
    }
    Ok(())
}

impl All {
    fn new() -> Self {
        let ms = Samples::ms;
        Self {
            trip: ms(),
            ack: ms(),
            spawn: ms(),
            shell: ms(),
            bare: ms(),
            real: ms(),
            preview: ms(),
            cli: ms(),
            asyncssh: ms(),
            master: ms(),
            ssh: ms(),
        }
    }

    fn tell(self, report: &mut Report, no_asyncssh: Option<&anyhow::Error>, no_sshd: Option<&anyhow::Error>) {
        let floor = self.bare.at(500).zip(self.shell.at(500)).map_or(0.0, |(chain, spawn)| chain + spawn);
        let mut real = Row::new(REAL, &self.real).over(BARE);
        real = real.within(Budget::most(floor + 1.5, "chain's floor + spawn + 1.5 ms"));
        if let Some(asyncssh) = self.asyncssh.at(500) {
            real = real.within(Budget::most(asyncssh, "asyncssh, warm"));
        }
        report.add(Row::new(TRIP, &self.trip));
        report.add(Row::new(ACK, &self.ack));
        report.add(Row::new(SPAWN, &self.spawn));
        report.add(Row::new(SHELL, &self.shell));
        report.add(Row::new(BARE, &self.bare).over(ACK));
        report.add(peer_row(WARM, &self.asyncssh, no_asyncssh));
        report.add(real);
        report.add(Row::new("the same, from the preview on", &self.preview).over(WARM));
        report.add(peer_row(MASTER, &self.master, no_sshd));
        report.add(peer_row("peer: `ssh` with a new connection", &self.ssh, no_sshd));
        report.add(Row::new("`signalbox run`, the whole program", &self.cli).over(MASTER));
    }
}
