//! `relays.*`: what the relays of assignments say about themselves.

use super::{
    Api, Caller, assignments, heard, now_ms, page,
    records::{check_size, is_id},
};
use crate::view::{Cursors, Enrolled};
use signalbox_schemas::{
    api::{ListRelays, Listed, RelayView, Report, Reported},
    authors::Role,
    error::{ErrorCode, Problem},
    record::{AssignmentRecord, table},
    relay::RelayRecord,
    stream::STATE,
};

/// Most capabilities of one relay.
const CAPABILITIES: usize = 64;
/// Longest name of a capability, bytes.
const CAPABILITY_BYTES: usize = 64;
/// Most credentials that one relay may say it holds.
const CREDENTIALS: usize = 1_000;
/// Longest text of a report, bytes.
const TEXT_BYTES: usize = 256;

/// What a relay with keys can do, in the words of the old contract.
const WITH_KEYS: [&str; 2] = ["local_cmd", "perf_metrics"];

const DOING: &str = "take the relay's report";

/// A page of relays, sorted by assignment; `after` is the last assignment of the page before.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`.
pub fn list(api: &Api, caller: &Caller, args: &ListRelays) -> Result<Listed<RelayView>, Problem> {
    caller.require(Role::Viewer, "list relays")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), is_id)?;
    let is_behind =
        |assignment: &AssignmentRecord| args.after.as_ref().is_none_or(|after| assignment.id > *after);
    let views = api.view().assignments().into_iter().filter(is_behind);
    let views = views.filter_map(|assignment| view(api, assignment));
    let can =
        |view: &RelayView| args.capability.as_ref().is_none_or(|wanted| view.capabilities.contains(wanted));
    let is_meant = |view: &RelayView| can(view) && args.online.is_none_or(|wanted| view.is_online == wanted);
    let views = views.filter(is_meant);
    Ok(page::cut(views, limit, |view| view.assignment_id.clone()))
}

/// The relay of one assignment.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found` also when the assignment's relay neither reported nor enrolled.
pub async fn get(api: &Api, caller: &Caller, id: &str) -> Result<RelayView, Problem> {
    caller.require(Role::Viewer, "show a relay")?;
    let assignment = assignments::known(api, id).await?;
    if let Some(view) = view(api, assignment.clone()) {
        return Ok(view);
    }
    api.read_through(STATE).await?;
    view(api, assignment).ok_or_else(|| {
        let message = "the relay of this assignment has not reported yet; see that it runs";
        Problem::new(ErrorCode::NotFound, message)
    })
}

/// The relay of an assignment as it is shown; `None` when it never reported, and has not enrolled.
fn view(api: &Api, assignment: AssignmentRecord) -> Option<RelayView> {
    let reported = api.view().relay(&assignment.id);
    let contact = api.view().contact(&assignment.id, now_ms());
    let created_at = reported.as_ref().map(|relay| relay.created_at);
    let said = match contact.enrolled {
        Some(enrolled) => Said::of_enrolled(enrolled),
        None => Said::of_report(reported?),
    };
    Some(RelayView {
        assignment_id: assignment.id,
        machine_id: assignment.machine_id,
        capabilities: said.capabilities,
        version: said.version,
        hostname: said.hostname,
        platform: said.platform,
        metrics: contact.metrics,
        created_at: created_at.unwrap_or(said.since),
        last_heartbeat_at: contact.seen_at,
        is_online: contact.is_online,
    })
}

/// What a relay says of itself, whichever way.
struct Said {
    capabilities: Vec<String>,
    version: Option<String>,
    hostname: Option<String>,
    platform: Option<String>,
    /// Unix ms.
    since: u64,
}

impl Said {
    fn of_report(relay: RelayRecord) -> Self {
        let RelayRecord { capabilities, version, hostname, platform, created_at: since, .. } = relay;
        Self { capabilities, version, hostname, platform, since }
    }

    /// What it once reported without keys is no longer so.
    fn of_enrolled(enrolled: Enrolled) -> Self {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let (version, facts) = enrolled.said.unzip();
        let facts = facts.as_ref();
        Self {
            capabilities: WITH_KEYS.map(str::to_owned).to_vec(),
            version: version.and_then(|version| given(&version)),
            hostname: facts.and_then(|facts| given(&facts.hostname)),
            platform: facts.and_then(|facts| given(&format!("{} {}", facts.os, facts.arch))),
            since: enrolled.since,
        }
    }
}

/// The same as `report` for a caller who speaks in the name of a relay.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, and those of the report.
pub async fn report_for(api: &Api, caller: &Caller, said: Report) -> Result<(Reported, Cursors), Problem> {
    caller.require(Role::Admin, "speak for a relay")?;
    let assignment = assignments::known(api, &said.id).await?;
    take(api, &assignment, said).await
}

/// Takes what an assignment's relay says about itself. Metrics go the way of heartbeats; a record is written only when
/// something else has changed, since a relay reports twice a minute.
///
/// # Errors
/// `invalid` when something in it is out of bounds, `too_large` when all of it together is, `not_accepted`.
pub(crate) async fn report(
    api: &Api,
    assignment: &AssignmentRecord,
    report: Report,
) -> Result<Reported, Problem> {
    take(api, assignment, report).await.map(|(reported, _)| reported)
}

