use std::os::unix::fs::PermissionsExt as _;

use signalbox_schemas::run::RunState;

use super::*;
use crate::{
    client::{LinkView, Stretch, Told},
    tui::keymap::key,
    tui::stage::{NOW, demo_machine, heartbeat, options, summary},
};

/// Writes down what a stage is put through.
fn recorded(path: &Path, keys: &str) -> State {
    let options = options();
    let mut state = State::new(options.clone(), (80, 24), NOW);
    let beginning = Beginning::new(&options, &Keys::default(), (80, 24), NOW);
    let mut recorder = Recorder::begin(path, beginning).unwrap();
    let mut happen = |state: &mut State, event: Event| {
        recorder.take(NOW, &event).unwrap();
        update(state, NOW, event);
        state.settle();
        recorder.frame().unwrap();
    };
    for told in [
        Told::Link(LinkView { connected: true, bridge: None, rtt_ms: Some(0.4) }),
        Told::Machines(Stretch::whole((1..=3).map(demo_machine).collect())),
    ] {
        happen(&mut state, Event::Told(Box::new(told)));
    }
    happen(&mut state, Event::Told(Box::new(heartbeat(2, NOW.ms, 71.0))));
    let told = summary(7, "echo \u{1b}[31mred", &[(RunState::Executing, 2)]);
    happen(&mut state, Event::Told(Box::new(Told::Command(told))));
    for key in key::parse(keys).unwrap() {
        happen(&mut state, Event::Key(key));
    }
    happen(&mut state, Event::Paste("pasted".to_owned()));
    happen(&mut state, Event::Resize(70, 20));
    state.size = (70, 20);
    happen(&mut state, Event::Tick);
    recorder.end(&mut state).unwrap();
    state
}

#[test]
fn what_was_written_down_happens_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bug.jsonl");
    let mut state = recorded(&path, "j<space>xuptime<tab>");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let replayed = replay(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(replayed.screen, drawn(&mut state));
    assert_eq!(replayed.named.as_ref(), Some(&replayed.screen));
    assert!(replayed.screen.iter().any(|line| line.contains("run on demo-2")), "{:#?}", replayed.screen);
    let beginning = Beginning::new(&options(), &Keys::default(), (80, 24), NOW);
    assert!(Recorder::begin(&path, beginning).is_err(), "never over another file");
}

#[test]
fn what_is_no_recording_is_said() {
    assert!(matches!(replay(""), Err(ReplayError::Headless)));
    assert!(matches!(replay("{\"full\":1}"), Err(ReplayError::Line(1, _))));
    assert!(matches!(replay("\"full\""), Err(ReplayError::Headless)));
}

#[test]
fn a_full_file_says_so_and_grows_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.jsonl");
    let beginning = Beginning::new(&options(), &Keys::default(), (80, 24), NOW);
    let mut recorder = Recorder::begin(&path, beginning).unwrap();
    recorder.left = 200;
    for _ in 0..100 {
        recorder.take(NOW, &Event::Tick).unwrap();
    }
    let mut state = State::new(options(), (80, 24), NOW);
    recorder.end(&mut state).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().last(), Some("\"full\""));
    assert!(text.lines().count() < 8 && replay(&text).unwrap().named.is_none());
}

/// Each bug that was recorded: the screen is the one that its file names.
#[test]
fn recordings_end_as_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let replayed = replay(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let named = replayed.named.unwrap_or_else(|| panic!("{} names no screen", path.display()));
        assert_eq!(replayed.screen.join("\n"), named.join("\n"), "{}", path.display());
    }
}
