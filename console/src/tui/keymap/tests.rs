use std::collections::HashSet;

use rstest::rstest;

use super::*;

fn parsed(key: &str) -> Key {
    key::parse(key).unwrap()[0]
}

fn every_profile() -> impl Iterator<Item = Keymap> {
    Profile::ALL.into_iter().map(|profile| Keymap::new(profile, &[]).0)
}

#[test]
fn no_key_means_two_things_in_one_mode_and_no_name_either() {
    for keymap in every_profile() {
        for mode in Mode::ALL {
            let (mut keys, mut names) = (HashSet::new(), HashSet::new());
            for bound in keymap.bindings(mode) {
                assert!(
                    names.insert(bound.binding.name),
                    "{} is there twice in {mode:?}",
                    bound.binding.name
                );
                for key in &bound.keys {
                    assert!(keys.insert(key.clone()), "{key} is bound twice in {mode:?}");
                }
            }
        }
    }
}

#[test]
fn every_bound_key_can_be_pressed() {
    for keymap in every_profile() {
        for mode in Mode::ALL {
            for notation in keymap.bindings(mode).flat_map(|bound| &bound.keys) {
                let keys = key::parse(notation).unwrap();
                assert_eq!(keys.len(), 1, "{notation} is not one key");
                assert_eq!(keys[0].to_string(), *notation);
                assert!(keymap.action(mode, keys[0]).is_some());
            }
        }
    }
}

#[test]
fn one_gesture_means_the_same_everywhere() {
    let keymap = Keymap::default();
    for mode in Mode::ALL.into_iter().filter(|mode| mode.is_screen()) {
        let gestures =
            [("<esc>", Action::Back), ("?", Action::Help), (":", Action::Palette), ("y", Action::Copy)];
        for (key, expected) in gestures {
            assert_eq!(keymap.action(mode, parsed(key)), Some(expected), "{key} in {mode:?}");
        }
        let run = keymap.action(mode, parsed("x"));
        assert!(matches!(run, Some(Action::Run) | None), "x in {mode:?}");
    }
}

#[test]
fn nothing_dangerous_by_one_small_letter() {
    for keymap in every_profile() {
        for mode in Mode::ALL {
            let cancels = keymap.bindings(mode).filter(|bound| bound.binding.action == Action::Cancel);
            for key in cancels.flat_map(|bound| &bound.keys) {
                assert!(!key.chars().all(|c| c.is_ascii_lowercase()), "{key} cancels");
            }
        }
    }
}

fn own(mode: &str, key: &str, name: &str) -> Rebinding {
    Rebinding { mode: mode.to_owned(), key: key.to_owned(), name: name.to_owned() }
}

#[test]
fn a_key_of_ones_own_replaces_what_it_meant() {
    let own = [own("machines", "<c-x>", "run"), own("machines", "x", "mark-shown"), own("all", "q", "none")];
    let (keymap, problems) = Keymap::new(Profile::Default, &own);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(keymap.action(Mode::Machines, parsed("<c-x>")), Some(Action::Run));
    assert_eq!(keymap.action(Mode::Machines, parsed("x")), Some(Action::MarkSeen));
    assert_eq!(keymap.action(Mode::Command, parsed("x")), Some(Action::Run), "elsewhere nothing changed");
    for mode in Mode::ALL.into_iter().filter(|mode| mode.is_screen()) {
        assert_eq!(keymap.action(mode, parsed("q")), None);
        assert_eq!(keymap.action(mode, parsed("<c-c>")), Some(Action::Quit));
    }
    let shown = keymap.bindings(Mode::Machines).find(|bound| bound.binding.name == "run").unwrap();
    assert_eq!(shown.keys, ["<c-x>"], "what the footer shows is what counts");
}

#[rstest]
#[case(&[own("machine", "zz", "run")], "machine: `zz` is not one key")]
#[case(&[own("machine", "<nokey>", "run")], "machine: no key is written `<nokey>`")]
#[case(&[own("machines", "z", "fly")], "machines: nothing is called `fly` there")]
#[case(&[own("machines", "z", "opne")], r#"machines: nothing is called `opne` there; did you mean "open"?"#)]
#[case(&[own("mashines", "z", "run")], r#"there is no mode `mashines`; did you mean "machines" or "machine"?"#)]
#[case(
    &[own("machines", "z", "run"), own("machines", "z", "mark")],
    "machines: `z` is bound twice, to `run` and to `mark`"
)]
#[case(&[own("machines", "x", "mark-shown")], "machines: `run` has no key any more, since `x` is `mark-shown` now")]
#[case(&[own("prompt", "<esc>", "none"), own("prompt", "<c-c>", "none")], "prompt: `leave` has no key any more")]
#[case(&[own("prompt", "a", "run")], "prompt: `a` writes a letter there and cannot be bound")]
fn what_cannot_be_bound_is_told(#[case] own: &[Rebinding], #[case] expected: &str) {
    let (_, problems) = Keymap::new(Profile::Default, own);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, [expected]);
}

#[test]
fn a_way_out_stays_whatever_is_bound() {
    let own = [own("prompt", "<esc>", "run"), own("prompt", "<c-c>", "none")];
    let (keymap, problems) = Keymap::new(Profile::Default, &own);
    assert_eq!(problems.len(), 1);
    assert_eq!(keymap.action(Mode::Prompt, parsed("<c-c>")), Some(Action::Back));
}

#[test]
fn profiles_bring_what_their_hands_know() {
    let emacs = Keymap::new(Profile::Emacs, &[]).0;
    for (key, expected) in [
        ("<c-n>", Action::Step(1)),
        ("<c-p>", Action::Step(-1)),
        ("<c-v>", Action::Page(1)),
        ("<a-v>", Action::Page(-1)),
        ("<c-g>", Action::Back),
        ("<a-x>", Action::Palette),
        ("<c-s>", Action::Filter),
    ] {
        assert_eq!(emacs.action(Mode::Machines, parsed(key)), Some(expected), "{key}");
    }
    let vim = Keymap::new(Profile::Vim, &[]).0;
    assert_eq!(vim.action(Mode::Machines, parsed("V")), Some(Action::MarkRange));
}
