//! Every signed message, as it comes off the wire: what is read says the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use signalbox_schemas::{
    api::Request,
    audit::AuditEntry,
    authors::Authors,
    command::{CommandSpec, Grant},
    config::ConfigPushRecord,
    credential::{SharedCredentialRecord, SharedSecret},
    enrol::Enrolment,
    event::Event,
    rollout::Progress,
    heartbeat::Heartbeat,
    history::Frame,
    inventory::Inventory,
    mailbox::Mailbox,
    record::{ApiKeyRecord, AssignmentRecord, DoneCommand, DoneRun, MachineRecord, OperatorRecord},
    relay::RelayRecord,
    run::{Claim, Exit, Lost, Rejection, Start, Withdrawal},
    signed::{Message, Signed},
};

/// Reads, writes and reads again. The signature is looked at too, and may be anything.
fn again<T: Message + serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    let Ok(signed) = Signed::<T>::from_json(bytes) else { return };
    let _ = signed.open(|_| true);
    let written = Signed::<T>::from_json(&signed.to_json());
    assert!(written.is_ok_and(|written| written == signed), "an envelope changed");
    let Ok(message) = signed.peek() else { return };
    once_more(&message);
}

fn once_more<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) {
    let Ok(first) = serde_json::to_value(message) else { return };
    let Ok(read) = serde_json::from_value::<T>(first.clone()) else { panic!("not read again: {first}") };
    assert_eq!(serde_json::to_value(&read).ok().as_ref(), Some(&first), "a message changed");
}

/// An envelope around bytes that nobody signed, so that the fuzzer need not learn base64.
fn wrapped(payload: &[u8]) -> Vec<u8> {
    let fixture: Value = serde_json::from_str(include_str!("../../../schemas/fixtures/v1/claim.json"))
        .unwrap_or_default();
    let mut envelope = fixture.get("envelope").cloned().unwrap_or_default();
    if let Some(member) = envelope.get_mut("payload") {
        *member = serde_json::to_value(signalbox_schemas::Base64Url(payload.to_vec())).unwrap_or_default();
    }
    envelope.to_string().into_bytes()
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let wrapped = wrapped(rest);
    for bytes in [rest, &wrapped] {
        // What was kept of earlier runs means what it meant.
        match if *kind >= 250 { 22 + (u8::MAX - *kind) } else { kind % 22 } {
            0 => again::<Mailbox>(bytes),
            1 => again::<Claim>(bytes),
            2 => again::<Rejection>(bytes),
            3 => again::<Withdrawal>(bytes),
            4 => again::<Start>(bytes),
            5 => again::<Exit>(bytes),
            6 => again::<Lost>(bytes),
            7 => again::<Request>(bytes),
            8 => again::<Authors>(bytes),
            9 => again::<Grant>(bytes),
            10 => again::<MachineRecord>(bytes),
            11 => again::<OperatorRecord>(bytes),
            12 => again::<AssignmentRecord>(bytes),
            13 => again::<ApiKeyRecord>(bytes),
            14 => again::<RelayRecord>(bytes),
            15 => again::<SharedCredentialRecord>(bytes),
            16 => again::<ConfigPushRecord>(bytes),
            17 => again::<DoneRun>(bytes),
            18 => again::<DoneCommand>(bytes),
            19 => again::<Enrolment>(bytes),
            20 => {
                if let Ok(beat) = serde_json::from_slice::<Heartbeat>(bytes) {
                    once_more(&beat);
                }
            }
            22 => again::<AuditEntry>(bytes),
            23 => again::<Inventory>(bytes),
            24 => again::<SharedSecret>(bytes),
            25 => again::<Event>(bytes),
            27 => again::<Progress>(bytes),
            26 => {
                if let Ok(frame) = Frame::from_json(bytes) {
                    once_more(&frame);
                }
            }
            _ => {
                if let Ok(spec) = CommandSpec::from_bytes(bytes) {
                    once_more(&spec);
                }
            }
        }
    }
});
