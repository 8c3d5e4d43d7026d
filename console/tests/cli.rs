//! The command line's pure parts: what is read, what is printed, with which code it ends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{io::Write as _, process::Stdio};

use bytes::Bytes;
use clap::{CommandFactory as _, Parser as _};
use proptest::prelude::*;
use rstest::rstest;
use signalbox_console::{
    args::{Action, Args, ssh},
    cli::{
        card::card,
        clean::{self, Cleaner},
        decode::{Keys, Verdict, explain},
        event::{self, Event},
        exit,
        lines::{Lines, Sink},
        quantity,
        table::{Table, shorten},
    },
    client::{ClientError, flow::Piece},
    config::{Config, Environment},
};
use signalbox_schemas::{
    Base64Url,
    api::{Counts, Request},
    command::Grant,
    error::{ErrorCode, Problem},
    id::{CommandId, MachineId, MachineToken, Nonce, Sha256, Workspace},
    mailbox::Mailbox,
    output::OutputStream,
    record::DoneCommand,
    run::{Claim, RunState},
    signed::{Message, Signed, SigningKey},
};
use unicode_width::UnicodeWidthStr as _;

// The key of 32 sevens.
const SEED: &str = include_str!("seven.seed");

fn machine(name: &str) -> MachineId {
    MachineId::new(name).unwrap()
}

fn id() -> CommandId {
    "0193a2b4-0000-7000-8000-000000000000".parse().unwrap()
}

#[rstest]
#[case("250ms", Some(250))]
#[case("30s", Some(30_000))]
#[case("5m", Some(300_000))]
#[case("24h", Some(86_400_000))]
#[case("7d", Some(604_800_000))]
#[case("0s", Some(0))]
#[case("30", None)]
#[case("", None)]
#[case("s", None)]
#[case("-1s", None)]
#[case("+1s", None)]
#[case("1.5s", None)]
#[case("1 s", None)]
#[case("1S", None)]
#[case("99999999999999999999d", None)]
#[case("18446744073709551615d", None)]
fn durations(#[case] text: &str, #[case] ms: Option<u64>) {
    assert_eq!(quantity::duration_ms(text).ok(), ms);
}

#[rstest]
#[case("1000", Some(1000))]
#[case("10MiB", Some(10 << 20))]
#[case("1GiB", Some(1 << 30))]
#[case("64kB", Some(64_000))]
#[case("5B", Some(5))]
#[case("10mib", None)]
#[case("MiB", None)]
#[case("1.5GiB", None)]
#[case("99999999999GiB", None)]
fn sizes(#[case] text: &str, #[case] bytes: Option<u64>) {
    assert_eq!(quantity::size_bytes(text).ok(), bytes);
}

#[rstest]
#[case(0, "0 ms")]
#[case(999, "999 ms")]
#[case(1_250, "1.2 s")]
#[case(125_000, "2 min 5 s")]
#[case(11_400_000, "3 h 10 min")]
#[case(190_000_000, "2 d 4 h")]
fn durations_for_people(#[case] ms: u64, #[case] text: &str) {
    assert_eq!(quantity::show_ms(ms), text);
}

#[rstest]
#[case(&[(RunState::Completed, 3)], 0)]
#[case(&[], 0)]
#[case(&[(RunState::Completed, 3), (RunState::Failed, 0)], 0)]
#[case(&[(RunState::Completed, 3), (RunState::Failed, 1)], 1)]
#[case(&[(RunState::Timeout, 1)], 1)]
#[case(&[(RunState::Cancelled, 1)], 1)]
#[case(&[(RunState::Failed, 9), (RunState::Lost, 1)], 4)]
#[case(&[(RunState::Expired, 1)], 4)]
#[case(&[(RunState::Rejected, 1), (RunState::Timeout, 1)], 4)]
fn exit_codes(#[case] counts: &[(RunState, u32)], #[case] code: u8) {
    assert_eq!(exit::of_counts(&counts.iter().copied().collect()), code);
}

#[test]
fn the_command_line_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn a_command_is_everything_after_the_dashes() {
    let args = Args::parse_from(["signalbox", "run", "--on", "all", "--", "ls", "-l", "--json", "a b"]);
    let Some(Action::Run(run)) = args.action else { panic!("not `run`") };
    let order = run.order;
    assert_eq!(order.command.join(" "), "ls -l --json a b");
    assert!(!order.json, "a flag of the command was taken for ours");
    assert_eq!((order.timeout, order.expires_in, order.max_output), (None, None, 128 << 20));
}

