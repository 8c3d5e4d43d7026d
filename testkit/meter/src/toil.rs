//! `toil`: what any program waits that has something to do for each key, as a floor for those that draw.
//!
//! `cat` needs the processor for so short that it hardly ever has to share it. Who computes for two milliseconds before it
//! answers meets whatever else this machine does.

use std::{
    hint::black_box,
    io::{self, Read as _, Write as _},
    time::{Duration, Instant},
};

/// About what a console computes for a frame.
const TOIL: Duration = Duration::from_millis(2);
/// How often it is looked how much work that is. The quickest counts: then nobody else was there.
const LOOKS: u32 = 50;
/// Turns of one look.
const TURNS: u64 = 100_000;

/// Says `ready`, and gives back each byte that it reads: one that shows after its work, others at once.
///
/// # Errors
/// [`io::Error`] of the terminal.
pub(crate) fn toil() -> io::Result<()> {
    let turns = turns();
    let mut out = io::stdout().lock();
    out.write_all(b"ready")?;
    out.flush()?;
    for byte in io::stdin().lock().bytes() {
        let byte = byte?;
        if byte.is_ascii_graphic() {
            work(turns);
        }
        out.write_all(&[byte])?;
        out.flush()?;
    }
    Ok(())
}

fn turns() -> u64 {
    let look = |_| {
        let since = Instant::now();
        work(TURNS);
        since.elapsed()
    };
    let quickest = (0..LOOKS).map(look).min().unwrap_or(TOIL).max(Duration::from_nanos(1));
    let turns = TOIL.as_nanos().saturating_mul(u128::from(TURNS)) / quickest.as_nanos();
    u64::try_from(turns).unwrap_or(u64::MAX)
}

fn work(turns: u64) {
    let mut sum = 0_u64;
    for turn in 0..turns {
        sum = black_box(sum.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) ^ turn);
    }
    black_box(sum);
}
