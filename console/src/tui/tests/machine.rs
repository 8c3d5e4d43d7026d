//! Stories of the page of one machine.

use signalbox_schemas::{
    error::{ErrorCode, Problem},
    run::RunState,
};

use super::token;
use crate::{
    client::{Ask, Told, machine::Tab},
    tui::{
        lists::ListKind,
        stage::{NOW_MS, Stage, command_id, heartbeat, machine},
        state::{Modal, Screen},
    },
};

fn look(n: u32, tab: Tab) -> Ask {
    Ask::LookAt { machine: token(n), tab }
}

fn asked(stage: &mut Stage) -> Vec<Ask> {
    std::mem::take(&mut stage.asks)
}

fn spans(asks: &[Ask]) -> Vec<u64> {
    let minutes = asks.iter().filter_map(|ask| match ask {
        Ask::Over { time, .. } => Some((time.to - time.from) / 60_000),
        _ => None,
    });
    minutes.collect()
}

#[test]
fn every_tab_is_read_when_it_is_looked_at_and_then_again() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>");
    let asks = asked(&mut stage);
    assert_eq!(asks.first(), Some(&look(1, Tab::Commands)));
    assert_eq!(spans(&asks), [10]);
    stage.tell(machine::told(1, Tab::Commands));
    assert!(stage.screen().contains("systemctl restart nginx"));
    stage.keys("6");
    assert_eq!(asked(&mut stage), [look(1, Tab::Events)]);
    assert!(stage.screen().contains("[6 events]"));
    stage.tell(machine::told(1, Tab::Events));
    stage.wait(5_000);
    assert_eq!(asked(&mut stage), [look(1, Tab::Events)], "it is read anew while it is on the screen");
    stage.tell(machine::told(1, Tab::Events));
    stage.keys("<tab><tab><s-tab>5");
    assert!(stage.screen().contains("relays do not tell them"), "what is not known is said");
    assert_eq!(asked(&mut stage), [look(1, Tab::Audit)], "facts are here, and one question is under way");
    stage.keys("m");
    stage.wait(10_000);
    assert!(!stage.asks.iter().any(|ask| matches!(ask, Ask::LookAt { .. })), "nobody looks at it");
}

#[test]
fn who_leafs_through_machines_asks_one_question_at_a_time() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>JJK");
    assert_eq!(stage.state.screen, Screen::Machine(token(2)));
    let asks = asked(&mut stage);
    assert_eq!(asks.len(), 2, "rows and figures of the first: {asks:?}");
    stage.tell(machine::told(1, Tab::Commands));
    assert_eq!(asked(&mut stage), [look(2, Tab::Commands)], "the page that is open is asked for next");
    assert!(!stage.screen().contains("systemctl"), "what is told of another machine is not shown");
    stage.tell(machine::series(1, &stage, 10));
    assert_eq!(spans(&asked(&mut stage)), [10]);
    stage.tell(machine::told(2, Tab::Commands));
    assert!(stage.screen().contains("systemctl") && stage.asks.is_empty());
}

#[test]
fn a_row_leads_to_its_command_and_what_waits_is_cancelled_after_a_question() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>2");
    stage.tell(machine::told(1, Tab::Commands));
    stage.tell(machine::told(1, Tab::Inbox));
    let screen = stage.screen();
    let place = |text: &str| screen.find(text).unwrap_or_else(|| panic!("{text} is not on {screen}"));
    assert!(place("apt-get") < place("reboot") && place("reboot") < place("held"), "in their order");
    assert!(screen.contains("in 23h"), "the time that is left is said");
    stage.keys("jX");
    assert!(matches!(&stage.state.modal, Some(Modal::Confirm(confirm)) if confirm.id == command_id(4)));
    stage.keys("<enter>");
    assert!(!stage.asks.iter().any(|ask| matches!(ask, Ask::Cancel { .. })), "the safe answer is no");
    stage.keys("X<tab><enter>");
    assert!(matches!(stage.asks.last(), Some(Ask::Cancel { id, .. }) if *id == command_id(4)));
    stage.keys("<enter>");
    assert_eq!(stage.state.screen, Screen::Command(command_id(4)), "it is older than those that are told of");
    stage.keys("<esc>5X");
    assert!(stage.state.modal.is_none() && stage.screen().contains("this row is no command"));
}

#[test]
fn rows_are_filtered_sorted_and_opened_as_in_other_lists() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>5/disk<enter>");
    assert_eq!(stage.state.rows(ListKind::Of(Tab::Facts)).unwrap().order().len(), 2);
    assert!(stage.screen().contains("/disk 2 of"));
    stage.keys("<enter>");
    assert!(stage.screen().contains("demo-1 ▸ facts"), "{}", stage.screen());
    stage.keys(":run<enter>");
    assert!(stage.screen().contains("run on demo-1"), "a fact is of its machine");
    stage.keys("<esc><esc><esc><esc>");
    assert_eq!(stage.state.screen, Screen::Machines);
}