#[rstest]
#[case(&["run", "--on", "all"])]
#[case(&["run", "--on", "all", "--"])]
#[case(&["run", "--on", "all", "uptime"])]
#[case(&["run", "--on", "all", "--json", "uptime", "--", "-p"])]
#[case(&["run", "--", "uptime"])]
#[case(&["run", "--on", "all", "--timeout", "30", "--", "uptime"])]
#[case(&["show", "no-id"])]
#[case(&["up", "--relays", "65"])]
#[case(&["up", "--http", "localhost"])]
#[case(&["nonsense"])]
#[case(&["exec", "--", "true"])]
#[case(&["exec", "m", "n", "--", "true"])]
#[case(&["exec", "m", "--ssh", "@host", "--", "true"])]
#[case(&["exec", "m", "--jump", "host", "--", "true"])]
#[case(&["exec", "m", "--credential", "db", "--", "true"])]
#[case(&["run", "--on", "a", "--via", "b", "--", "true"])]
#[case(&["credential", "push", "db", "--to", "all"])]
#[case(&["credential", "push", "db", "--type", "password", "--to", "all", "--target", "a b"])]
#[case(&["credential", "push", "db", "--type", "password", "--to", "all", "--user", "a b"])]
#[case(&["credential", "push", "db", "--type", "ssh_key", "--to", "all", "--key-file", "k", "--value-file", "v"])]
#[case(&["credential", "push", "db", "--type", "ssh_key", "--to", "all", "--cert-file", "c"])]
#[case(&["credential", "push", "db", "--type", "password", "--to", "all", "hunter2"])]
#[case(&["credential", "remove", "db"])]
#[case(&["host-keys", "add", "--to", "all"])]
#[case(&["host-keys", "add", "--to", "all", "--file", "f", "line"])]
#[case(&["host-keys", "remove", "--to", "all"])]
#[case(&["assignment"])]
#[case(&["assignment", "rename", "a-1"])]
#[case(&["relays", "--online", "--offline"])]
#[case(&["credentials"])]
#[case(&["relay", "report", "a-1"])]
#[case(&["shared-credential", "create", "n", "--type", "password"])]
#[case(&["shared-credential", "create", "n", "--type", "token", "--value-file", "-"])]
#[case(&["shared-credential", "update", "s-1"])]
#[case(&["shared-credential", "update", "s-1", "--to", "a-1", "--to-nobody"])]
#[case(&["push", "create", "a-1", "bogus", "{}"])]
#[case(&["push", "create", "a-1", "ssh_targets"])]
#[case(&["push", "create", "a-1", "ssh_targets", "{}", "--payload-file", "-"])]
#[case(&["pushes", "--state", "done"])]
#[case(&["runs", "--state", "done"])]
#[case(&["runs", "--limit", "0"])]
#[case(&["work", "claim", "0193a2b4-0000-7000-8000-000000000000"])]
#[case(&["work", "claim", "no-id", "--assignment", "a-1"])]
fn wrong_usage_ends_with_2(#[case] args: &[&str]) {
    let error = Args::try_parse_from([&["signalbox"], args].concat()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[rstest]
#[case("me@db", Some((Some("me"), "db", 22)))]
#[case("me@db:2222", Some((Some("me"), "db", 2222)))]
#[case("me@corp@db", Some((Some("me@corp"), "db", 22)))]
#[case("me@[::1]", Some((Some("me"), "::1", 22)))]
#[case("me@[::1]:65535", Some((Some("me"), "::1", 65_535)))]
#[case("db", Some((None, "db", 22)))]
#[case("db:2222", Some((None, "db", 2222)))]
#[case("[::1]:23", Some((None, "::1", 23)))]
#[case("a b@db", None)]
#[case("me@d b", None)]
#[case("@db", None)]
#[case("me@", None)]
#[case("me@[]", None)]
#[case("me@[::1", None)]
#[case("me@[::1]22", None)]
#[case("me@::1", None)]
#[case("me@db:", None)]
#[case("me@db:0", None)]
#[case("me@db:+22", None)]
#[case("me@db:65536", None)]
fn hosts_behind_a_machine(#[case] text: &str, #[case] expected: Option<(Option<&str>, &str, u16)>) {
    let read = ssh::target(text).ok();
    let read = read.as_ref().map(|read| (read.username.as_deref(), read.host.as_str(), read.port));
    assert_eq!(read, expected);
}

#[test]
fn one_thing_is_shown_member_by_member() {
    #[derive(serde::Serialize)]
    struct Ordered {
        b: u8,
        a: &'static str,
    }
    let thing = serde_json::json!({
        "zebra": "a\u{1b}[2Jb", "at": 5, "seen_at": 1_000, "due_at": 70_000, "is_good": true, "none": null,
        "many": ["x", "y"], "empty": [], "deep": { "b": "\u{9b}" },
    });
    assert_eq!(
        card(&thing, 6_000),
        "zebra    a [2Jb\nat       5\nseen at  5 s ago\ndue at   in 1 min 4 s\nis good  yes\nnone     -\n\
         many     x, y\nempty    -\ndeep     {\"b\":\"\\u009b\"}\n"
    );
    assert_eq!(card(&Ordered { b: 1, a: "" }, 0), "b  1\na\n");
}

#[test]
fn the_state_directory_comes_from_the_environment() {
    let environment = |pairs: &[(&str, &str)]| {
        Environment::read(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).into()))
    };
    let dir = |pairs| Config::new(None, None, environment(pairs)).map(|c| c.layout.root().to_owned());
    assert_eq!(dir(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]).unwrap().as_os_str(), "/x/signalbox");
    assert_eq!(
        dir(&[("XDG_STATE_HOME", "rel"), ("HOME", "/h")]).unwrap().as_os_str(),
        "/h/.local/state/signalbox"
    );
    assert!(dir(&[]).is_err());
    assert_eq!(dir(&[("SIGNALBOX_STATE_DIR", "/s"), ("HOME", "/h")]).unwrap().as_os_str(), "/s");
    assert_eq!(
        dir(&[("SIGNALBOX_STATE_DIR", ""), ("HOME", "/h")]).unwrap().as_os_str(),
        "/h/.local/state/signalbox"
    );
    assert!(environment(&[("NO_COLOR", "1")]).no_color);
    assert!(!environment(&[("NO_COLOR", "")]).no_color);
    assert!(!environment(&[("LANG", "C.UTF-8")]).is_ascii());
    assert!(environment(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]).is_ascii());
    assert!(environment(&[]).is_dumb() && environment(&[("TERM", "dumb")]).is_dumb());
    assert!(environment(&[("TERM", "xterm")]).has_colours());
    assert!(!environment(&[("TERM", "xterm"), ("NO_COLOR", "1")]).has_colours());
    assert!(!environment(&[("TERM", "dumb")]).has_colours());
}

