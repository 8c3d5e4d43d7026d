//! What keeps secrets of this process out of others' sight.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Has no memory of this process written when it crashes, and none read by others of the same user. What it starts is dumped as
/// ever, since that is set anew with each program.
///
/// # Errors
/// When the system refuses.
pub fn stay_out_of_dumps() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn no_dump_is_written_of_this_process() {
        stay_out_of_dumps().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
