//! What the center wants to be set. Blocks.
//!
//! A push is acknowledged as what became of it: who sets a list of allowed commands and hears that it was applied believes
//! it. What is applied: the interval of reports, the hosts that may be dialled, and credentials, where this relay has the
//! secret that they are sealed with. With that secret it also asks for the credentials that are meant for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use signalbox_schemas::{
    Secret,
    error::report,
    host::{HostPattern, PatternError},
};

use super::{
    hosts::Hosts,
    http::{Answer, Center, NoAnswer, StatusCode},
    wire::{Ack, Push, pushes, shared_credentials, shown},
};
use crate::{
    config::MAX_PATTERNS,
    private_file::replace,
    vault::{Arrival, Arrived, seed::SharedCredential},
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
    /// The hosts that may be dialled; none, where the list is empty. Absent: all that are not denied by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh_targets: Option<Vec<HostPattern>>,
}

/// What a push sets.
#[derive(Debug, PartialEq)]
enum Setting {
    /// How often there are reports.
    Interval(Duration),
    /// Which hosts may be dialled.
    SshTargets(Vec<HostPattern>),
    /// A credential, sealed.
    Credential(Box<SharedCredential>),
}

/// Where credentials go, and what opens them.
pub(super) struct Credentials {
    pub(super) hosts: Arc<Hosts>,
    /// The secret that center and relays share.
    pub(super) shared_secret: Option<Secret>,
}

/// Takes what is pushed.
pub(super) struct Config {
    center: Center,
    relay_id: String,
    path: PathBuf,
    /// Whether the center has the one set of routes or the other.
    has_served_routes: AtomicBool,
    credentials: Credentials,
}

impl Config {
    pub(super) fn new(center: Center, relay_id: String, folder: &Path, credentials: Credentials) -> Self {
        let has_served_routes = AtomicBool::new(false);
        Self { center, relay_id, path: folder.join(FILE), has_served_routes, credentials }
    }

    /// The interval of reports that was set.
    pub(super) fn status_interval(&self) -> Option<Duration> {
        let settings = self.settings().unwrap_or_else(|error| {
            tracing::warn!(error, "The interval of reports is the usual one");
            Settings::default()
        });
        settings.status_interval_ms.map(Duration::from_millis)
    }

    /// The hosts that may be dialled, where that was set.
    ///
    /// # Errors
    /// Where it is not known whether it was: then nothing may be dialled.
    pub(super) fn ssh_targets(&self) -> Result<Option<Vec<HostPattern>>, String> {
        Ok(self.settings()?.ssh_targets)
    }

    fn settings(&self) -> Result<Settings, String> {
        let failed = |why: &dyn std::fmt::Display| {
            format!("the settings in {} cannot be read ({why}); mend or remove the file", self.path.display())
        };
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(error) => Err(failed(&error)),
        }
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
                    newest = interval.or(newest);
                    tracing::info!(kind = push.kind, "Setting applied");
                }
                Err(error) => tracing::warn!(kind = push.kind, error, "Setting refused"),
            }
            let ack = Ack { push_id: &push.id, success: applied.is_ok(), error_message: applied.err() };
            self.acknowledge(&ack);
        }
        self.take_shared();
        newest
    }

    /// Takes the credentials that are meant for this relay, where it can open them.
    fn take_shared(&self) {
        if self.credentials.shared_secret.is_none() {
            return;
        }
        let listed = match self.center.get("/relay/credentials/shared") {
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                self.center.get(&format!("/relay/shared-credentials?relayId={}", escaped(&self.relay_id)))
            }
            listed => listed,
        };
        let credentials = match listed {
            Ok(answer) if answer.status.is_success() => shared_credentials(&answer),
            Ok(answer) => {
                return tracing::warn!(status = answer.status.as_u16(), "Shared credentials are not told");
            }
            Err(error) => return tracing::warn!(%error, "Shared credentials are not told"),
        };
        let mut arrivals = Vec::with_capacity(credentials.len());
        for credential in credentials {
            match self.open(&credential) {
                Ok(arrival) => arrivals.push(arrival),
                Err(error) => tracing::warn!(name = credential.name, error, "Shared credential not kept"),
            }
        }
        let kept = match self.keep(&arrivals) {
            Ok(kept) => kept,
            Err(error) => return tracing::warn!(error, "Shared credentials not kept"),
        };
        for (arrival, kept) in arrivals.iter().zip(kept) {
            match kept {
                Ok(()) => tracing::debug!(name = %arrival.label.name, "Shared credential kept"),
                Err(error) => {
                    tracing::warn!(name = %arrival.label.name, error, "Shared credential not kept");
                }
            }
        }
    }

    /// Opens what a credential is sealed with.
    fn open(&self, credential: &SharedCredential) -> Result<Arrival, String> {
        let secret =
            self.credentials.shared_secret.as_ref().ok_or(
                "this relay has no secret to open it with (--shared-secret-file); nothing was changed",
            )?;
        credential.open(secret)
    }

    /// Keeps credentials in one step, but where a newer one of a name is there. The answer is what became of each.
    fn keep(&self, arrivals: &[Arrival]) -> Result<Vec<Result<(), &'static str>>, String> {
        let taken = self.credentials.hosts.keepsakes.vault.with(|vault| vault.take_in(arrivals));
        let kept = |arrived| match arrived {
            Arrived::Full => Err("the relay keeps as many credentials as it can"),
            Arrived::Added | Arrived::Replaced | Arrived::Known => Ok(()),
        };
        Ok(taken.map_err(|error| report(&error))?.into_iter().map(kept).collect())
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

    /// Sets what is pushed, for good. The answer is the interval of reports, if that was it.
    fn apply(&self, push: &Push) -> Result<Option<Duration>, String> {
        let setting = setting_of(push)?;
        let mut settings = self.settings()?;
        match setting {
            Setting::Interval(interval) => {
                settings.status_interval_ms = Some(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
                self.set(&settings).map(|()| Some(interval))
            }
            Setting::SshTargets(targets) => {
                settings.ssh_targets = Some(targets);
                self.set(&settings).map(|()| None)
            }
            Setting::Credential(credential) => {
                let kept = self.keep(&[self.open(&credential)?])?;
                kept.into_iter().collect::<Result<(), _>>()?;
                Ok(None)
            }
        }
    }

    fn set(&self, settings: &Settings) -> Result<(), String> {
        // Numbers and patterns always have a JSON form.
        let text = serde_json::to_vec(settings).unwrap_or_default();
        replace(&self.path, &text).map_err(|error| format!("the setting cannot be kept: {error}"))
    }
}

