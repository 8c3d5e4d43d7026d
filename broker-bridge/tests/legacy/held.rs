//! Polls that are held: for a little less than until the next one, and not a moment longer than they must.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signalbox_schemas::record::MachineRecord;
use signalbox_testkit::{
    eventually,
    http::Answer,
    old_relay::{Connection, OldRelay},
};
use tokio::time::{Instant, sleep_until};

use super::world::{Assigned, World, said, says};

const NOTHING: &str = r#"{"commands":[]}"#;
/// How often the relays here poll.
const GAP: Duration = Duration::from_secs(2);
/// When, after a poll, something happens that ends it.
const MOMENT: Duration = Duration::from_millis(500);
/// A wake reaches its poll in far less, also on a busy machine, and in far less than a poll is held.
const AT_ONCE: Duration = Duration::from_millis(900);

/// A relay that polls at a fixed rate, and the poll that it waits for.
struct Polling {
    connection: Connection,
    since: Instant,
}

impl Polling {
    /// Polls as often as the bridge needs to know the rate; the last one is under way.
    async fn begin(world: &World, assigned: &Assigned) -> Result<Self> {
        let request =
            OldRelay::new(&world.bench.base, &assigned.key).request("GET", "/relay/commands", None)?;
        let mut connection = Connection::open(&world.bench.base).await?;
        let begin = Instant::now();
        connection.send(&request).await?;
        assert_eq!(said(&connection.answer().await?)?, says(200, NOTHING));
        ensure!(begin.elapsed() < AT_ONCE, "the first poll was held for {:?}", begin.elapsed());
        sleep_until(begin + GAP).await;
        let since = Instant::now();
        connection.send(&request).await?;
        Ok(Self { connection, since })
    }

    /// The moment at which something happens.
    async fn moment(&self) {
        sleep_until(self.since + MOMENT).await;
    }

    /// The answer, which came when something happened and neither before nor much later.
    async fn woken(self) -> Result<Answer> {
        let (answer, held) = self.end().await?;
        ensure!(held >= MOMENT && held < MOMENT + AT_ONCE, "held for {held:?}");
        Ok(answer)
    }

    /// The answer, and how long the poll was held.
    async fn end(mut self) -> Result<(Answer, Duration)> {
        let answer = self.connection.answer().await?;
        Ok((answer, self.since.elapsed()))
    }
}

#[tokio::test]
async fn a_poll_without_work_is_held_for_nearly_the_usual_gap() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let (answer, held) = Polling::begin(&world, &assigned).await?.end().await?;
    assert_eq!(said(&answer)?, says(200, NOTHING));
    let usual = GAP.mul_f64(0.9);
    assert!(held + Duration::from_millis(20) >= usual && held < usual + AT_ONCE, "held for {held:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_ends_the_hold_of_its_machine_and_of_no_other() -> Result<()> {
    let world = World::start().await?;
    let (own, other) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let (mine, others) = tokio::try_join!(Polling::begin(&world, &own), Polling::begin(&world, &other))?;
    mine.moment().await;
    let id = world.submit("m-1", "true").await?;
    let answer = mine.woken().await?;
    assert_eq!(answer.json()?["commands"][0]["_id"], id.as_str(), "{}", answer.text());
    let (answer, held) = others.end().await?;
    assert_eq!(said(&answer)?, says(200, NOTHING));
    assert!(held > MOMENT + AT_ONCE, "held for {held:?}");
    Ok(())
}

