//! Logins, and a fleet that comes back after its broker was killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use signalbox_link::{Link, Options};
use signalbox_testkit::{
    Broker, eventually_within,
    process::{Signal, signal},
};

use super::{Scope, float};
use crate::{
    fleet::{Fleet, Nature},
    place::{Place, simulated},
    report::{Report, Row, Samples, Unit},
};

const RELAYS: usize = 1_000;
const ROUNDS: usize = 5;
const AT_ONCE: usize = 64;
/// Relays wait up to 15 s between two attempts, and more than one may fail.
const BACK: Duration = Duration::from_mins(2);

const BROKER: &str = "broker killed, until it answers again";
const FLOOR: &str = "floor: a connection to a broker without accounts";

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let names = simulated(RELAYS);
    let place = Place::start(&names, 0).await?;
    let bare = Broker::start().await?;
    let (mut floor, mut login) = (Samples::ms(), Samples::ms());
    let [mut floor_rate, mut rate] = [Unit::PerSecond; 2].map(Samples::of);
    for _ in 0..scope.of(ROUNDS) {
        let since = Instant::now();
        floor.append(connections(&bare).await?);
        floor_rate.add(float(RELAYS) / since.elapsed().as_secs_f64());
        let mut fleet = Fleet::default();
        let since = Instant::now();
        fleet.connect(place.stack.ready(), &names, Nature::SILENT).await?;
        rate.add(float(RELAYS) / since.elapsed().as_secs_f64());
        login.append(std::mem::take(&mut fleet.logins));
        fleet.stop().await;
    }
    report.set("connections that are made at once", AT_ONCE.to_string());
    report.add(Row::new(FLOOR, &floor));
    report.add(Row::new("— in a second", &floor_rate));
    report.add(
        Row::new("a relay's login: to its mailbox heard and its authors document verified", &login)
            .over(FLOOR),
    );
    report.add(Row::new("— in a second", &rate));
    back(scope, &place, &names, report).await
}

/// 1,000 connections that end at once.
async fn connections(broker: &Broker) -> Result<Vec<Duration>> {
    let connect = |_| async {
        let since = Instant::now();
        let link = Link::connect(Options::plain(&broker.url(), "meter", None)).await?;
        link.flush().await;
        anyhow::Ok((since.elapsed(), link))
    };
    let all: Vec<_> = stream::iter(0..RELAYS).map(connect).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(all.into_iter().map(|(took, _)| took).collect())
}

/// The broker is killed, and started again by the bridge that owns it.
async fn back(scope: Scope, place: &Place, names: &[String], report: &mut Report) -> Result<()> {
    let (mut alone, mut all, mut answered) = (Samples::ms(), Samples::ms(), Samples::ms());
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), names, Nature::SILENT).await?;
    for round in 1..=u64::try_from(scope.of(ROUNDS))? {
        let killed = place.stack.pid("broker")?;
        let since = Instant::now();
        signal(killed, Signal::KILL)?;
        eventually_within("another broker", BACK, || async {
            ensure!(place.stack.pid("broker")? != killed, "not yet");
            Ok(())
        })
        .await?;
        place.answers_within(BACK).await?;
        alone.took(since.elapsed());
        eventually_within("all relays back", BACK, || async {
            let least = fleet.least_connects();
            ensure!(least > round, "{least} connects");
            Ok(())
        })
        .await?;
        all.took(since.elapsed());
        let operator = place.operator().await?;
        operator.run("all", "/bin/true").await?;
        answered.took(since.elapsed());
    }
    report.add(Row::new(BROKER, &alone));
    let row = Row::new("— until the last of 1,000 relays is back", &all).over(BROKER);
    report.add(row.remark("each waits 0.1 to 15 s between two attempts, at random"));
    report.add(Row::new("— until a command has ended on all of them", &answered).over(BROKER));
    Ok(())
}
