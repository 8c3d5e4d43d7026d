//! What a state directory knows and the streams must hold: the authors document, machines, operators.

use signalbox_schemas::{
    record::{OperatorRecord, table},
    signed::Signed,
    stream,
    subject::Subject,
};

use super::ServeError;
use crate::{
    broker_link::{BrokerLink, until_answered},
    identity::{Identity, OperatorKeys},
};

/// Publishes what is missing or different. Waits for a broker that does not answer.
///
/// # Errors
/// [`ServeError::Publish`]; what was published stays, and the next start goes on.
pub(super) async fn publish(broker: &BrokerLink, identity: &Identity, now_ms: u64) -> Result<(), ServeError> {
    let failed = |what| move |source| ServeError::Publish { what, source };
    let (bytes, document) = (&identity.authors_bytes, &identity.authors);
    let put = until_answered(|| broker.publish_authors(bytes, document));
    put.await.map_err(failed("the authors document"))?;
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
) -> Result<(), crate::broker_link::BrokerError> {
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
    };
    broker.put_record(table::OPERATORS, id.as_str(), &record).await.map(drop)
}
