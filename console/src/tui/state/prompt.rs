//! A command that is being written: what, where, in which waves, and whether one is sure. Holds no clock and asks nobody.

use std::collections::BTreeMap;

use signalbox_schemas::{
    command::SshTarget,
    id::{CommandId, MachineToken},
    limit,
    rollout::Rollout,
    selector::Selector,
};

use super::{editor::Editor, survey::Survey};
use crate::{
    client::Draft,
    question::{Reason, Rule},
    settings::saved::SavedCommand,
};

/// Timeouts to choose from, ms.
pub const TIMEOUTS_MS: [u64; 6] = [10_000, 30_000, 300_000, 3_600_000, 6 * 3_600_000, 24 * 3_600_000];
/// How long it waits for machines that are offline, to choose from, ms.
pub const WAITS_MS: [u64; 7] =
    [60_000, 600_000, 3_600_000, 6 * 3_600_000, 24 * 3_600_000, 3 * 24 * 3_600_000, 7 * 24 * 3_600_000];

/// A line of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The text.
    Command,
    /// What stands for a placeholder of a saved command: its place.
    Parameter(usize),
    /// The selector.
    On,
    /// The waves.
    Waves,
    /// How long it may run.
    Timeout,
    /// How long it waits for machines that are offline.
    Wait,
    /// The number of machines, where that is asked for.
    Answer,
}

/// Where what is known of its machines comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// They are named one by one: marks, or a row.
    Named,
    /// From what this console knows: a bridge may know better.
    Guessed,
    /// A bridge is asked: the tag.
    Asked(u64),
    /// A bridge told them.
    Told {
        /// How many of them are protected.
        protected: usize,
    },
    /// A bridge could not tell.
    Failed(String),
}

/// An earlier text is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Words that are in it.
    pub editor: Editor,
    /// Texts with these words in them, the newest first.
    pub found: Vec<String>,
    /// The one that is chosen.
    pub chosen: usize,
}

/// A command that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text; of a saved command with its placeholders.
    pub command: Editor,
    /// The saved command that it is made of.
    pub saved: Option<SavedCommand>,
    /// What stands for its placeholders.
    pub parameters: Vec<(String, Editor)>,
    /// The selector.
    pub on: Editor,
    /// Machines that it means, by name.
    pub targets: Vec<MachineToken>,
    /// How they are and where; `None`: nobody has looked yet.
    pub survey: Option<Survey>,
    /// How it is known that it means them.
    pub seen: Seen,
    /// The host behind those machines that runs it; `None`: they themselves.
    pub ssh: Option<SshTarget>,
    /// How it spreads; empty: all at once.
    pub waves: Editor,
    /// How long it may run, ms.
    pub timeout_ms: u64,
    /// How long it waits for machines that are offline, ms.
    pub wait_ms: u64,
    /// The number of machines as it was typed.
    pub answer: Editor,
    /// When that is asked for.
    pub rule: Rule,
    /// The line that is written on.
    pub field: Field,
    /// Its machines are listed, from this one on.
    pub listed: Option<usize>,
    /// Which earlier text is shown: place from the newest; `None` = the line is new.
    pub recalled: Option<usize>,
    /// What was written before an earlier text was looked at.
    pub draft: String,
    /// An earlier text is looked for.
    pub search: Option<Search>,
    /// The command whose runs it tries once more.
    pub retry_of: Option<CommandId>,
    /// The ask that is on its way: its tag.
    pub asked: Option<u64>,
    /// What is wrong, or why the last ask was refused.
    pub refusal: Option<String>,
}

impl Prompt {
    /// A text on these machines.
    pub fn new(on: &str, targets: Vec<MachineToken>, seen: Seen, text: &str) -> Self {
        Self {
            command: Editor::new(text),
            saved: None,
            parameters: Vec::new(),
            on: Editor::new(on),
            targets,
            survey: None,
            seen,
            ssh: None,
            waves: Editor::default(),
            timeout_ms: limit::DEFAULT_TIMEOUT_MS,
            wait_ms: limit::DEFAULT_EXPIRES_IN_MS,
            answer: Editor::default(),
            rule: Rule::default(),
            field: Field::Command,
            listed: None,
            recalled: None,
            draft: String::new(),
            search: None,
            retry_of: None,
            asked: None,
            refusal: None,
        }
    }

    /// It is meant for these machines, as far as is known in this way.
    pub fn mean(&mut self, targets: Vec<MachineToken>, seen: Seen) {
        (self.targets, self.survey, self.seen) = (targets, None, seen);
    }

