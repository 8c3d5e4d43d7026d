//! Stories of what stands around all of it: sizes, colours, keys, the way there and back.

use ratatui::{Terminal, backend::TestBackend, style::Color};
use signalbox_schemas::{
    api::MachineView,
    error::{ErrorCode, Problem},
    run::RunState,
};

use super::{order, token};
use crate::client::{Ask, LinkView, Stretch, Told};
use crate::tui::{
    effect::Effect,
    event::Event,
    lists::ListKind,
    scenes::scenes,
    stage::{NOW, NOW_MS, Stage, command_id, demo_machine, found, heartbeat, options, summary},
    state::{Modal, Screen, State},
    view::view,
};

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
