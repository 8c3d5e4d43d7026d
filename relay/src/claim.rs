//! The claim: the one moment at which it is decided whether a command runs here.
//!
//! The register is write-once. No process starts before this relay's claim is acknowledged, or was read back from
//! the register with this keeper's nonce in it. Whatever else stands there decides against starting.

use signalbox_link::{
    ACK_TIMEOUT, StoreError,
    crash::{Part, Point, hit},
};
use signalbox_schemas::{
    id::{CommandId, MachineToken, Nonce, Workspace},
    run::Claim,
    signed::{PublicKey, Signed},
};

use crate::{
    counters::Counters,
    nats_link::{FactMessage, Nats},
};

/// What one attempt to claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This keeper's claim stands in the register.
    Mine,
    /// Something else stands there.
    Theirs,
    /// Nothing stands there, and nothing of ours was sent this time.
    Absent,
    /// This claim was not stored, by the broker's word. Nothing is known of an earlier one.
    Refused,
    /// The broker did not say.
    Unknown,
}

impl Outcome {
    /// The same, when a claim of ours may be on its way: what a connection that is gone has carried may reach the
    /// register after this look at it, and a replica may not know yet what its leader does.
    fn with_one_on_its_way(self) -> Self {
        if self == Self::Absent { Self::Unknown } else { self }
    }
}

/// The answer to one attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) cid: CommandId,
    /// The nonce that was claimed with.
    pub(crate) nonce: Nonce,
    pub(crate) outcome: Outcome,
}

/// Whose claim counts as ours.
#[derive(Debug, Clone)]
pub(crate) struct Claimer {
    pub(crate) ws: Workspace,
    pub(crate) mid: MachineToken,
    pub(crate) key: PublicKey,
}

impl Claimer {
    /// The nonce of a claim in this relay's name, if that is what `body` is.
    pub(crate) fn nonce_in(&self, body: &[u8], cid: CommandId) -> Option<Nonce> {
        let claim = Signed::<Claim>::from_json(body).ok()?.open(|key| *key == self.key).ok()?;
        (claim.ws == self.ws && claim.mid == self.mid && claim.cid == cid).then_some(claim.nonce)
    }
}

/// Sends a claim, or with `claim` absent only looks whether an earlier one stands.
pub(crate) async fn attempt(
    nats: Nats,
    claimer: Claimer,
    (cid, nonce): (CommandId, Nonce),
    claim: Option<FactMessage>,
    counters: Counters,
) -> Answer {
    let outcome = match claim {
        Some(claim) => match send(&nats, &claim).await {
            Ok(()) => Outcome::Mine,
            Err(StoreError::Full) => {
                counters.count("claim_full");
                Outcome::Refused
            }
            Err(StoreError::Taken { .. }) => {
                read_back(&nats, &claimer, cid, nonce).await.with_one_on_its_way()
            }
            Err(StoreError::Unanswered { .. }) => {
                counters.count("claim_unanswered");
                read_back(&nats, &claimer, cid, nonce).await.with_one_on_its_way()
            }
            Err(error @ (StoreError::Refused { .. } | StoreError::TooLarge { .. })) => {
                if counters.count("claim_refused") {
                    tracing::warn!(%cid, %error, "claim refused by the broker");
                }
                Outcome::Refused
            }
        },
        None => read_back(&nats, &claimer, cid, nonce).await,
    };
    Answer { cid, nonce, outcome }
}

async fn send(nats: &Nats, claim: &FactMessage) -> Result<(), StoreError> {
    let pending = nats.send_fact(claim).await?;
    #[cfg(feature = "crash-points")]
    nats.flush().await;
    hit(Part::Relay, Point::ClaimSent);
    pending.stored(ACK_TIMEOUT).await
}

/// Reads the register. It is asked on the connection that the claim was sent on, so «nothing there» includes
/// a claim that was on its way.
async fn read_back(nats: &Nats, claimer: &Claimer, cid: CommandId, nonce: Nonce) -> Outcome {
    match nats.read_register(cid).await {
        Ok(Some(message)) if claimer.nonce_in(&message.payload, cid) == Some(nonce) => Outcome::Mine,
        Ok(Some(_)) => Outcome::Theirs,
        Ok(None) => Outcome::Absent,
        Err(error) => {
            tracing::debug!(%cid, %error, "register not read");
            Outcome::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{cid, key};

    #[test]
    fn only_a_claim_of_this_machine_and_key_counts() {
        let mid = MachineToken::new("web-1").unwrap();
        let claimer = Claimer { ws: Workspace::main(), mid: mid.clone(), key: key(1).public().clone() };
        let claim = Claim {
            ws: Workspace::main(),
            mid,
            cid: cid(1),
            nonce: Nonce([5; 16]),
            claimed_at: 0,
            via: None,
        };
        let body = |claim: &Claim, signer| Signed::sign(claim, &key(signer)).unwrap().to_json();
        assert_eq!(claimer.nonce_in(&body(&claim, 1), cid(1)), Some(Nonce([5; 16])));
        assert_eq!(claimer.nonce_in(&body(&claim, 2), cid(1)), None);
        assert_eq!(claimer.nonce_in(&body(&claim, 1), cid(2)), None);
        let other = Claim { mid: MachineToken::new("web-2").unwrap(), ..claim };
        assert_eq!(claimer.nonce_in(&body(&other, 1), cid(1)), None);
        assert_eq!(claimer.nonce_in(b"rubbish", cid(1)), None);
    }
}