    /// Makes it a saved command; `given`: what stands for its placeholders, as far as that is known.
    pub fn save(&mut self, saved: SavedCommand, given: &BTreeMap<String, String>) {
        self.command = Editor::new(&saved.text);
        self.parameters = saved
            .parameters()
            .into_iter()
            .map(|known| {
                let text = given.get(&known.name).cloned().or(known.default).unwrap_or_default();
                (known.name, Editor::new(&text))
            })
            .collect();
        if let Some(timeout) = saved.timeout {
            self.timeout_ms = timeout.ms;
        }
        if saved.confirm {
            self.rule = std::mem::take(&mut self.rule).of_saved();
        }
        let empty = self.parameters.iter().position(|(_, editor)| editor.text().is_empty());
        self.field = empty.map_or(Field::Command, Field::Parameter);
        self.saved = Some(saved);
    }

    /// Its lines from top to bottom.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = vec![Field::Command];
        fields.extend((0..self.parameters.len()).map(Field::Parameter));
        fields.extend([Field::On, Field::Waves, Field::Timeout, Field::Wait]);
        if self.reason().is_some() {
            fields.push(Field::Answer);
        }
        fields
    }

    /// To the line that is so many further.
    pub fn step(&mut self, steps: isize) {
        let fields = self.fields();
        let at = fields.iter().position(|field| *field == self.field).unwrap_or(0);
        let len = isize::try_from(fields.len()).unwrap_or(1).max(1);
        let next = (isize::try_from(at).unwrap_or(0) + steps).rem_euclid(len);
        self.field =
            usize::try_from(next).ok().and_then(|at| fields.get(at).copied()).unwrap_or(Field::Command);
    }

    /// The line that is written on; `None`: it is chosen from.
    pub fn editor_mut(&mut self) -> Option<&mut Editor> {
        match self.field {
            Field::Command => Some(&mut self.command),
            Field::Parameter(at) => self.parameters.get_mut(at).map(|(_, editor)| editor),
            Field::On => Some(&mut self.on),
            Field::Waves => Some(&mut self.waves),
            Field::Answer => Some(&mut self.answer),
            Field::Timeout | Field::Wait => None,
        }
    }

    /// Another of the times on offer.
    pub fn change_time(&mut self, steps: isize) {
        let (time, offered): (&mut u64, &[u64]) = match self.field {
            Field::Wait => (&mut self.wait_ms, &WAITS_MS),
            _ => (&mut self.timeout_ms, &TIMEOUTS_MS),
        };
        let next = if steps > 0 {
            offered.iter().find(|offer| **offer > *time)
        } else {
            offered.iter().rev().find(|offer| **offer < *time)
        };
        *time = next.copied().unwrap_or(*time);
    }

    /// The text as it would run.
    ///
    /// # Errors
    /// What is missing.
    pub fn text(&self) -> Result<String, String> {
        let Some(saved) = &self.saved else { return Ok(self.command.text().trim().to_owned()) };
        let saved = SavedCommand { text: self.command.text().trim().to_owned(), ..saved.clone() };
        let is_written = |(name, editor): &(String, Editor)| {
            let value = editor.text().to_owned();
            (!value.is_empty()).then(|| (name.clone(), value))
        };
        let given: BTreeMap<String, String> = self.parameters.iter().filter_map(is_written).collect();
        let known = saved.parameters();
        let missing = known.iter().find(|known| known.default.is_none() && !given.contains_key(&known.name));
        match missing {
            Some(missing) => Err(format!("what stands for {}?", missing.name)),
            None => saved.fill(&given).map_err(|error| error.to_string()),
        }
    }

    /// How it spreads; `None`: all at once.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn plan(&self) -> Result<Option<Rollout>, String> {
        let text = self.waves.text().trim();
        if text.is_empty() {
            return Ok(None);
        }
        let plan: Rollout =
            text.parse().map_err(|error: signalbox_schemas::rollout::RolloutError| error.0)?;
        Ok((plan != Rollout::default()).then_some(plan))
    }

    /// How many of its machines are protected, as far as is known.
    pub fn protected(&self) -> usize {
        match self.seen {
            Seen::Told { protected } => protected,
            _ => 0,
        }
    }

    /// Whether, and why, the number of machines is to be typed.
    pub fn reason(&self) -> Option<Reason> {
        self.rule.reason(self.targets.len(), self.protected())
    }

    /// Whether what is shown of its machines is what it would run on.
    pub fn is_settled(&self) -> bool {
        match self.seen {
            Seen::Told { .. } => true,
            // Who is protected only a bridge knows.
            Seen::Named => self.rule.protected.is_empty(),
            Seen::Guessed | Seen::Asked(_) | Seen::Failed(_) => false,
        }
    }

    /// What is to be signed, once all of it is there.
    ///
    /// # Errors
    /// The line that something is wrong with, and what.
    pub fn drafted(&self) -> Result<Draft, (Field, String)> {
        let text = self.text().map_err(|why| (self.missing().unwrap_or(Field::Command), why))?;
        if text.is_empty() {
            return Err((Field::Command, "write what to run".to_owned()));
        }
        let on = self.on.text().trim().to_owned();
        Selector::parse(&on).map_err(|error| (Field::On, error.to_string()))?;
        let rollout = self.plan().map_err(|why| (Field::Waves, why))?;
        if let Some(reason) = self.reason() {
            let typed = self.answer.text().trim();
            if typed != self.targets.len().to_string() {
                let why = if typed.is_empty() {
                    format!("{reason}: type how many machines they are")
                } else {
                    format!("{typed} is another number than that of the machines")
                };
                return Err((Field::Answer, why));
            }
        }
        Ok(Draft {
            shown: self.targets.clone(),
            rollout,
            retry_of: self.retry_of,
            ssh: self.ssh.clone(),
            ..Draft::new(on, text, self.timeout_ms, self.wait_ms)
        })
    }

    fn missing(&self) -> Option<Field> {
        let empty = self.parameters.iter().position(|(_, editor)| editor.text().is_empty());
        empty.map(Field::Parameter)
    }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::id::MachineId;

    use super::*;

    fn token(n: u32) -> MachineToken {
        MachineId::new(format!("web-{n}")).unwrap().token()
    }

    fn prompt(machines: u32) -> Prompt {
        Prompt::new("web-*", (1..=machines).map(token).collect(), Seen::Told { protected: 0 }, "true")
    }

    fn saved(text: &str) -> SavedCommand {
        SavedCommand { name: "it".to_owned(), text: text.to_owned(), on: None, timeout: None, confirm: false }
    }

    #[test]
    fn a_number_that_is_asked_for_must_be_the_number_of_machines() {
        let mut prompt = prompt(3);
        prompt.rule.above = 2;
        assert!(prompt.fields().contains(&Field::Answer));
        let (field, why) = prompt.drafted().unwrap_err();
        assert_eq!(
            (field, why.as_str()),
            (Field::Answer, "they are more than 2: type how many machines they are")
        );
        prompt.answer = Editor::new("2");
        assert_eq!(prompt.drafted().unwrap_err().0, Field::Answer);
        prompt.answer = Editor::new("3");
        let draft = prompt.drafted().unwrap();
        assert_eq!((draft.on.as_str(), draft.command.as_str(), draft.shown.len()), ("web-*", "true", 3));
    }

    #[test]
    fn placeholders_are_lines_of_their_own() {
        let mut prompt = prompt(1);
        prompt.save(saved("systemctl {{verb=restart}} {{unit}}"), &BTreeMap::new());
        assert_eq!(prompt.field, Field::Parameter(1), "the first that is empty");
        assert_eq!(prompt.drafted().unwrap_err(), (Field::Parameter(1), "what stands for unit?".to_owned()));
        prompt.editor_mut().unwrap().paste("a b");
        assert_eq!(prompt.drafted().unwrap().command, "systemctl restart 'a b'");
        let fields = prompt.fields();
        prompt.field = Field::Command;
        for expected in fields.iter().cycle().skip(1).take(fields.len()) {
            prompt.step(1);
            assert_eq!(prompt.field, *expected);
        }
        prompt.step(-1);
        assert_eq!(Some(&prompt.field), fields.last());
    }

    #[test]
    fn braces_of_a_text_that_is_not_saved_are_text() {
        let mut prompt = prompt(1);
        prompt.command = Editor::new("docker ps --format {{names}}");
        assert_eq!(prompt.drafted().unwrap().command, "docker ps --format {{names}}");
    }

    #[test]
    fn what_is_wrong_is_said_of_its_line() {
        let mut prompt = prompt(1);
        prompt.waves = Editor::new("5%, 1%");
        assert_eq!(prompt.drafted().unwrap_err().0, Field::Waves);
        prompt.waves = Editor::new("canary 1, 50%, pause after 2%");
        let plan = prompt.drafted().unwrap().rollout.unwrap();
        assert_eq!(plan.to_string(), "canary 1, 50%, pause after 2%");
        prompt.waves = Editor::new(" all at once ");
        assert_eq!(prompt.drafted().unwrap().rollout, None);
        prompt.on = Editor::new("web-[");
        assert_eq!(prompt.drafted().unwrap_err().0, Field::On);
        prompt.command = Editor::new("  ");
        assert_eq!(prompt.drafted().unwrap_err().0, Field::Command);
    }

    #[test]
    fn who_is_protected_only_a_bridge_knows() {
        let mut prompt = prompt(1);
        prompt.seen = Seen::Named;
        assert!(prompt.is_settled());
        prompt.rule.protected = "prod-*".to_owned();
        assert!(!prompt.is_settled());
        prompt.seen = Seen::Told { protected: 1 };
        assert_eq!((prompt.is_settled(), prompt.reason()), (true, Some(Reason::Protected(1))));
    }
}
