//! The document of a push, as text: relays of the old contract get it as a JavaScript program would write it, members in
//! the order they were given in and numbers as that language prints them.

use std::io::{self, Write};

use serde::Serialize as _;
use serde_json::{Serializer, Value, ser::Formatter};
use signalbox_schemas::{
    config::PushType,
    error::{ErrorCode, Problem},
};

use super::MAKING;

/// Longest text of a payload, bytes.
const PAYLOAD_BYTES: usize = 64 * 1024;

/// The text of a payload.
///
/// # Errors
/// `invalid` when it is no object, `too_large`.
pub(super) fn to_text(payload: &Value) -> Result<String, Problem> {
    let refuse = |code, why: &str| Problem::new(code, format!("cannot {MAKING}: {why}"));
    if !payload.is_object() {
        return Err(refuse(ErrorCode::Invalid, "payload must be a JSON object"));
    }
    let mut text = Vec::new();
    let written = payload.serialize(&mut Serializer::with_formatter(&mut text, JavaScript));
    let text = written.ok().and_then(|()| String::from_utf8(text).ok());
    let text = text.ok_or_else(|| refuse(ErrorCode::Invalid, "payload has no form as text"))?;
    if text.len() > PAYLOAD_BYTES {
        let why = format!("payload is {} bytes as text, at most {PAYLOAD_BYTES} are allowed", text.len());
        return Err(refuse(ErrorCode::TooLarge, &why));
    }
    Ok(text)
}

/// Members of a credential that are shown: what it is, and not its value, whatever that is called.
const SHOWN: [&str; 4] = ["name", "credentialType", "targetHost", "updatedAt"];

/// The document as it is shown to whoever may look: of a credential everything but what it is, blank. Only its relay gets
/// the value.
pub(super) fn shown(push_type: PushType, text: String) -> Value {
    let mut payload = from_text(text);
    if push_type != PushType::Credential {
        return payload;
    }
    let blank = || Value::String(String::new());
    let Value::Object(members) = &mut payload else { return blank() };
    members
        .iter_mut()
        .filter(|(name, _)| !SHOWN.contains(&name.as_str()))
        .for_each(|(_, value)| *value = blank());
    payload
}

/// The document that a text is. One that another version wrote, and that is none, is shown as text.
fn from_text(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// Compact JSON with the numbers of JavaScript, all of which are doubles: `5000.0` is `5000`.
struct JavaScript;

impl Formatter for JavaScript {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // It has no sign for nothing.
        let value = if value == 0.0 { 0.0 } else { value };
        writer.write_all(ryu_js::Buffer::new().format(value).as_bytes())
    }

    #[expect(clippy::cast_precision_loss, reason = "that is what JavaScript does to it")]
    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        self.write_f64(writer, value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "that is what JavaScript does to it")]
    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.write_f64(writer, value as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn text_of(number: &str) -> String {
        let payload = serde_json::from_str(&format!("{{\"n\":{number}}}")).unwrap();
        let text = to_text(&payload).unwrap();
        text.strip_prefix("{\"n\":").and_then(|text| text.strip_suffix('}')).unwrap().to_owned()
    }

    #[rstest]
    #[case("5000.0", "5000")]
    #[case("5000", "5000")]
    #[case("-5e3", "-5000")]
    #[case("-0.0", "0")]
    #[case("-0", "0")]
    #[case("0.1", "0.1")]
    #[case("1e21", "1e+21")]
    #[case("1e20", "100000000000000000000")]
    #[case("0.000001", "0.000001")]
    #[case("0.0000001", "1e-7")]
    #[case("9007199254740993", "9007199254740992")]
    #[case("18446744073709551615", "18446744073709552000")]
    #[case("-9223372036854775808", "-9223372036854776000")]
    #[case("5e-324", "5e-324")]
    fn numbers_are_written_as_javascript_does(#[case] given: &str, #[case] written: &str) {
        assert_eq!(text_of(given), written);
    }

    proptest! {
        #[test]
        fn a_number_is_read_back_as_it_was(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let text = text_of(&format!("{number:?}"));
            let read: f64 = text.parse().unwrap();
            prop_assert!(read.to_bits() == number.to_bits() || (read == 0.0 && number == 0.0), "{}", text);
            prop_assert!(!text.ends_with(".0"), "{}", text);
        }

        #[test]
        fn whole_numbers_that_are_exact_have_their_digits(number in -(1_i64 << 53)..=(1_i64 << 53)) {
            prop_assert_eq!(text_of(&number.to_string()), number.to_string());
            prop_assert_eq!(text_of(&format!("{number}.0")), number.to_string());
        }
    }

    #[test]
    fn members_keep_their_order() {
        let given = r#"{"z":1,"a":{"y":[true,null,"ü\n"],"b":2.50},"m":{}}"#;
        let written = r#"{"z":1,"a":{"y":[true,null,"ü\n"],"b":2.5},"m":{}}"#;
        assert_eq!(to_text(&serde_json::from_str(given).unwrap()).unwrap(), written);
    }

    #[test]
    fn of_a_credential_all_is_shown_but_its_value() {
        let text = r#"{"name":"n","credentialType":"password","encryptedValue":"sealed","other":{"a":"sealed"},"updatedAt":1}"#;
        let shown_text = |push_type| shown(push_type, text.to_owned()).to_string();
        assert_eq!(
            shown_text(PushType::Credential),
            r#"{"name":"n","credentialType":"password","encryptedValue":"","other":"","updatedAt":1}"#
        );
        assert_eq!(shown_text(PushType::SshTargets), text);
        assert_eq!(shown(PushType::Credential, "sealed".to_owned()), "");
    }

    #[rstest]
    #[case(json!([1]), Some(ErrorCode::Invalid))]
    #[case(json!("{}"), Some(ErrorCode::Invalid))]
    #[case(json!(null), Some(ErrorCode::Invalid))]
    #[case(json!({"a": "x".repeat(65_528)}), None)]
    #[case(json!({"a": "x".repeat(65_529)}), Some(ErrorCode::TooLarge))]
    fn a_payload_is_an_object_with_an_end(#[case] payload: Value, #[case] refused: Option<ErrorCode>) {
        assert_eq!(to_text(&payload).err().map(|problem| problem.code), refused);
    }
}
