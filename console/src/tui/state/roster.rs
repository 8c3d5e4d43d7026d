//! The machines that are known, each at a place of its own.
//!
//! What is seen of them is a list of places, so that to look through a hundred thousand is one walk through memory and not
//! a hundred thousand searches.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use signalbox_schemas::{api::MachineView, id::MachineToken, selector::natural_order};

use super::{Now, machine::Machine, names::Names, vitals::Vitals};
use crate::{
    client::{Heard, Stretch, list::MOST},
    tui::needle::Needle,
};

/// Where a machine stands, until a stretch of the list [moves](Moved) machines.
pub type Place = usize;

/// What was done by what was told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moved {
    /// Machines have come or gone: places that were known are no more.
    pub is_other: bool,
    /// A machine has other names, which a filter looks into.
    pub is_renamed: bool,
    /// A machine that was known is alive that was not, or the other way around.
    pub has_turned: bool,
}

/// All machines.
#[derive(Debug, Default)]
pub struct Roster {
    machines: Vec<Machine>,
    places: BTreeMap<MachineToken, Place>,
    /// All places, by name: what sorting starts from, so that equals stay in the order of their names.
    by_name: Vec<Place>,
    /// What a filter looks into, of the machine at each place.
    names: Names,
    /// What they are sorted and counted by, of the machine at each place.
    vitals: Vec<Vitals>,
}

impl Roster {
    /// Takes a stretch of the list: it replaces what was known of that stretch, but for the history of machines that stay.
    ///
    /// A machine whose token is not that of its id is left out: commands are signed for tokens, and people read ids.
    pub fn replace(&mut self, mut stretch: Stretch, now: Now) -> Moved {
        let mut views = std::mem::take(&mut stretch.machines);
        views.retain(|view| view.id.token() == view.token && stretch.has(&view.token));
        let mut moved = Moved { is_other: self.leave(&stretch, &views), ..Moved::default() };
        for view in views {
            if let Some(place) = self.place(&view.token)
                && let Some(machine) = self.machines.get_mut(place)
            {
                let before = machine.state(now.ms);
                if machine.refresh(view, now) {
                    moved.is_renamed = true;
                    self.names.set(place, &machine.searched());
                }
                moved.has_turned |= machine.state(now.ms) != before;
                self.look_at(place);
            } else if self.machines.len() < MOST {
                let mut machine = Machine::new(&view);
                machine.refresh(view, now);
                self.names.push(&machine.searched());
                self.vitals.push(machine.vitals());
                self.places.insert(machine.token.clone(), self.machines.len());
                self.machines.push(machine);
                moved.is_other = true;
            }
        }
        if moved.is_other {
            self.name();
        }
        moved
    }

    /// Takes those away that lie in a stretch of the list and are not in it. Answers whether there were any.
    fn leave(&mut self, stretch: &Stretch, views: &[MachineView]) -> bool {
        let listed: HashSet<&MachineToken> = views.iter().map(|view| &view.token).collect();
        let from = stretch.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let known = self.places.range::<MachineToken, _>((from, Bound::Unbounded));
        let within = known.map(|(token, _)| token).take_while(|token| stretch.has(token));
        let gone: Vec<MachineToken> = within.filter(|token| !listed.contains(token)).cloned().collect();
        for token in &gone {
            let Some(place) = self.places.remove(token) else { continue };
            self.machines.swap_remove(place);
            self.names.swap_remove(place);
            self.vitals.swap_remove(place);
            // The last one has taken its place.
            if let Some(moved) = self.machines.get(place) {
                self.places.insert(moved.token.clone(), place);
            }
        }
        !gone.is_empty()
    }

    /// Puts names in order. What is in order already costs a look at each.
    fn name(&mut self) {
        let len = self.machines.len();
        // Those that were in order come first, so that they need not be put in order again.
        let mut named: Vec<(&Machine, Place)> = Vec::with_capacity(len);
        let known = std::mem::take(&mut self.by_name);
        let new = known.len()..len;
        let places = known.into_iter().filter(|place| *place < len).chain(new);
        named.extend(places.filter_map(|place| Some((self.machines.get(place)?, place))));
        named.sort_by(|(a, _), (b, _)| natural_order(&a.name, &b.name).then_with(|| a.token.cmp(&b.token)));
        self.by_name = named.into_iter().map(|(_, place)| place).collect();
    }

    /// Takes a heartbeat; `None`: the machine is not known yet.
    pub fn hear(&mut self, heard: Heard, now_ms: u64) -> Option<Moved> {
        let place = self.place(&heard.token)?;
        let machine = self.machines.get_mut(place)?;
        let before = machine.state(now_ms);
        let is_renamed = machine.hear(heard.at_ms, heard.heartbeat);
        let has_turned = machine.state(now_ms) != before;
        if is_renamed {
            self.names.set(place, &machine.searched());
        }
        self.look_at(place);
        Some(Moved { is_other: false, is_renamed, has_turned })
    }

    /// Nothing is known of this machine.
    pub fn set_unknown(&mut self, token: &MachineToken) {
        let Some(place) = self.place(token) else { return };
        if let Some(machine) = self.machines.get_mut(place) {
            machine.is_unknown = true;
            self.look_at(place);
        }
    }

