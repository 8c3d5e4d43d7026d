//! What relays say of themselves: verification, heartbeats, reports.

use axum::{
    body::Body,
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    api::Report,
    credential::{CredentialMeta, CredentialType, StorageMode},
    error::ErrorCode,
    id::MachineId,
    number,
    relay::LegacyMetrics,
};

use super::{
    super::{
        Shared,
        bodies::{Client, Reading, SMALL},
    },
    answer::{Answer, DISABLED, Failure, Refused, Success, UNASSIGNED},
    body::{Wanted, arrived, is_falsy, members, parse, required_text},
    key::{Known, identify, lookup},
};
use crate::api::{heard, relays};

/// Largest report: a relay may hold a thousand credentials.
const REPORT_BYTES: usize = 256 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified<'a> {
    valid: bool,
    assignment_id: &'a str,
    machine_id: &'a MachineId,
    name: &'a str,
}

#[derive(Serialize)]
struct NotValid<'a> {
    valid: bool,
    error: &'a str,
}

/// `POST /relay/verify`: the key stands in the body.
pub(super) async fn verify(shared: &Shared, head: &Parts, body: Body) -> Result<Answer, Refused> {
    let reading = Reading::begin(&head.headers, body, SMALL).await?;
    let room = shared.bodies.room(&reading, Client::Nobody).await?;
    let parsed = parse(shared.bodies.read_on(reading, room).await?, Wanted(&["apiKey"])).await?;
    let key = required_text(&parsed.members, "apiKey", || Refused::NoKey)?;
    let not_valid = |error| {
        let body = NotValid { valid: false, error };
        Ok(Answer::refusal(ErrorCode::Forbidden, StatusCode::FORBIDDEN, &body))
    };
    match lookup(shared, &key).await? {
        Known::Unassigned => not_valid(UNASSIGNED),
        Known::Assigned(assignment) if !assignment.enabled => not_valid(DISABLED),
        Known::Assigned(assignment) => {
            heard::touch(&shared.front.api, &assignment).await;
            Ok(Answer::ok(&Verified {
                valid: true,
                assignment_id: &assignment.id,
                machine_id: &assignment.machine_id,
                name: &assignment.name,
            }))
        }
    }
}

/// `POST /relay/heartbeat`: without a body. That its assignment is disabled is not told.
pub(super) async fn heartbeat(shared: &Shared, head: &Parts) -> Result<Answer, Refused> {
    match identify(shared, &head.headers).await {
        Ok(Known::Assigned(assignment)) => {
            heard::heartbeat(&shared.front.api, &assignment).await;
            Ok(Answer::ok(&Success { success: true }))
        }
        Ok(Known::Unassigned) => Ok(Answer::ok(&Success { success: false })),
        Err(Refused::NoKey | Refused::UnknownKey) => {
            let body = Success { success: false };
            Ok(Answer::refusal(ErrorCode::Unauthenticated, StatusCode::UNAUTHORIZED, &body))
        }
        Err(refused) => Err(refused),
    }
}

/// A report on the wire.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireReport {
    capabilities: Vec<String>,
    metrics: Option<WireMetrics>,
    version: Option<String>,
    hostname: Option<String>,
    platform: Option<String>,
    credentials: Vec<WireCredential>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetrics {
    #[serde(default, deserialize_with = "number::percent_if_any")]
    cpu_percent: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    memory_total_mb: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    memory_used_mb: Option<f64>,
    #[serde(default, deserialize_with = "number::percent_if_any")]
    memory_percent: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    load_avg_1m: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    load_avg_5m: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    load_avg_15m: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    disk_total_gb: Option<f64>,
    #[serde(default, deserialize_with = "number::amount_if_any")]
    disk_used_gb: Option<f64>,
    #[serde(default, deserialize_with = "number::percent_if_any")]
    disk_percent: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCredential {
    credential_name: String,
    credential_type: CredentialType,
    target_host: Option<String>,
    storage_mode: StorageMode,
    last_updated_at: f64,
}

impl From<WireMetrics> for LegacyMetrics {
    fn from(wire: WireMetrics) -> Self {
        Self {
            cpu_percent: wire.cpu_percent,
            memory_total_mb: wire.memory_total_mb,
            memory_used_mb: wire.memory_used_mb,
            memory_percent: wire.memory_percent,
            load_avg_1m: wire.load_avg_1m,
            load_avg_5m: wire.load_avg_5m,
            load_avg_15m: wire.load_avg_15m,
            disk_total_gb: wire.disk_total_gb,
            disk_used_gb: wire.disk_used_gb,
            disk_percent: wire.disk_percent,
        }
    }
}

impl From<WireCredential> for CredentialMeta {
    fn from(wire: WireCredential) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates; no time is negative"
        )]
        let last_updated_at = wire.last_updated_at as u64;
        Self {
            credential_name: wire.credential_name,
            credential_type: wire.credential_type,
            target_host: wire.target_host,
            storage_mode: wire.storage_mode,
            last_updated_at,
            created_at: None,
            username: None,
        }
    }
}

