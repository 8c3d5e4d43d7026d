//! The question before a command runs: on how many machines?
//!
//! It guards against slips, not against a bridge: which machines a selector means is a bridge's word here as everywhere. A text
//! that a bridge told, too, is shown whole before it is signed, and asked about on however few machines.

use std::{
    collections::BTreeSet,
    io::{IsTerminal as _, Write as _},
};

use signalbox_schemas::{
    api::{Liveness, Target},
    error::ErrorCode,
    limit,
    selector::fold_names_to,
};

use super::{
    clean,
    exit::{self, Failure},
    follow::Manner,
    run::Plan,
    table::shorten,
};
use crate::{
    args::rollout::Sure,
    client::{Client, ClientError, sign::Draft},
    config::Config,
};

/// Longest command and list of names in the question.
const SHOWN: usize = 120;
/// Longest list of names above a text that is shown whole; what has no room is counted.
const WHOLE: usize = limit::SELECTOR_BYTES;
/// Longest answer that is read.
const ANSWER: usize = 64;

/// When the number of machines is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// `--confirm`: the answer, given beforehand.
    given: Option<usize>,
    above: usize,
    /// A selector; empty: none.
    protected: String,
    /// Why it is asked whatever machines it is, if it is.
    always: Option<String>,
    /// Whether a bridge told the text: it is shown whole, and asked about on however few machines.
    is_told: bool,
    yes: bool,
    ellipsis: char,
}

/// What is to be done about a number of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: it runs.
    Nothing,
    /// The number is to be typed; where nobody can, it does not run unless `may_pass`.
    Ask {
        /// The reason, a clause.
        why: String,
        /// Whether it runs where there is nobody to ask.
        may_pass: bool,
    },
    /// Another number was given beforehand.
    Another,
}

impl Question {
    /// As it is configured. `saved`: the saved command wants it asked.
    pub fn of(config: &Config, sure: &Sure, saved: bool) -> Self {
        let context = config.context.as_ref().filter(|chosen| chosen.context.protected);
        let context = context.map(|chosen| format!("the context {} is protected", chosen.name));
        Self {
            given: sure.confirm,
            above: match (sure.yes, sure.ask_above) {
                (true, _) => usize::MAX,
                (false, Some(above)) => above as usize,
                (false, None) => config.settings.run.confirm_above as usize,
            },
            protected: config.settings.run.protected.clone(),
            always: context.or_else(|| saved.then(|| "the saved command asks for it".to_owned())),
            is_told: false,
            yes: sure.yes,
            ellipsis: config.environment.ellipsis(),
        }
    }

    /// The same for a text that a bridge told.
    #[must_use]
    pub fn of_told(config: &Config, sure: &Sure) -> Self {
        Self { is_told: true, ..Self::of(config, sure, false) }
    }

    /// What is to be done; `protected`: how many of the machines are. Pure.
    pub fn demand(&self, machines: usize, protected: usize) -> Demand {
        let ask = |why: String, may_pass| Demand::Ask { why, may_pass };
        match (self.given, &self.always) {
            (Some(given), _) if given != machines => Demand::Another,
            (None, Some(why)) => ask(why.clone(), false),
            (None, None) if protected > 0 => {
                ask(format!("{protected} of them are meant by run.protected"), false)
            }
            (None, None) if self.is_told && !self.yes => {
                ask("a bridge says that this is its text".to_owned(), true)
            }
            (None, None) if machines > self.above => ask(format!("they are more than {}", self.above), true),
            (Some(_), _) | (None, None) => Demand::Nothing,
        }
    }

    /// Asks, if it is to be asked; returns where the command may run.
    pub(super) async fn settle(
        &self,
        client: &Client,
        targets: &[Target],
        draft: &Draft,
        plan: &Plan,
    ) -> Result<(), Failure> {
        let is_seen = std::io::stderr().is_terminal();
        if is_seen && plan.manner != Manner::Json && targets.len() > 1 {
            super::say(&told(targets));
        }
        if self.is_told {
            super::say(&whole(targets, draft));
        }
        let protected = self.protected_of(client, targets).await.map_err(|error| plan.failed(&error))?;
        let machines = targets.len();
        let (why, may_pass) = match self.demand(machines, protected) {
            Demand::Nothing => return Ok(()),
            Demand::Another => {
                let line = format!(
                    "cannot {}: it would run on {machines} machines, and --confirm says {}",
                    plan.what,
                    self.given.unwrap_or_default()
                );
                return Err(Failure::new(exit::NOT_ACCEPTED, line));
            }
            Demand::Ask { why, may_pass } => (why, may_pass),
        };
        if !std::io::stdin().is_terminal() || !is_seen {
            let line = format!(
                "cannot {}: {why}, and there is no terminal to ask on; say how many machines are meant with --confirm {machines}",
                plan.what
            );
            return if may_pass { Ok(()) } else { Err(Failure::new(exit::USAGE, line)) };
        }
        if !self.is_told {
            let names = fold_names_to(targets.iter().map(|target| target.token.as_str()), SHOWN);
            super::say(&format!(
                "on {machines} machines ({}): {}",
                shorten(&names, SHOWN, self.ellipsis),
                shorten(&clean::line(&draft.command), SHOWN, self.ellipsis)
            ));
        }
        // There is no third place to ask at.
        let _ = write!(std::io::stderr(), "{why}; type {machines} to run it: ");
        let answer = tokio::task::spawn_blocking(read_line).await;
        let answer = answer.map_err(|error| Failure::system(&plan.what, &error))?;
        if answer.trim() == machines.to_string() {
            return Ok(());
        }
        Err(Failure::new(exit::NOT_ACCEPTED, "another answer; nothing was submitted"))
    }

