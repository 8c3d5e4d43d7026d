use rstest::rstest;

use super::*;
use crate::tui::stage::{NOW_MS, Stage, command_id, machine_id};

#[rstest]
#[case("machines", Order::Go(Screen::Machines, None))]
#[case("m", Order::Go(Screen::Machines, None))]
#[case("machines  cpu>80 and os=debian ", Order::Go(Screen::Machines, Some("cpu>80 and os=debian".into())))]
#[case("audit refused", Order::Go(Screen::List(ListKind::Audit), Some("refused".into())))]
#[case("machine demo-2", Order::Go(Screen::Machine(machine_id(2).token()), None))]
#[case("run uptime -p", Order::Run("uptime -p".into()))]
#[case("filter", Order::Filter(String::new()))]
#[case("sort -cpu", Order::Sort("cpu".into(), true))]
#[case("columns cpu,mem relay", Order::Columns(vec!["cpu".into(), "mem".into(), "relay".into()]))]
#[case("theme light", Order::Theme(Tone::Light))]
#[case("at now", Order::At(None))]
#[case("at -2h", Order::At(Some(NOW_MS - 7_200_000)))]
#[case("at 14:00", Order::At(Some(NOW_MS - 127_000)))]
#[case("at 14:05", Order::At(Some(NOW_MS - 127_000 + 300_000 - 86_400_000)))]
#[case("q", Order::Act(Action::Quit))]
#[case("mark-others", Order::Act(Action::InvertMarks))]
fn a_line_is_understood(#[case] line: &str, #[case] expected: Order) {
    let stage = Stage::demo(80, 24);
    assert_eq!(understand(&stage.state, line), Ok(expected));
}

#[rstest]
#[case("fly", "`fly` is nothing that can be done here; tab completes, ? shows the keys")]
#[case("machine demo-9", "there is no machine `demo-9`")]
#[case("machine", "which machine?")]
#[case("command xyz", "there is no command `xyz`")]
#[case("quit now", "nothing follows `quit`")]
#[case("at", "write a time of day in UTC such as 14:05, how long ago such as -2h, or now")]
#[case("at noon", "write a time of day in UTC such as 14:05, how long ago such as -2h, or now")]
#[case("theme pink", "there is no theme `pink`; there are auto, dark, light, 16, mono")]
fn what_is_not_understood_says_what_to_write(#[case] line: &str, #[case] expected: &str) {
    let stage = Stage::demo(80, 24);
    assert_eq!(understand(&stage.state, line), Err(expected.to_owned()));
}

fn lines(stage: &Stage, line: &str) -> Vec<String> {
    offers(&stage.state, line).into_iter().map(|offer| offer.line).collect()
}

#[test]
fn words_are_found_by_some_of_their_letters() {
    let stage = Stage::demo(80, 24);
    assert_eq!(lines(&stage, "crd")[0], "credentials");
    assert_eq!(lines(&stage, "mach")[..2], ["machine", "machines"]);
    assert_eq!(lines(&stage, "shrd")[0], "shared-credentials");
    assert!(lines(&stage, "zzz").is_empty());
    assert_eq!(lines(&stage, "")[..2], ["pulse", "machines"]);
}

#[test]
fn what_follows_a_word_is_offered_too() {
    let stage = Stage::demo(80, 24);
    assert_eq!(lines(&stage, "machine "), ["machine demo-1", "machine demo-2", "machine demo-3"]);
    assert_eq!(lines(&stage, "machine 2"), ["machine demo-2"]);
    assert_eq!(lines(&stage, "theme li"), ["theme light"]);
    assert_eq!(lines(&stage, "columns cpu,me")[0], "columns cpu,mem");
    let newest = offers(&stage.state, "command ").remove(0);
    assert_eq!(
        (newest.line, newest.about),
        (format!("command {}", command_id(2)), "systemctl restart nginx".into())
    );
}

#[test]
fn an_offer_shows_the_key_that_does_the_same() {
    let stage = Stage::demo(80, 24);
    let key =
        |line: &str| offers(&stage.state, line).into_iter().find(|o| o.line == line).and_then(|o| o.key);
    assert_eq!(key("commands").as_deref(), Some("c"));
    assert_eq!(key("audit").as_deref(), Some("w"));
    assert_eq!(key("mark-others").as_deref(), Some("*"));
    assert_eq!(key("theme"), None);
}

#[test]
fn every_offer_is_understood() {
    for screen in [Screen::Machines, Screen::Commands, Screen::List(ListKind::Audit)] {
        let mut stage = Stage::demo(80, 24);
        stage.state.screen = screen;
        for offer in offers(&stage.state, "") {
            let more = ["machine", "command", "sort", "theme", "at"].contains(&offer.line.as_str());
            assert!(more || understand(&stage.state, &offer.line).is_ok(), "{}", offer.line);
        }
    }
}