impl WireReport {
    fn into_report(self, id: String) -> Report {
        Report {
            id,
            capabilities: self.capabilities,
            metrics: self.metrics.map(LegacyMetrics::from),
            version: self.version,
            hostname: self.hostname,
            platform: self.platform,
            credentials: Some(self.credentials.into_iter().map(CredentialMeta::from).collect()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reported {
    success: bool,
    pending_config_pushes: u64,
    shared_credentials_count: u64,
}

/// `POST /relay/status`: about the relay whose key it is, whatever `relayId` says.
pub(super) async fn status(shared: &Shared, head: &Parts, body: Body) -> Result<Answer, Refused> {
    const MISSING: &str = "relayId, capabilities, and credentials are required";
    let mut arrived = arrived(shared, &head.headers, body, REPORT_BYTES).await?;
    let required = ["relayId", "capabilities", "credentials"];
    let members = members(&mut arrived, Wanted(&["relayId", "capabilities", "credentials"])).await?;
    if required.into_iter().any(|name| members.get(name).is_none_or(is_falsy)) {
        return Ok(Failure::bad_request(MISSING));
    }
    // Only of who is known all of it is read.
    let known = identify(shared, &head.headers).await?;
    let report = report_in(arrived.parse(|source| serde_json::from_reader(source)).await?)?;
    let (pushes, credentials) = match known {
        Known::Assigned(assignment) if assignment.enabled => {
            let api = &shared.front.api;
            let report = report.into_report(assignment.id.clone());
            match relays::report(api, &assignment, report).await {
                Ok(reported) => (reported.pending_config_pushes, reported.shared_credentials_count),
                // Another one comes in half a minute, and says the same.
                Err(problem) if problem.code == ErrorCode::NotAccepted => {
                    api.count("legacy", "report_unkept");
                    api.view().waiting_for_relay(&assignment.id)
                }
                // As what is no report at all.
                Err(problem) if problem.code == ErrorCode::Invalid => {
                    return Err(Refused::Malformed(problem.message));
                }
                Err(problem) => return Err(problem.into()),
            }
        }
        // The old contract takes these reports. They change nothing.
        Known::Assigned(_) | Known::Unassigned => (0, 0),
    };
    Ok(Answer::ok(&Reported {
        success: true,
        pending_config_pushes: pushes,
        shared_credentials_count: credentials,
    }))
}

/// Members that are not known are passed over, wherever they are.
fn report_in(read: serde_json::Result<WireReport>) -> Result<WireReport, Refused> {
    read.map_err(|error| {
        let why: String = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
        Refused::Malformed(format!("the report cannot be read: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_read_as_relays_send_it() {
        let body = json!({
            "relayId": "asg_1", "capabilities": ["local_cmd", "ssh", "perf_metrics"],
            "metrics": {"memoryTotalMb": 24106, "memoryPercent": 4.3, "loadAvg1m": 1.94, "loadAvg15m": 0.9, "diskPercent": 5.44, "new": 1},
            "version": "1.0.0", "hostname": "vm", "platform": null, "extra": true,
            "credentials": [{"credentialName": "a", "credentialType": "ssh_key", "storageMode": "relay_only", "lastUpdatedAt": 1.795e12}],
        });
        let report = report_in(serde_json::from_value(body)).unwrap().into_report("x".to_owned());
        let metrics = report.metrics.unwrap();
        assert_eq!((metrics.memory_total_mb, metrics.memory_percent), (Some(24_106.0), Some(4.3)));
        assert_eq!(
            (metrics.load_avg_1m, metrics.load_avg_5m, metrics.load_avg_15m),
            (Some(1.94), None, Some(0.9))
        );
        assert_eq!((metrics.disk_percent, metrics.cpu_percent), (Some(5.44), None));
        assert_eq!((report.id.as_str(), report.platform), ("x", None));
        assert_eq!(report.credentials.unwrap()[0].last_updated_at, 1_795_000_000_000);
    }
}
