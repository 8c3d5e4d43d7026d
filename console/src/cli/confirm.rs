//! The question before a command runs: on how many machines?
//!
//! When it is asked, [`crate::question`] says. A text that a bridge told is shown whole before it is signed, and asked about on
//! however few machines.

use std::io::{IsTerminal as _, Write as _};

use signalbox_schemas::{
    api::{Liveness, Target},
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
    question::{Reason, Rule},
};

/// Longest command and list of names in the question.
const SHOWN: usize = 120;
/// Longest list of names above a text that is shown whole; what has no room is counted.
const WHOLE: usize = limit::SELECTOR_BYTES;
/// Longest answer that is read.
const ANSWER: usize = 64;

/// When the number of machines is asked for, and what was said about it beforehand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// `--confirm`: the answer, given beforehand.
    given: Option<usize>,
    rule: Rule,
    ellipsis: char,
}

/// What is to be done about a number of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: it runs.
    Nothing,
    /// The number is to be typed; where nobody can, it does not run unless it may pass.
    Ask(Reason),
    /// Another number was given beforehand.
    Another,
}

impl Question {
    /// As it is configured. `saved`: the saved command wants it asked.
    pub fn of(config: &Config, sure: &Sure, saved: bool) -> Self {
        let rule = config.rule();
        let rule = if saved { rule.of_saved() } else { rule };
        let above = match (sure.yes, sure.ask_above) {
            (true, _) => usize::MAX,
            (false, Some(above)) => above as usize,
            (false, None) => rule.above,
        };
        Self { given: sure.confirm, rule: Rule { above, ..rule }, ellipsis: config.environment.ellipsis() }
    }

    /// The same for a text that a bridge told: it is shown whole, and asked about on however few machines unless one is sure.
    #[must_use]
    pub fn of_told(config: &Config, sure: &Sure) -> Self {
        let question = Self::of(config, sure, false);
        Self { rule: Rule { is_told: true, ..question.rule }, ..question }
    }

    /// What is to be done; `protected`: how many of the machines are. Pure.
    pub fn demand(&self, machines: usize, protected: usize) -> Demand {
        match (self.given, self.rule.reason(machines, protected)) {
            (Some(given), _) if given != machines => Demand::Another,
            (Some(_), _) | (None, None) => Demand::Nothing,
            // Whoever says that he is sure means the text, too.
            (None, Some(Reason::Told)) if self.rule.above == usize::MAX => Demand::Nothing,
            (None, Some(reason)) => Demand::Ask(reason),
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
        if self.rule.is_told {
            super::say(&whole(targets, draft));
        }
        let protected = self.protected_of(client, targets).await.map_err(|error| plan.failed(&error))?;
        let machines = targets.len();
        let why = match self.demand(machines, protected) {
            Demand::Nothing => return Ok(()),
            Demand::Another => {
                let line = format!(
                    "cannot {}: it would run on {machines} machines, and --confirm says {}",
                    plan.what,
                    self.given.unwrap_or_default()
                );
                return Err(Failure::new(exit::NOT_ACCEPTED, line));
            }
            Demand::Ask(why) => why,
        };
        if !std::io::stdin().is_terminal() || !is_seen {
            let line = format!(
                "cannot {}: {why}, and there is no terminal to ask on; say how many machines are meant with --confirm {machines}",
                plan.what
            );
            return if why.may_pass() { Ok(()) } else { Err(Failure::new(exit::USAGE, line)) };
        }
        if !self.rule.is_told {
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
        if self.given.is_some() || self.rule.always.is_some() {
            return Ok(0);
        }
        client.protected(&self.rule.protected, targets).await
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
        let rule = Rule { above: 50, is_told: true, ..Rule::default() };
        let told = Question { rule: rule.clone(), ..Question::default() };
        assert_eq!(told.demand(1, 0), Demand::Ask(Reason::Told));
        let sure = Question { rule: Rule { above: usize::MAX, ..rule }, ..told.clone() };
        assert_eq!(sure.demand(9, 0), Demand::Nothing);
        assert_eq!(sure.demand(1, 1), Demand::Ask(Reason::Protected(1)));
        assert_eq!(Question { given: Some(1), ..told.clone() }.demand(1, 0), Demand::Nothing);
        assert_eq!(Question { given: Some(1), ..told }.demand(2, 0), Demand::Another);
    }

    #[test]
    fn the_number_is_asked_for_where_it_should_be() {
        let rule = Rule { above: 50, protected: "p".to_owned(), ..Rule::default() };
        let question = Question { rule, ..Question::default() };
        assert_eq!(question.demand(50, 0), Demand::Nothing);
        let asked = |question: &Question, machines, protected| match question.demand(machines, protected) {
            Demand::Ask(why) => (why.to_string(), why.may_pass()),
            other => panic!("{other:?}"),
        };
        assert!(asked(&question, 51, 0).1, "a script that meant it goes on");
        assert!(!asked(&question, 2, 1).1);
        let always = Rule { always: Some("so it is".to_owned()), ..question.rule.clone() };
        let always = Question { rule: always, ..question };
        assert_eq!(asked(&always, 1, 0), ("so it is".to_owned(), false));
        let given = |n| Question { given: Some(n), ..always.clone() };
        assert_eq!(given(3).demand(3, 3), Demand::Nothing);
        assert_eq!(given(3).demand(4, 0), Demand::Another);
    }
}
