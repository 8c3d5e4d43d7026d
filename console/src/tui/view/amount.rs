//! Amounts as people read them: short, with their unit.

/// Bytes: `512 B`, `1.5 KiB`, `12 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub fn bytes(bytes: u64) -> String {
    let (unit_bytes, unit) = unit(bytes);
    let value = bytes as f64 / unit_bytes as f64;
    if value < 10.0 && unit_bytes > 1 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A part of a whole in the unit of the whole: `38/93 GiB`.
pub fn part(part: u64, whole: u64) -> String {
    let (unit_bytes, unit) = unit(whole);
    format!("{}/{} {unit}", part / unit_bytes, whole / unit_bytes)
}

/// The largest unit that is not larger than an amount.
fn unit(bytes: u64) -> (u64, &'static str) {
    const UNITS: [(u64, &str); 5] =
        [(1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS.into_iter().find(|(unit_bytes, _)| bytes >= *unit_bytes).unwrap_or((1, "B"))
}

/// How long something took: `12ms`, `2.1s`, `3:05`, `2h05m`, `3d04h`.
pub fn duration(ms: u64) -> String {
    let secs = ms / 1000;
    match secs {
        0 => format!("{ms}ms"),
        1..60 => format!("{secs}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}:{:02}", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// How long ago something was, in one unit: `2s`, `48s`, `5m`, `3h`, `12d`.
pub fn age(ms: u64) -> String {
    let secs = ms / 1000;
    match secs {
        0..100 => format!("{secs}s"),
        100..6000 => format!("{}m", secs / 60),
        6000..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// A timeout as it is chosen: `30 s`, `5 min`, `1 h`.
pub fn timeout(ms: u64) -> String {
    match ms {
        ms if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// The time of day of a Unix time, UTC: `14:02:07Z`.
pub fn clock(ms: u64) -> String {
    let secs = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", secs / 3600, secs % 3600 / 60, secs % 60)
}

/// The minute of a Unix time, UTC: `14:02`.
pub fn minute(ms: u64) -> String {
    let mins = ms / 60_000 % 1440;
    format!("{:02}:{:02}", mins / 60, mins % 60)
}

/// The day of a Unix time, UTC: `11-22`.
pub fn day(ms: u64) -> String {
    let secs = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(secs)
        .map_or_else(|_| format!("{ms}"), |at| format!("{:02}-{:02}", u8::from(at.month()), at.day()))
}

/// A Unix time in full, UTC: `2026-11-22 14:02:07Z`.
pub fn date(ms: u64) -> String {
    let secs = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    // What no calendar has is shown as the number that it is.
    time::OffsetDateTime::from_unix_timestamp(secs)
        .map_or_else(|_| format!("{ms} ms"), |at| format!("{} {}", at.date(), clock(ms)))
}

/// How long ago a Unix time is, or how far ahead: `5m`, `in 3h`. Clocks differ a little: a second ahead is now.
pub fn moment(at_ms: u64, now_ms: u64) -> String {
    match at_ms.checked_sub(now_ms) {
        Some(ahead) if ahead >= 1_000 => format!("in {}", age(ahead)),
        _ => age(now_ms.saturating_sub(at_ms)),
    }
}

/// `1 machine`, `3 machines`.
pub fn machines(n: usize) -> String {
    format!("{n} machine{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "0 B")]
    #[case(1023, "1023 B")]
    #[case(1536, "1.5 KiB")]
    #[case(12 * 1024 * 1024, "12 MiB")]
    #[case(u64::MAX, "16384 PiB")]
    fn bytes_are_short(#[case] n: u64, #[case] expected: &str) {
        assert_eq!(bytes(n), expected);
    }

    #[rstest]
    #[case(999, "999ms")]
    #[case(2150, "2.1s")]
    #[case(185_000, "3:05")]
    #[case(7_500_000, "2h05m")]
    #[case(273_600_000, "3d04h")]
    fn durations_are_short(#[case] ms: u64, #[case] expected: &str) {
        assert_eq!(duration(ms), expected);
    }

    #[rstest]
    #[case(99_999, "99s")]
    #[case(100_000, "1m")]
    #[case(7_200_000, "2h")]
    #[case(1_000_000_000, "11d")]
    fn ages_are_short(#[case] ms: u64, #[case] expected: &str) {
        assert_eq!(age(ms), expected);
    }
}
