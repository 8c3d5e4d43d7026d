//! What the center wants to be set. Blocks.
//!
//! A push is acknowledged as what became of it: who sets a list of allowed commands and hears that it was applied believes
//! it. This version applies the interval of reports and nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    http::{Answer, Center, NoAnswer, StatusCode},
    wire::{Ack, Push, pushes},
};

/// File of what was set.
const FILE: &str = "settings.json";
/// How often reports may be asked for, ms.
const INTERVAL_MS: std::ops::RangeInclusive<f64> = 5_000.0..=3_600_000.0;

/// What was set, as it survives a restart.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status_interval_ms: Option<u64>,
}

/// Takes what is pushed.
pub(super) struct Config {
    center: Center,
    relay_id: String,
    path: PathBuf,
    /// Whether the center has the one set of routes or the other.
    has_served_routes: AtomicBool,
}

impl Config {
    pub(super) fn new(center: Center, relay_id: String, folder: &Path) -> Self {
        Self { center, relay_id, path: folder.join(FILE), has_served_routes: AtomicBool::new(false) }
    }

    /// The interval of reports that was set.
    pub(super) fn status_interval(&self) -> Option<Duration> {
        let settings: Settings = match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %self.path.display(), %error, "Settings are not read");
                Settings::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Settings::default(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "Settings are not read");
                Settings::default()
            }
        };
        settings.status_interval_ms.map(Duration::from_millis)
    }

    /// Takes all that waits, one after the other, and says what became of each. Answers the newest interval of reports.
    pub(super) fn sync(&self) -> Option<Duration> {
        let waiting = match self.list() {
            Ok(answer) if answer.status.is_success() => pushes(&answer),
            Ok(answer) => {
                tracing::warn!(status = answer.status.as_u16(), "Settings are not told");
                return None;
            }
            Err(error) => {
                tracing::error!(%error, "Settings are not told");
                return None;
            }
        };
        let mut newest = None;
        for push in waiting {
            let applied = self.apply(&push);
            match &applied {
                Ok(interval) => {
                    newest = Some(*interval);
                    tracing::info!(kind = push.kind, "Setting applied");
                }
                Err(error) => tracing::warn!(kind = push.kind, error, "Setting refused"),
            }
            let ack = Ack { push_id: &push.id, success: applied.is_ok(), error_message: applied.err() };
            self.acknowledge(&ack);
        }
        newest
    }

    fn list(&self) -> Result<Answer, NoAnswer> {
        if !self.has_served_routes.load(Ordering::Relaxed) {
            let answer = self.center.get("/relay/config/pending")?;
            if answer.status != StatusCode::NOT_FOUND {
                return Ok(answer);
            }
        }
        let answer = self.center.get(&format!("/relay/config-pushes?relayId={}", escaped(&self.relay_id)))?;
        if answer.status.is_success() {
            self.has_served_routes.store(true, Ordering::Relaxed);
        }
        Ok(answer)
    }

    fn acknowledge(&self, ack: &Ack<'_>) {
        let has_served_routes = self.has_served_routes.load(Ordering::Relaxed);
        let mut paths = ["/relay/config/ack", "/relay/config-pushes/ack"];
        if has_served_routes {
            paths.reverse();
        }
        let [first, second] = paths;
        // Strings always have a JSON form.
        let body = serde_json::to_vec(ack).unwrap_or_default();
        // A center may have the list under one set of routes and this one under the other.
        let answer = match self.center.post(first, &body) {
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => self.center.post(second, &body),
            answer => answer,
        };
        match answer {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => tracing::warn!(status = answer.status.as_u16(), "Setting not acknowledged"),
            Err(error) => tracing::warn!(%error, "Setting not acknowledged"),
        }
    }

    /// Sets what is pushed, for good.
    fn apply(&self, push: &Push) -> Result<Duration, String> {
        let interval = interval_of(push)?;
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let settings = Settings { status_interval_ms: Some(ms) };
        let draft = self.path.with_extension("new");
        // Numbers always have a JSON form.
        let text = serde_json::to_vec(&settings).unwrap_or_default();
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &self.path));
        written.map_err(|error| format!("the setting cannot be kept: {error}"))?;
        Ok(interval)
    }
}

