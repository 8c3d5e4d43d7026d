//! Stories in the operator's own notation: keys and tellings in, screens and asks out.

mod machine;
mod output;
mod past;
mod running;

use std::time::Instant;

use ratatui::{Terminal, backend::TestBackend, style::Color};
use rstest::rstest;
use signalbox_schemas::{
    api::{CommandSummary, Liveness, MachineView},
    command::{SshTarget, Target},
    error::{ErrorCode, Problem},
    id::{CredentialName, MachineToken},
    run::RunState,
};

use super::{
    effect::Effect,
    event::Event,
    lists::ListKind,
    scenes::scenes,
    stage::{
        NOW, NOW_MS, Stage, command_id, demo_machine, found, health, heartbeat, machine_id, options, run,
        summary,
    },
    state::{Modal, Screen, State, fleet::Column},
    view::{layout, view},
};
use crate::client::{Ask, Draft, LinkView, Stretch, Told, look::Found};

fn token(n: u32) -> MachineToken {
    machine_id(n).token()
}

/// The machines that are seen, in order.
fn order(stage: &Stage) -> Vec<MachineToken> {
    stage.state.sight().order().cloned().collect()
}

fn run_of(ask: Option<&Ask>) -> (&str, &str) {
    match ask {
        Some(Ask::Run { draft, .. }) => (&draft.on, &draft.command),
        other => panic!("not a run: {other:?}"),
    }
}

fn draft_of(ask: Option<&Ask>) -> &Draft {
    match ask {
        Some(Ask::Run { draft, .. }) => draft,
        other => panic!("not a run: {other:?}"),
    }
}

#[rstest]
fn screens(#[values((80, 24), (120, 40), (40, 10), (200, 50))] (columns, rows): (u16, u16)) {
    for (name, mut stage) in scenes(columns, rows) {
        insta::assert_snapshot!(format!("{name}-{columns}x{rows}"), stage.screen());
    }
}

#[test]
fn a_command_is_typed_and_its_output_seen() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xuptime<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-1", "uptime"));
    stage.accept(3, 1);
    assert_eq!(stage.asks.last(), Some(&Ask::Watch { id: command_id(3) }));
    stage.run(3, 1, RunState::Executing);
    stage.output(3, 1, 0, "up 3 days\n");
    let screen = stage.screen();
    assert!(screen.contains("up 3 days") && screen.contains("executing"), "{screen}");
    stage.run(3, 1, RunState::Completed);
    let screen = stage.screen();
    assert!(screen.contains("exit 0") && screen.contains("1/1"), "{screen}");
    stage.keys("<esc>");
    assert_eq!(stage.state.screen, Screen::Machines);
    assert_eq!(stage.asks.last(), Some(&Ask::Unwatch { id: command_id(3) }));
}

#[test]
fn a_command_runs_on_what_was_shown() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("axuptime<enter>");
    assert_eq!(draft_of(stage.asks.last()).shown, [1, 2, 3].map(token));
}

#[test]
fn what_ran_on_a_host_behind_a_machine_runs_there_again() {
    let mut stage = Stage::demo(80, 24);
    let ssh = SshTarget {
        host: "db-1.lan".into(),
        port: 22,
        username: Some("root".into()),
        jump: vec![],
        credential: Some(CredentialName::new("db").unwrap()),
    };
    let told = CommandSummary {
        on: "demo-1".into(),
        target: Some(Target::Ssh(ssh.clone())),
        ..summary(9, "uptime", &[(RunState::Completed, 1)])
    };
    stage.tell(Told::Command(told));
    stage.keys("c");
    assert!(stage.screen().contains("root@db-1.lan wit"), "{}", stage.screen());
    stage.keys("x");
    // All that will be signed for is seen.
    let title = "run on root@db-1.lan with credential db via demo-1";
    assert!(stage.screen().contains(title), "{}", stage.screen());
    stage.meant(&[1], 0);
    stage.keys("<enter>");
    let draft = draft_of(stage.asks.last());
    assert_eq!((draft.on.as_str(), draft.command.as_str(), &draft.ssh), ("demo-1", "uptime", &Some(ssh)));
    // Until the bridge tells of it, too.
    stage.accept(10, 1);
    assert!(stage.screen().contains("on root@db-1.lan with credential"), "{}", stage.screen());
}

#[test]
fn a_change_of_what_relays_keep_is_no_text_for_a_shell() {
    let mut stage = Stage::demo(80, 24);
    let told =
        CommandSummary { changes: true, ..summary(9, "put credential db", &[(RunState::Completed, 1)]) };
    stage.tell(Told::Command(told));
    stage.keys("cx");
    assert!(stage.screen().contains("signalbox credential"), "{}", stage.screen());
    assert_eq!(stage.state.modal, None);
}

#[test]
fn colours_of_output_are_shown_in_the_output_only() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xuptime<enter>");
    stage.accept(3, 1);
    stage.output(3, 1, 0, "\u{1b}[31;44mred\u{1b}[2J never ended\n");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    stage.state.settle();
    terminal.draw(|frame| view(&stage.state, frame)).unwrap();
    let area = layout::areas(&stage.state).output;
    let blue =
        terminal.backend().buffer().content.iter().enumerate().filter(|(_, cell)| cell.bg == Color::Blue);
    let places: Vec<(u16, u16)> = blue.map(|(at, _)| terminal.backend().buffer().pos_of(at)).collect();
    assert_eq!(places.len(), "red never ended".len());
    assert!(places.iter().all(|(x, y)| area.contains((*x, *y).into())), "{places:?}");
    stage.state.options.no_color = true;
    terminal.draw(|frame| view(&stage.state, frame)).unwrap();
    assert!(terminal.backend().buffer().content.iter().all(|cell| cell.bg == Color::Reset));
}

/// An hour that the broker's clock is ahead of ours (or behind, when negative).
#[rstest]
#[case(3_600_000)]
#[case(-3_600_000)]
fn clocks_that_are_apart_change_nothing_about_who_is_alive(#[case] ahead_ms: i64) {
    let mut stage = Stage::new(80, 24);
    stage.connect();
    let views = |later_ms: u64| {
        let by_the_broker = |view: MachineView| {
            // What lives was heard again since, what is dead was not.
            let later_ms = if view.state == Liveness::Online { later_ms } else { 0 };
            let at = view.last_seen_at.map(|at| (at + later_ms).saturating_add_signed(ahead_ms));
            MachineView { last_seen_at: at, ..view }
        };
        Told::Machines(Stretch::whole((1..=3).map(demo_machine).map(by_the_broker).collect()))
    };
    let states = |stage: &Stage| {
        [1, 2, 3].map(|n| stage.state.fleet.get(&token(n)).unwrap().state(stage.state.now_ms))
    };
    let expected = [Liveness::Online, Liveness::Online, Liveness::Offline];
    for round in 0..10 {
        stage.tell(views(round * 10_000));
        assert_eq!(states(&stage), expected, "round {round}");
        stage.wait(5_000);
        // Heard here: machine 1 only.
        stage.tell(heartbeat(1, stage.now.ms, 10.0));
        stage.wait(5_000);
    }
    assert_eq!(states(&stage), expected);
    let dead = stage.state.fleet.get(&token(3)).unwrap().age_ms(stage.now.ms).unwrap();
    assert!(dead >= 160_000, "the age of a dead machine stands still: {dead}");
    // And when no bridge says anything any more, what was alive grows old.
    stage.wait(70_000);
    assert_eq!(states(&stage), [Liveness::Offline; 3]);
}

