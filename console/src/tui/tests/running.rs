//! Writing a command: where, in which waves, and whether one is sure.

use signalbox_schemas::{
    api::{CommandSummary, Counts, MachineView, RolloutView},
    error::{ErrorCode, Problem},
    rollout::{Rollout, RolloutState, Steer},
    run::RunState,
};

use super::{draft_of, run_of, token};
use crate::{
    client::{Ask, Stretch, Told},
    question::Rule,
    settings::saved::SavedCommand,
    tui::{
        stage::{NOW_MS, Stage, command_id, demo_machine, summary},
        state::{Modal, prompt::Field, prompt::Prompt},
    },
};

fn prompt(stage: &Stage) -> &Prompt {
    match &stage.state.modal {
        Some(Modal::Prompt(prompt)) => prompt,
        other => panic!("no command is written: {other:?}"),
    }
}

fn runs(stage: &Stage) -> usize {
    stage.asks.iter().filter(|ask| matches!(ask, Ask::Run { .. })).count()
}

#[test]
fn another_selector_is_looked_up_before_anything_runs() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("xuptime<tab><c-u>demo-*");
    assert!(stage.screen().contains("about 3 machines"), "{}", stage.screen());
    stage.keys("<enter>");
    let asked = Ask::LookUp { tag: 1, on: "demo-*".to_owned(), protected: String::new() };
    assert_eq!(stage.asks.last(), Some(&asked));
    assert!(stage.screen().contains("looking which machines that means"), "{}", stage.screen());
    stage.keys("<enter>");
    assert_eq!(runs(&stage), 0, "what it means is not known yet");
    stage.meant(&[1, 3], 0);
    let screen = stage.screen();
    assert!(screen.contains("run on 2 machines") && screen.contains("1 offline"), "{screen}");
    stage.keys("<enter>");
    let draft = draft_of(stage.asks.last());
    assert_eq!((draft.on.as_str(), draft.shown.as_slice()), ("demo-*", &[1, 3].map(token)[..]));
}

#[test]
fn whoever_leaves_the_selector_sees_what_it_means() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("xuptime<tab><c-u>os=debian<tab>");
    assert!(
        matches!(stage.asks.last(), Some(Ask::LookUp { on, .. }) if on == "os=debian"),
        "{:?}",
        stage.asks
    );
    let problem = Problem::new(ErrorCode::NoTargets, "no machine matches");
    let Some(Ask::LookUp { tag, .. }) = stage.asks.last() else { panic!("{:?}", stage.asks) };
    stage.tell(Told::Meant { tag: *tag, meant: Err(problem) });
    assert!(stage.screen().contains("no machine matches"), "{}", stage.screen());
    stage.keys("<enter>");
    assert_eq!((runs(&stage), stage.asks.len()), (0, 2), "it is asked again, and nothing runs");
}

#[test]
fn an_answer_for_another_selector_is_no_answer() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("xuptime<tab><c-u>demo-1<enter>");
    let Some(Ask::LookUp { tag: old, .. }) = stage.asks.last().cloned() else { panic!("{:?}", stage.asks) };
    stage.keys("<backspace>*<enter>");
    stage.tell(Told::Meant { tag: old, meant: Ok(crate::client::Meant::default()) });
    assert!(stage.screen().contains("looking which"), "{}", stage.screen());
    stage.meant(&[1, 2, 3], 0);
    stage.keys("<enter>");
    assert_eq!(draft_of(stage.asks.last()).on, "demo-*");
}

#[test]
fn on_many_machines_their_number_is_typed() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.rule = Rule { above: 2, ..Rule::default() };
    stage.keys("axreboot<enter>");
    assert_eq!(runs(&stage), 0);
    assert_eq!(prompt(&stage).field, Field::Answer);
    assert!(stage.screen().contains("they are more than 2: type how many"), "{}", stage.screen());
    stage.keys("4<enter>");
    assert!(stage.screen().contains("4 is another number"), "{}", stage.screen());
    assert_eq!(runs(&stage), 0);
    stage.keys("<backspace>3<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-[1-3]", "reboot"));
}

