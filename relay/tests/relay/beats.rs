//! Signs of life.

use anyhow::{Context as _, Result};
use signalbox_schemas::{
    heartbeat::Heartbeat, id::Workspace, mailbox::Mailbox, signed::Signed, subject::Subject,
};
use tokio::time::timeout;

use crate::harness::{Fleet, Machine, RUN_BOUND};

#[tokio::test]
async fn the_first_one_tells_which_mailbox_was_read() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let mailbox = Signed::<Mailbox>::from_json(&fleet.offer(&machine, &[]).await?)?.peek()?;
    let subject = Subject::Heartbeat(Workspace::main(), machine.mid.clone());
    let mut heard = fleet.link.subscribe(&subject.to_string()).await?;
    let _relay = machine.start(&fleet).await?;
    let first = timeout(RUN_BOUND, heard.next()).await?.context("the link was closed")?;
    let first: Heartbeat = serde_json::from_slice(&first.payload)?;
    assert_eq!(first.generation, mailbox.generation);
    assert_eq!(first.authors, fleet.authors.version);
    Ok(())
}
