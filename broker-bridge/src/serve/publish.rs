//! What a state directory knows and the streams must hold: the authors document, machines, operators.
//!
//! The authors document lives 90 days and is issued anew by `init` long before: a bridge that runs for longer looks
//! for a newer edition by itself.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use signalbox_schemas::{
    authors::Authors,
    error::report,
    record::{MachineRecord, OperatorRecord, table},
    signed::{PublicKey, Signed},
    stream,
    subject::Subject,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ServeError;
use crate::{
    broker_link::{BrokerError, BrokerLink, until_answered},
    identity::{Identity, OperatorKeys},
};

/// How often `authors.json` is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Machines whose records are looked at at once: one after the other, a hundred thousand keep a start waiting for minutes.
const AT_ONCE: usize = 64;

fn failed(what: &'static str) -> impl FnOnce(BrokerError) -> ServeError {
    move |source| ServeError::Publish { what, source }
}

/// Publishes the authors document, unless it stands there or a newer one does. Waits for a broker that does not answer.
///
/// # Errors
/// [`ServeError::Publish`].
pub(super) async fn authors(broker: &BrokerLink, bytes: &[u8], document: &Authors) -> Result<(), ServeError> {
    let put = until_answered(|| broker.publish_authors(bytes, document));
    put.await.map_err(failed("the authors document"))
}

/// Sees that the edition of the authors document in the state directory is the one that stands in the stream, until told to
/// stop: a newer one comes to stand in the directory, an older one may have been published again in the stream.
pub(super) async fn keep(
    broker: BrokerLink,
    identity: Arc<Identity>,
    every: Duration,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut known = identity.authors_bytes.clone();
    while stop.run_until_cancelled(sleep(every)).await.is_some() {
        let (bytes, document) = match identity.read_authors() {
            Ok(read) => read,
            Err(error) => {
                warn!(error = report(&error), "the authors document cannot be read, the old one stays");
                continue;
            }
        };
        match stop.run_until_cancelled(authors(&broker, &bytes, &document)).await {
            None => break,
            Some(Ok(())) if bytes == known => {}
            Some(Ok(())) => {
                info!(version = document.version, "a new authors document was published");
                known = bytes;
            }
            Some(Err(error)) => warn!(error = report(&error), "the authors document was not published"),
        }
    }
    Ok(())
}

/// Publishes records that are missing or different. Waits for a broker that does not answer.
///
/// # Errors
/// [`ServeError::Publish`]; what was published stays, and the next start goes on.
pub(super) async fn records(broker: &BrokerLink, identity: &Identity, now_ms: u64) -> Result<(), ServeError> {
    let machines = futures_util::stream::iter(&identity.machines).map(Ok);
    let put = machines.try_for_each_concurrent(AT_ONCE, |record| async move {
        until_answered(|| publish_machine(broker, identity, record)).await
    });
    put.await.map_err(failed("the machines"))?;
    for operator in &identity.operators {
        let put = until_answered(|| publish_operator(broker, operator, now_ms));
        put.await.map_err(failed("the operators"))?;
    }
    Ok(())
}

/// The state directory does not say what a machine is for: the record that stands does, whichever bridge wrote it.
async fn publish_machine(
    broker: &BrokerLink,
    identity: &Identity,
    machine: &MachineRecord,
) -> Result<(), BrokerError> {
    let is_bridge = |key: &PublicKey, at| key == broker.public() || identity.authors.was_bridge(key, at);
    let edit = |stands: Option<MachineRecord>| {
        let labels = stands.map(|stands| stands.labels).unwrap_or_default();
        Some(MachineRecord { labels, ..machine.clone() })
    };
    broker.edit_record(table::MACHINES, machine.token.as_str(), is_bridge, edit).await.map(drop)
}

/// The state directory does not say since when an operator is one: the record that stands does, while its keys do.
async fn publish_operator(
    broker: &BrokerLink,
    operator: &OperatorKeys,
    now_ms: u64,
) -> Result<(), BrokerError> {
    let (ws, id) = (broker.ws(), &operator.id);
    let subject = Subject::State(ws.clone(), table::OPERATORS.to_owned(), id.to_string()).to_string();
    let stands = broker.last(stream::STATE, &subject).await?;
    let stands = stands.and_then(|message| Signed::<OperatorRecord>::from_json(&message.payload).ok());
    let stands = stands.and_then(|signed| signed.open(|key| key == broker.public()).ok());
    let same = |record: &OperatorRecord| {
        record.login_key == operator.login_key && record.signing_key == operator.signing_key
    };
    if stands.as_ref().is_some_and(same) {
        return Ok(());
    }
    let record = OperatorRecord {
        ws: ws.clone(),
        id: id.clone(),
        login_key: operator.login_key.clone(),
        signing_key: operator.signing_key.clone(),
        created_at: stands.map_or(now_ms, |record| record.created_at),
        revision: 0,
    };
    broker.put_record(table::OPERATORS, id.as_str(), &record).await.map(drop)
}

#[cfg(test)]
mod tests {
    use signalbox_link::Store;
    use signalbox_schemas::{
        id::{MachineId, OperatorId},
        limit::DAY_MS,
    };
    use signalbox_testkit::eventually;
    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        core::{now_ms, still::Still},
        identity::{Init, init},
    };

    async fn stands(broker: &BrokerLink, version: u64) -> anyhow::Result<bytes::Bytes> {
        eventually("the edition in the stream", || async {
            let subject = Subject::Authors(broker.ws().clone()).to_string();
            let message = broker.last(stream::DOC, &subject).await?;
            let message = message.ok_or_else(|| anyhow::anyhow!("none"))?;
            let found = Signed::<Authors>::from_json(&message.payload)?.peek()?.version;
            anyhow::ensure!(found == version, "{found} instead of {version}");
            Ok(message.payload)
        })
        .await
    }

    #[tokio::test]
    async fn the_newest_edition_stands_in_the_stream_whatever_else_comes_there() -> anyhow::Result<()> {
        let still = Still::start().await?;
        let broker = still.context.broker.clone();
        broker.ensure_streams().await?;
        let dir = tempfile::tempdir()?;
        let wanted = Init {
            state_dir: dir.path().join("state"),
            machines: vec![MachineId::new("web-1")?],
            operators: vec![OperatorId::new("local")?],
        };
        init(&wanted, now_ms() - 60 * DAY_MS)?;
        let identity = Arc::new(Identity::load(&wanted.state_dir)?);
        authors(&broker, &identity.authors_bytes, &identity.authors).await?;
        let old = stands(&broker, identity.authors.version).await?;

        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(keep(broker.clone(), identity.clone(), Duration::from_millis(20), stop.clone()));
        init(&wanted, now_ms())?;
        let (_, newer) = identity.read_authors()?;
        assert!(newer.version > identity.authors.version, "it was time for another one");
        stands(&broker, newer.version).await?;
        let subject = Subject::Authors(broker.ws().clone()).to_string();
        broker.link().store(Store::new(subject, old)).await?;
        stands(&broker, newer.version).await?;
        stop.cancel();
        tasks.join_next().await.expect("it was spawned")??;
        Ok(())
    }
}
