//! Stories of the machines as they were.

use signalbox_schemas::error::{ErrorCode, Problem};

use super::{order, run_of, token};
use crate::{
    client::{Ask, Told},
    tui::{
        stage::{
            NOW_MS, Stage, heartbeat,
            past::{BEGINS_MS, then, then_at},
        },
        state::{Screen, past::MOMENTS},
    },
};

const MINUTE_MS: u64 = 60_000;

fn moments(stage: &Stage) -> Vec<u64> {
    let moments = stage.asks.iter().filter_map(|ask| match ask {
        Ask::FleetAt(at) => Some((NOW_MS - NOW_MS % MINUTE_MS - at) / MINUTE_MS),
        _ => None,
    });
    moments.collect()
}

#[test]
fn the_machines_as_they_were_are_told_apart_from_now() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("(");
    assert_eq!(moments(&stage), [60]);
    assert!(stage.screen().contains("still now, asking for 13:02Z"));
    stage.tell(then(&stage));
    let screen = stage.screen();
    let line = |name: &str| screen.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(screen.contains("as of 13:01Z, 60m ago · } later · esc now"), "{screen}");
    assert!(line("demo-1").contains("stale 40s") && line("demo-3").contains("91%"));
    assert!(line("demo-2").contains("not known"), "nothing is known of it then");
    assert!(line("demo-4").contains("0.0.9"), "it is no more, and was there");
    assert!(screen.contains("1 not known then") && screen.contains("history begins 11-16"));
    stage.tell(heartbeat(1, stage.now.ms, 3.0));
    assert!(stage.screen().contains("stale 40s"), "what is heard now changes nothing of it");
    stage.keys("<esc>");
    let screen = stage.screen();
    assert!(!screen.contains("as of") && !screen.contains("demo-4"), "{screen}");
}

#[test]
fn it_is_said_on_every_screen_of_them_also_without_a_header() {
    for (columns, rows) in [(40, 10), (80, 24), (200, 50)] {
        let mut stage = Stage::demo(columns, rows);
        stage.keys("{<c-e>");
        stage.tell(then(&stage));
        let screen = stage.screen();
        assert!(screen.contains("as of 14:00Z") && screen.contains("esc now"), "{screen}");
    }
}

#[test]
fn one_question_is_under_way_and_the_newest_moment_wins() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("{{{{}");
    assert_eq!(moments(&stage), [1]);
    stage.tell(then(&stage));
    assert_eq!(moments(&stage), [1, 3], "those in between are left out");
    assert!(stage.screen().contains("still now"), "what nobody wants is not shown");
    stage.tell(then(&stage));
    assert!(stage.screen().contains("as of 13:58Z"));
    stage.keys("}}");
    assert_eq!(moments(&stage), [1, 3, 2], "only what was told is here");
    stage.tell(then(&stage));
    stage.keys("{{");
    assert_eq!(moments(&stage), [1, 3, 2]);
    assert!(stage.screen().contains("asking") || stage.screen().contains("as of 13:58Z"));
}

#[test]
fn moments_are_kept_within_bounds_and_asked_for_again() {
    let mut stage = Stage::demo(80, 24);
    for _ in 0..=MOMENTS {
        stage.keys("{");
        stage.tell(then(&stage));
    }
    let asked = moments(&stage).len();
    stage.keys(&"}".repeat(MOMENTS - 1));
    assert_eq!(moments(&stage).len(), asked, "sixteen are kept");
    stage.keys("}");
    assert_eq!(moments(&stage).len(), asked + 1, "the first was forgotten");
}

#[test]
fn beyond_now_is_now_and_beyond_the_history_its_beginning_is_said() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("}");
    assert!(stage.screen().contains("this is now"));
    stage.keys("{");
    stage.tell(then(&stage));
    stage.keys("}");
    assert!(!stage.state.past.is_looked_at());
    stage.keys(":at<space>-500h<enter>");
    let screen = stage.screen();
    assert!(screen.contains("the history begins 2026-11-16 14:02:07Z, 6d ago"), "{screen}");
    let first = BEGINS_MS.next_multiple_of(MINUTE_MS);
    assert_eq!(stage.asks.last(), Some(&Ask::FleetAt(first)));
    stage.tell(then_at(first));
    assert!(stage.screen().contains("as of 11-16 14:02Z"));
}