#[test]
fn a_clock_that_is_set_back_stops_no_age() {
    let mut stage = Stage::demo(120, 40);
    stage.tell(heartbeat(1, NOW_MS, 10.0));
    stage.now.wall_ms -= 7_200_000;
    stage.wait(50_000);
    let screen = stage.screen();
    assert!(screen.contains("12:02:57Z"), "the clock is not shown as it was set: {screen}");
    let age = stage.state.fleet.get(&token(1)).unwrap().age_ms(stage.state.now_ms);
    assert_eq!(age, Some(50_000));
    assert!(screen.contains("50s"), "{screen}");
}

#[test]
fn a_session_that_is_over_is_not_waited_for() {
    let mut stage = Stage::new(100, 24);
    stage.event(Event::SessionEnded);
    stage.wait(60_000);
    let screen = stage.screen();
    assert!(screen.contains("connection ended") && !screen.contains("connecting"), "{screen}");
}

#[test]
fn what_no_bridge_tells_of_any_more_is_marked_until_one_does() {
    let mut stage = Stage::demo(100, 24);
    let untold = |id| Told::Stale { id, problem: Problem::new(ErrorCode::Forbidden, "not allowed") };
    stage.keys("axuptime<enter>");
    stage.accept(3, 3);
    stage.tell(untold(Some(command_id(3))));
    let screen = stage.screen();
    assert!(
        screen.contains("may be old: not allowed") && screen.matches("may be old").count() == 2,
        "{screen}"
    );
    stage.run(3, 1, RunState::Executing);
    stage.wait(10_000);
    assert!(!stage.screen().contains("may be old"));
    stage.keys("c");
    stage.tell(untold(None));
    stage.wait(10_000);
    assert!(stage.screen().contains("may be old"));
    stage.tell(Told::Command(summary(4, "id", &[(RunState::Completed, 1)])));
    assert!(!stage.screen().contains("may be old"));
}

#[test]
fn runs_that_a_command_cannot_have_are_not_shown() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("axuptime<enter>");
    stage.accept(3, 3);
    stage.run(3, 1, RunState::Executing);
    stage.run(3, 7, RunState::Executing);
    stage.output(3, 8, 0, "made up\n");
    let screen = stage.screen();
    assert!(
        screen.contains("demo-1") && !screen.contains("demo-7") && !screen.contains("made up"),
        "{screen}"
    );
    // Of a command that was not sent from here only the number is known.
    (1..=10_100).for_each(|n| stage.run(2, n, RunState::Executing));
    assert_eq!(stage.state.commands.get(command_id(2)).unwrap().run_at(10_000).map(|run| &run.machine), None);
}

#[test]
fn where_only_ascii_is_shown_all_of_it_is() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.ascii = true;
    let id = signalbox_schemas::id::MachineId::new("b\u{fc}ro-\u{65e5}\u{672c}").unwrap();
    let named = |view: MachineView| MachineView { token: id.token(), id: id.clone(), ..view };
    stage.tell(Told::Machines(Stretch::whole(vec![demo_machine(1), named(demo_machine(2))])));
    assert!(stage.screen().is_ascii(), "{}", stage.screen());
    assert!(stage.screen().contains("b?ro-? ?"), "{}", stage.screen());
    stage.keys("axuptime<enter>");
    stage.accept(3, 3);
    stage.run(3, 1, RunState::Executing);
    stage.output(3, 1, 5, "gr\u{fc}n\n");
    assert!(stage.screen().is_ascii() && stage.screen().contains("gr?n"), "{}", stage.screen());
    assert!(stage.screen().contains("-- 5 B left out --"), "{}", stage.screen());
}

#[test]
fn many_marks_are_sent_by_what_they_have_in_common() {
    let many = |stage: &mut Stage| {
        let view = |n: u32| {
            // Letters, which make no ranges.
            let letters: String =
                format!("{n:04}").bytes().map(|digit| char::from(b'a' + digit - b'0')).collect();
            let kind = if n.is_multiple_of(2) { "web-server" } else { "database-of-it" };
            let name = format!("{kind}-{letters}");
            let id = signalbox_schemas::id::MachineId::new(name).unwrap();
            MachineView { token: id.token(), id, ..demo_machine(1) }
        };
        stage.tell(Told::Machines(Stretch::whole((0..900).map(view).collect())));
    };
    for (keys, on) in [
        ("axid<enter>900<enter>", Some("all")),
        ("/web-*<enter>axid<enter>450<enter>", Some("web-*")),
        ("/web<enter>axid<enter>450<enter>", Some("*web*")),
        // One of them was taken away again: nothing says that in few words.
        ("/web-*<enter>a<space>xid<enter>", None),
    ] {
        let mut stage = Stage::demo(80, 24);
        many(&mut stage);
        stage.keys(keys);
        let sent = match stage.asks.last() {
            Some(Ask::Run { draft, .. }) => Some(draft.on.as_str()),
            _ => None,
        };
        assert_eq!(sent, on, "{keys}");
    }
}

#[test]
fn many_marks_are_sent_as_ranges_where_they_are_numbered() {
    let mut stage = Stage::demo(80, 24);
    let view = |n: u32| {
        let id = signalbox_schemas::id::MachineId::new(format!("web-{n:04}")).unwrap();
        MachineView { token: id.token(), id, ..demo_machine(1) }
    };
    stage.tell(Told::Machines(Stretch::whole((1..=2_000).map(view).collect())));
    stage.keys("a<space>xid<enter>1999<enter>");
    assert_eq!(run_of(stage.asks.last()), ("web-[0002-2000]", "id"));
}

#[test]
fn a_machine_under_the_name_of_another_is_not_shown() {
    let mut stage = Stage::demo(80, 24);
    let token = machine_id(9).token();
    stage.tell(Told::Machines(Stretch::whole(vec![
        demo_machine(1),
        MachineView { token: token.clone(), ..demo_machine(2) },
    ])));
    assert!(stage.state.fleet.get(&token).is_none(), "its token would be signed for, and its name be shown");
    assert_eq!(stage.state.fleet.len(), 1);
}

#[test]
fn marks_are_what_a_command_runs_on() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<space>j<space>xtrue<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-[1,3]", "true"));
}

