//! How soon an event is to be seen. Pure: asked before the event is applied.

use std::time::Duration;

use signalbox_schemas::api::Liveness;

use super::{
    event::Event,
    state::{Now, Screen, State},
    view::layout,
};
use crate::client::{Heard, Told};

/// How soon a frame is to show what an event changed, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Figures moved. Nobody waits for them, and nobody reads faster.
    Figures,
    /// Something happened: a run ended, a command wrote, a second passed.
    News,
    /// The operator did something and looks for it.
    Touch,
}

impl Urgency {
    /// Shortest time since the last frame.
    pub fn gap(self) -> Duration {
        Duration::from_millis(match self {
            Self::Figures => 250,
            Self::News => 16,
            Self::Touch => 4,
        })
    }
}

/// How soon an event that comes `now` is to be seen; `None`: it changes nothing that is on the screen.
pub fn urgency(state: &State, now: Now, event: &Event) -> Option<Urgency> {
    match event {
        Event::Told(told) => match &**told {
            Told::Heartbeats(_) | Told::Machines(_) if state.is_frozen => None,
            Told::Heartbeats(heard) => {
                let is_seen = |heard| is_on_the_screen(state, now, heard);
                heard.iter().any(is_seen).then_some(Urgency::Figures)
            }
            Told::Machines(_) if state.snapshot_ms.is_some() => Some(Urgency::Figures),
            Told::Health(_) => Some(Urgency::Figures),
            Told::Found { kind, .. } => (state.shown_list() == Some(*kind)).then_some(Urgency::News),
            _ => Some(Urgency::News),
        },
        Event::Tick | Event::SessionEnded => Some(Urgency::News),
        Event::Key(_)
        | Event::Paste(_)
        | Event::Wheel(_)
        | Event::Click(..)
        | Event::Resize(..)
        | Event::Stop
        | Event::Continued
        | Event::Terminate => Some(Urgency::Touch),
    }
}

/// Whether a sign of life changes what is seen: a row, or how many are alive.
fn is_on_the_screen(state: &State, now: Now, heard: &Heard) -> bool {
    let Some(machine) = state.fleet.get(&heard.token) else { return false };
    if machine.state(now.ms) != Liveness::Online {
        return true;
    }
    match &state.screen {
        Screen::Machines => {
            let rows = usize::from(layout::areas(state).list.height);
            state.fleet.rows(rows).any(|machine| machine.token == heard.token)
        }
        Screen::Machine(token) => *token == heard.token,
        // The pulse moves with the seconds.
        Screen::Pulse
        | Screen::Commands
        | Screen::Command(_)
        | Screen::Output(..)
        | Screen::List(_)
        | Screen::Item(..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Stretch,
        tui::stage::{NOW_MS, Stage, demo_machine, heartbeat},
    };

    /// A console with a hundred machines, all of which were just heard.
    fn stage() -> Stage {
        let mut stage = Stage::new(80, 24);
        stage.connect();
        stage.tell(Told::Machines(Stretch::whole((1..=100).map(demo_machine).collect())));
        (1..=100).for_each(|n| stage.tell(heartbeat(n, NOW_MS, 10.0)));
        stage.screen();
        stage
    }

    fn of(stage: &Stage, told: Told) -> Option<Urgency> {
        urgency(&stage.state, stage.now, &Event::Told(Box::new(told)))
    }

    fn of_heard(stage: &Stage, n: u32) -> Option<Urgency> {
        of(stage, heartbeat(n, stage.now.ms, 20.0))
    }

    #[test]
    fn rows_that_are_seen_are_drawn_and_others_are_not() {
        let mut stage = stage();
        let rows = u32::from(layout::areas(&stage.state).list.height);
        assert_eq!(of_heard(&stage, rows), Some(Urgency::Figures));
        assert_eq!(of_heard(&stage, rows + 1), None);
        assert_eq!(of_heard(&stage, 1_000), None, "nobody knows it");
        stage.keys("j".repeat(rows as usize).as_str());
        assert_eq!((of_heard(&stage, 1), of_heard(&stage, rows + 1)), (None, Some(Urgency::Figures)));
    }

    #[test]
    fn of_one_machine_only_its_own_signs_are_seen_and_of_commands_none() {
        let mut stage = stage();
        stage.keys("<enter>");
        assert_eq!((of_heard(&stage, 1), of_heard(&stage, 2)), (Some(Urgency::Figures), None));
        stage.keys("c");
        assert_eq!(of_heard(&stage, 1), None);
    }

    #[test]
    fn who_comes_back_is_counted_wherever_its_row_is() {
        let mut stage = stage();
        stage.wait(30_000);
        assert_eq!(of_heard(&stage, 90), Some(Urgency::Figures));
        stage.tell(heartbeat(90, stage.now.ms, 10.0));
        assert_eq!(of_heard(&stage, 90), None);
    }

    #[test]
    fn what_is_waited_for_is_sooner_than_what_is_not() {
        let mut stage = Stage::new(80, 24);
        let list = || Told::Machines(Stretch::whole(vec![demo_machine(1)]));
        assert_eq!(of(&stage, list()), Some(Urgency::News), "the first machines are waited for");
        stage.tell(list());
        assert_eq!(of(&stage, list()), Some(Urgency::Figures));
        let key = Event::Key(crate::tui::keymap::key::parse("j").unwrap()[0]);
        assert_eq!(urgency(&stage.state, stage.now, &key), Some(Urgency::Touch));
        assert!(Urgency::Touch.gap() < Urgency::News.gap() && Urgency::News.gap() < Urgency::Figures.gap());
    }
}