const PIPE: Sink = Sink { is_terminal: false, colours: false };
const SCREEN: Sink = Sink { is_terminal: true, colours: true };

fn push(lines: &mut Lines, name: &str, data: &[u8]) -> Vec<u8> {
    lines.push(&machine(name), OutputStream::Stdout, &Bytes::copy_from_slice(data)).to_vec()
}

#[test]
fn one_machine_is_written_as_it_is() {
    let mut lines = Lines::new(&[machine("demo-1")], [PIPE; 2]);
    let bytes = b"\x1b]0;title\x07 \xff\x00 no end of line";
    assert_eq!(push(&mut lines, "demo-1", bytes), bytes);
    assert_eq!(lines.finish(&machine("demo-1"), OutputStream::Stdout), Bytes::new());
}

#[test]
fn several_machines_are_told_apart_line_by_line() {
    let mut lines = Lines::new(&[machine("demo-1"), machine("db")], [PIPE; 2]);
    assert_eq!(push(&mut lines, "demo-1", b"a\nb"), b"demo-1 | a\n");
    assert_eq!(push(&mut lines, "db", b"x\n"), b"db     | x\n");
    assert_eq!(push(&mut lines, "demo-1", b"c\n\xff\n"), b"demo-1 | bc\ndemo-1 | \xff\n");
    assert_eq!(push(&mut lines, "demo-1", b"end"), b"");
    assert_eq!(&lines.finish(&machine("demo-1"), OutputStream::Stdout)[..], b"demo-1 | end\n");
    assert_eq!(lines.finish(&machine("demo-1"), OutputStream::Stdout), Bytes::new());
}

#[test]
fn a_line_without_end_is_broken() {
    let mut lines = Lines::new(&[machine("a"), machine("b")], [PIPE; 2]);
    let out = push(&mut lines, "a", &vec![b'x'; 100_000]);
    assert!(out.starts_with(b"a | xxx") && out.ends_with(b"x\n"), "nothing came out");
}

#[test]
fn a_machine_cannot_speak_for_another_on_a_terminal() {
    let mut lines = Lines::new(&[machine("a"), machine("b")], [SCREEN; 2]);
    let out = push(&mut lines, "a", b"x\rb | fake\x1b[1A\x1b[31mred\nplain\n");
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "a | x\na | b | fake\u{1b}[31mred\u{1b}[0m\na | plain\n");
}