/// What a push sets, or why it sets nothing.
fn setting_of(push: &Push) -> Result<Setting, String> {
    let kind = push.kind.as_deref().ok_or("the push says no type of setting")?;
    let payload = push.payload.as_deref().ok_or("the payload is no text")?;
    let payload: serde_json::Value =
        serde_json::from_str(payload).map_err(|_| "the payload is no JSON".to_owned())?;
    match kind {
        "metrics_interval" => {
            let ms = payload.get("intervalMs").and_then(serde_json::Value::as_f64);
            let ms = ms.filter(|ms| INTERVAL_MS.contains(ms));
            let ms = ms.ok_or("intervalMs must be a number from 5000 to 3600000")?;
            Ok(Setting::Interval(Duration::from_secs_f64(ms.round() / 1000.0)))
        }
        "ssh_targets" => {
            let targets = payload.get("targets").and_then(serde_json::Value::as_array);
            let targets = targets.filter(|targets| targets.len() <= MAX_PATTERNS);
            let targets =
                targets.ok_or_else(|| format!("targets must be a list of up to {MAX_PATTERNS} texts"))?;
            let pattern = |target: &serde_json::Value| {
                let text = target.as_str().ok_or("targets must be texts")?;
                text.parse().map_err(|error: PatternError| format!("{:?} is {error}", shown(text)))
            };
            targets.iter().map(pattern).collect::<Result<_, String>>().map(Setting::SshTargets)
        }
        "credential" => {
            let credential = serde_json::from_value(payload);
            let no_credential = |_| "the payload is no credential".to_owned();
            credential.map(|credential| Setting::Credential(Box::new(credential))).map_err(no_credential)
        }
        "allowed_commands" => {
            Err("allowed_commands is not applied by this relay; nothing was changed".to_owned())
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
    use crate::{api_key::ApiKey, ssh::route::HostKeyPolicy};
    use rstest::rstest;
    use signalbox_schemas::credential::StorageMode;

    fn push(kind: Option<&str>, payload: Option<&str>) -> Push {
        let [kind, payload] = [kind, payload].map(|text| text.map(str::to_owned));
        Push { id: "p".to_owned(), kind, payload }
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |kind, payload| setting_of(&push(kind, payload)).unwrap_err();
        assert_eq!(said(None, Some("{}")), "the push says no type of setting");
        assert_eq!(said(Some("metrics_interval"), None), "the payload is no text");
    }

    #[rstest]
    #[case(r#"{"intervalMs":5000}"#, Ok(5_000))]
    #[case(r#"{"intervalMs":3600000.0}"#, Ok(3_600_000))]
    #[case(r#"{"intervalMs":4999}"#, Err("intervalMs must be"))]
    #[case(r#"{"intervalMs":"9000"}"#, Err("intervalMs must be"))]
    #[case("{}", Err("intervalMs must be"))]
    fn an_interval_is_in_its_range(#[case] payload: &str, #[case] expected: Result<u64, &str>) {
        match (setting_of(&push(Some("metrics_interval"), Some(payload))), expected) {
            (Ok(Setting::Interval(interval)), Ok(ms)) => assert_eq!(interval, Duration::from_millis(ms)),
            (Err(error), Err(begin)) => assert!(error.starts_with(begin), "{error}"),
            (found, _) => panic!("{payload}: {found:?}"),
        }
    }

    #[rstest]
    #[case("allowed_commands", r#"{"commands":["ls"]}"#, "allowed_commands is not applied")]
    #[case("ssh_targets", r#"{"targets":["a b"]}"#, "\"a b\" is not a host pattern")]
    #[case("ssh_targets", r#"{"targets":[7]}"#, "targets must be texts")]
    #[case("ssh_targets", "{}", "targets must be a list")]
    #[case("credential", "{}", "the payload is no credential")]
    #[case(
        "credential",
        r#"{"name":"db","credentialType":"shoe","encryptedValue":"x","updatedAt":1}"#,
        "the payload is no"
    )]
    #[case("bogus", "{}", "unknown type")]
    #[case("ssh_targets", "no", "the payload is no JSON")]
    fn what_is_not_applied_does_not_count_as_applied(
        #[case] kind: &str,
        #[case] payload: &str,
        #[case] begin: &str,
    ) {
        let error = setting_of(&push(Some(kind), Some(payload))).unwrap_err();
        assert!(error.starts_with(begin), "{error}");
    }

    fn config(store: &Path, shared_secret: Option<&str>) -> Config {
        let center = Center::new("http://127.0.0.1:1", ApiKey::new("k").unwrap()).unwrap();
        let hosts = Arc::new(Hosts::new(store, HostKeyPolicy::Strict));
        let shared_secret = shared_secret.map(|text| Secret::new(text.to_owned()));
        Config::new(center, "r".to_owned(), store, Credentials { hosts, shared_secret })
    }

    #[test]
    fn settings_survive_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let config = || config(folder.path(), None);
        assert_eq!((config().status_interval(), config().ssh_targets()), (None, Ok(None)));
        let interval = push(Some("metrics_interval"), Some(r#"{"intervalMs":6000}"#));
        assert_eq!(config().apply(&interval), Ok(Some(Duration::from_secs(6))));
        let targets = push(Some("ssh_targets"), Some(r#"{"targets":["*.lan", "10.0.0.0/8:22"]}"#));
        assert_eq!(config().apply(&targets), Ok(None));
        assert_eq!(config().status_interval(), Some(Duration::from_secs(6)));
        let written: Vec<_> =
            config().ssh_targets().unwrap().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(written, ["*.lan", "10.0.0.0/8:22"]);
        let nothing = push(Some("ssh_targets"), Some(r#"{"targets":[]}"#));
        assert_eq!(config().apply(&nothing), Ok(None));
        assert_eq!(config().ssh_targets(), Ok(Some(Vec::new())), "an empty list is a list");
        let damaged = "{\"ssh_targets\":[\"a";
        fs::write(folder.path().join(FILE), damaged).unwrap();
        assert_eq!(config().status_interval(), None);
        assert!(config().ssh_targets().is_err(), "what may be dialled is not known, and all is");
        assert!(config().apply(&interval).is_err(), "a restriction was lifted by another setting");
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), damaged);
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(config().apply(&interval).is_err(), "what cannot be kept was taken");
    }

    /// Sealed with the secret `topsecret`: `hello`.
    const SEALED: &str = "000102030405060708090a0b0c0d0e0f:65ae09bef6054db6216ec4164ae794be:52cb3cf5a7";

    #[test]
    fn a_pushed_credential_is_kept_where_it_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let payload = |updated_at: u64| {
            let payload = serde_json::json!({
                "name": "db", "credentialType": "password", "targetHost": "db-1", "encryptedValue": SEALED,
                "updatedAt": updated_at,
            });
            push(Some("credential"), Some(&payload.to_string()))
        };
        let without = config(folder.path(), None).apply(&payload(5)).unwrap_err();
        assert!(without.starts_with("this relay has no secret"), "{without}");
        let other = config(folder.path(), Some("wrongsecret")).apply(&payload(5)).unwrap_err();
        assert!(other.contains("does not open") && !other.contains("wrongsecret"), "{other}");
        let config = config(folder.path(), Some("topsecret"));
        assert_eq!(config.apply(&payload(5)), Ok(None));
        assert_eq!(
            config.apply(&payload(4)),
            Ok(None),
            "an older one changes nothing, and that is no failure"
        );
        let kept = config.credentials.hosts.keepsakes.credentials();
        let [kept] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!((&*kept.credential_name, kept.target_host.as_deref()), ("db", Some("db-1")));
        assert_eq!((kept.storage_mode, kept.last_updated_at), (StorageMode::Shared, 5));
    }

    #[test]
    fn an_id_in_a_query_is_escaped() {
        assert_eq!(escaped("a-1_.~"), "a-1_.~");
        assert_eq!(escaped("a b&ü"), "a%20b%26%C3%BC");
    }
}
