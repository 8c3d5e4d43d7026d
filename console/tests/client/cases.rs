//! Command lines that are one operation each: what they must ask, what they are answered, what people must see.

use serde_json::{Value, json};

pub(super) const ID: &str = "0193a2b4-0000-7000-8000-000000000000";

/// A command line, what it must ask, and what it is answered.
pub(super) struct Case {
    pub(super) args: &'static [&'static str],
    pub(super) input: &'static str,
    pub(super) op: &'static str,
    pub(super) is_signed: bool,
    pub(super) asked: Value,
    pub(super) answer: Value,
    /// Words that people must see on stdout.
    pub(super) shown: &'static [&'static str],
}

fn reads(
    args: &'static [&'static str],
    op: &'static str,
    asked: Value,
    answer: Value,
    shown: &'static [&'static str],
) -> Case {
    Case { args, input: "", op, is_signed: false, asked, answer, shown }
}

fn writes(
    args: &'static [&'static str],
    op: &'static str,
    asked: Value,
    answer: Value,
    shown: &'static [&'static str],
) -> Case {
    Case { is_signed: true, ..reads(args, op, asked, answer, shown) }
}

pub(super) fn assignment() -> Value {
    json!({
        "id": "a-1", "machine_id": "web-1", "name": "Web\u{1b}[2J", "enabled": true, "created_by": "operator:local",
        "created_at": 1000, "updated_at": 1000, "last_seen_at": null, "is_online": false,
    })
}

fn relay() -> Value {
    json!({
        "assignment_id": "a-1", "machine_id": "web-1", "capabilities": ["local_cmd", "ssh"], "version": "1.0.0",
        "hostname": "web", "platform": "linux-x64", "metrics": { "cpu_percent": 12.4, "memory_percent": 40.4 },
        "created_at": 1000, "last_heartbeat_at": 2000, "is_online": true,
    })
}

fn credential() -> Value {
    json!({
        "assignment_id": "a-1", "machine_id": "web-1", "credential_name": "db key", "credential_type": "ssh_key",
        "target_host": "db.local", "storage_mode": "relay_only", "last_updated_at": 1000, "reported_at": 2000,
    })
}

fn shared() -> Value {
    json!({
        "id": "s-1", "name": "deploy", "credential_type": "password", "target_host": null, "storage_mode": "shared",
        "assigned": ["a-1", "a-2"], "created_by": "operator:local", "created_at": 1000, "updated_at": 1000,
    })
}

fn push(state: &str) -> Value {
    json!({
        "id": "p-1", "assignment_id": "a-1", "push_type": "ssh_targets", "payload": { "targets": ["db"] },
        "state": state, "error": "no\u{7}pe", "created_by": "operator:local", "created_at": 1000, "sent_at": null,
        "acked_at": null,
    })
}

pub(super) fn run() -> Value {
    let nothing = json!({ "bytes": 0, "sha256": null, "truncated": false });
    json!({
        "command": {
            "id": ID, "command": "uptime", "on": "web-1", "by": "operator:local", "created_at": 1000,
            "expires_at": 2000, "timeout_ms": 30000, "settled": true, "counts": { "failed": 1 },
        },
        "machine": "web-1", "state": "failed", "exit_code": 7, "signal": null, "error": null, "duration_ms": 12,
        "group_dead": true, "stdout": nothing, "stderr": nothing,
    })
}

fn listed(item: &Value) -> Value {
    json!({ "items": [item], "next": null })
}