#[rstest]
#[case::text("grün\tja\n", "grün\tja\n")]
#[case::colours("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m")]
#[case::cursor("a\x1b[2Jb\x1b[10;10Hc", "abc")]
#[case::private("\x1b[?25lx\x1b[>4;1m", "x")]
#[case::title("a\x1b]0;evil\x07b\x1b]2;evil\x1b\\c", "abc")]
#[case::device("a\x1bP+q544e\x1b\\b", "ab")]
#[case::eight_bit("a\u{9b}31mb\u{9d}0;evil\u{9c}c", "a\x1b[31mbc\x1b[0m")]
#[case::charset("\x1b(0x", "x")]
#[case::bell("a\x07\x08b", "a\u{fffd}\u{fffd}b")]
#[case::returns("a\r\nb\rc\r", "a\nb\nc\n")]
#[case::reorder("a\u{202e}b\u{2066}c", "a\u{fffd}b\u{fffd}c")]
#[case::unfinished("a\x1b[31", "a")]
fn terminals_are_safe(#[case] text: &str, #[case] shown: &str) {
    for step in [1, 2, 3, text.len()] {
        let mut cleaner = Cleaner::new(true);
        let mut out: String = text.as_bytes().chunks(step.max(1)).map(|part| cleaner.clean(part)).collect();
        out.push_str(&cleaner.finish());
        assert_eq!(out, shown, "in pieces of {step}");
    }
}

#[test]
fn without_colours_none_pass() {
    let mut cleaner = Cleaner::new(false);
    assert_eq!(cleaner.clean(b"\x1b[31mred\x1b[0m"), "red");
    assert_eq!(cleaner.finish(), "");
}

#[test]
fn a_character_may_be_cut_anywhere() {
    let mut cleaner = Cleaner::new(true);
    let shown: String = "€ö".as_bytes().chunks(1).map(|byte| cleaner.clean(byte)).collect();
    assert_eq!(shown, "€ö");
    assert_eq!(cleaner.clean(b"\xe2\x82"), "");
    assert_eq!(cleaner.clean(b"x\xff"), "\u{fffd}x\u{fffd}");
}

#[test]
fn an_early_broken_character_is_no_beginning_of_the_next_piece() {
    let mut cleaner = Cleaner::new(true);
    let shown = cleaner.clean(b"a\xe2\x82b\xe2\x82") + &cleaner.clean(b"\xac");
    assert_eq!(shown + &cleaner.finish(), "a\u{fffd}b\u{20ac}");
}

proptest! {
    /// Whatever arrives, in whatever pieces: only line ends, tabs and colours are left of controls.
    #[test]
    fn nothing_harmful_passes(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
        let mut cleaner = Cleaner::new(true);
        let mut out: String = bytes.chunks(step).map(|part| cleaner.clean(part)).collect();
        out.push_str(&cleaner.finish());
        let mut rest = out.as_str();
        while let Some(at) = rest.find('\u{1b}') {
            let sequence = rest.get(at..).and_then(|s| s.split_once('m')).unwrap().0;
            let parameters = sequence.strip_prefix("\u{1b}[").unwrap();
            prop_assert!(parameters.chars().all(|c| c.is_ascii_digit() || c == ';' || c == ':'));
            rest = &rest[at + 1..];
        }
        let bad = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\u{1b}');
        prop_assert!(!out.chars().any(bad), "{out:?}");
        prop_assert!(!clean::line(&out).chars().any(char::is_control));
    }

    /// In pieces or whole, the same is shown.
    #[test]
    fn pieces_do_not_matter(text in "[a-z\\x1b\\[\\]0-9m;\\r\\n\\u{e9}\\u{7}]{0,60}", step in 1usize..9) {
        let whole = {
            let mut cleaner = Cleaner::new(true);
            cleaner.clean(text.as_bytes()) + &cleaner.finish()
        };
        let mut cleaner = Cleaner::new(true);
        let mut out: String = text.as_bytes().chunks(step).map(|part| cleaner.clean(part)).collect();
        out.push_str(&cleaner.finish());
        prop_assert_eq!(out, whole);
    }
}

#[test]
fn events_read_as_documented() {
    let text = |event: Event<'_>| String::from_utf8(event.line()).unwrap();
    assert_eq!(
        text(Event::Accepted { id: id(), targets: &[machine("demo-1")] }),
        "{\"event\":\"accepted\",\"id\":\"0193a2b4-0000-7000-8000-000000000000\",\"targets\":[\"demo-1\"]}\n"
    );
    let data = Bytes::from_static(b"a\xff");
    let piece = Piece { machine: machine("demo-1"), stream: OutputStream::Stdout, offset: 7, data };
    assert_eq!(
        text(Event::output(&piece)),
        "{\"event\":\"output\",\"machine\":\"demo-1\",\"stream\":\"stdout\",\"offset\":7,\"data\":\"Yf8=\"}\n"
    );
    let run = serde_json::from_value(serde_json::json!({
        "machine": "demo-1", "state": "completed", "exit_code": 0, "signal": null, "error": null,
        "duration_ms": 3, "group_dead": true,
        "stdout": { "bytes": 0, "sha256": null, "truncated": false },
        "stderr": { "bytes": 0, "sha256": null, "truncated": false },
    }))
    .unwrap();
    let line: serde_json::Value = serde_json::from_str(&text(Event::Run(&run))).unwrap();
    assert_eq!(
        (&line["event"], &line["state"], &line["exit_code"]),
        (&"run".into(), &"completed".into(), &0.into())
    );
    let counts: Counts = [(RunState::Completed, 2)].into();
    assert_eq!(
        text(Event::Done { counts: &counts, exit: 0 }),
        "{\"event\":\"done\",\"counts\":{\"completed\":2},\"exit\":0}\n"
    );
}