#[test]
fn protected_machines_are_told_by_a_bridge() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.rule = Rule { protected: "demo-2".to_owned(), ..Rule::default() };
    stage.keys("axreboot");
    assert!(matches!(stage.asks.last(), Some(Ask::LookUp { protected, .. }) if protected == "demo-2"));
    stage.keys("<enter>");
    assert_eq!(runs(&stage), 0, "who is protected is not known yet");
    stage.meant(&[1, 2, 3], 1);
    stage.keys("<enter>");
    assert!(stage.screen().contains("one of them is protected"), "{}", stage.screen());
    stage.keys("3<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-[1-3]", "reboot"));
}

#[test]
fn waves_are_written_as_people_say_them() {
    let mut stage = Stage::demo(120, 30);
    stage.keys("axreload<tab><tab>canary<space>x<enter>");
    assert_eq!((runs(&stage), prompt(&stage).field), (0, Field::Waves));
    assert!(stage.screen().contains("is no size"), "{}", stage.screen());
    stage.keys("<backspace>1,<space>1<enter>");
    let plan: Rollout = "canary 1, 1".parse().unwrap();
    assert_eq!(draft_of(stage.asks.last()).rollout.as_ref(), Some(&plan));
    stage.accept(3, 3);
    let screen = stage.screen();
    assert!(screen.contains("wave 1 of 3") && screen.contains("3 held"), "{screen}");
}

fn spreading(state: RolloutState) -> CommandSummary {
    let counts = Counts::from([(RunState::Completed, 1), (RunState::Failed, 1), (RunState::Held, 8)]);
    let plan: Rollout = "canary 2, 4, pause after 1".parse().unwrap();
    let why = (state == RolloutState::Paused).then(|| "1 of 2 runs failed".to_owned());
    let rollout = RolloutView { state, why, ..RolloutView::new(plan, 10, None, &counts) };
    CommandSummary {
        counts,
        settled: false,
        rollout: Some(Box::new(rollout)),
        created_at: NOW_MS - 10_000,
        ..summary(3, "systemctl reload nginx", &[])
    }
}

#[test]
fn waves_are_paused_at_once_and_go_on_after_a_question() {
    let mut stage = Stage::demo(120, 30);
    stage.tell(Told::Command(spreading(RolloutState::Going)));
    stage.keys("c");
    assert!(stage.screen().contains("wave 1 of 3"), "{}", stage.screen());
    stage.keys("P");
    assert_eq!(stage.asks.last(), Some(&Ask::Steer { tag: 1, id: command_id(3), wish: Steer::Pause }));
    stage.tell(Told::Command(spreading(RolloutState::Paused)));
    stage.keys("<enter>");
    let screen = stage.screen();
    assert!(screen.contains("paused") && screen.contains("1 of 2 runs failed"), "{screen}");
    stage.keys("P");
    assert!(stage.screen().contains("8 of 10 machines wait to be let go"), "{}", stage.screen());
    let asks = stage.asks.len();
    stage.keys("<enter>");
    assert_eq!(stage.asks.len(), asks, "the safe answer has the focus");
    stage.keys("Pl<enter>");
    assert_eq!(stage.asks.last(), Some(&Ask::Steer { tag: 2, id: command_id(3), wish: Steer::Resume }));
    stage.keys("Bl<enter>");
    assert_eq!(stage.asks.last(), Some(&Ask::Steer { tag: 3, id: command_id(3), wish: Steer::Abort }));
}

#[test]
fn what_failed_is_tried_once_more_and_no_other() {
    let mut stage = Stage::demo(120, 30);
    stage.keys("axapt<space>update<enter>");
    stage.accept(3, 3);
    for (n, state) in [(1, RunState::Completed), (2, RunState::Failed), (3, RunState::Lost)] {
        stage.run(3, n, state);
    }
    stage.screen();
    stage.keys("r");
    assert!(stage.screen().contains("run again on 2 machines"), "{}", stage.screen());
    stage.keys("<enter>");
    let draft = draft_of(stage.asks.last());
    assert_eq!(draft.shown, [2, 3].map(token));
    assert_eq!((draft.on.as_str(), draft.retry_of), ("demo-[2-3]", Some(command_id(3))));
}