#[tokio::test]
async fn disabling_an_assignment_ends_the_hold() -> Result<()> {
    let world = World::start().await?;
    let (disabled, removed) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let (one, two) = tokio::try_join!(Polling::begin(&world, &disabled), Polling::begin(&world, &removed))?;
    one.moment().await;
    tokio::try_join!(world.disable(&disabled), world.remove(&removed))?;
    let (one, two) = tokio::try_join!(one.woken(), two.woken())?;
    assert_eq!(said(&one)?, says(403, r#"{"error":"Relay assignment is disabled"}"#));
    assert_eq!(said(&two)?, says(403, r#"{"error":"No relay assignment found for this API key"}"#));
    Ok(())
}

#[tokio::test]
async fn a_machine_that_begins_to_take_old_relays_ends_the_hold() -> Result<()> {
    let world = World::start_with(&["native"], None).await?;
    let assigned = world.assign("native").await?;
    let id = world.submit("native", "true").await?;
    let polling = Polling::begin(&world, &assigned).await?;
    polling.moment().await;
    world.edit_machine("native", |record| MachineRecord { allow_legacy: true, ..record }).await?;
    let answer = polling.woken().await?;
    assert_eq!(answer.json()?["commands"][0]["_id"], id.as_str(), "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn an_authors_document_that_counts_again_ends_the_hold() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let id = world.submit("m-1", "true").await?;
    let until = world.bench.view.authors().context("no authors")?.not_after;
    world.bench.publish(|doc| doc.not_after = doc.issued_at + 1).await?;
    let polling = Polling::begin(&world, &assigned).await?;
    polling.moment().await;
    world.bench.publish(|doc| doc.not_after = until).await?;
    let answer = polling.woken().await?;
    assert_eq!(answer.json()?["commands"][0]["_id"], id.as_str(), "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn a_bridge_that_stops_ends_all_holds() -> Result<()> {
    let mut world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let polling = Polling::begin(&world, &assigned).await?;
    polling.moment().await;
    let since = Instant::now();
    let ((), answer) = tokio::try_join!(world.bench.end(), polling.woken())?;
    assert_eq!(said(&answer)?, says(200, NOTHING));
    assert!(since.elapsed() < Duration::from_secs(3), "the bridge took {:?} to stop", since.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_behind() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let polling = Polling::begin(&world, &assigned).await?;
    polling.moment().await;
    let held = open_sockets()?;
    drop(polling);
    eventually("the end of its connection", || async {
        let open = open_sockets()?;
        // Its own end and the bridge's.
        ensure!(open + 2 <= held, "{open} of {held} are open");
        Ok(())
    })
    .await?;
    // What it would have been given is there for the next one.
    let id = world.submit("m-1", "true").await?;
    let mut relay = world.relay(&assigned);
    assert_eq!(relay.commands().await?[0]["_id"], id.as_str());
    assert!(relay.wins(&id).await?);
    Ok(())
}

/// Sockets of this process, in which also the bridge runs.
fn open_sockets() -> Result<usize> {
    let mut sockets = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let is_socket =
            std::fs::read_link(entry?.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        sockets += usize::from(is_socket);
    }
    Ok(sockets)
}

#[tokio::test]
async fn two_held_polls_see_the_same_command_and_one_has_it() -> Result<()> {
    let world = World::start().await?;
    let both = [world.assign("m-1").await?, world.assign("m-1").await?];
    let (one, two) = tokio::try_join!(Polling::begin(&world, &both[0]), Polling::begin(&world, &both[1]))?;
    one.moment().await;
    let id = world.submit("m-1", "true").await?;
    let (one, two) = tokio::try_join!(one.woken(), two.woken())?;
    for answer in [one, two] {
        assert_eq!(answer.json()?["commands"][0]["_id"], id.as_str(), "{}", answer.text());
    }
    let [mut one, mut two] = both.map(|assigned| world.relay(&assigned));
    let (one, two) = tokio::try_join!(one.wins(&id), two.wins(&id))?;
    assert!(one != two, "{one} {two}");
    Ok(())
}

#[tokio::test]
async fn a_newer_poll_of_the_same_client_ends_the_hold_of_the_older_one() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let older = Polling::begin(&world, &assigned).await?;
    older.moment().await;
    let mut relay = world.relay(&assigned);
    let (ended, newer) = tokio::try_join!(older.woken(), relay.poll())?;
    assert_eq!(said(&ended)?, says(200, NOTHING));
    assert_eq!(said(&newer)?, says(200, NOTHING));
    Ok(())
}
