//! Stories of the machines: who is seen, in which order, and who is marked.

use std::time::Instant;

use rstest::rstest;
use signalbox_schemas::api::{Liveness, MachineView};

use super::{order, run_of, token};
use crate::client::{Ask, Stretch, Told};
use crate::tui::{
    lists::ListKind,
    stage::{NOW, NOW_MS, Stage, demo_machine, found, heartbeat, machine_id, options},
    state::{State, fleet::Column},
};

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
fn a_machine_that_is_not_known_yet_is_asked_for_once() {
    let mut stage = Stage::demo(80, 24);
    stage.wait(3_000);
    (0..5).for_each(|_| stage.tell(heartbeat(9, NOW_MS, 1.0)));
    assert_eq!(stage.asks, [Ask::Refresh]);
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