#[test]
fn a_filter_hides_rows_and_marking_all_means_what_is_seen() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("/demo-[23]<enter>a");
    assert_eq!(order(&stage), [token(2), token(3)]);
    assert_eq!(stage.state.fleet.marked(), 2);
    stage.keys("<esc>");
    assert_eq!(stage.state.fleet.seen(), 3, "esc takes the filter first");
    assert_eq!(stage.state.fleet.marked(), 2, "marks outlive the filter");
    stage.keys("<esc>");
    assert_eq!(stage.state.fleet.marked(), 0);
    stage.keys("/HOST-1");
    assert_eq!(order(&stage), [token(1)], "host names are looked into, in any case");
    stage.keys("<esc>");
    assert_eq!(stage.state.fleet.seen(), 3, "esc brings the filter back as it was");
}

#[test]
fn the_cursor_stays_on_its_machine_while_rows_sort_themselves() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("C");
    assert_eq!(order(&stage)[0], token(2), "the busiest comes first");
    stage.keys("g");
    assert_eq!(stage.state.fleet.cursor.key(), Some(&token(2)));
    stage.now.ms += 10_000;
    for (n, cpu) in [(1, 99.0), (2, 1.0), (3, 50.0)] {
        stage.tell(heartbeat(n, stage.now.ms, cpu));
    }
    stage.wait(1_000);
    assert_eq!(order(&stage), [token(1), token(3), token(2)]);
    assert_eq!(stage.state.fleet.cursor.key(), Some(&token(2)));
    stage.keys("xtrue<enter>");
    assert_eq!(run_of(stage.asks.last()).0, "demo-2");
    stage.keys("<esc>CC");
    assert_eq!(stage.state.fleet.sort(), (Column::Cpu, false));
}

#[test]
fn what_is_not_known_is_sorted_last_either_way() {
    let mut stage = Stage::demo(80, 24);
    let mut silent = demo_machine(4);
    silent.metrics = None;
    stage.tell(Told::Machines(Stretch::whole((1..=3).map(demo_machine).chain([silent]).collect())));
    stage.keys("C");
    assert_eq!(order(&stage).last(), Some(&token(4)));
    stage.keys("C");
    assert_eq!(order(&stage).last(), Some(&token(4)));
}

#[test]
fn a_machine_that_is_gone_takes_its_mark_along() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("aG");
    stage.tell(Told::Machines(Stretch::whole((1..=2).map(demo_machine).collect())));
    assert_eq!(stage.state.fleet.marked(), 2);
    assert_eq!(stage.state.fleet.cursor.key(), Some(&token(2)));
}

/// A stretch of the list, by numbers of machines; none: from its beginning, to its end.
fn stretch(after: Option<u32>, machines: std::ops::RangeInclusive<u32>, until: Option<u32>) -> Told {
    let machines = machines.map(demo_machine).collect();
    Told::Machines(Stretch { after: after.map(token), machines, until: until.map(token) })
}

#[test]
fn the_first_machines_are_seen_before_the_last_are_told() {
    let mut stage = Stage::new(80, 24);
    stage.connect();
    stage.tell(stretch(None, 2..=4, Some(4)));
    assert!(stage.screen().contains("demo-2"), "{}", stage.screen());
    assert_eq!(stage.state.snapshot_ms, None, "it is not all of them");
    assert!(stage.screen().contains("3 machines so far"), "{}", stage.screen());
    // Tokens are in another order than names: this one comes above.
    stage.tell(stretch(Some(4), 1..=1, Some(5)));
    assert_eq!(order(&stage), [2, 3, 4].map(token), "it does not lie in that stretch");
    stage.tell(Told::Machines(Stretch {
        after: Some(token(4)),
        machines: vec![named("z"), named("Demo-1")],
        until: None,
    }));
    assert_eq!(stage.state.fleet.seen(), 5);
    assert_eq!(order(&stage)[0], named("Demo-1").token);
    assert_eq!(stage.state.fleet.cursor.at(), 0, "nobody moved it, and it is not at the top");
    assert!(stage.state.snapshot_ms.is_some());
    // From now on it stays on its machine, whatever comes above that.
    let chosen = stage.state.fleet.cursor.key().cloned();
    let machines = vec![named("z"), named("Demo-1"), named("A")];
    stage.tell(Told::Machines(Stretch { after: Some(token(4)), machines, until: None }));
    assert_eq!(stage.state.fleet.seen(), 6);
    assert_eq!((stage.state.fleet.cursor.key().cloned(), stage.state.fleet.cursor.at()), (chosen, 1));
}

/// Somebody who has pressed a key means the machine under the cursor, whatever is told before the next one.
#[test]
fn a_row_that_was_looked_at_is_kept_while_the_list_grows() {
    let mut stage = Stage::new(80, 24);
    stage.connect();
    stage.tell(stretch(None, 2..=4, Some(4)));
    stage.keys("jk");
    stage.tell(Told::Machines(Stretch {
        after: Some(token(4)),
        machines: vec![named("Demo-1")],
        until: Some(named("z").token),
    }));
    assert_eq!(stage.state.snapshot_ms, None, "it is not all of them");
    assert_eq!((stage.state.fleet.cursor.key(), stage.state.fleet.cursor.at()), (Some(&token(2)), 1));
}

fn named(name: &str) -> MachineView {
    let id = signalbox_schemas::id::MachineId::new(name).unwrap();
    MachineView { token: id.token(), id, ..demo_machine(1) }
}

#[test]
fn a_stretch_takes_away_what_is_missing_in_it_and_nothing_else() {
    let mut stage = Stage::new(80, 24);
    stage.connect();
    stage.tell(stretch(None, 1..=9, None));
    stage.keys("a");
    stage.tell(stretch(Some(2), 4..=5, Some(6)));
    assert_eq!(order(&stage), [1, 2, 4, 5, 7, 8, 9].map(token));
    assert_eq!(stage.state.fleet.marked(), 7, "a machine that is gone takes its mark along");
}

#[test]
fn a_machine_that_gets_the_name_that_is_looked_for_appears_within_a_second() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("/renamed<enter>");
    assert!(stage.state.fleet.seen() == 0);
    let Told::Heartbeats(mut heard) = heartbeat(2, stage.now.ms, 10.0) else { panic!("no sign of life") };
    heard[0].heartbeat.facts.hostname = "renamed".to_owned();
    stage.tell(Told::Heartbeats(heard));
    stage.wait(1_000);
    assert_eq!(order(&stage), [token(2)]);
}

#[test]
fn a_refusal_is_told_where_the_command_was_written() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xuptime<enter>");
    let Some(Ask::Run { tag, .. }) = stage.asks.last() else { panic!("nothing was asked") };
    let problem = Problem::new(ErrorCode::NotAccepted, "no bridge answered\u{1b}[2J; try again");
    stage.tell(Told::Refused { tag: *tag, problem });
    let screen = stage.screen();
    assert!(screen.contains("no bridge answered") && screen.contains("uptime"), "{screen}");
    stage.keys("<enter>");
    assert_eq!(stage.asks.len(), 2, "it can be sent again");
}

#[test]
fn an_answer_to_a_line_that_was_left_leads_nowhere() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xuptime<enter><enter><enter>");
    assert_eq!(stage.asks.len(), 1, "it is sent once");
    stage.keys("<esc>");
    stage.accept(3, 1);
    assert_eq!(stage.state.screen, Screen::Machines);
    assert_eq!(stage.asks.len(), 1, "nothing is watched");
    assert!(stage.screen().contains("accepted for 1 machine"));
}

