//! What comes next of a rollout. Pure: how many there are of which kind is all that it asks, so that a step costs the same
//! for one machine and for ten thousand; whoever counts picks those that go next.
//!
//! - A wave ends when all that were let go have settled. The next one does not begin before.
//! - A machine that fell silent between its release and its claim is *absent*: it holds up no wave, and another one takes its
//!   place there. Its place among `parallel` stays taken, so that never more than that can run when it is back.
//! - A machine that is silent while it is held is not let go; it waits for its turn until it is heard again, or the command
//!   expires.

use super::{Counted, Progress, Rollout, RolloutState};

/// How a command stands, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its machines.
    pub targets: u32,
    /// Those that were let go, whatever became of them.
    pub released: u32,
    /// Those that nobody let go and whose run has not settled.
    pub held: u32,
    /// Those of them that were not found silent: whoever lets one go looks again.
    pub present: u32,
    /// Runs that were let go, and that nobody has claimed yet.
    pub waiting: u32,
    /// Those of them whose machine is silent.
    pub absent: u32,
    /// Runs that were claimed and have not settled.
    pub running: u32,
    /// What has ended, and how.
    pub counted: Counted,
    /// When the last one settled, Unix ms.
    pub settled_at: u64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let so many more go, in this wave.
    Release {
        /// The wave.
        wave: u32,
        /// How many, of those that are present; fewer where one of them turns out to be silent.
        count: u32,
    },
    /// Too many have failed.
    Pause(Counted),
    /// Nothing now. At this time, Unix ms, it is to be asked again even if nothing happens.
    Wait(Option<u64>),
    /// There is nobody left to let go.
    Done,
}

/// What comes next at `now`, Unix ms.
pub fn step(plan: &Rollout, tally: &Tally, progress: &Progress, now: u64) -> Decision {
    if tally.held == 0 || progress.state == RolloutState::Aborted {
        return Decision::Done;
    }
    if progress.state == RolloutState::Paused {
        return Decision::Wait(None);
    }
    if let Some(counted) = too_many(plan, tally, progress) {
        return Decision::Pause(counted);
    }
    let filled = tally.released.saturating_sub(tally.absent);
    let mut wave = progress.wave.max(1);
    if filled >= plan.bound(wave, tally.targets) {
        if tally.running > 0 || tally.waiting > tally.absent {
            return Decision::Wait(None);
        }
        let next = plan.min_wait_ms.map(|wait| tally.settled_at.saturating_add(wait));
        if let Some(next) = next.filter(|next| *next > now) {
            return Decision::Wait(Some(next));
        }
        wave = next_wave(plan, tally.targets, wave, filled);
    }
    let mut count = plan.bound(wave, tally.targets).saturating_sub(filled);
    if let Some(parallel) = plan.parallel {
        let unsettled = tally.waiting.saturating_add(tally.running);
        count = count.min(parallel.of(tally.targets).saturating_sub(unsettled));
    }
    match count.min(tally.present) {
        0 => Decision::Wait(None),
        count => Decision::Release { wave, count },
    }
}

/// The next wave that lets anybody go. Those that were absent and came back may have filled more than one.
fn next_wave(plan: &Rollout, targets: u32, wave: u32, filled: u32) -> u32 {
    let last = plan.waves_of(targets);
    // Waves grow, so that this is no long search; and it ends with the last one.
    (wave + 1..last).find(|wave| plan.bound(*wave, targets) > filled).unwrap_or_else(|| last.max(wave))
}

