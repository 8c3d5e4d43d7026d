//! What a state directory knows and the streams must hold: the authors document, machines, operators.
//!
//! The authors document lives 90 days and is issued anew by `init` long before: a bridge that runs for longer looks
//! for a newer edition by itself.

use std::{sync::Arc, time::Duration};

use signalbox_schemas::{
    authors::Authors,
    error::report,
    record::{OperatorRecord, table},
    signed::Signed,
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

/// Publishes each newer edition of the authors document that comes to stand in the state directory, until told to stop.
///
/// # Errors
/// [`ServeError::Publish`], when the broker refuses it.
pub(super) async fn keep(
    broker: BrokerLink,
    identity: Arc<Identity>,
    every: Duration,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut known = identity.authors_bytes.clone();
    while stop.run_until_cancelled(sleep(every)).await.is_some() {
        match identity.read_authors() {
            Ok((bytes, _)) if bytes == known => {}
            Ok((bytes, document)) => {
                let published = stop.run_until_cancelled(authors(&broker, &bytes, &document)).await;
                let Some(published) = published else { break };
                published?;
                info!(version = document.version, "a new authors document was published");
                known = bytes;
            }
            Err(error) => {
                warn!(error = report(&error), "the authors document cannot be read, the old one stays");
            }
        }
    }
    Ok(())
}

/// Publishes records that are missing or different. Waits for a broker that does not answer.
///
/// # Errors
/// [`ServeError::Publish`]; what was published stays, and the next start goes on.
pub(super) async fn records(broker: &BrokerLink, identity: &Identity, now_ms: u64) -> Result<(), ServeError> {
    for record in &identity.machines {
        let put = until_answered(|| broker.put_record(table::MACHINES, record.token.as_str(), record));
        put.await.map_err(failed("the machines"))?;
    }
    for operator in &identity.operators {
        let put = until_answered(|| publish_operator(broker, operator, now_ms));
        put.await.map_err(failed("the operators"))?;
    }
    Ok(())
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
