//! Stories of commands: written, run, and what came of them.

use std::time::Instant;

use ratatui::{Terminal, backend::TestBackend, style::Color};
use signalbox_schemas::{
    api::{CommandSummary, OutputView, RunView},
    command::{SshTarget, Target},
    error::{ErrorCode, Problem},
    id::{CredentialName, Sha256},
    run::RunState,
};

use super::{draft_of, run_of, token};
use crate::client::{Ask, Stretch, Told};
use crate::tui::{
    stage::{Stage, command_id, demo_machine, run, summary},
    state::Screen,
    view::{layout, view},
};

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

/// A run has ended with more output than is told with it: this is what its machine says of it.
fn end_untold(stage: &mut Stage, machine: u32, bytes: u64, text: &str) {
    let of = |bytes, text: &str| OutputView {
        bytes,
        sha256: Some(Sha256::of(text.as_bytes()).to_string()),
        truncated: false,
    };
    let ended = RunView { stdout: of(bytes, text), stderr: of(0, ""), ..run(machine, RunState::Completed) };
    stage.tell(Told::Run { id: command_id(3), run: ended });
}

fn folds(stage: &Stage) -> usize {
    stage.state.commands.get(command_id(3)).unwrap().folds.len()
}

#[test]
fn outputs_that_are_not_told_are_folded_by_what_their_machines_say_and_not_compared() {
    const LARGE: u64 = 128 << 20;
    let mut stage = Stage::demo(120, 24);
    ten(&mut stage);
    (1..=5).for_each(|n| end_untold(&mut stage, n, LARGE, "a\n"));
    (6..=8).for_each(|n| end_untold(&mut stage, n, LARGE, "b\n"));
    // What is told is never of a group with what is only said.
    end(&mut stage, 9, "a\n", RunState::Completed);
    end_untold(&mut stage, 10, 2, "nothing of it came");
    let screen = stage.screen();
    assert!(screen.contains("5 exit 0") && screen.contains("3 exit 0"), "{screen}");
    assert_eq!(folds(&stage), 4, "{screen}");
    stage.keys("gj");
    let screen = stage.screen();
    assert!(screen.contains("128 MiB, read when this output is opened"), "{screen}");
    stage.keys("d");
    let screen = stage.screen();
    assert!(
        screen.contains("more than 1 MiB are not compared") && stage.state.page.diff.is_none(),
        "{screen}"
    );
    // Told once more, it is said once.
    end_untold(&mut stage, 6, LARGE, "b\n");
    let said = stage.state.commands.get(command_id(3)).unwrap().merged.len();
    assert_eq!(said, 8 + 1, "a line for each that is absent, and one that was told");
}

#[test]
fn what_was_told_before_its_end_is_folded_by_what_was_told() {
    let mut stage = Stage::demo(120, 24);
    ten(&mut stage);
    let text = "x".repeat(2 << 20);
    for n in 1..=2 {
        stage.output(3, n, 0, &text);
        end_untold(&mut stage, n, text.len() as u64, if n == 1 { "one" } else { "other" });
    }
    let screen = stage.screen();
    assert!(screen.contains("2 exit 0") && !screen.contains("read when"), "{screen}");
    // Of the last one only a part was told when the line broke.
    stage.output(3, 3, 0, &text[1..]);
    end_untold(&mut stage, 3, text.len() as u64, "one");
    let screen = stage.screen();
    assert!(screen.contains("2 exit 0") && screen.contains("1 B, read when"), "{screen}");
    assert_eq!(folds(&stage), 3, "{screen}");
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
