//! What should be true of a part, from the harms that are in force. Pure: harms may overlap in any way, and what is healed is
//! healed only once the last of its kind is.

use crate::fault::{Fault, Part, Weather};

/// What should be true of one part now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(crate) struct Wanted {
    /// It does not run and is not started.
    pub(crate) is_down: bool,
    /// It stands still.
    pub(crate) is_halted: bool,
    /// Its host is cut off.
    pub(crate) is_cut: bool,
    /// Its host's line.
    pub(crate) weather: Option<Weather>,
    /// Its store's disk is full.
    pub(crate) is_full: bool,
    /// Its clock is off, seconds.
    pub(crate) offset_s: i32,
    /// Another relay has its keys.
    pub(crate) has_twin: bool,
}

/// What `active`, in the order in which they began, wants of `part`. Of two weathers or jumps the later one counts.
pub(crate) fn wanted(active: &[Fault], part: Part) -> Wanted {
    let mut wanted = Wanted::default();
    for fault in active {
        match *fault {
            Fault::Kill(hurt) | Fault::Forget(hurt) | Fault::Rollback(hurt) if hurt == part => {
                wanted.is_down = true;
            }
            Fault::Halt(hurt) if hurt == part => wanted.is_halted = true,
            Fault::Cut(hurt) if hurt == part => wanted.is_cut = true,
            Fault::Weather(hurt, weather) if hurt == part => wanted.weather = Some(weather),
            Fault::Fill(hurt) if hurt.with_relay() == part => wanted.is_full = true,
            Fault::Jump(hurt, offset) if hurt.with_relay() == part => wanted.offset_s = offset,
            Fault::Twin(machine) if Part::Relay(machine) == part => wanted.has_twin = true,
            _ => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const BAD: Weather = Weather { delay_ms: 1, jitter_ms: 0, lost: 0, doubled: 0 };
    const WORSE: Weather = Weather { delay_ms: 2, ..BAD };

    #[rstest]
    #[case(&[], Wanted::default())]
    #[case(&[Fault::Kill(Part::Bridge(1))], Wanted::default())]
    #[case(&[Fault::Kill(Part::Keeper(0))], Wanted::default())]
    #[case(&[Fault::Forget(Part::Relay(0))], Wanted { is_down: true, ..Wanted::default() })]
    #[case(&[Fault::Halt(Part::Relay(0)), Fault::Rollback(Part::Relay(0))],
           Wanted { is_down: true, is_halted: true, ..Wanted::default() })]
    #[case(&[Fault::Weather(Part::Relay(0), BAD), Fault::Weather(Part::Relay(0), WORSE), Fault::Cut(Part::Relay(0))],
           Wanted { is_cut: true, weather: Some(WORSE), ..Wanted::default() })]
    #[case(&[Fault::Fill(Part::Keeper(0)), Fault::Jump(Part::Keeper(0), -5)],
           Wanted { is_full: true, offset_s: -5, ..Wanted::default() })]
    #[case(&[Fault::Twin(0), Fault::Twin(1)], Wanted { has_twin: true, ..Wanted::default() })]
    fn harms_add_up(#[case] active: &[Fault], #[case] then: Wanted) {
        assert_eq!(wanted(active, Part::Relay(0)), then);
    }
}