/// What a push sets, or why it sets nothing.
fn interval_of(push: &Push) -> Result<Duration, String> {
    let kind = push.kind.as_deref().ok_or("the push says no type of setting")?;
    let payload = push.payload.as_deref().ok_or("the payload is no text")?;
    let payload: serde_json::Value =
        serde_json::from_str(payload).map_err(|_| "the payload is no JSON".to_owned())?;
    match kind {
        "metrics_interval" => {
            let ms = payload.get("intervalMs").and_then(serde_json::Value::as_f64);
            let ms = ms.filter(|ms| INTERVAL_MS.contains(ms));
            let ms = ms.ok_or("intervalMs must be a number from 5000 to 3600000")?;
            Ok(Duration::from_secs_f64(ms.round() / 1000.0))
        }
        kind @ ("allowed_commands" | "ssh_targets" | "credential") => {
            Err(format!("{kind} is not applied by this relay; nothing was changed"))
        }
        _ => Err("unknown type of setting".to_owned()),
    }
}

/// A value of a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(['%', hex(byte >> 4), hex(byte)]);
        }
    }
    escaped
}

/// The digit of the lower half of a byte.
fn hex(byte: u8) -> char {
    char::from_digit(u32::from(byte & 0xf), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::ApiKey;
    use rstest::rstest;

    fn push(kind: Option<&str>, payload: Option<&str>) -> Push {
        let [kind, payload] = [kind, payload].map(|text| text.map(str::to_owned));
        Push { id: "p".to_owned(), kind, payload }
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |kind, payload| interval_of(&push(kind, payload)).unwrap_err();
        assert_eq!(said(None, Some("{}")), "the push says no type of setting");
        assert_eq!(said(Some("metrics_interval"), None), "the payload is no text");
    }

    #[rstest]
    #[case("metrics_interval", r#"{"intervalMs":5000}"#, Ok(5_000))]
    #[case("metrics_interval", r#"{"intervalMs":3600000.0}"#, Ok(3_600_000))]
    #[case("metrics_interval", r#"{"intervalMs":4999}"#, Err("intervalMs must be"))]
    #[case("metrics_interval", r#"{"intervalMs":"9000"}"#, Err("intervalMs must be"))]
    #[case("metrics_interval", "{}", Err("intervalMs must be"))]
    #[case("ssh_targets", r#"{"targets":[]}"#, Err("ssh_targets is not applied"))]
    #[case("allowed_commands", r#"{"commands":["ls"]}"#, Err("allowed_commands is not applied"))]
    #[case("credential", "{}", Err("credential is not applied"))]
    #[case("bogus", "{}", Err("unknown type"))]
    #[case("ssh_targets", "no", Err("the payload is no JSON"))]
    fn only_what_is_applied_counts_as_applied(
        #[case] kind: &str,
        #[case] payload: &str,
        #[case] expected: Result<u64, &str>,
    ) {
        let push = push(Some(kind), Some(payload));
        match (interval_of(&push), expected) {
            (Ok(interval), Ok(ms)) => assert_eq!(interval, Duration::from_millis(ms)),
            (Err(error), Err(begin)) => assert!(error.starts_with(begin), "{error}"),
            (found, _) => panic!("{kind} {payload}: {found:?}"),
        }
    }

    #[test]
    fn a_setting_survives() {
        let folder = tempfile::tempdir().unwrap();
        let center = Center::new("http://127.0.0.1:1", ApiKey::new("k").unwrap()).unwrap();
        let config = || Config::new(center.clone(), "r".to_owned(), folder.path());
        assert_eq!(config().status_interval(), None);
        let push = push(Some("metrics_interval"), Some(r#"{"intervalMs":6000}"#));
        assert_eq!(config().apply(&push), Ok(Duration::from_secs(6)));
        assert_eq!(config().status_interval(), Some(Duration::from_secs(6)));
        fs::write(folder.path().join(FILE), "rubbish").unwrap();
        assert_eq!(config().status_interval(), None);
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(config().apply(&push).is_err(), "what cannot be kept was taken");
    }

    #[test]
    fn an_id_in_a_query_is_escaped() {
        assert_eq!(escaped("a-1_.~"), "a-1_.~");
        assert_eq!(escaped("a b&ü"), "a%20b%26%C3%BC");
    }
}