#[test]
fn an_answer_belongs_to_the_line_that_asked() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xfirst<enter>");
    let first = stage.asks.clone();
    stage.keys("<esc>xsecond<enter>");
    let second = std::mem::replace(&mut stage.asks, first);
    stage.accept(3, 1);
    assert!(stage.state.modal.is_some(), "the second line still waits");
    stage.asks = second;
    stage.accept(4, 1);
    assert_eq!(stage.state.screen, Screen::Command(command_id(4)));
}

#[test]
fn texts_are_recalled_and_the_draft_comes_back() {
    let mut stage = Stage::demo(80, 24);
    for (n, text) in [(3, "first"), (4, "second")] {
        stage.keys(&format!("x{text}<enter>"));
        stage.accept(n, 1);
        stage.keys("<esc>");
    }
    stage.keys("xdraft<up>");
    assert!(stage.screen().contains("second"));
    stage.keys("<up><up>");
    assert!(stage.screen().contains("first"), "it stops at the oldest");
    stage.keys("<down><down>");
    assert!(stage.screen().contains("draft"));
    stage.keys("<esc>.<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-1", "second"));
}

#[test]
fn cancelling_takes_a_yes() {
    let mut stage = Stage::demo(80, 24);
    stage.tell(Told::Command(summary(3, "sleep 600", &[(RunState::Executing, 2)])));
    stage.screen();
    stage.keys("cgX<enter>");
    assert!(stage.asks.is_empty(), "the safe answer has the focus");
    stage.keys("X<right><enter>");
    assert!(matches!(stage.asks.last(), Some(Ask::Cancel { id, .. }) if *id == command_id(3)));
    stage.tell(Told::Cancelling { tag: 1, id: command_id(3), n: 2 });
    assert!(stage.screen().contains("cancelling 2 runs"));
    stage.keys("jX");
    assert_eq!(stage.state.modal, None, "what has ended cannot be cancelled");
}

#[test]
fn the_same_command_is_run_again() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("cjx");
    stage.meant(&[1, 2, 3], 0);
    stage.keys("<enter>");
    assert_eq!(run_of(stage.asks.last()), ("all", "uname -a"));
    stage.tell(Told::Command(summary(5, "one\ntwo", &[(RunState::Completed, 1)])));
    stage.keys("<esc>gx");
    assert_eq!(stage.state.modal, None, "a text of two lines would become another one");
}

#[test]
fn output_is_shown_once_whole_and_harmless() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xcat<enter>");
    stage.accept(3, 1);
    stage.run(3, 1, RunState::Executing);
    stage.output(3, 1, 0, "one\ntw");
    assert!(stage.screen().contains("tw"), "a line is shown before it has ended");
    // Told again from the start, as after a lost connection.
    stage.output(3, 1, 0, "one\ntwo\n\u{1b}]0;owned\u{7}three\u{202e}\n");
    let screen = stage.screen();
    assert_eq!(screen.matches("one").count(), 1, "{screen}");
    assert!(screen.contains("two") && screen.contains("three") && !screen.contains("owned"), "{screen}");
    stage.output(3, 1, 5_000_000, "tail\n");
    let screen = stage.screen();
    assert!(screen.contains("4.8 MiB left out") && screen.contains("tail"), "{screen}");
}

#[test]
fn output_is_followed_until_it_is_scrolled() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xseq<enter>");
    stage.accept(3, 1);
    stage.run(3, 1, RunState::Executing);
    let text =
        |from: u32, to: u32| (from..to).map(|n| format!("line {n:04}")).collect::<Vec<_>>().join("\n") + "\n";
    stage.output(3, 1, 0, &text(0, 100));
    assert!(stage.screen().contains("line 0099"));
    stage.keys("<pgup>");
    let before = stage.screen();
    assert!(!before.contains("line 0099"), "{before}");
    stage.output(3, 1, 1000, &text(100, 200));
    let first = |screen: &str| screen.lines().find(|line| line.contains("line 0")).map(str::to_owned);
    assert_eq!(first(&stage.screen()), first(&before), "what is read stays where it is");
    stage.keys("f");
    assert!(stage.screen().contains("line 0199"));
    stage.keys("<tab>g");
    assert!(stage.screen().contains("line 0000"));
    stage.keys("G");
    assert!(stage.screen().contains("following"));
}

#[test]
fn output_is_bounded_and_what_is_dropped_is_said() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xyes<enter>");
    stage.accept(3, 1);
    stage.run(3, 1, RunState::Executing);
    let chunk = format!("{}\n", "y".repeat(1023)).repeat(128);
    let mut offset = 0;
    for _ in 0..64 {
        stage.output(3, 1, offset, &chunk);
        offset += chunk.len() as u64;
    }
    let command = stage.state.commands.get(command_id(3)).unwrap();
    assert!(command.output_bytes() < 11 * 1024 * 1024, "{} bytes are kept", command.output_bytes());
    assert!(stage.screen().contains("MiB dropped"));
}

#[test]
fn a_lost_connection_is_said_with_its_age_and_rows_grow_old() {
    let mut stage = Stage::demo(120, 40);
    stage.tell(Told::Link(LinkView::default()));
    stage.wait(42_000);
    let screen = stage.screen();
    assert!(screen.contains("not reached for 42s") && screen.contains("stale"), "{screen}");
    stage.wait(60_000);
    assert!(stage.screen().contains("● 0 online"));
    stage.connect();
    assert!(!stage.screen().contains("not reached"));
}

#[test]
fn a_machine_that_is_not_known_yet_is_asked_for_once() {
    let mut stage = Stage::demo(80, 24);
    stage.wait(3_000);
    (0..5).for_each(|_| stage.tell(heartbeat(9, NOW_MS, 1.0)));
    assert_eq!(stage.asks, [Ask::Refresh]);
}

#[test]
fn a_run_that_was_lost_and_ends_after_all_is_told_again() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xtrue<enter>");
    stage.accept(3, 1);
    stage.run(3, 1, RunState::Completed);
    let counts = [(RunState::Completed, 1)].into();
    stage.tell(Told::Settled { id: command_id(3), counts });
    stage.keys("<esc>");
    let asked = stage.asks.len();
    stage.keys("cg<enter><esc>");
    assert_eq!(stage.asks.len(), asked, "what is here whole is not asked for again");
    stage.tell(Told::Command(summary(3, "true", &[(RunState::Lost, 1)])));
    stage.keys("<enter>");
    assert_eq!(stage.asks.last(), Some(&Ask::Watch { id: command_id(3) }));
}

#[test]
fn too_small_a_screen_says_what_it_needs() {
    let mut stage = Stage::demo(39, 10);
    assert!(stage.screen().starts_with("needs 40x10"));
    stage.event(Event::Resize(80, 24));
    assert!(stage.screen().contains("demo-1"));
}

