//! Subjects, ids and selectors: what is read is written as it came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalbox_schemas::{
    id::{CommandId, MachineId, MachineToken, Nonce, OperatorId, RequestId, Sha256, Workspace},
    limit::SELECTOR_BYTES,
    rollout::Rollout,
    selector::Selector,
    subject::Subject,
};

fuzz_target!(|text: &str| {
    if let Ok(subject) = Subject::parse(text) {
        assert_eq!(subject.to_string(), text);
    }
    if let Ok(selector) = Selector::parse(text) {
        let written = selector.to_string();
        // What is quoted may grow above what a selector may have.
        if written.len() <= SELECTOR_BYTES {
            assert_eq!(Selector::parse(&written).as_ref(), Ok(&selector), "{text:?} is written {written:?}");
        }
        for name in ["web-01", "x", text] {
            if let Ok(id) = MachineId::new(name) {
                let _ = (selector.matches(&id, &id.token()), selector.could_mean(&id, &id.token()));
            }
        }
    }
    if let Ok(rollout) = text.parse::<Rollout>() {
        assert_eq!(rollout.to_string().parse::<Rollout>().as_ref(), Ok(&rollout));
    }
    if let Ok(id) = MachineId::new(text) {
        let token = id.token();
        assert!(MachineToken::new(token.as_str()).is_ok(), "{token} is no token");
        // A machine is always meant by the selector that names it, whatever its name holds.
        let named = Selector::parse(&Selector::of_machine(text));
        assert!(named.is_ok_and(|named| named.matches(&id, &token)), "{text:?} does not mean itself");
    }
    assert!(text.parse::<CommandId>().is_ok_and(|id| id.to_string() == text) || text.parse::<CommandId>().is_err());
    assert!(text.parse::<Nonce>().is_ok_and(|id| id.to_string() == text) || text.parse::<Nonce>().is_err());
    assert!(text.parse::<Sha256>().is_ok_and(|id| id.to_string() == text) || text.parse::<Sha256>().is_err());
    let _ = (OperatorId::new(text), RequestId::new(text), Workspace::new(text));
});
