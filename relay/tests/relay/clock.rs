//! Clocks that are wrong for a while.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use signalbox_schemas::{
    limit::HOUR_MS,
    run::{Claim, ExitState},
    subject::FactKind,
};
use signalbox_testkit::{
    clock::{Clock, faketime},
    eventually, lacking,
};

use crate::harness::{Fleet, Machine, now_ms};

/// Much less than until the mailbox is read again in any case.
const SOON: Duration = Duration::from_secs(20);

/// What looks expired is passed over in silence, and nobody says it again.
#[tokio::test]
async fn what_looked_expired_by_a_clock_that_was_ahead_runs_once_it_is_right() -> Result<()> {
    let Some(library) = faketime() else {
        return lacking::not_installed("libfaketime (Debian: faketime)");
    };
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let clock = Clock::new(&machine.file("clock"), &library)?;
    // Less than what the authors document has left.
    clock.set(12 * 3_600)?;
    let environment = clock.environment();
    let variables = environment.iter().map(|(name, value)| Some((*name, value.to_str()?)));
    let variables: Vec<_> = variables.collect::<Option<_>>().context("a path that is no text")?;
    let _relay = machine.start_in(&fleet, &machine.store(), &variables).await?;
    let (cid, offer) = fleet.command_with(&machine, "true", |spec| spec.expires_at = now_ms() + HOUR_MS)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the mailbox is taken", || async {
        ensure!(fs::read_to_string(machine.store().join("journal"))?.contains(r#""e":"mailbox""#));
        Ok(())
    })
    .await?;
    assert!(fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.is_none(), "expired by its clock");
    clock.set(0)?;
    assert_eq!(fleet.exit_within(&machine, cid, SOON).await?.state, ExitState::Completed);
    Ok(())
}