#[test]
fn tables_fit_the_terminal() {
    let mut table = Table::new(&[("ID", 0), ("COMMAND", 0)]);
    table.push(vec!["1".to_owned(), "a long command that does not fit".to_owned()]);
    table.push(vec!["22".to_owned(), "日本語日本語日本語".to_owned()]);
    let text = table.render(Some(16), '…');
    assert_eq!(text, "ID  COMMAND\n1   a long comm…\n22  日本語日本…\n");
    assert!(table.render(None, '…').contains("does not fit"));
    let mut table = Table::new(&[("ID", 0), ("A", 2), ("B", 1), ("C", 0)]);
    table.push(["id", "aaaaaaaa", "bbbbbbbb", "cccc"].map(str::to_owned).into());
    assert_eq!(table.render(Some(80), '…'), "ID  A         B         C\nid  aaaaaaaa  bbbbbbbb  cccc\n");
    assert_eq!(table.render(Some(20), '…'), "ID  B         C\nid  bbbbbbbb  cccc\n");
    assert_eq!(table.render(Some(10), '…'), "ID  C\nid  cccc\n");
    // What must stay is cut rather than wrapped.
    let mut table = Table::new(&[("NAME", 0), ("STATE", 0), ("HEARD", 0)]);
    table.push(["日本語日本語日本語日本語", "online", "3 s ago"].map(str::to_owned).into());
    for columns in 1..50 {
        let text = table.render(Some(columns), '…');
        assert!(text.lines().all(|line| line.width() <= columns), "{columns}: {text}");
    }
    assert_eq!(shorten("abc", 3, '…'), "abc");
    assert_eq!(shorten("abcd", 3, '~'), "ab~");
}

fn key() -> SigningKey {
    SigningKey::from_seed(SEED).unwrap()
}

fn claim() -> Signed<Claim> {
    let mid = MachineToken::new("demo-1").unwrap();
    let claim =
        Claim { ws: Workspace::main(), mid, cid: id(), nonce: Nonce([1; 16]), claimed_at: 5, via: None };
    Signed::sign(&claim, &key()).unwrap()
}

fn known() -> Keys {
    let mut keys = Keys::default();
    keys.add(key().public().clone(), "machine:demo-1");
    keys
}

#[test]
fn decode_finds_messages_in_what_the_nats_client_prints() {
    let json = String::from_utf8(claim().to_json()).unwrap();
    let text = format!(
        "[1] Subject: run.main.demo-1.x.claim Received: 2026-01-01\nSb-Type: claim\n{{not json}}\n\n{json}\n\n\n\
         {{\"stream\":\"RUN\",\"data\":\"{}\"}}\n",
        data_encoding::BASE64.encode(json.as_bytes())
    );
    let found = explain(text.as_bytes(), &known());
    assert_eq!(found.len(), 2);
    for explained in found {
        assert_eq!((explained.kind, explained.signature), (Some("claim"), Verdict::Verified));
        assert_eq!(explained.signer.as_deref(), Some("machine:demo-1"));
        assert_eq!(explained.payload["claimed_at"], 5);
    }
}

#[test]
fn decode_says_what_a_signature_is_worth() {
    let json = claim().to_json();
    assert_eq!(explain(&json, &Keys::default())[0].signature, Verdict::UnknownKey);
    let mut spoilt: serde_json::Value = serde_json::from_slice(&json).unwrap();
    spoilt["payload"] = data_encoding::BASE64URL_NOPAD.encode(b"{\"claimed_at\":6}").into();
    let found = explain(spoilt.to_string().as_bytes(), &known());
    assert_eq!((found[0].kind, found[0].signature), (None, Verdict::Wrong));
    assert_eq!((&found[0].signer, found[0].holds_wrong), (&None, true), "it names who did not sign");
    assert!(!explain(&json, &known())[0].holds_wrong);
    assert_eq!(found[0].payload["claimed_at"], 6);
}