#[test]
fn a_saved_command_asks_for_what_is_missing() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.saved = vec![SavedCommand {
        name: "restart a unit".to_owned(),
        text: "systemctl restart {{unit}}".to_owned(),
        on: Some("demo-*".to_owned()),
        timeout: None,
        confirm: true,
    }];
    stage.keys(":saved<space>restart<enter>");
    assert_eq!(prompt(&stage).field, Field::Parameter(0));
    stage.meant(&[1, 2, 3], 0);
    stage.keys("<enter>");
    assert!(stage.screen().contains("what stands for unit?"), "{}", stage.screen());
    stage.keys("nginx");
    assert!(stage.screen().contains("systemctl restart nginx"), "{}", stage.screen());
    stage.keys("<enter>");
    assert!(stage.screen().contains("the saved command asks for it"), "{}", stage.screen());
    stage.keys("3<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-*", "systemctl restart nginx"));
}

#[test]
fn a_saved_command_may_be_given_all_at_once() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.saved = vec![SavedCommand {
        name: "restart".to_owned(),
        text: "systemctl restart {{unit}}".to_owned(),
        on: None,
        timeout: None,
        confirm: false,
    }];
    stage.keys(":saved<space>restart<space>units=a<enter>");
    assert!(stage.screen().contains("has no placeholder `units`"), "{}", stage.screen());
    stage.keys("<c-u>saved<space>restart<space>unit=ssh<enter><enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-1", "systemctl restart ssh"));
}

#[test]
fn it_is_said_where_the_machines_are() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.place = "dc".to_owned();
    let at = |n: u32, dc: &str| {
        let mut view = serde_json::to_value(demo_machine(n)).unwrap();
        view["labels"] = serde_json::json!({"dc": {"value": dc, "source": "operator"}});
        serde_json::from_value::<MachineView>(view).unwrap()
    };
    stage.tell(Told::Machines(Stretch::whole(vec![at(1, "oslo"), at(2, "fra"), demo_machine(3)])));
    stage.keys("ax");
    let screen = stage.screen();
    assert!(screen.contains("1 offline  fra 1 \u{b7} oslo 1 \u{b7} 1 elsewhere"), "{screen}");
    stage.state.size = (60, 24);
    let screen = stage.screen();
    assert!(screen.contains("fra 1 \u{b7} 2 more"), "{screen}");
}

#[test]
fn a_console_that_only_looks_runs_nothing() {
    let mut stage = Stage::demo(100, 24);
    stage.state.options.run.read_only = true;
    for keys in ["x", ".", ":run<space>uptime<enter>", "cX", "<enter>x", "r", "P", "B"] {
        stage.keys(keys);
        assert_eq!(stage.state.modal, None, "{keys}");
        assert!(stage.screen().contains("this console only looks"), "{keys}: {}", stage.screen());
        stage.state.status = None;
    }
    let is_a_look = |ask: &Ask| matches!(ask, Ask::Watch { .. } | Ask::Unwatch { .. } | Ask::Look(_));
    assert!(stage.asks.iter().all(is_a_look), "{:?}", stage.asks);
}

#[test]
fn an_earlier_text_is_found_by_its_words() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("x<c-r>nginx<space>RESTART");
    let found = prompt(&stage).search.as_ref().map(|search| search.found.clone());
    assert_eq!(found, Some(vec!["systemctl restart nginx".to_owned()]));
    assert!(stage.screen().contains("/ nginx RESTART"), "{}", stage.screen());
    stage.keys("<enter>");
    assert_eq!(prompt(&stage).command.text(), "systemctl restart nginx");
    stage.keys("<c-r>nothing<space>like<space>it");
    assert!(stage.screen().contains("no text has these words in it"), "{}", stage.screen());
    stage.keys("<esc>");
    assert_eq!(prompt(&stage).command.text(), "systemctl restart nginx", "what was written is left");
    stage.keys("<enter>");
    assert_eq!(run_of(stage.asks.last()), ("demo-1", "systemctl restart nginx"));
}

#[test]
fn the_machines_that_are_meant_are_listed() {
    let mut stage = Stage::demo(100, 24);
    stage.keys("axuptime<c-t>");
    let screen = stage.screen();
    assert!(screen.contains("demo-3  heard 5m ago"), "{screen}");
    stage.keys("<esc>");
    assert!(matches!(stage.state.modal, Some(Modal::Prompt(_))), "out by one layer");
    stage.keys("<tab><tab><tab><right><tab><left>");
    let (timeout_ms, wait_ms) = (prompt(&stage).timeout_ms, prompt(&stage).wait_ms);
    assert_eq!((timeout_ms, wait_ms), (300_000, 6 * 3_600_000));
}