/// What has failed since it was last forgiven, if that is too much.
fn too_many(plan: &Rollout, tally: &Tally, progress: &Progress) -> Option<Counted> {
    let after = plan.pause_after?;
    let counted = Counted {
        failed: tally.counted.failed.saturating_sub(progress.forgiven.failed),
        ended: tally.counted.ended.saturating_sub(progress.forgiven.ended),
    };
    let most = match after {
        super::Size::Count(count) => count,
        super::Size::Percent(_) => after.of(counted.ended),
    };
    (counted.failed > 0 && counted.failed >= most).then_some(counted)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use rstest::rstest;

    use super::{super::tests::any_rollout, *};
    use crate::id::Workspace;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Run {
        Held,
        Waiting,
        Running,
        Completed,
        Failed,
        Expired,
    }

    /// A fleet that does what chance says.
    struct World {
        plan: Rollout,
        progress: Progress,
        runs: Vec<Run>,
        heard: Vec<bool>,
        released: Vec<bool>,
        settled_at: u64,
        now: u64,
    }

    impl World {
        fn new(plan: Rollout, machines: usize) -> Self {
            let cid = "0193a2b4-0000-7000-8000-000000000000".parse().unwrap();
            Self {
                plan,
                progress: Progress::new(Workspace::main(), cid),
                runs: vec![Run::Held; machines],
                heard: vec![true; machines],
                released: vec![false; machines],
                settled_at: 0,
                now: 1,
            }
        }

        fn count(&self, is: impl Fn(usize, Run) -> bool) -> u32 {
            let found = self.runs.iter().enumerate().filter(|(i, run)| is(*i, **run));
            u32::try_from(found.count()).unwrap()
        }

        fn tally(&self) -> Tally {
            let failed = self.count(|_, run| run == Run::Failed);
            Tally {
                targets: u32::try_from(self.runs.len()).unwrap(),
                released: self.count(|i, _| self.released[i]),
                held: self.count(|_, run| run == Run::Held),
                present: self.count(|i, run| run == Run::Held && self.heard[i]),
                waiting: self.count(|_, run| run == Run::Waiting),
                absent: self.count(|i, run| run == Run::Waiting && !self.heard[i]),
                running: self.count(|_, run| run == Run::Running),
                counted: Counted { failed, ended: failed + self.count(|_, run| run == Run::Completed) },
                settled_at: self.settled_at,
            }
        }

        fn step(&self) -> Decision {
            step(&self.plan, &self.tally(), &self.progress, self.now)
        }

        /// Does what the step says; answers how many were let go.
        fn go(&mut self) -> u32 {
            match self.step() {
                Decision::Release { wave, count } => {
                    self.progress.wave = wave;
                    for _ in 0..count {
                        let next =
                            (0..self.runs.len()).find(|i| self.runs[*i] == Run::Held && self.heard[*i]);
                        let next = next.expect("there are as many as the step was told");
                        (self.runs[next], self.released[next]) = (Run::Waiting, true);
                        self.progress.released.insert(u32::try_from(next).unwrap());
                    }
                    count
                }
                Decision::Pause(_) => {
                    self.progress.state = RolloutState::Paused;
                    0
                }
                Decision::Wait(_) | Decision::Done => 0,
            }
        }

        /// Something happens to a machine.
        fn happens(&mut self, at: usize, what: u8) {
            let at = at % self.runs.len();
            self.now += 1;
            let before = self.runs[at];
            self.runs[at] = match (before, what % 4) {
                (Run::Waiting, 0 | 1) if self.heard[at] => Run::Running,
                (Run::Running, 0 | 1) => Run::Completed,
                (Run::Running, 2) => Run::Failed,
                (before, 3) => {
                    self.heard[at] = !self.heard[at];
                    before
                }
                (before, _) => before,
            };
            if matches!(self.runs[at], Run::Completed | Run::Failed) && before == Run::Running {
                self.settled_at = self.now;
            }
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_happens(
            plan in any_rollout(),
            machines in 1..40usize,
            happenings in vec((any::<usize>(), any::<u8>()), 0..300),
        ) {
            let mut world = World::new(plan, machines);
            let targets = u32::try_from(machines).unwrap();
            for (at, what) in happenings {
                let before = world.tally();
                let is_over = before.running == 0 && before.waiting == before.absent;
                let wave = world.progress.wave;
                let released = world.go();
                let after = world.tally();
                // Nobody is taken back.
                prop_assert_eq!(after.released, before.released + released);
                if let (Some(parallel), true) = (world.plan.parallel, released > 0) {
                    prop_assert!(after.waiting + after.running <= parallel.of(targets));
                }
                prop_assert!(after.released - after.absent <= world.plan.bound(world.progress.wave, targets) || released == 0);
                // A wave begins when the one before is over, and not otherwise: the canary above all.
                prop_assert!(world.progress.wave == wave || is_over);
                if released > 0 {
                    prop_assert_eq!(world.progress.state, RolloutState::Going);
                }
                world.happens(at, what);
            }
        }

        #[test]
        fn it_ends_when_all_settle(plan in any_rollout(), machines in 1..60usize, fails in any::<u64>()) {
            let mut world = World::new(Rollout { pause_after: None, ..plan }, machines);
            let mut rounds = 0;
            while world.step() != Decision::Done {
                rounds += 1;
                prop_assert!(rounds <= 3 * machines + 3, "{:?} after {} rounds", world.tally(), rounds);
                if world.go() == 0 && let Decision::Wait(Some(at)) = world.step() {
                    prop_assert!(at > world.now);
                    world.now = at;
                }
                for (i, run) in world.runs.iter_mut().enumerate().filter(|(_, run)| **run == Run::Waiting) {
                    *run = if fails >> (i % 64) & 1 == 1 { Run::Failed } else { Run::Completed };
                    world.settled_at = world.now;
                }
            }
            prop_assert!(world.released.iter().all(|released| *released));
            prop_assert!(world.progress.wave <= world.plan.waves_of(u32::try_from(machines).unwrap()));
        }

        #[test]
        fn nothing_is_let_go_while_it_stands_still(plan in any_rollout(), machines in 1..40usize, aborted in any::<bool>()) {
            let mut world = World::new(plan, machines);
            world.progress.state = if aborted { RolloutState::Aborted } else { RolloutState::Paused };
            prop_assert_eq!(world.step(), if aborted { Decision::Done } else { Decision::Wait(None) });
        }
    }

    fn plan(text: &str) -> Rollout {
        text.parse().unwrap()
    }

    #[test]
    fn a_canary_that_fell_silent_is_replaced_and_holds_its_place_among_the_parallel() {
        let mut world = World::new(plan("canary 1, 5"), 10);
        assert_eq!(world.go(), 1);
        assert_eq!(world.step(), Decision::Wait(None));
        world.heard[0] = false;
        assert_eq!(world.step(), Decision::Release { wave: 1, count: 1 });
        world.plan = plan("canary 1, 5, parallel 1");
        assert_eq!(world.step(), Decision::Wait(None));
    }

    #[test]
    fn those_that_are_silent_wait_for_their_turn_and_hold_up_nobody() {
        let mut world = World::new(plan("canary 1, 3"), 5);
        world.heard[..2].fill(false);
        assert_eq!((world.go(), world.runs[2]), (1, Run::Waiting));
        world.runs[2] = Run::Completed;
        assert_eq!(world.go(), 2);
        world.runs[3..].fill(Run::Completed);
        assert_eq!(world.step(), Decision::Wait(None));
        world.heard[0] = true;
        assert_eq!(world.step(), Decision::Release { wave: 2, count: 1 });
        world.runs[..2].fill(Run::Expired);
        assert_eq!(world.step(), Decision::Done);
    }

    #[rstest]
    #[case("pause after 2", 1, 50, false)]
    #[case("pause after 2", 2, 50, true)]
    #[case("pause after 10%", 1, 10, true)]
    #[case("pause after 10%", 1, 11, false)]
    #[case("pause after 10%", 2, 11, true)]
    #[case("pause after 100%", 1, 1, true)]
    #[case("pause after 1%", 0, 50, false)]
    fn it_pauses_when_too_many_have_failed(
        #[case] text: &str,
        #[case] failed: u32,
        #[case] ended: u32,
        #[case] pauses: bool,
    ) {
        let world = World::new(plan(text), 100);
        let counted = Counted { failed, ended };
        let tally = Tally { counted, ..world.tally() };
        let decision = step(&world.plan, &tally, &world.progress, 1);
        assert_eq!(decision == Decision::Pause(counted), pauses, "{decision:?}");
        // What was forgiven stops nothing.
        let forgiven = Progress { forgiven: counted, ..world.progress.clone() };
        assert!(matches!(step(&world.plan, &tally, &forgiven, 1), Decision::Release { .. }));
    }

    #[test]
    fn between_two_waves_there_is_a_wait() {
        let mut world = World::new(plan("canary 1, wait 10s"), 3);
        world.go();
        (world.runs[0], world.settled_at, world.now) = (Run::Completed, 5_000, 14_999);
        assert_eq!(world.step(), Decision::Wait(Some(15_000)));
        world.now = 15_000;
        assert_eq!(world.step(), Decision::Release { wave: 2, count: 2 });
    }

    #[test]
    fn ten_thousand_machines_in_waves_of_one_are_no_search() {
        let mut world = World::new(plan("1"), 1);
        let tally =
            Tally { targets: 10_000, released: 5_000, held: 5_000, present: 5_000, ..Tally::default() };
        world.progress.wave = 5_000;
        assert_eq!(
            step(&world.plan, &tally, &world.progress, 1),
            Decision::Release { wave: 5_001, count: 1 }
        );
    }
}