#[test]
fn decode_knows_every_signed_message_of_the_contract() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/fixtures/v1");
    let mut known = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let fixture: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let Some(kind) = fixture.get("type").and_then(|kind| kind.as_str()) else { continue };
        // An event says its own type, and stands in no envelope where it is one of an answer.
        let Some(envelope) = fixture.get("envelope") else { continue };
        let found = explain(envelope.to_string().as_bytes(), &Keys::default());
        assert_eq!((found[0].kind, found[0].signature), (Some(kind), Verdict::UnknownKey), "{kind}");
        known += 1;
    }
    assert!(known > 10, "{known}");
}

#[test]
fn decode_tells_types_apart_and_looks_into_them() {
    let mid = MachineToken::new("demo-1").unwrap();
    let ws = Workspace::main();
    let grant =
        Grant { ws: ws.clone(), cid: id(), mid, spec_sha256: Sha256::of(b""), expires_at: 9, sealed: None };
    let grant = Signed::sign(&grant, &key()).unwrap();
    let args = serde_json::json!({ "spec": Base64Url(b"{}".to_vec()), "grants": [grant] });
    let op = "commands.submit".to_owned();
    let request = Request { ws, op, args, nonce: Nonce([2; 16]), issued_at: 1 };
    let found = explain(&Signed::sign(&request, &key()).unwrap().to_json(), &known());
    assert_eq!(found[0].kind, Some("request"));
    let inner = &found[0].payload["args"]["grants"][0];
    assert_eq!((&inner["type"], &inner["signature"]), (&"grant".into(), &"verified".into()));
    assert_eq!(inner["payload"]["expires_at"], 9);
}

#[test]
fn decode_looks_into_history_that_has_forgotten_what_was_sealed() {
    let change = serde_json::json!({ "put_credential": {
        "label": { "name": "db", "credential_type": "password", "storage_mode": "relay_only" }, "body": ""
    } });
    let spec = serde_json::json!({
        "ws": "main", "cid": id(), "command": "put credential db", "timeout_ms": 1, "created_at": 1,
        "expires_at": 2, "max_output": 1, "on": "all", "targets": 1, "by": "operator:local",
        "change": change, "crit": ["change"]
    });
    let done = DoneCommand {
        ws: Workspace::main(),
        cid: id(),
        spec: Base64Url(spec.to_string().into_bytes()),
        spec_sha256: Some(Sha256::of(b"the whole")),
        sequence: 1,
        accepted_at: 1,
        author: key().public().clone(),
        machines: vec![MachineToken::new("demo-1").unwrap()],
        counts: Counts::new(),
        rollout: None,
    };
    let found = explain(&Signed::sign(&done, &key()).unwrap().to_json(), &known());
    assert_eq!(found[0].kind, Some("done_command"));
    assert_eq!(found[0].payload["spec"]["change"], change);
}

#[test]
fn json_of_foreign_text_does_nothing_to_a_terminal() {
    let text = "\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\u{2066}\u{2028}\u{e0041}\u{fc} \n";
    let line = String::from_utf8(event::line(&text)).unwrap();
    assert_eq!(line, "\"\\u001b[2J\\u007f\\u009b2J\\u202e\\u2066\\u2028\\udb40\\udc41\u{fc} \\n\"\n");
    assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
}

/// The program with an environment of its own; its exit code and what it wrote.
fn signalbox(args: &[&str], environment: &[(&str, &str)], input: &[u8]) -> (Option<i32>, String, String) {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_signalbox"));
    program.args(args).env_clear().envs(environment.iter().copied());
    let mut child =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may not want any.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn decode_ends_with_1_when_a_signature_is_wrong_at_any_depth() {
    let good = claim().to_json();
    let mut spoilt: serde_json::Value = serde_json::from_slice(&good).unwrap();
    spoilt["payload"] =
        data_encoding::BASE64URL_NOPAD.encode("{\"command\":\"a\u{9b}2Jb\"}".as_bytes()).into();
    let within = Request {
        ws: Workspace::main(),
        op: "commands.submit".to_owned(),
        args: serde_json::json!({ "grants": [spoilt] }),
        nonce: Nonce([2; 16]),
        issued_at: 1,
    };
    let within = Signed::sign(&within, &key()).unwrap().to_json();
    let spoilt = spoilt.to_string();
    for (input, code) in [(&good[..], 0), (spoilt.as_bytes(), 1), (&within, 1)] {
        for args in [&["decode"][..], &["decode", "--json"]] {
            let (ended, out, err) = signalbox(args, &[("HOME", "/nonexistent")], input);
            assert_eq!(ended, Some(code), "{args:?}: {out}{err}");
            assert!(!out.contains('\u{9b}'), "{out:?}");
        }
    }
}

#[test]
fn a_flag_goes_before_the_environment_wherever_it_stands() {
    for (args, flag) in [
        (&["--nats", "nats://flag", "machines"][..], true),
        (&["machines", "--nats", "nats://flag"], true),
        (&["machines"], false),
        (&["push", "ack", "p-1", "--nats", "nats://flag"], true),
        (&["push", "--nats", "nats://flag", "ack", "p-1"], true),
        (&["--nats", "nats://flag", "push", "ack", "p-1"], true),
        (&["push", "ack", "p-1"], false),
    ] {
        let named = Args::parse_from([&["signalbox"], args].concat());
        let url = named.action.as_ref().and_then(Action::nats_url).or(named.reach.nats_url);
        let environment = Environment {
            nats_url: Some("nats://environment".to_owned()),
            state_dir: Some("/s".into()),
            ..Environment::default()
        };
        let config = Config::new(None, url, environment).unwrap();
        assert_eq!(config.nats_url.as_deref() == Some("nats://flag"), flag, "{args:?}");
    }
    // The parser of the command line looks at no environment: it would fill in the flag after the subcommand.
    let command = Args::command();
    let within = command.get_subcommands().flat_map(clap::Command::get_subcommands);
    let all = command.get_subcommands().chain(within).chain([&command]);
    let all = all.flat_map(clap::Command::get_arguments);
    assert!(all.filter(|arg| arg.get_long() == Some("nats")).all(|arg| arg.get_env().is_none()));
    let (code, _, err) =
        signalbox(&["machines"], &[("SIGNALBOX_STATE_DIR", ""), ("SIGNALBOX_NATS", "")], b"");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("no state directory"), "{err}");
}

