//! Durations and sizes as people write them. Pure.

/// A text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a duration.
    #[error("write a duration such as 30s, 5m, 24h, 7d or 250ms")]
    Duration,
    /// Not a size.
    #[error("write a size such as 10MiB, 1GiB, 64kB or 1000")]
    Size,
}

/// Longest first where one is the end of another.
const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
    ("", 1),
];

/// Reads a duration with a unit, in milliseconds: `30s`, `5m`, `24h`, `7d`, `250ms`.
///
/// # Errors
/// [`QuantityError::Duration`]: no unit, no whole number, or beyond 2^64 ms.
pub fn duration_ms(text: &str) -> Result<u64, QuantityError> {
    read(text, &DURATIONS).ok_or(QuantityError::Duration)
}

/// Reads a size in bytes: `10MiB`, `1GiB`, `64kB`, `1000`.
///
/// # Errors
/// [`QuantityError::Size`]: unknown unit, no whole number, or beyond 2^64 bytes.
pub fn size_bytes(text: &str) -> Result<u64, QuantityError> {
    read(text, &SIZES).ok_or(QuantityError::Size)
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A duration for people: `12 ms`, `3.4 s`, `2 min 5 s`, `3 h 10 min`, `2 d 4 h`.
pub fn show_ms(ms: u64) -> String {
    let (secs, mins, hours) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{secs}.{} s", ms % 1_000 / 100),
        60_000..3_600_000 => format!("{mins} min {} s", secs % 60),
        3_600_000..86_400_000 => format!("{hours} h {} min", mins % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// An age for people, in whole seconds below a minute: `0 s`, `12 s`, `2 min 5 s`.
pub fn show_age(ms: u64) -> String {
    if ms < 60_000 { format!("{} s", ms / 1_000) } else { show_ms(ms) }
}

/// A size for people: `512 B`, `1.5 KiB`, `3.0 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u64 << 10)];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((name, size)) => format!("{}.{} {name}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}