#[test]
fn a_screen_that_shrinks_within_a_frame_is_survived() {
    for (_, mut stage) in scenes(120, 40) {
        stage.state.settle();
        let mut terminal = Terminal::new(TestBackend::new(50, 12)).unwrap();
        terminal.draw(|frame| view(&stage.state, frame)).unwrap();
    }
}

#[test]
fn every_size_can_be_drawn() {
    for columns in (1..130).step_by(9) {
        for rows in (1..30).step_by(3) {
            for (_, mut stage) in scenes(columns, rows) {
                stage.screen();
            }
        }
    }
}

#[test]
fn without_colours_there_are_none_and_ascii_is_ascii() {
    for size in [(80, 24), (120, 40), (40, 10)] {
        for (name, mut stage) in scenes(size.0, size.1) {
            stage.state.options.no_color = true;
            stage.state.options.ascii = true;
            let screen = stage.screen();
            assert!(screen.is_ascii(), "{name} is not ASCII:\n{screen}");
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            terminal.draw(|frame| view(&stage.state, frame)).unwrap();
            let mut cells = terminal.backend().buffer().content().iter();
            assert!(
                cells.all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset),
                "{name} has colours"
            );
        }
    }
}

#[test]
fn pasting_writes_and_runs_nothing() {
    let mut stage = Stage::demo(80, 24);
    stage.event(Event::Paste("xreboot\n".to_owned()));
    assert_eq!(stage.state.modal, None);
    stage.keys("x");
    stage.event(Event::Paste("reboot\n".to_owned()));
    assert!(stage.asks.is_empty());
    assert!(matches!(&stage.state.modal, Some(Modal::Prompt(prompt)) if prompt.command.text() == "reboot"));
}

#[test]
fn q_leaves_from_a_screen_and_is_a_letter_in_a_line() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xq");
    assert!(!stage.state.quit);
    stage.keys("<esc>q");
    assert!(stage.state.quit);
}

/// Reports what a frame costs with ten thousand machines; a budget belongs to a quiet machine.
#[test]
fn ten_thousand_machines_can_be_worked_with() {
    let mut stage =
        Stage { state: State::new(options(), (120, 40), NOW), asks: vec![], effects: vec![], now: NOW };
    stage.connect();
    let begun = Instant::now();
    stage.tell(Told::Machines(Stretch::whole((1..=10_000).map(demo_machine).collect())));
    let snapshot = begun.elapsed();
    stage.screen();
    let begun = Instant::now();
    stage.tell(Told::Machines(Stretch::whole((1..=10_000).map(demo_machine).collect())));
    let again = begun.elapsed();
    let begun = Instant::now();
    (1..=1_000).for_each(|n| stage.tell(heartbeat(n, NOW_MS, 50.0)));
    let heartbeats = begun.elapsed();
    let begun = Instant::now();
    stage.keys("C");
    let sort = begun.elapsed();
    let begun = Instant::now();
    stage.keys("/9<enter>j");
    let filter = begun.elapsed();
    let begun = Instant::now();
    let screen = stage.screen();
    let frame = begun.elapsed();
    println!(
        "snapshot {snapshot:?}, the next {again:?}, 1,000 heartbeats {heartbeats:?}, sort {sort:?}, filter {filter:?}, frame {frame:?}"
    );
    assert!(screen.contains("of 10000"), "{screen}");
}

#[test]
fn a_thousand_runs_are_one_screen() {
    let mut stage = Stage::demo(120, 40);
    stage.tell(Told::Command(summary(3, "true", &[(RunState::Pending, 1_000)])));
    stage.screen();
    stage.keys("cg<enter>");
    let begun = Instant::now();
    for n in 1..=1_000 {
        let became = if n == 700 { RunState::Failed } else { RunState::Completed };
        stage.tell(Told::Run { id: command_id(3), run: run(n, became) });
    }
    let screen = stage.screen();
    println!("1,000 runs and a frame {:?}", begun.elapsed());
    let failed = screen.lines().position(|line| line.contains("demo-700")).unwrap();
    assert_eq!(failed, 6, "what failed comes first:\n{screen}");
    assert!(screen.contains("1000/1000"));
}

#[test]
fn what_needs_a_look_is_seen_first_and_leads_there() {
    let mut stage = Stage::demo(120, 40);
    stage.tell(Told::Health(Box::new(health())));
    stage.keys("p");
    let screen = stage.screen();
    for text in
        ["RUN is 91% full", "demo-3", "offline, heard 5m ago", "demo-2", "97% full", "1 failed", "busiest"]
    {
        assert!(screen.contains(text), "{text}: {screen}");
    }
    assert!(screen.contains("bridge \u{25cf} \u{25b2} 1"), "the header says it everywhere: {screen}");
    stage.keys("<enter>");
    assert_eq!(stage.state.screen, Screen::Machine(token(3)), "the worst comes first");
    stage.keys("<esc>j<enter>");
    assert_eq!(stage.state.screen, Screen::List(ListKind::Health));
}

#[test]
fn many_in_the_same_trouble_are_one_line() {
    let mut stage = Stage::demo(120, 40);
    let dead = |n| MachineView { state: Liveness::Offline, last_seen_at: None, ..demo_machine(n) };
    stage.tell(Told::Machines(Stretch::whole((1..=30).map(dead).collect())));
    stage.wait(100_000);
    stage.keys("p");
    let screen = stage.screen();
    assert!(screen.contains("30 machines") || screen.contains("28 machines"), "{screen}");
    let offline = |concern: &&crate::tui::state::pulse::Concern| concern.why.contains("offline");
    assert_eq!(stage.state.pulse.concerns.iter().filter(offline).count(), 1);
    stage.keys("<enter>");
    assert_eq!(stage.state.fleet.filter(), "state=offline");
}

#[test]
fn a_list_is_read_while_it_is_looked_at_and_no_longer() {
    let mut stage = Stage::demo(100, 24);
    let look = || Some(Ask::Look(ListKind::Audit));
    stage.keys("w");
    assert_eq!(stage.asks.pop(), look());
    assert!(stage.screen().contains("reading"), "{}", stage.screen());
    stage.wait(5_000);
    assert_eq!(stage.asks.pop(), None, "it is being read");
    stage.tell(Told::Found { kind: ListKind::Audit, found: Ok(found(ListKind::Audit)) });
    assert!(stage.screen().contains("commands.submit"), "{}", stage.screen());
    stage.wait(5_000);
    assert_eq!(stage.asks.pop(), look());
    let problem = Problem::new(ErrorCode::Forbidden, "not allowed");
    stage.tell(Told::Found { kind: ListKind::Audit, found: Err(problem) });
    let screen = stage.screen();
    assert!(screen.contains("5s old: not allowed") && screen.contains("commands.submit"), "{screen}");
    stage.keys("<esc>");
    stage.wait(50_000);
    assert_eq!(stage.asks.pop(), None, "nobody looks at it");
}