#[test]
fn decode_and_completions_need_no_home() {
    let (code, out, err) = signalbox(&["decode"], &[], &claim().to_json());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("claimed_at"), "{out}");
    for (shell, word) in
        [("bash", "complete -o"), ("zsh", "#compdef signalbox"), ("fish", "complete --keep-order")]
    {
        let (code, out, err) = signalbox(&["completions", shell], &[], b"");
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains(word) && out.contains("COMPLETE"), "{shell}: {out}");
    }
}

/// What a shell offers for the last of these words.
fn completed(shell: &str, words: &[&str], environment: &[(&str, &str)]) -> String {
    let index = (words.len() - 1).to_string();
    let asked = [("COMPLETE", shell), ("_CLAP_COMPLETE_INDEX", &index), ("_CLAP_IFS", "\n")];
    let (code, out, err) = signalbox(&[&["--"], words].concat(), &[&asked, environment].concat(), b"");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{words:?}: {out}");
    out
}

#[test]
fn shells_complete_words_contexts_and_saved_commands() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(
        &file,
        "[contexts.prod]\n[contexts.play]\n[[command]]\nname = \"restart\"\ntext = \"x\"\n\
         [[command]]\nname = \"re&halt\"\ntext = \"x\"\n",
    )
    .unwrap();
    let environment = [("SIGNALBOX_CONFIG", file.to_str().unwrap()), ("HOME", "/nonexistent")];
    for shell in ["bash", "zsh", "fish"] {
        let lines = |words: &[&str]| {
            let out = completed(shell, &[&["signalbox"], words].concat(), &environment);
            // Of zsh and fish a description follows.
            out.lines().map(|line| line.split([':', '\t']).next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines(&["shared-"]), ["shared-credentials", "shared-credential"], "{shell}");
        assert_eq!(lines(&["context", "use", "p"]), ["play", "prod"], "{shell}");
        assert_eq!(lines(&["machines", "--context", "pr"]), ["prod"], "{shell}");
        assert_eq!(lines(&["run", "--saved", "re"]), ["restart"], "{shell}");
        assert_eq!(lines(&["runs", "--state", "exec"]), ["executing"], "{shell}");
        // Nobody answers, and nothing is said of it.
        assert_eq!(lines(&["exec", "x"]), [""; 0], "{shell}");
    }
}

#[test]
fn a_log_that_cannot_be_written_breaks_nothing() {
    /// Signed as a claim, and none: that is logged.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nonsense {}
    impl Message for Nonsense {
        const TYPE: &'static str = Claim::TYPE;
        const MAX_BYTES: usize = Claim::MAX_BYTES;
    }
    let nonsense = Signed::sign(&Nonsense {}, &key()).unwrap().to_json();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_signalbox"));
    program.arg("decode").env_clear().env("RUST_LOG", "warn");
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(full).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&nonsense).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("type       claim"));
}

#[rstest]
#[case::timeout(&["--on", "all", "--timeout", "3d"])]
#[case::expiry(&["--on", "all", "--expires-in", "8d"])]
#[case::output(&["--on", "all", "--max-output", "5GiB"])]
fn a_wrong_command_line_is_2_without_anything_that_runs(#[case] args: &[&str]) {
    let args = [&["run"][..], args, &["--", "true"]].concat();
    let (code, out, err) = signalbox(&args, &[("HOME", "/nonexistent")], b"");
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
}