async fn take(
    api: &Api,
    assignment: &AssignmentRecord,
    report: Report,
) -> Result<(Reported, Cursors), Problem> {
    check(&report)?;
    let id = assignment.id.as_str();
    let mut cursors = api.view().cursors();
    let known = api.view().relay(id);
    if known.is_none_or(|known| next(&known, &report) != known) {
        let edit = |stands: Option<RelayRecord>| match stands {
            // Its assignment was removed while this was on its way.
            Some(stands) if stands.removed_at.is_some() => None,
            Some(stands) => Some(next(&stands, &report)),
            None => Some(first(assignment, &report)),
        };
        cursors = api.edit(&format!("relay:{id}"), DOING, table::RELAYS, id, edit).await?.1;
    }
    heard::report(api, assignment, report.metrics).await;
    let (pending_config_pushes, shared_credentials_count) = api.view().waiting_for_relay(id);
    Ok((Reported { pending_config_pushes, shared_credentials_count }, cursors))
}

fn check(report: &Report) -> Result<(), Problem> {
    let invalid = |what: String| Err(Problem::new(ErrorCode::Invalid, format!("cannot {DOING}: {what}")));
    if report.capabilities.len() > CAPABILITIES {
        return invalid(format!(
            "it names {} capabilities, at most {CAPABILITIES}",
            report.capabilities.len()
        ));
    }
    for capability in &report.capabilities {
        check_size(DOING, "a capability", capability, CAPABILITY_BYTES)?;
    }
    let texts =
        [("version", &report.version), ("hostname", &report.hostname), ("platform", &report.platform)];
    for (member, text) in texts {
        check_size(DOING, member, text.as_deref().unwrap_or_default(), TEXT_BYTES)?;
    }
    let credentials = report.credentials.as_deref().unwrap_or_default();
    if credentials.len() > CREDENTIALS {
        return invalid(format!("it holds {} credentials, at most {CREDENTIALS}", credentials.len()));
    }
    for credential in credentials {
        check_size(DOING, "the name of a credential", &credential.credential_name, TEXT_BYTES)?;
        let host = credential.target_host.as_deref().unwrap_or_default();
        check_size(DOING, "the host of a credential", host, TEXT_BYTES)?;
    }
    Ok(())
}

/// The first record of a relay.
fn first(assignment: &AssignmentRecord, report: &Report) -> RelayRecord {
    let now = now_ms();
    let nothing = RelayRecord {
        ws: assignment.ws.clone(),
        assignment: assignment.id.clone(),
        capabilities: Vec::new(),
        version: None,
        hostname: None,
        platform: None,
        credentials: Vec::new(),
        created_at: now,
        reported_at: now,
        removed_at: None,
        revision: 0,
    };
    next(&nothing, report)
}

/// What a record says after a report: the same, also in its times, when nothing has changed.
fn next(known: &RelayRecord, report: &Report) -> RelayRecord {
    let said = RelayRecord {
        capabilities: report.capabilities.clone(),
        version: report.version.clone(),
        hostname: report.hostname.clone(),
        platform: report.platform.clone(),
        credentials: report.credentials.clone().unwrap_or_else(|| known.credentials.clone()),
        ..known.clone()
    };
    if said == *known { said } else { RelayRecord { reported_at: now_ms(), ..said } }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn report_of(body: Value) -> Report {
        serde_json::from_value(body).unwrap()
    }

    fn credentials(count: usize, name: &str) -> Value {
        let one = json!({"credential_name": name, "credential_type": "password", "storage_mode": "shared",
            "last_updated_at": 1});
        json!(vec![one; count])
    }

    #[rstest]
    #[case(json!({"capabilities": vec!["x".repeat(64); 64]}), true)]
    #[case(json!({"capabilities": vec!["x"; 65]}), false)]
    #[case(json!({"capabilities": ["x".repeat(65)]}), false)]
    #[case(json!({"capabilities": [], "hostname": "h".repeat(256)}), true)]
    #[case(json!({"capabilities": [], "hostname": "h".repeat(257)}), false)]
    #[case(json!({"capabilities": [], "credentials": credentials(1_000, "same name")}), true)]
    #[case(json!({"capabilities": [], "credentials": credentials(1_001, "a")}), false)]
    #[case(json!({"capabilities": [], "credentials": credentials(1, &"a".repeat(257))}), false)]
    fn a_report_has_bounds(#[case] body: Value, #[case] is_taken: bool) {
        assert_eq!(check(&report_of(body)).is_ok(), is_taken);
    }

    #[test]
    fn only_news_are_news() {
        let before = RelayRecord {
            ws: signalbox_schemas::id::Workspace::main(),
            assignment: "a".to_owned(),
            capabilities: vec!["ssh".to_owned()],
            version: Some("1".to_owned()),
            hostname: None,
            platform: None,
            credentials: Vec::new(),
            created_at: 1,
            reported_at: 1,
            removed_at: None,
            revision: 7,
        };
        let same = json!({"capabilities": ["ssh"], "version": "1", "metrics": {"cpu_percent": 3.5}});
        assert_eq!(next(&before, &report_of(same)), before);
        let held = json!({"capabilities": ["ssh"], "version": "1", "credentials": credentials(2, "twice")});
        let after = next(&before, &report_of(held));
        assert_eq!((after.credentials.len(), after.reported_at > 1, after.created_at), (2, true, 1));
        // What is absent is gone, except the inventory.
        let less = next(&after, &report_of(json!({"capabilities": []})));
        assert_eq!((less.version, less.capabilities.len(), less.credentials.len()), (None, 0, 2));
        let none = next(&after, &report_of(json!({"capabilities": [], "credentials": []})));
        assert_eq!(none.credentials, []);
    }
}