#[test]
fn a_history_that_has_not_begun_is_said_and_asked_for_once() {
    let mut stage = Stage::demo(80, 24);
    stage.keys(":at<space>-500h<enter>");
    // It says that it begins later, and then that it begins later still.
    for later in [1, 2, 3] {
        let at = crate::tui::stage::past::asked(&stage);
        let Told::Then { then: Ok(mut then), .. } = then_at(0) else { panic!("no answer") };
        then.kept.as_mut().unwrap().earliest = at + later * 3_600_000;
        stage.tell(Told::Then { at, then: Ok(then) });
    }
    assert_eq!(
        moments(&stage).len(),
        2,
        "a bridge that tells of another beginning each time is not followed"
    );
    assert!(!stage.state.past.is_looked_at() && stage.screen().contains("has not begun"));
}

#[test]
fn sorting_filtering_and_marks_go_along() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("j<space>(");
    stage.tell(then(&stage));
    assert_eq!(stage.state.sight().cursor.key(), Some(&token(3)), "the same row");
    assert!(stage.state.sight().is_marked(&token(2)), "the same marks");
    stage.keys("H/demo<enter>");
    assert_eq!(order(&stage).first(), Some(&token(3)), "sorted by how it was then");
    stage.keys("A<space>");
    stage.keys("<esc>");
    assert_eq!(stage.state.fleet.filter(), "demo");
    assert!(stage.state.fleet.is_marked(&token(3)) && !stage.state.fleet.is_marked(&token(2)));
}

#[test]
fn what_runs_from_an_earlier_moment_runs_now_and_where_there_is_a_machine_now() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("(");
    stage.tell(then(&stage));
    stage.keys("ax");
    let screen = stage.screen();
    assert!(screen.contains("on the machines as they are now, not as of 13:01Z"), "{screen}");
    stage.keys("uptime<enter>");
    let (on, _) = run_of(stage.asks.last());
    assert!(!on.contains("demo-4"), "it is no more: {on}");
    let Some(Ask::Run { draft, .. }) = stage.asks.last() else { panic!("nothing runs") };
    assert_eq!(draft.shown, [token(1), token(2), token(3)]);
}

#[test]
fn a_machine_is_opened_as_it_is_now_and_the_way_back_leads_to_then() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("(");
    stage.tell(then(&stage));
    stage.keys("jj<enter>");
    assert_eq!(stage.state.screen, Screen::Machine(token(3)));
    let screen = stage.screen();
    assert!(screen.contains("as it is now") && screen.contains("offline"), "{screen}");
    stage.keys("<esc>");
    assert!(stage.screen().contains("as of 13:01Z"));
}

#[test]
fn what_is_not_told_is_said_and_asked_for_again() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("(");
    let Some(Ask::FleetAt(at)) = stage.asks.last().cloned() else { panic!("nothing was asked") };
    stage.tell(Told::Then { at, then: Err(Problem::new(ErrorCode::NotCaughtUp, "it reads\nstill")) });
    let screen = stage.screen();
    assert!(screen.contains("still now, cannot show 13:02Z: it reads still"), "{screen}");
    assert_eq!(moments(&stage), [60]);
    stage.keys("<c-r>");
    assert_eq!(moments(&stage), [60, 60]);
}

#[test]
fn what_is_not_known_then_is_not_meant_and_comes_last() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("(");
    stage.tell(then(&stage));
    for column in ["S", "S", "H", "R", "R"] {
        stage.keys(column);
        assert_eq!(order(&stage).last(), Some(&token(2)), "{column}");
    }
    stage.keys("/state=offline<enter>");
    assert!(stage.state.sight().seen() == 0, "it may have been online");
}