    /// The machine at a place is otherwise than it was.
    fn look_at(&mut self, place: Place) {
        if let (Some(machine), Some(vitals)) = (self.machines.get(place), self.vitals.get_mut(place)) {
            *vitals = machine.vitals();
        }
    }

    /// How the machine at a place is.
    pub fn vitals(&self, place: Place) -> Option<&Vitals> {
        self.vitals.get(place)
    }

    /// How all machines are, in no order.
    pub fn all_vitals(&self) -> impl Iterator<Item = &Vitals> {
        self.vitals.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// Where a machine stands.
    pub fn place(&self, token: &MachineToken) -> Option<Place> {
        self.places.get(token).copied()
    }

    /// Who stands there.
    pub fn at(&self, place: Place) -> Option<&Machine> {
        self.machines.get(place)
    }

    /// One machine.
    pub fn get(&self, token: &MachineToken) -> Option<&Machine> {
        self.at(self.place(token)?)
    }

    /// All machines, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter()
    }

    /// All places, by name.
    pub fn places(&self) -> &[Place] {
        &self.by_name
    }

    /// The places of those whose names are meant, by name.
    pub fn named(&self, needle: &Needle) -> Vec<Place> {
        // Looked at as they lie, and put in order by a look at a list that fits the processor's own memory.
        let meant = self.names.meant(needle);
        let is_meant = |place: &Place| meant.get(*place) == Some(&true);
        self.by_name.iter().copied().filter(is_meant).collect()
    }

    /// All machines with their places, by name.
    pub fn by_name(&self) -> impl Iterator<Item = (Place, &Machine)> {
        self.by_name.iter().filter_map(|place| Some((*place, self.at(*place)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        client::Told,
        tui::stage::{demo_machine, heartbeat, machine_id},
    };

    fn stretch(after: Option<u32>, until: Option<u32>, machines: &BTreeSet<u32>) -> Stretch {
        let token = |n: u32| machine_id(n).token();
        let mut machines: Vec<MachineView> = machines.iter().copied().map(demo_machine).collect();
        machines.sort_by(|a, b| a.token.cmp(&b.token));
        Stretch { after: after.map(token), machines, until: until.map(token) }
    }

    /// What is told of one machine alone.
    #[derive(Debug, Clone)]
    enum Alone {
        Heard(u32, f32),
        Unknown(u32),
    }

    fn alone() -> impl Strategy<Value = Alone> {
        prop_oneof![
            (1..40_u32, 0.0..100.0_f32).prop_map(|(n, cpu_percent)| Alone::Heard(n, cpu_percent)),
            (1..40_u32).prop_map(Alone::Unknown),
        ]
    }

    proptest! {
        /// Whatever comes and goes: who is asked for by a token stands at its place, and names are in order.
        #[test]
        fn everybody_stands_at_their_place(
            told in prop::collection::vec(
                (
                    prop::option::of(1..40_u32),
                    prop::option::of(1..40_u32),
                    prop::collection::btree_set(1..40_u32, 0..40),
                    prop::collection::vec(alone(), 0..4),
                ),
                1..12,
            ),
        ) {
            let mut roster = Roster::default();
            let mut known = BTreeSet::new();
            let now = Now { ms: 1_000, wall_ms: 1_000 };
            for (after, until, machines, alone) in told {
                let stretch = stretch(after, until, &machines);
                known.retain(|token| !stretch.has(token));
                let listed = stretch.machines.iter().map(|view| view.token.clone());
                known.extend(listed.filter(|token| stretch.has(token)));
                let before = roster.len();
                let moved = roster.replace(stretch, now);
                prop_assert!(moved.is_other || roster.len() == before);
                for alone in alone {
                    match alone {
                        Alone::Heard(n, cpu_percent) => {
                            let Told::Heartbeats(heard) = heartbeat(n, now.ms, cpu_percent) else { unreachable!() };
                            for heard in heard {
                                roster.hear(heard, now.ms);
                            }
                        }
                        Alone::Unknown(n) => roster.set_unknown(&machine_id(n).token()),
                    }
                }
                let found: BTreeSet<MachineToken> = roster.all().map(|machine| machine.token.clone()).collect();
                prop_assert_eq!(&found, &known);
                prop_assert_eq!(roster.len(), known.len());
                for token in &known {
                    prop_assert_eq!(roster.get(token).map(|machine| &machine.token), Some(token));
                }
                let names: Vec<&str> = roster.by_name().map(|(_, machine)| machine.name.as_str()).collect();
                prop_assert_eq!(names.len(), known.len());
                prop_assert!(names.is_sorted_by(|a, b| natural_order(a, b).is_lt()), "{:?}", names);
                for (place, machine) in roster.by_name() {
                    prop_assert_eq!(roster.place(&machine.token), Some(place));
                    prop_assert_eq!(roster.vitals(place), Some(&machine.vitals()));
                }
                prop_assert_eq!(roster.named(&Needle::default()), roster.places());
                for (place, machine) in roster.by_name() {
                    let its_own = Needle::new(&format!("/(?m)^{}$/", machine.id));
                    prop_assert_eq!(roster.named(&its_own), [place]);
                }
                prop_assert_eq!(roster.all_vitals().count(), known.len());
            }
        }
    }
}