    /// How many of the machines are protected.
    async fn protected_of(&self, client: &Client, targets: &[Target]) -> Result<usize, ClientError> {
        if self.protected.is_empty() || self.given.is_some() || self.always.is_some() {
            return Ok(0);
        }
        let protected = match client.preview(&self.protected).await {
            Ok(protected) => protected,
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::NoTargets => return Ok(0),
            Err(error) => return Err(error),
        };
        let protected: BTreeSet<_> = protected.into_iter().map(|target| target.token).collect();
        Ok(targets.iter().filter(|target| protected.contains(&target.token)).count())
    }
}

/// All of what is signed for, and where: each line of the text behind a mark, so that none of them passes for one of ours.
fn whole(targets: &[Target], draft: &Draft) -> String {
    let names: Vec<String> = targets.iter().map(|target| clean::line(target.id.as_str())).collect();
    let names = fold_names_to(names.iter().map(String::as_str), WHOLE);
    let machines = if targets.len() == 1 { "machine" } else { "machines" };
    let host = draft.ssh.as_ref().map(|ssh| format!("on {} via ", clean::line(&ssh.to_string())));
    let mut out = format!("{}on {} {machines} ({names}):", host.unwrap_or_default(), targets.len());
    for line in draft.command.split('\n') {
        out.push_str("\n  | ");
        out.push_str(&clean::line(line));
    }
    out
}

/// `120 machines: 100 online, 5 stale, 15 offline`.
fn told(targets: &[Target]) -> String {
    let of = |state| targets.iter().filter(|target| target.state == state).count();
    let states =
        [Liveness::Online, Liveness::Stale, Liveness::Offline].map(|state| (of(state), state.as_str()));
    let known = states.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = known.map(|(count, state)| format!("{count} {state}")).collect();
    let machines = if targets.len() == 1 { "machine" } else { "machines" };
    format!("{} {machines}: {}", targets.len(), parts.join(", "))
}

/// A line, as far as it is of interest.
fn read_line() -> String {
    use std::io::{BufRead as _, Read as _};
    let mut line = String::new();
    // What cannot be read is no answer.
    let _ = std::io::stdin().lock().take(ANSWER as u64).read_line(&mut line);
    line
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::id::MachineId;

    use super::*;

    #[test]
    fn machines_are_told_by_whether_they_were_heard() {
        let target = |n: u32, state| {
            let id = MachineId::new(format!("m-{n}")).unwrap();
            Target { token: id.token(), id, state }
        };
        let all = [target(1, Liveness::Offline), target(2, Liveness::Online), target(3, Liveness::Online)];
        assert_eq!(told(&all), "3 machines: 2 online, 1 offline");
        assert_eq!(told(&all[..1]), "1 machine: 1 offline");
    }

    #[test]
    fn what_a_bridge_told_is_asked_about_on_however_few_machines() {
        let told = Question { above: 50, is_told: true, ..Question::default() };
        assert!(matches!(told.demand(1, 0), Demand::Ask { may_pass: true, .. }));
        assert_eq!(Question { yes: true, above: usize::MAX, ..told.clone() }.demand(9, 0), Demand::Nothing);
        let protected = Question { yes: true, protected: "p".to_owned(), ..told.clone() };
        assert!(matches!(protected.demand(1, 1), Demand::Ask { may_pass: false, .. }));
        assert_eq!(Question { given: Some(1), ..told.clone() }.demand(1, 0), Demand::Nothing);
        assert_eq!(Question { given: Some(1), ..told }.demand(2, 0), Demand::Another);
    }

    #[test]
    fn the_number_is_asked_for_where_it_should_be() {
        let question = Question { above: 50, protected: "p".to_owned(), ..Question::default() };
        assert_eq!(question.demand(50, 0), Demand::Nothing);
        let asked = |question: &Question, machines, protected| match question.demand(machines, protected) {
            Demand::Ask { why, may_pass } => (why, may_pass),
            other => panic!("{other:?}"),
        };
        assert!(asked(&question, 51, 0).1, "a script that meant it goes on");
        assert!(!asked(&question, 2, 1).1);
        let always = Question { always: Some("so it is".to_owned()), ..question.clone() };
        assert_eq!(asked(&always, 1, 0), ("so it is".to_owned(), false));
        let given = |n| Question { given: Some(n), ..always.clone() };
        assert_eq!(given(3).demand(3, 3), Demand::Nothing);
        assert_eq!(given(3).demand(4, 0), Demand::Another);
    }
}
