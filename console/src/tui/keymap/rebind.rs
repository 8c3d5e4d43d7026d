//! Keys of an operator's own.
//!
//! A key that is bound loses what it meant before in that mode. What has no key then is told, and where it is the way out
//! of what lies over the screen, it keeps the key.

use std::{collections::HashMap, fmt};

use super::{Action, Bound, Mode, key};
use crate::settings::near;

/// Stands for every screen that has what is bound.
pub(super) const EVERY_SCREEN: &str = "all";
/// In place of a name: the key means nothing.
const NOTHING: &str = "none";

/// One key, bound otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebinding {
    /// The mode by its name, or `all` for every screen.
    pub mode: String,
    /// The key as it is written.
    pub key: String,
    /// What it means, by its name; `none` = nothing.
    pub name: String,
}

/// Something cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyProblem {
    what: String,
    /// Place of the wish that it comes from; `None`: of a profile.
    pub of: Option<usize>,
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Changes what keys mean; answers what is wrong with the wishes.
pub(super) fn apply(modes: &mut [Vec<Bound>], own: &[Rebinding]) -> Vec<KeyProblem> {
    let mut problems = Vec::new();
    let mut seen: HashMap<(&str, &str), &str> = HashMap::new();
    let before: Vec<Vec<usize>> =
        modes.iter().map(|bounds| bounds.iter().map(|bound| bound.keys.len()).collect()).collect();
    for (at, wish) in own.iter().enumerate() {
        let place = (wish.mode.as_str(), wish.key.as_str());
        let told = match seen.insert(place, &wish.name) {
            Some(earlier) if earlier != wish.name => Err(format!(
                "{}: `{}` is bound twice, to `{earlier}` and to `{}`",
                wish.mode, wish.key, wish.name
            )),
            _ => bind(modes, wish),
        };
        problems.extend(told.err().map(|what| KeyProblem { what, of: Some(at) }));
    }
    problems.extend(orphans(modes, &before, own));
    problems
}

fn bind(modes: &mut [Vec<Bound>], wish: &Rebinding) -> Result<(), String> {
    let keys = key::parse(&wish.key).map_err(|error| format!("{}: {error}", wish.mode))?;
    let [key] = keys.as_slice() else {
        return Err(format!("{}: `{}` is not one key", wish.mode, wish.key));
    };
    let notation = key.to_string();
    let mut is_known = wish.name == NOTHING;
    let mut is_mode = false;
    for (mode, bounds) in Mode::ALL.into_iter().zip(modes.iter_mut()) {
        let is_every = wish.mode == EVERY_SCREEN && mode.is_screen();
        if !is_every && mode.name() != wish.mode {
            continue;
        }
        is_mode = true;
        if mode.writes() && key.character().is_some() {
            return Err(format!("{}: `{notation}` writes a letter there and cannot be bound", mode.name()));
        }
        let has = bounds.iter().any(|bound| bound.binding.name == wish.name);
        is_known |= has;
        if has || wish.name == NOTHING {
            release(bounds, &notation);
        }
        if let Some(bound) = bounds.iter_mut().find(|bound| bound.binding.name == wish.name) {
            bound.keys.insert(0, notation.clone());
        }
    }
    if !is_mode {
        let names = Mode::ALL.iter().map(|mode| mode.name());
        return Err(format!("there is no mode `{}`{}", wish.mode, near::advice(&wish.mode, names)));
    }
    if !is_known {
        let all = modes.iter().zip(Mode::ALL);
        let here = all.filter(|(_, mode)| wish.mode == EVERY_SCREEN || mode.name() == wish.mode);
        let names = here.flat_map(|(bounds, _)| bounds.iter().map(|bound| bound.binding.name));
        let advice = near::advice(&wish.name, names);
        return Err(format!("{}: nothing is called `{}` there{advice}", wish.mode, wish.name));
    }
    Ok(())
}

/// Takes a key away from whatever has it.
fn release(bounds: &mut [Bound], key: &str) {
    for bound in bounds {
        bound.keys.retain(|known| known != key);
    }
}

/// What had a key and has none any more.
fn orphans(modes: &mut [Vec<Bound>], before: &[Vec<usize>], own: &[Rebinding]) -> Vec<KeyProblem> {
    let mut problems = Vec::new();
    for ((mode, bounds), before) in Mode::ALL.into_iter().zip(modes.iter_mut()).zip(before) {
        let mut kept = None;
        for (bound, before) in bounds.iter_mut().zip(before) {
            if *before == 0 || !bound.keys.is_empty() {
                continue;
            }
            let (name, had) = (bound.binding.name, bound.binding.keys);
            let is_of = |wish: &Rebinding| {
                let is_here = wish.mode == mode.name() || (wish.mode == EVERY_SCREEN && mode.is_screen());
                is_here && had.contains(&wish.key.as_str())
            };
            let of = own.iter().position(is_of);
            let taken = of.and_then(|at| own.get(at)).filter(|wish| wish.name != NOTHING);
            let since = taken
                .map_or_else(String::new, |wish| format!(", since `{}` is `{}` now", wish.key, wish.name));
            let what = format!("{}: `{name}` has no key any more{since}", mode.name());
            problems.push(KeyProblem { what, of });
            // Who cannot leave what lies over the screen is caught.
            if !mode.is_screen() && bound.binding.action == Action::Back {
                kept = had.last().map(|key| (name, (*key).to_owned()));
            }
        }
        if let Some((name, key)) = kept {
            release(bounds, &key);
            let way_out = bounds.iter_mut().find(|bound| bound.binding.name == name);
            if let Some(bound) = way_out {
                bound.keys.push(key);
            }
        }
    }
    problems
}