pub(super) fn assignments() -> Vec<Case> {
    vec![
        reads(
            &["assignments", "--machine", "web-1"],
            "assignments.list",
            json!({ "machine_id": "web-1", "limit": 1000 }),
            listed(&assignment()),
            &["a-1", "web-1", "offline", "enabled", "not lately", "Web"],
        ),
        reads(
            &["assignment", "show", "a-1"],
            "assignments.get",
            json!({ "id": "a-1" }),
            assignment(),
            &["id            a-1\nmachine id    web-1\n", "enabled       yes", "last seen at  -", "ago"],
        ),
        writes(
            &["assignment", "rename", "a-1", "Other"],
            "assignments.update",
            json!({ "id": "a-1", "name": "Other" }),
            assignment(),
            &["a-1"],
        ),
        writes(
            &["assignment", "enable", "a-1"],
            "assignments.update",
            json!({ "id": "a-1", "enabled": true }),
            assignment(),
            &["a-1"],
        ),
        writes(
            &["assignment", "disable", "a-1"],
            "assignments.update",
            json!({ "id": "a-1", "enabled": false }),
            assignment(),
            &["a-1"],
        ),
        writes(
            &["assignment", "remove", "a-1", "--cascade"],
            "assignments.remove",
            json!({ "id": "a-1", "cascade": true }),
            json!({ "id": "a-1", "withdrawn": 2 }),
            &["withdrawn  2"],
        ),
        writes(
            &["assignment", "heartbeat", "a-1"],
            "assignments.heartbeat",
            json!({ "id": "a-1" }),
            assignment(),
            &["a-1"],
        ),
    ]
}

pub(super) fn relays() -> Vec<Case> {
    vec![
        reads(
            &["relays", "--capability", "ssh", "--offline"],
            "relays.list",
            json!({ "capability": "ssh", "online": false, "limit": 1000 }),
            listed(&relay()),
            &["a-1", "web-1", "online", "12 %", "40 %", "linux-x64", "local_cmd,ssh"],
        ),
        reads(
            &["relay", "show", "a-1"],
            "relays.get",
            json!({ "id": "a-1" }),
            relay(),
            &["capabilities       local_cmd, ssh\n", "hostname           web\n", "\"cpu_percent\":12.4"],
        ),
        Case {
            input: r#"{"capabilities": ["ssh"], "metrics": {"cpu_percent": 3}, "id": "", "hostname": null, "version": "9"}"#,
            ..writes(
                &["relay", "report", "a-1", "--file", "-"],
                "relays.report",
                json!({ "id": "a-1", "capabilities": ["ssh"], "metrics": { "cpu_percent": 3 }, "version": "9" }),
                json!({ "pending_config_pushes": 3, "shared_credentials_count": 1 }),
                &["pending config pushes     3\n"],
            )
        },
        reads(
            &["credentials", "--target", "db.local"],
            "credentials.list",
            json!({ "target_host": "db.local", "limit": 1000 }),
            listed(&credential()),
            &["web-1", "ssh_key", "relay_only", "db.local", "db key"],
        ),
        reads(
            &["credentials", "--relay", "a-1"],
            "credentials.list",
            json!({ "assignment_id": "a-1", "limit": 1000 }),
            listed(&credential()),
            &["db key"],
        ),
    ]
}

pub(super) fn shared_credentials() -> Vec<Case> {
    vec![
        reads(
            &["shared-credentials"],
            "shared_credentials.list",
            json!({ "limit": 1000 }),
            listed(&shared()),
            &["s-1", "password", "deploy"],
        ),
        Case {
            input: "00:11:22\n",
            ..writes(
                &[
                    "shared-credential",
                    "create",
                    "deploy",
                    "--type",
                    "password",
                    "--target",
                    "db",
                    "--value-file",
                    "-",
                    "--to",
                    "a-1",
                    "--to",
                    "a-2",
                ],
                "shared_credentials.create",
                json!({
                    "name": "deploy", "credential_type": "password", "target_host": "db",
                    "encrypted_value": "00:11:22", "assigned": ["a-1", "a-2"],
                }),
                shared(),
                &["assigned         a-1, a-2\n"],
            )
        },
        writes(
            &["shared-credential", "update", "s-1", "--to-nobody"],
            "shared_credentials.update",
            json!({ "id": "s-1", "assigned": [] }),
            shared(),
            &["s-1"],
        ),
        writes(
            &["shared-credential", "update", "s-1", "--name", "x", "--target", "h"],
            "shared_credentials.update",
            json!({ "id": "s-1", "name": "x", "target_host": "h" }),
            shared(),
            &["s-1"],
        ),
        reads(
            &["shared-credential", "show", "s-1"],
            "shared_credentials.get",
            json!({ "id": "s-1" }),
            shared(),
            &["deploy"],
        ),
        writes(
            &["shared-credential", "remove", "s-1"],
            "shared_credentials.remove",
            json!({ "id": "s-1" }),
            shared(),
            &["deploy"],
        ),
    ]
}

