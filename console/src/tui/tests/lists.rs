//! Stories of the pulse and of lists.

use signalbox_schemas::{
    api::{Liveness, MachineView},
    error::{ErrorCode, Problem},
};

use super::token;
use crate::client::{Ask, Stretch, Told, look::Found};
use crate::tui::{
    lists::ListKind,
    stage::{Stage, demo_machine, found, health},
    state::Screen,
};

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