#[test]
fn rows_are_filtered_sorted_and_opened() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("w");
    stage.tell(Told::Found { kind: ListKind::Audit, found: Ok(found(ListKind::Audit)) });
    let numbers = |stage: &Stage| -> Vec<String> {
        let rows = stage.state.rows(ListKind::Audit).unwrap();
        rows.seen().map(|item| item.key.clone()).collect()
    };
    stage.keys("/forbidden<enter>");
    assert_eq!(numbers(&stage), ["35", "28", "21", "14", "7"]);
    stage.keys("/<c-u>!/stored$/<enter>");
    assert_eq!(numbers(&stage), ["35", "28", "21", "14", "7"]);
    stage.keys(">");
    assert_eq!(numbers(&stage), ["7", "14", "21", "28", "35"], "by the first column");
    stage.keys("I");
    assert_eq!(numbers(&stage)[0], "35");
    stage.keys("g<enter>");
    assert!(stage.screen().contains("refused: forbidden \u{d7} 35"), "{}", stage.screen());
    stage.keys("<esc><esc>");
    assert_eq!(numbers(&stage).len(), 40, "esc takes the filter away");
}

#[test]
fn the_cursor_stays_on_its_row_while_others_come() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("w");
    let tell = |stage: &mut Stage, most: usize| {
        let Found::Audit(mut rows) = found(ListKind::Audit) else { panic!("other rows") };
        rows.drain(..40 - most);
        stage.tell(Told::Found { kind: ListKind::Audit, found: Ok(Found::Audit(rows)) });
    };
    tell(&mut stage, 20);
    stage.keys("jj");
    assert_eq!(stage.state.rows(ListKind::Audit).unwrap().cursor.key().map(String::as_str), Some("18"));
    tell(&mut stage, 40);
    let cursor = &stage.state.rows(ListKind::Audit).unwrap().cursor;
    assert_eq!((cursor.key().map(String::as_str), cursor.at()), (Some("18"), 22));
}

#[test]
fn screens_are_gone_back_to_and_forward_again() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>cw");
    let audit = Screen::List(ListKind::Audit);
    assert_eq!(stage.state.screen, audit);
    stage.keys("[");
    assert_eq!(stage.state.screen, Screen::Commands);
    stage.keys("[[[");
    assert_eq!(stage.state.screen, Screen::Machines);
    stage.keys("]]]]]");
    assert_eq!(stage.state.screen, audit);
    stage.keys("-");
    assert_eq!(stage.state.screen, Screen::Commands);
    stage.keys("-");
    assert_eq!(stage.state.screen, audit);
    stage.keys("[m]");
    assert_eq!(stage.state.screen, Screen::Machines, "who goes elsewhere goes forward no more");
}

#[test]
fn the_palette_goes_does_and_says_what_is_wrong() {
    let mut stage = Stage::demo(100, 24);
    stage.keys(":audit refused<enter>".replace(' ', "<space>").as_str());
    assert_eq!(stage.state.screen, Screen::List(ListKind::Audit));
    assert_eq!(stage.state.rows(ListKind::Audit).unwrap().filter(), "refused");
    stage.keys(":machine<space>demo-2<enter>");
    assert_eq!(stage.state.screen, Screen::Machine(token(2)));
    stage.keys(":fly<enter>");
    assert!(stage.screen().contains("`fly` is nothing that can be done here"), "{}", stage.screen());
    stage.keys("<esc>:mchns<enter>");
    assert_eq!(stage.state.screen, Screen::Machines, "the best offer is meant");
    stage.keys(":ma<tab>");
    let written = |stage: &Stage| match &stage.state.modal {
        Some(Modal::Palette(palette)) => palette.editor.text().to_owned(),
        other => panic!("no palette: {other:?}"),
    };
    assert_eq!(written(&stage), "mark ");
    stage.keys("<c-u>mach<down><down><tab>");
    assert_eq!(written(&stage), "machines ");
    stage.keys("<c-u><a-p>");
    assert_eq!(written(&stage), "machines");
    stage.keys("<a-p>");
    assert_eq!(written(&stage), "machine demo-2");
    stage.keys("<a-n><a-n><esc>:run<space>uptime<enter>");
    assert!(matches!(&stage.state.modal, Some(Modal::Prompt(prompt)) if prompt.command.text() == "uptime"));
    stage.keys("<esc>:q<enter>");
    assert!(stage.state.quit);
}

#[test]
fn what_an_operator_has_set_counts_from_the_beginning() {
    let text = "[keys]\nprofile = \"emacs\"\n[keys.machines]\n\"<c-x>\" = \"run\"\n\
                [views.machines]\ncolumns = [\"cpu\", \"relay\"]\nsort = \"-cpu\"\n\
                [views.audit]\ncolumns = [\"what\", \"who\"]\nsort = \"-n\"\n";
    let settings = crate::settings::Settings::read(text).unwrap();
    let (keymap, problems) = crate::tui::keymap::Keymap::of(&settings.keys);
    assert!(problems.is_empty(), "{problems:?}");
    let options = crate::tui::TuiOptions {
        keymap,
        views: settings.views,
        headless: true,
        is_protected: true,
        ..options()
    };
    let mut stage = Stage::demo(120, 24);
    stage.state = State::new(options, (120, 24), NOW);
    stage.connect();
    stage.tell(Told::Machines(Stretch::whole((1..=3).map(demo_machine).collect())));
    stage.tell(heartbeat(3, NOW_MS, 99.0));
    stage.wait(1_000);
    assert_eq!(order(&stage)[0], token(3), "the busiest comes first");
    assert!(!stage.screen().contains("signalbox") && stage.screen().contains("relay"), "{}", stage.screen());
    assert!(!stage.screen().contains("system"));
    stage.keys("<c-n><c-x>");
    assert!(matches!(stage.state.modal, Some(Modal::Prompt(_))));
    stage.keys("<c-g><c-e>");
    assert!(stage.screen().contains("main"));
    stage.keys("w");
    let columns = stage.state.rows(ListKind::Audit).unwrap().columns().map(|(_, column)| column.name);
    assert_eq!(columns.collect::<Vec<_>>(), ["what", "who"]);
}

#[test]
fn keys_that_cannot_be_bound_are_told_with_their_line() {
    let text = "[keys]\nprofile = \"vim\"\n[keys.machines]\n\"z\" = \"fly\"\n";
    let problems = crate::settings::Settings::read(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].line, 4);
    assert!(problems[0].what.contains("nothing is called `fly` there"), "{problems:?}");
}

#[test]
fn columns_are_chosen_and_moved() {
    let mut stage = Stage::demo(200, 24);
    let figures =
        |stage: &Stage| stage.state.fleet.figures().iter().map(|figure| figure.name()).collect::<Vec<_>>();
    stage.keys("|<space>K");
    assert_eq!(
        figures(&stage),
        ["history", "mem", "disk", "load", "heard", "run", "relay", "system", "labels"]
    );
    stage.keys("<esc>|jJ<esc>");
    assert_eq!(figures(&stage)[..3], ["history", "disk", "mem"]);
    stage.keys(":columns<space>kernel,cpu<enter>");
    assert_eq!(figures(&stage), ["kernel", "cpu"]);
    assert!(stage.screen().contains("6.1.0-32"), "{}", stage.screen());
    stage.keys("|<space>");
    assert_eq!(figures(&stage), ["cpu"]);
    stage.keys("<esc>|<space>");
    assert_eq!(figures(&stage), ["cpu"], "the last one stays");
    stage.keys("r");
    assert_eq!(figures(&stage).len(), 10);
    stage.keys("<esc>>>>");
    assert_eq!(stage.state.fleet.sort(), (Column::Memory, false));
}

