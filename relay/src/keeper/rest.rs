//! What a host still sends of a command's output after it has said how the command ended. Pure.
//!
//! The word of a command's end overtakes what it printed: that may still lie in the host's buffers, and comes as fast as the
//! link is. What a process in the background prints comes the same way and has no end. So the rest is heard until a second
//! passes without any and the host, asked after that second, has answered: a link that stands still is silent, too, and what is on
//! it comes before the answer. The rest has bounds that only such a process reaches, or a host that does not answer:
//!
//! | bound | what is within it |
//! |---|---|
//! | bytes | what the host's buffers and pipes can hold |
//! | pace | any link that a command can be used over |
//! | the run's timeout | what the run's author waits for |

use std::time::Duration;

use signalbox_schemas::output::OutputStream;
use tokio::time::Instant;

use crate::ssh::WINDOW_BYTES;

/// Nothing that came for so long after the command's end, and after what came since: nothing more is waited for.
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// A host closes the channel this soon after it has said how the command ended and that nothing more is printed.
const CLOSE_GRACE: Duration = Duration::from_millis(200);
/// What comes within this time of the command's end is within all bounds but that of bytes.
const LEAST: Duration = Duration::from_secs(10);
/// From then on the rest comes at least so fast, bytes per second.
const PACE: u64 = 8 * 1024;
/// Of each stream a host buffers at most a window, and a pipe holds at most 1 MiB more (pipe(7)).
const MAX_BYTES: u64 = 2 * (WINDOW_BYTES as u64 + 1024 * 1024);

/// What came since the host said how the command ended.
#[derive(Debug)]
pub(super) struct Rest {
    told_at: Instant,
    /// When the host was heard last.
    heard_at: Instant,
    bytes: u64,
    asked: Asked,
    /// Whether something came of standard output, and of standard error.
    came: [bool; 2],
    /// Somebody does not want to wait for more.
    is_unwanted: bool,
}

/// Whether the host has said all that it had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    NotYet,
    /// It was asked, and has not answered.
    Waits,
    /// It has answered then, and nothing was heard since.
    Answered(Instant),
}

