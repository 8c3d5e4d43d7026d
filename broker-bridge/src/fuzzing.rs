//! Doors for the fuzzer, of a build that only it makes (`cargo xtask fuzz`): foreign bytes go in, promises are asserted.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use signalbox_schemas::{
    api::{
        AckConfigPush, ById, Cancel, ClaimRun, CompleteRun, Get, ListRuns, NewAssignment, NewConfigPush,
        NewSharedCredential, OpenFeed, Page, Preview, RemoveAssignment, Report, Submit, UpdateAssignment,
        UpdateSharedCredential,
    },
    id::Workspace,
    output::ChunkHead,
    signed::PublicKey,
};

use crate::{
    http,
    ingest::decode::{Decoder, Raw},
};

/// Anybody's key: no fuzzer signs with it.
const FLEET: &str = "UCFIOX77D2ZYIUKXPLGVV7XEAVCWK2G5PSE6BEEGHICVPPD26SPRO5B3";

/// A message of a stream, on a subject that may be any text.
pub fn stored(subject: &str, sequence: u64, body: &Bytes) {
    let Ok(fleet_key) = FLEET.parse::<PublicKey>() else { return };
    let decoder = Decoder { ws: Workspace::main(), fleet_key };
    let head = ChunkHead::from_headers(|_| std::str::from_utf8(body).ok()).map_err(|error| error.0);
    if let Err(reason) = decoder.decode(&Raw { sequence, stored_at: sequence, subject, payload: body, head })
    {
        assert!(reason.len() <= 64, "a reason is a name for a counter");
    }
}

/// A body of a request: of every operation, and of the older system.
pub fn body(kind: u8, bytes: &[u8]) {
    match kind % 20 {
        0 => again::<Submit>(bytes),
        1 => again::<Preview>(bytes),
        2 => again::<Cancel>(bytes),
        3 => again::<Page>(bytes),
        4 => again::<Get>(bytes),
        5 => again::<OpenFeed>(bytes),
        6 => again::<NewAssignment>(bytes),
        7 => again::<UpdateAssignment>(bytes),
        8 => again::<RemoveAssignment>(bytes),
        9 => again::<ById>(bytes),
        10 => again::<Report>(bytes),
        11 => again::<NewSharedCredential>(bytes),
        12 => again::<UpdateSharedCredential>(bytes),
        13 => again::<NewConfigPush>(bytes),
        14 => again::<AckConfigPush>(bytes),
        15 => again::<ListRuns>(bytes),
        16 => again::<ClaimRun>(bytes),
        17 => again::<CompleteRun>(bytes),
        _ => http::fuzzing::body(bytes),
    }
}

/// What is read is written as it was read.
fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let Ok(first) = serde_json::to_value(&message) else { return };
    let second = serde_json::from_value::<T>(first.clone()).and_then(|read| serde_json::to_value(&read));
    assert_eq!(second.ok(), Some(first), "a message changed");
}