#[test]
fn charts_show_a_longer_time_and_fill_the_page() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("<enter>");
    stage.tell(machine::series(1, &stage, 10));
    asked(&mut stage);
    stage.keys("-");
    assert_eq!(spans(&asked(&mut stage)), [60]);
    stage.keys("---");
    assert_eq!(spans(&asked(&mut stage)), [0; 0], "one question at a time");
    stage.tell(machine::series(1, &stage, 60));
    assert_eq!(spans(&asked(&mut stage)), [7 * 24 * 60], "the one that is looked at is asked for");
    stage.tell(machine::series(1, &stage, 7 * 24 * 60));
    stage.keys("+++");
    assert_eq!(spans(&asked(&mut stage)), [24 * 60], "what was passed by was not told yet; the hour is here");
    stage.tell(machine::series(1, &stage, 24 * 60));
    assert_eq!(spans(&asked(&mut stage)), [0; 0]);
    let screen = stage.screen();
    assert!(screen.contains("1 h") && screen.contains("13:02") && screen.contains("14:02"), "{screen}");
    stage.wait(61_000);
    assert_eq!(spans(&asked(&mut stage)), [60], "a minute later there is more to tell");
    stage.keys("z");
    assert!(!stage.screen().contains("reading"), "charts fill the page");
    stage.keys("<esc>");
    assert_eq!(stage.state.screen, Screen::Machine(token(1)), "out by one layer");
    assert!(stage.screen().contains("reading"));
}

#[test]
fn a_machine_that_is_silent_leaves_a_gap() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>");
    stage.tell(machine::told(1, Tab::Commands));
    let spark = |stage: &mut Stage| {
        let screen = stage.screen();
        let line = screen.lines().find(|line| line.contains("cpu")).unwrap();
        line.chars().skip(11).take(8).collect::<String>()
    };
    assert!(!spark(&mut stage).contains(' '));
    stage.wait(240_000);
    let at_ms = stage.now.ms;
    stage.tell(heartbeat(1, at_ms, 50.0));
    let line = spark(&mut stage);
    assert!(line.contains("  ") && !line.ends_with(' '), "{line:?}");
}

#[test]
fn what_cannot_be_read_is_said_and_asked_for_again() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>");
    let problem = Problem::new(ErrorCode::NotCaughtUp, "the bridge\nreads");
    stage.tell(Told::Part { machine: token(1), tab: Tab::Commands, part: Err(problem) });
    assert!(stage.screen().contains("cannot read it: the bridge reads"));
    asked(&mut stage);
    stage.wait(5_000);
    assert_eq!(asked(&mut stage), [look(1, Tab::Commands)]);
}

#[test]
fn what_ran_long_ago_is_opened_too() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("<enter>");
    stage.tell(machine::told(1, Tab::Commands));
    assert!(stage.state.commands.get(command_id(9)).is_none());
    stage.keys("<enter>");
    assert_eq!(stage.state.screen, Screen::Command(command_id(9)));
    assert_eq!(stage.asks.last(), Some(&Ask::Watch { id: command_id(9) }));
    assert_eq!(stage.state.commands.get(command_id(9)).unwrap().state(), RunState::Executing);
    assert!(stage.now.wall_ms >= NOW_MS);
}

#[test]
fn rows_that_are_not_all_there_is_say_so() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("<enter>7");
    stage.tell(machine::told(1, Tab::Commands));
    stage.tell(machine::told(1, Tab::Audit));
    let screen = stage.screen();
    assert!(screen.contains("of the newest 1000 entries") && !screen.contains("cancel"), "{screen}");
    stage.keys("1");
    let screen = stage.screen();
    assert!(!screen.contains("newest") && screen.contains("cancel"), "{screen}");
}

#[test]
fn a_list_that_nobody_read_to_its_end_says_so() {
    let mut stage = Stage::demo(120, 40);
    stage.keys("<enter>");
    for (is_cut, tab) in [(true, Tab::Commands), (false, Tab::Events), (true, Tab::Inbox)] {
        let mut told = machine::told(1, tab);
        let Told::Part { part: Ok(looked), .. } = &mut told else { panic!("no part") };
        looked.is_cut = is_cut;
        stage.tell(told);
    }
    assert!(stage.screen().contains("older ones may be missing"));
    stage.keys("2");
    assert!(stage.screen().contains("those that begin first may be missing"));
    stage.keys("6");
    assert!(!stage.screen().contains("may be missing"));
    // Read again, to the end; and another machine's is another list.
    stage.tell(machine::told(1, Tab::Commands));
    stage.keys("1");
    assert!(!stage.screen().contains("may be missing"));
    stage.keys("J2");
    assert!(!stage.screen().contains("may be missing"));
}

#[test]
fn neighbours_are_those_of_the_machine_that_is_shown() {
    let mut stage = Stage::demo(100, 30);
    stage.keys(":machine<space>demo-2<enter>J");
    assert_eq!(stage.state.screen, Screen::Machine(token(3)), "the list's cursor was on demo-1");
    stage.keys("KK");
    assert_eq!(stage.state.screen, Screen::Machine(token(1)));
}