impl Rest {
    /// The host says just now how the command ended.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            told_at: now,
            heard_at: now,
            bytes: 0,
            asked: Asked::NotYet,
            came: [false; 2],
            is_unwanted: false,
        }
    }

    /// Something of a stream came.
    pub(super) fn take(&mut self, stream: OutputStream, bytes: usize, now: Instant) {
        self.heard(now);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if let Some(came) = self.came.get_mut(stream as usize) {
            *came |= bytes > 0;
        }
    }

    /// The host said something else.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        if let Asked::Answered(_) = self.asked {
            self.asked = Asked::NotYet;
        }
    }

    /// Whether the host is to be asked now for an answer. `is_silent`: it has said that nothing more is printed.
    pub(super) fn asks(&mut self, is_silent: bool, now: Instant) -> bool {
        let asks = !is_silent && self.asked == Asked::NotYet && now >= self.heard_at + PIPE_GRACE;
        if asks {
            self.asked = Asked::Waits;
        }
        asks
    }

    /// The host has answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.asked = Asked::Answered(now);
    }

    /// No more is waited for than for what comes just after the command's end.
    pub(super) fn want_no_more(&mut self) {
        self.is_unwanted = true;
    }

    /// When the silence of the host means something: that it is to be asked, or that this was all. `None`: it is asked.
    pub(super) fn silence_ends(&self, is_silent: bool) -> Option<Instant> {
        match self.asked {
            _ if is_silent => Some(self.heard_at + CLOSE_GRACE),
            Asked::NotYet => Some(self.heard_at + PIPE_GRACE),
            Asked::Waits => None,
            Asked::Answered(at) => Some((self.heard_at + PIPE_GRACE).max(at + CLOSE_GRACE)),
        }
    }

    /// Whether this was all, as far as the host's silence says.
    pub(super) fn is_all(&self, is_silent: bool, now: Instant) -> bool {
        let is_sure = is_silent || self.is_unwanted || matches!(self.asked, Asked::Answered(_));
        let since = self.silence_ends(is_silent).unwrap_or(self.heard_at + PIPE_GRACE);
        is_sure && now >= since
    }

    /// When the rest has come for long enough, unless more of it comes. `deadline`: the run's.
    pub(super) fn patience_ends(&self, deadline: Instant) -> Instant {
        if self.bytes > MAX_BYTES {
            return self.told_at;
        }
        if self.is_unwanted {
            return self.told_at + PIPE_GRACE;
        }
        let least = self.told_at + LEAST;
        (least + Duration::from_secs(self.bytes / PACE)).min(deadline.max(least))
    }

    /// Whether something came of standard output, and of standard error: more may have come, then.
    pub(super) fn came(&self) -> [bool; 2] {
        self.came
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};

    const HOUR: Duration = Duration::from_hours(1);
    const KIB: usize = 1024;

    /// How long pieces that come every so often are heard.
    fn heard_for(pieces: impl Iterator<Item = usize>, every: Duration, timeout: Duration) -> (u64, Duration) {
        let told_at = Instant::now();
        let (mut rest, mut now) = (Rest::new(told_at), told_at);
        for bytes in pieces {
            now += every;
            let silence = rest.silence_ends(false).unwrap();
            if now >= silence.min(rest.patience_ends(told_at + timeout)) {
                break;
            }
            rest.take(Stdout, bytes, now);
        }
        (rest.bytes, now - told_at)
    }

    #[test]
    fn a_full_buffer_comes_over_a_slow_link() {
        let pieces = std::iter::repeat_n(8 * KIB, 1024);
        let (bytes, took) = heard_for(pieces, Duration::from_millis(900), HOUR);
        assert_eq!(bytes, u64::from(WINDOW_BYTES), "after {took:?}");
    }

    #[test]
    fn silence_is_counted_from_the_last_that_came() {
        let told_at = Instant::now();
        let mut rest = Rest::new(told_at);
        assert_eq!(rest.silence_ends(false), Some(told_at + PIPE_GRACE));
        let later = told_at + Duration::from_secs(3);
        rest.take(Stderr, 1, later);
        assert_eq!(rest.silence_ends(false), Some(later + PIPE_GRACE));
        assert_eq!(rest.silence_ends(true), Some(later + CLOSE_GRACE));
        assert!(rest.is_all(true, later + CLOSE_GRACE));
        assert_eq!(rest.came(), [false, true]);
    }

    #[test]
    fn silence_is_the_end_once_the_host_has_answered() {
        let told_at = Instant::now();
        let mut rest = Rest::new(told_at);
        let asked = told_at + PIPE_GRACE;
        assert!(!rest.asks(false, asked - Duration::from_millis(1)) && !rest.asks(true, asked));
        assert!(rest.asks(false, asked) && !rest.asks(false, asked));
        // A link that stands still is silent, too.
        assert!(rest.silence_ends(false).is_none() && !rest.is_all(false, told_at + HOUR));
        let moves = told_at + 5 * PIPE_GRACE;
        rest.take(Stdout, 1, moves);
        rest.answered(moves);
        assert_eq!(rest.silence_ends(false), Some(moves + PIPE_GRACE));
        assert!(!rest.is_all(false, moves) && rest.is_all(false, moves + PIPE_GRACE));
        // What comes after the answer is asked for anew.
        rest.take(Stdout, 1, moves);
        assert!(!rest.is_all(false, moves + PIPE_GRACE) && rest.asks(false, moves + PIPE_GRACE));
    }

    #[test]
    fn who_wants_no_more_waits_for_no_answer() {
        let told_at = Instant::now();
        let mut rest = Rest::new(told_at);
        assert!(rest.asks(false, told_at + PIPE_GRACE));
        rest.want_no_more();
        assert!(rest.is_all(false, told_at + PIPE_GRACE));
    }

    #[test]
    fn what_prints_without_end_is_left_by_its_bytes_or_its_pace() {
        let (bytes, _) = heard_for(std::iter::repeat(32 * KIB), Duration::from_millis(1), HOUR);
        assert!((MAX_BYTES..MAX_BYTES + 64 * KIB as u64).contains(&bytes), "{bytes}");
        let (_, took) = heard_for(std::iter::repeat(100), Duration::from_millis(500), HOUR);
        assert!((LEAST..LEAST * 2).contains(&took), "{took:?}");
    }

    #[test]
    fn the_timeout_of_the_run_is_the_end_of_the_rest_but_leaves_it_some_time() {
        let slow = || std::iter::repeat(16 * KIB);
        let every = Duration::from_millis(500);
        let (_, took) = heard_for(slow(), every, Duration::from_secs(30));
        assert_eq!(took, Duration::from_secs(30));
        let (_, took) = heard_for(slow(), every, Duration::from_secs(1));
        assert_eq!(took, LEAST);
    }
}