#[rstest]
#[case::run(&["run", "--on", "a or or b", "--", "true"], "run the command")]
#[case::change(&["credential", "remove", "c", "--to", "a or or b"], "remove credential c")]
fn what_is_wrong_with_a_selector_is_marked(#[case] args: &[&str], #[case] what: &str) {
    let (code, out, err) = signalbox(args, &[("HOME", "/nonexistent")], b"");
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    let lines: Vec<&str> = err.lines().collect();
    let head = format!("signalbox: cannot {what}: not a selector:");
    assert_eq!(lines.get(..3), Some(&[head.as_str(), "a or or b", "     ^^"][..]), "{err}");
    assert_eq!(lines.len(), 4, "{err}");
}

#[test]
fn an_identity_that_cannot_be_used_is_3_for_run_and_1_for_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state.json"), "{}").unwrap();
    let environment = [("SIGNALBOX_STATE_DIR", dir.path().to_str().unwrap())];
    for (args, expected) in [(&["run", "--on", "all", "--", "true"][..], 3), (&["machines"], 1)] {
        let (code, _, err) = signalbox(args, &environment, b"");
        assert_eq!(code, Some(expected), "{args:?}: {err}");
        assert!(err.contains("login"), "{err}");
    }
}

#[rstest]
#[case(ErrorCode::Invalid)]
#[case(ErrorCode::Forbidden)]
#[case(ErrorCode::NoTargets)]
fn what_a_bridge_refuses_is_not_accepted(#[case] code: ErrorCode) {
    let error = ClientError::Refused(Problem::new(code, "no"));
    assert_eq!(exit::Failure::client("do it", &error).code, exit::NOT_ACCEPTED);
}

#[test]
fn decode_survives_hostile_text() {
    let deep = "{\"a\":".repeat(3000);
    assert_eq!(explain(deep.as_bytes(), &known()), []);
    assert_eq!(explain(b"\xff\xfe{{{{\"", &known()), []);
    assert!(Signed::<Mailbox>::from_json(b"{}").is_err());
}

/// What `signalbox run` is asked for, with these words before the command.
fn run_of(words: &[&str]) -> Result<signalbox_console::args::order::Run, clap::Error> {
    let words = [&["signalbox", "run", "--on", "all"][..], words, &["--", "true"]].concat();
    match Args::try_parse_from(words)?.action {
        Some(Action::Run(run)) => Ok(run),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(&[], None)]
#[case(&["--canary", "1"], Some("canary 1"))]
#[case(&["--canary", "1", "--waves", "5%,25%", "--parallel", "20", "--pause-after", "2%"],
    Some("canary 1, 5%, 25%, parallel 20, pause after 2%"))]
#[case(&["--waves", "5%", "--waves", "10%", "--wave-wait", "5m"], Some("5%, 10%, wait 5m"))]
fn waves_make_a_plan(#[case] words: &[&str], #[case] plan: Option<&str>) {
    let run = run_of(words).unwrap();
    assert_eq!(run.waves.plan().map(|plan| plan.to_string()), plan.map(str::to_owned));
}

#[rstest]
#[case(&["--canary", "0"])]
#[case(&["--waves", "5%,"])]
#[case(&["--parallel", "101%"])]
#[case(&["--pause-after", "few"])]
fn sizes_of_waves_are_read_strictly(#[case] words: &[&str]) {
    assert!(run_of(words).is_err());
}

#[test]
fn whether_a_person_is_asked_is_said_in_words() {
    use signalbox_console::args::rollout::Sure;
    let sure = |words: &[&str]| run_of(words).unwrap().sure;
    assert_eq!(sure(&[]), Sure::default());
    assert_eq!(sure(&["--ask-above", "5"]), Sure { ask_above: Some(5), ..Sure::default() });
    assert_eq!(sure(&["--yes", "--confirm", "7"]), Sure { yes: true, confirm: Some(7), ..Sure::default() });
}

#[rstest]
#[case(&[], &[RunState::Failed, RunState::Timeout, RunState::Lost, RunState::Rejected])]
#[case(&["--only", "lost,expired"], &[RunState::Lost, RunState::Expired])]
fn a_retry_is_of_what_did_not_end_well(#[case] words: &[&str], #[case] ends: &[RunState]) {
    let id = id().to_string();
    let words = [&["signalbox", "retry", &id][..], words].concat();
    let Some(Action::Retry(retry)) = Args::try_parse_from(words).unwrap().action else { panic!() };
    assert_eq!((retry.ends().as_slice(), retry.id), (ends, self::id()));
    let bad = ["signalbox", "retry", &id, "--only", "completed"];
    assert!(Args::try_parse_from(bad).is_err());
}