#[test]
fn marks_come_one_by_one_in_ranges_and_turned_around() {
    let mut stage = Stage::demo(80, 24);
    let marked = |stage: &Stage| [1, 2, 3].map(|n| stage.state.fleet.is_marked(&token(n)));
    stage.keys("<space>Gv");
    assert_eq!(marked(&stage), [true, true, true]);
    stage.keys("g<space>*");
    assert_eq!(marked(&stage), [true, false, false]);
    stage.keys("/demo-[23]<enter>*");
    assert_eq!(marked(&stage), [true, true, true], "what is not seen stays as it is");
}

#[test]
fn what_is_held_still_stays_until_it_goes_on() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("F");
    let before = stage.screen();
    stage.wait(120_000);
    stage.tell(heartbeat(1, stage.now.ms, 99.0));
    stage.tell(Told::Machines(Stretch::whole(vec![demo_machine(1)])));
    assert_eq!(stage.screen(), before);
    assert!(before.contains("held at 14:02:07Z"), "{before}");
    stage.keys("F");
    assert_eq!(stage.asks.last(), Some(&Ask::Refresh));
    assert!(stage.screen().contains("14:04:07Z") && !stage.screen().contains("held"), "{}", stage.screen());
}

#[test]
fn names_are_copied_and_that_is_said() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("ay");
    assert_eq!(stage.effects.pop(), Some(Effect::Copy("demo-1\ndemo-2\ndemo-3".to_owned())));
    assert!(stage.screen().contains("copied 3 machines"), "{}", stage.screen());
    stage.keys("w");
    stage.tell(Told::Found { kind: ListKind::Audit, found: Ok(found(ListKind::Audit)) });
    stage.keys("y");
    assert!(matches!(stage.effects.pop(), Some(Effect::Copy(row)) if row.starts_with("40\t")));
}

#[test]
fn the_mouse_is_left_alone_unless_it_is_asked_for() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<c-o>");
    assert_eq!(stage.effects.pop(), Some(Effect::Mouse(true)));
    stage.event(Event::Click(5, 5));
    assert_eq!(stage.state.fleet.cursor.at(), 1);
    stage.event(Event::Click(5, 5));
    assert_eq!(stage.state.screen, Screen::Machine(token(2)), "once more goes in");
    stage.keys("<esc>");
    stage.event(Event::Wheel(-1));
    assert_eq!(stage.state.fleet.cursor.at(), 0);
    stage.event(Event::Click(5, 20));
    assert_eq!(stage.state.fleet.cursor.at(), 0, "there is no row");
}

#[test]
fn the_header_makes_room_and_themes_change() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<c-e>");
    assert!(!stage.screen().contains("signalbox"), "{}", stage.screen());
    stage.keys("<c-e>:theme<space>mono<enter>");
    assert!(!stage.coloured().contains("38;5"));
    stage.keys(":theme<space>light<enter>");
    assert!(stage.coloured().contains("38;5;25"));
}

/// Ten machines, of which most say the same.
fn ten(stage: &mut Stage) {
    stage.tell(Told::Machines(Stretch::whole((1..=10).map(demo_machine).collect())));
    stage.keys("axversion<enter>");
    stage.accept(3, 10);
    (1..=10).for_each(|n| stage.run(3, n, RunState::Executing));
}

fn end(stage: &mut Stage, machine: u32, text: &str, became: RunState) {
    // In pieces: what is compared is the whole.
    let (a, b) = text.split_at(text.len() / 2);
    stage.output(3, machine, 0, a);
    stage.output(3, machine, a.len() as u64, b);
    stage.run(3, machine, became);
}

#[test]
fn outputs_that_are_the_same_are_one_group_as_they_arrive() {
    let mut stage = Stage::demo(120, 24);
    ten(&mut stage);
    let screen = stage.screen();
    assert!(screen.contains("  10 executing"), "{screen}");
    (1..=6).for_each(|n| end(&mut stage, n, "1.22\n", RunState::Completed));
    end(&mut stage, 7, "1.18\n", RunState::Completed);
    end(&mut stage, 8, "1.18\n", RunState::Completed);
    end(&mut stage, 9, "sh: not found\n", RunState::Failed);
    let screen = stage.screen();
    let order = ["demo-9", "6 exit 0", "2 exit 0", "demo-10"].map(|text| screen.find(text).unwrap());
    assert!(order.is_sorted(), "{screen}");
    stage.keys("O");
    let screen = stage.screen();
    assert!(screen.find("2 exit 0").unwrap() < screen.find("6 exit 0").unwrap(), "{screen}");
    stage.keys("z");
    assert!(stage.screen().contains("demo-3") && !stage.screen().contains("6 exit 0"));
}

#[test]
fn a_group_is_opened_marked_and_run_on() {
    let mut stage = Stage::demo(120, 24);
    ten(&mut stage);
    (1..=8).for_each(|n| end(&mut stage, n, "1.22\n", RunState::Completed));
    (9..=10).for_each(|n| end(&mut stage, n, "1.18\n", RunState::Completed));
    stage.screen();
    stage.keys("AG<enter>");
    let screen = stage.screen();
    assert!(screen.contains("demo-9") && screen.contains("demo-10"), "{screen}");
    assert_eq!(stage.state.page.rows().len(), 3, "the group and its machines");
    stage.keys("<esc><space>");
    assert_eq!(stage.state.fleet.marked(), 2);
    assert!(stage.screen().contains("run on 2"), "{}", stage.screen());
    stage.keys("x<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-[9-10]", "version"));
    stage.keys("<esc><space>");
    assert_eq!(stage.state.fleet.marked(), 0, "once more takes the marks away");
}

#[test]
fn two_outputs_are_compared() {
    let mut stage = Stage::demo(120, 24);
    ten(&mut stage);
    (1..=8).for_each(|n| end(&mut stage, n, "same\n1.22\n", RunState::Completed));
    end(&mut stage, 9, "same\n1.18\n", RunState::Completed);
    end(&mut stage, 10, "same\n1.16\n", RunState::Completed);
    stage.screen();
    stage.keys("Gd");
    let screen = stage.screen();
    assert!(screen.contains("- 1.22") && screen.contains("+ 1.16"), "{screen}");
    stage.keys("<esc>k=Gd");
    let screen = stage.screen();
    assert!(screen.contains("- 1.18") && screen.contains("+ 1.16"), "{screen}");
    stage.keys("<esc>gd");
    assert!(stage.screen().contains("nothing to compare this with"), "{}", stage.screen());
}

