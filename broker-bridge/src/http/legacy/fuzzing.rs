//! Bodies of the older system, for the fuzzer.

use serde_json::Value;

use super::body::Wanted;

/// Members that the routes want.
const NAMES: &[&str] =
    &["apiKey", "commandId", "success", "output", "stderr", "exitCode", "error", "durationMs"];

/// The reader that keeps only what is wanted agrees with the one that keeps everything, where a text, a truth value or a number
/// is wanted.
pub(crate) fn body(bytes: &[u8]) {
    let (Ok(kept), Ok(whole)) = (Wanted(NAMES).read(bytes), serde_json::from_slice::<Value>(bytes)) else {
        return;
    };
    assert_eq!(kept.is_object(), whole.is_object(), "an object to one reader only");
    for name in NAMES {
        let (kept, whole) = (kept.get(name), whole.get(name));
        assert_eq!(kept.is_some(), whole.is_some(), "{name} is there for one reader only");
        let is_plain = |value: Option<&Value>| value.is_some_and(|v| !v.is_array() && !v.is_object());
        if is_plain(kept) || is_plain(whole) {
            assert_eq!(kept, whole, "{name}");
        }
    }
}