pub(super) fn pushes() -> Vec<Case> {
    let new = json!({ "assignment_id": "a-1", "push_type": "ssh_targets", "payload": { "targets": ["db"] } });
    vec![
        reads(
            &["pushes", "--relay", "a-1", "--state", "failed"],
            "config_pushes.list",
            json!({ "assignment_id": "a-1", "state": "failed", "limit": 1000 }),
            listed(&push("failed")),
            &["p-1", "ssh_targets", "failed", "no pe"],
        ),
        writes(
            &["push", "create", "a-1", "ssh_targets", r#"{"targets": ["db"]}"#],
            "config_pushes.create",
            new.clone(),
            push("pending"),
            &["state          pending\n", r#"payload        {"targets":["db"]}"#],
        ),
        Case {
            input: r#"{"targets": ["db"]}"#,
            ..writes(
                &["push", "create", "a-1", "ssh_targets", "--payload-file", "-"],
                "config_pushes.create",
                new,
                push("pending"),
                &["p-1"],
            )
        },
        reads(&["push", "show", "p-1"], "config_pushes.get", json!({ "id": "p-1" }), push("sent"), &["sent"]),
        writes(
            &["push", "sent", "p-1"],
            "config_pushes.sent",
            json!({ "id": "p-1" }),
            push("sent"),
            &["sent"],
        ),
        writes(
            &["push", "ack", "p-1"],
            "config_pushes.ack",
            json!({ "id": "p-1", "success": true }),
            push("acked"),
            &["acked"],
        ),
        writes(
            &["push", "fail", "p-1", "--message", "no room"],
            "config_pushes.ack",
            json!({ "id": "p-1", "success": false, "error": "no room" }),
            push("failed"),
            &["failed"],
        ),
        writes(
            &["push", "retry", "p-1"],
            "config_pushes.retry",
            json!({ "id": "p-1" }),
            push("pending"),
            &["pending"],
        ),
    ]
}

pub(super) fn work() -> Vec<Case> {
    vec![
        reads(
            &["runs", "--machine", "web-1", "--state", "failed", "--limit", "5"],
            "runs.list",
            json!({ "machine_id": "web-1", "state": "failed", "limit": 5 }),
            listed(&run()),
            &[ID, "web-1", "failed", "7", "12 ms", "uptime"],
        ),
        writes(
            &["work", "claim", ID, "--assignment", "a-1"],
            "runs.claim",
            json!({ "id": ID, "assignment_id": "a-1" }),
            json!({ "claimed": true }),
            &["claimed  yes"],
        ),
        writes(
            &["work", "start", ID, "--assignment", "a-1"],
            "runs.start",
            json!({ "id": ID, "assignment_id": "a-1" }),
            json!({ "started": true }),
            &["started  yes"],
        ),
        Case {
            input: "so far\n",
            ..writes(
                &[
                    "work",
                    "complete",
                    ID,
                    "--assignment",
                    "a-1",
                    "--exit-code",
                    "-1",
                    "--stdout-file",
                    "-",
                    "--error",
                    "Command timed out",
                    "--took",
                    "3s",
                ],
                "runs.complete",
                json!({
                    "id": ID, "assignment_id": "a-1", "success": false, "output": "so far\n", "stderr": "",
                    "exit_code": -1, "error": "Command timed out", "duration_ms": 3000,
                }),
                json!({ "accepted": true }),
                &["accepted  yes"],
            )
        },
        writes(
            &["work", "complete", ID, "--assignment", "a-1", "--exit-code", "0"],
            "runs.complete",
            json!({
                "id": ID, "assignment_id": "a-1", "success": true, "output": "", "stderr": "", "exit_code": 0,
                "duration_ms": 0,
            }),
            json!({ "accepted": true }),
            &[],
        ),
    ]
}