#[test]
fn the_cursor_stays_on_its_group_while_runs_move_into_others() {
    let mut stage = Stage::demo(120, 24);
    ten(&mut stage);
    (1..=3).for_each(|n| end(&mut stage, n, "a\n", RunState::Completed));
    (4..=5).for_each(|n| end(&mut stage, n, "b\n", RunState::Completed));
    stage.screen();
    stage.keys("jj");
    let before = stage.state.page.cursor.key().cloned();
    (6..=9).for_each(|n| end(&mut stage, n, "b\n", RunState::Completed));
    stage.screen();
    assert_eq!(stage.state.page.cursor.key(), before.as_ref());
    assert_eq!(stage.state.page.cursor.at(), 1, "its group is the largest now");
}

#[test]
fn machines_are_filtered_by_what_they_are_and_how() {
    let mut stage = Stage::demo(120, 24);
    let seen = order;
    for (filter, expected) in [
        ("cpu>=50", vec![2]),
        ("os=debian and not demo-1", vec![2, 3]),
        ("state=offline", vec![3]),
        ("demo-[1-2]", vec![1, 2]),
        ("/-[13]$/", vec![1, 3]),
        ("!host-2", vec![1, 3]),
        ("disk>95 or heard>1m", vec![2, 3]),
        ("demo-2, demo-3", vec![2, 3]),
        ("all limit 1", vec![1]),
    ] {
        stage.keys(&format!("/<c-u>{}<enter>", filter.replace('<', "<lt>")));
        assert_eq!(seen(&stage), expected.into_iter().map(token).collect::<Vec<_>>(), "{filter}");
    }
}

#[test]
fn labels_are_shown_and_looked_for_where_machines_have_some() {
    let mut stage = Stage::demo(200, 24);
    let heads = |stage: &mut Stage| stage.screen().contains("labels");
    assert!(!heads(&mut stage), "nobody has any");
    let labels = |n: u32, role: &str| {
        let mut view = serde_json::to_value(demo_machine(n)).unwrap();
        view["labels"] = serde_json::json!({"role": {"value": role, "source": "operator"},
            "note": {"value": "a\u{202e}b", "source": "relay"}});
        serde_json::from_value::<MachineView>(view).unwrap()
    };
    let unheard = MachineView { labels_unheard: true, ..demo_machine(3) };
    stage.tell(Told::Machines(Stretch::whole(vec![labels(1, "web"), labels(2, "db"), unheard])));
    assert!(heads(&mut stage));
    let screen = stage.screen();
    assert!(screen.contains("role=web") && !screen.contains('\u{202e}'), "{screen}");
    for (filter, expected) in [("role=web", vec![1]), ("role!=web", vec![2]), ("role=*", vec![1, 2])] {
        stage.keys(&format!("/<c-u>{filter}<enter>"));
        let expected: Vec<_> = expected.into_iter().map(token).collect();
        assert_eq!(order(&stage), expected, "{filter}");
    }
    // A label that comes or goes is looked for at once.
    stage.keys("/<c-u>role=web<enter>");
    stage.tell(Told::Machines(Stretch::whole(vec![labels(1, "x"), labels(2, "web"), demo_machine(3)])));
    stage.wait(1_000);
    assert_eq!(order(&stage), [token(2)]);
    stage.keys("<enter>");
    assert!(stage.screen().contains("role=web"), "{}", stage.screen());
}

#[test]
fn what_is_seen_stays_while_a_filter_makes_no_sense_yet_and_that_is_said() {
    let mut stage = Stage::demo(120, 24);
    stage.keys("/cpu>=50");
    assert_eq!(order(&stage), [token(2)]);
    stage.keys("<space>and");
    assert_eq!(order(&stage), [token(2)]);
    let problem = stage.state.fleet.filter_problem().unwrap().to_owned();
    assert!(stage.screen().contains(&problem), "{}", stage.screen());
    stage.keys("<space>os=debian<enter>");
    assert_eq!(stage.state.fleet.filter_problem(), None);
    // Figures move, and with them what is seen.
    stage.tell(heartbeat(2, stage.now.ms, 10.0));
    stage.tell(heartbeat(1, stage.now.ms, 90.0));
    stage.wait(1_000);
    assert_eq!(order(&stage), [token(1)]);
}

#[test]
fn a_list_that_is_refused_is_asked_for_no_more_often_than_one_that_is_told() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("w");
    let mut asked = 0;
    for _ in 0..60 {
        if stage.asks.pop() == Some(Ask::Look(ListKind::Audit)) {
            asked += 1;
            let problem = Problem::new(ErrorCode::Forbidden, "not allowed");
            stage.tell(Told::Found { kind: ListKind::Audit, found: Err(problem) });
        }
        stage.wait(1_000);
    }
    assert_eq!(asked, 12, "once each five seconds");
}

#[test]
fn an_expression_that_makes_no_sense_yet_hides_no_row_and_says_so() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("w");
    stage.tell(Told::Found { kind: ListKind::Audit, found: Ok(found(ListKind::Audit)) });
    stage.keys("//forb(");
    let screen = stage.screen();
    assert!(screen.contains("unclosed group") && screen.contains("commands.submit"), "{screen}");
    stage.keys("<esc>c//ngin(");
    let screen = stage.screen();
    assert!(screen.contains("unclosed group") && screen.contains("restart nginx"), "{screen}");
}

#[test]
fn what_ran_behind_machines_runs_there_again_on_those_that_are_marked() {
    let mut stage = Stage::demo(100, 24);
    let host = SshTarget { host: "db.lan".into(), port: 22, username: None, jump: vec![], credential: None };
    let told = CommandSummary {
        target: Some(Target::Ssh(host.clone())),
        timeout_ms: 300_000,
        ..summary(9, "reboot", &[(RunState::Completed, 2)])
    };
    stage.tell(Told::Command(told));
    stage.keys("cg<enter>");
    (1..=2).for_each(|n| stage.run(9, n, RunState::Completed));
    stage.screen();
    stage.keys("<space>x<enter>");
    let draft = draft_of(stage.asks.last());
    assert_eq!(
        (draft.on.as_str(), &draft.ssh, draft.timeout_ms),
        ("demo-[1-2]", &Some(host), 300_000),
        "never on themselves"
    );
}

#[test]
fn nothing_runs_on_a_row_that_is_not_seen() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("c:run<space>id<enter>");
    assert_eq!(stage.state.modal, None);
    assert!(stage.screen().contains("mark machines first"), "{}", stage.screen());
    stage.keys("m<space>c:run<space>id<enter><enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-1", "id"));
}

#[test]
fn what_needs_a_look_stays_under_the_cursor_while_worse_comes() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("pj");
    let before = stage.state.pulse.here().unwrap().key.clone();
    stage.tell(Told::Health(Box::new(health())));
    stage.tell(Told::Machines(Stretch::whole((1..=5).map(demo_machine).collect())));
    stage.wait(70_000);
    stage.screen();
    assert_eq!(stage.state.pulse.here().unwrap().key, before);
    assert!(stage.state.pulse.cursor.at() > 1, "{:?}", stage.state.pulse.concerns);
}
