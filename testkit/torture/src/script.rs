//! What [`Work`] is for a shell, and what it must have written.

use crate::plan::Work;

/// The variable that names a machine's file of marks: relays have it in their environment, and so has what they run. One
/// text is for many machines.
pub(crate) const MARKS_VARIABLE: &str = "TORTURE_MARKS";
/// Lines between two waits of [`Work::Lines`].
pub(crate) const LINES_AT_ONCE: u32 = 256;
/// Bytes of one of its lines.
pub(crate) const LINE_BYTES: u64 = 16;

/// The text for `sh -c`. Uptime is no clock that anybody sets, nor one that a program is lied to about.
pub(crate) fn text(work: &Work) -> String {
    let mark = |letter: &str| {
        format!("read -r up _ </proc/uptime; echo \"{letter} $SIGNALBOX_RUN $up\" >>\"${MARKS_VARIABLE}\"")
    };
    let (start, end) = (mark("S"), mark("E"));
    match work {
        Work::Nothing => format!("{start}; {end}"),
        Work::Wait(ms) => format!("{start}; sleep {}; {end}", seconds(*ms)),
        Work::Lines(lines, pause_ms) => format!("{start}; {}; {end}", numbered(*lines, *pause_ms)),
        Work::Chatter { lines, at_once, pause_ms } => {
            format!("{start}; {}; {end}", paced(*lines, *at_once, *pause_ms))
        }
        Work::Fail(code) => format!("{start}; {end}; exit {code}"),
        Work::Die => format!("{start}; kill -9 $$; {end}"),
    }
}

fn seconds(ms: u32) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

fn numbered(lines: u32, pause_ms: u32) -> String {
    if lines == 0 {
        return ":".to_owned();
    }
    if pause_ms == 0 {
        return format!("seq -f %015.0f {lines}");
    }
    let pause = seconds(pause_ms);
    format!(
        "i=0; while [ $i -lt {lines} ]; do j=$((i+{LINES_AT_ONCE})); [ $j -gt {lines} ] && j={lines}; \
         seq -f %015.0f $((i+1)) $j; i=$j; sleep {pause}; done"
    )
}

/// One process that paces itself: a shell would fork for every wait, and many of these are at work at once.
fn paced(lines: u32, at_once: u32, pause_ms: u32) -> String {
    let (at_once, pause) = (at_once.max(1), seconds(pause_ms));
    format!(
        "perl -e '$| = 1; for ($n = 1; $n <= {lines}; $n += {at_once}) {{ \
         $m = $n + {at_once} - 1; $m = {lines} if $m > {lines}; \
         print map {{ sprintf \"%015d\\n\", $_ }} $n..$m; select undef, undef, undef, {pause} }}'"
    )
}

/// How long it takes at least, ms; nothing where it takes as long as it does.
pub(crate) fn least_ms(work: &Work) -> Option<u64> {
    match work {
        Work::Wait(ms) => Some(u64::from(*ms)),
        Work::Lines(lines, pause_ms) => Some(u64::from(lines.div_ceil(LINES_AT_ONCE)) * u64::from(*pause_ms)),
        Work::Chatter { lines, at_once, pause_ms } => {
            Some(u64::from(lines.div_ceil((*at_once).max(1))) * u64::from(*pause_ms))
        }
        Work::Nothing | Work::Fail(_) | Work::Die => None,
    }
}

/// Bytes that the whole of it writes to stdout.
pub(crate) fn output_bytes(work: &Work) -> u64 {
    match work {
        Work::Lines(lines, _) | Work::Chatter { lines, .. } => u64::from(*lines) * LINE_BYTES,
        Work::Nothing | Work::Wait(_) | Work::Fail(_) | Work::Die => 0,
    }
}

/// What stands in its stdout from `offset` on: `len` bytes, or fewer where it ends.
pub(crate) fn output(work: &Work, offset: u64, len: u64) -> Vec<u8> {
    let end = offset.saturating_add(len).min(output_bytes(work));
    if end <= offset {
        return Vec::new();
    }
    let first = offset / LINE_BYTES;
    let lines = (first..end.div_ceil(LINE_BYTES)).flat_map(|line| format!("{:015}\n", line + 1).into_bytes());
    let skipped = usize::try_from(offset - first * LINE_BYTES).unwrap_or(usize::MAX);
    let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
    lines.skip(skipped).take(len).collect()
}

/// How it ends when nobody interferes: its exit code, or none where a signal ends it.
pub(crate) fn exit_code(work: &Work) -> Option<i32> {
    match work {
        Work::Nothing | Work::Wait(_) | Work::Lines(..) | Work::Chatter { .. } => Some(0),
        Work::Fail(code) => Some(i32::from(*code)),
        Work::Die => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::process::Command;

    #[rstest]
    #[case(Work::Nothing)]
    #[case(Work::Wait(5))]
    #[case(Work::Lines(0, 0))]
    #[case(Work::Lines(1, 0))]
    #[case(Work::Lines(1_000, 0))]
    #[case(Work::Lines(1, 1))]
    #[case(Work::Lines(256, 1))]
    #[case(Work::Lines(600, 1))]
    #[case(Work::Chatter { lines: 0, at_once: 3, pause_ms: 1 })]
    #[case(Work::Chatter { lines: 1_000, at_once: 30, pause_ms: 1 })]
    #[case(Work::Chatter { lines: 60, at_once: 20, pause_ms: 1 })]
    #[case(Work::Fail(7))]
    #[case(Work::Die)]
    fn a_shell_does_what_is_expected_of_it(#[case] work: Work) {
        let marks = tempfile::NamedTempFile::new().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(text(&work)).env("SIGNALBOX_RUN", "run").env(MARKS_VARIABLE, marks.path());
        let out = shell.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
        assert_eq!(out.status.code(), exit_code(&work));
        assert_eq!(out.stdout, output(&work, 0, u64::MAX));
        assert_eq!(out.stdout.len() as u64, output_bytes(&work));
        let marks = std::fs::read_to_string(marks.path()).unwrap();
        let letters: Vec<&str> = marks.lines().map(|line| &line[..6]).collect();
        let both = ["S run ", "E run "];
        assert_eq!(letters, if work == Work::Die { &both[..1] } else { &both });
        assert!(marks.lines().all(|line| line.split(' ').nth(2).unwrap().parse::<f64>().unwrap() > 0.0));
    }

    #[rstest]
    #[case(Work::Nothing, None)]
    #[case(Work::Fail(7), None)]
    #[case(Work::Wait(5), Some(5))]
    #[case(Work::Lines(1_000, 0), Some(0))]
    #[case(Work::Lines(600, 10), Some(30))]
    #[case(Work::Chatter { lines: 61, at_once: 20, pause_ms: 10 }, Some(40))]
    fn what_waits_takes_its_time(#[case] work: Work, #[case] least: Option<u64>) {
        assert_eq!(least_ms(&work), least);
    }

    #[test]
    fn any_part_of_the_output_is_known() {
        let work = Work::Lines(20, 0);
        let whole = output(&work, 0, u64::MAX);
        for (offset, len) in [(0, 1), (15, 2), (16, 16), (7, 100), (319, 5), (320, 1), (1_000, 1), (3, 0)] {
            let from = usize::try_from(offset).unwrap().min(whole.len());
            let to = usize::try_from(offset + len).unwrap().min(whole.len());
            assert_eq!(output(&work, offset, len), whole[from..to], "{offset} {len}");
        }
    }
}
