//! What simulated machines are like: their names, systems and moods. Pure: a number makes a machine, always the same one.

use std::time::Duration;

use signalbox_schemas::heartbeat::{Disk, Facts, Metrics};

const GIB: u64 = 1 << 30;

/// What becomes of the commands of a simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Each ends at once, and well.
    Prompt,
    /// Each fails at once.
    Failing,
    /// Each ends at once, and well, with 10 KB of output.
    Telling(Story),
    /// Each ends well, after so long.
    Slow(Duration),
    /// It is never there.
    Offline,
}

/// What a machine tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// The same as nearly all others.
    Usual,
    /// The same as one in twenty.
    Other,
    /// What nobody else does.
    Own,
}

/// Machines that tell something: nearly all of them the same.
pub(crate) fn telling(n: usize) -> Temper {
    Temper::Telling(match n {
        n if n % 1_000 == 1 => Story::Own,
        n if n % 20 == 0 => Story::Other,
        _ => Story::Usual,
    })
}

impl Story {
    /// What is told by machine `n`: 10 KB in lines.
    pub(crate) fn text(self, n: usize) -> String {
        const PACKAGES: usize = 190;
        let last = match self {
            Self::Usual => "nginx/stable-security,now 1.22.1-9+deb12u2 amd64 [installed]\n".to_owned(),
            Self::Other => "nginx/stable,now 1.18.0-6.1+deb11u3 amd64 [installed,upgradable]\n".to_owned(),
            Self::Own => format!("nginx/now 1.27.{n} amd64 [installed,local]\n"),
        };
        let line = |at: usize| format!("lib{at:03}-perl/stable,now 0.{at}-1 amd64 [installed,automatic]\n");
        (0..PACKAGES).map(line).chain([last]).collect()
    }
}

/// As a fleet is, where all tell something.
pub(crate) fn shown(n: usize) -> Temper {
    match lively(n) {
        Temper::Prompt => telling(n),
        other => other,
    }
}

/// Of a hundred machines: some are away, some fail, some take their time.
pub(crate) fn lively(n: usize) -> Temper {
    match scatter(n, 1) % 100 {
        0..3 => Temper::Offline,
        3..8 => Temper::Failing,
        8..18 => Temper::Slow(Duration::from_millis(500 + scatter(n, 2) % 9_500)),
        _ => Temper::Prompt,
    }
}

/// Names as fleets have them.
pub(crate) fn names(count: usize) -> Vec<String> {
    const ROLES: [&str; 8] = ["web", "db", "cache", "queue", "build", "edge", "store", "mail"];
    const SITES: [&str; 5] = ["fra", "ams", "nyc", "sin", "syd"];
    let name = |n: usize| {
        let (role, site) = (ROLES.get(n % ROLES.len()), SITES.get(n / ROLES.len() % SITES.len()));
        format!(
            "{}-{}-{:04}",
            role.unwrap_or(&"web"),
            site.unwrap_or(&"fra"),
            n / (ROLES.len() * SITES.len())
        )
    };
    (0..count).map(name).collect()
}

/// What the machine is.
pub(crate) fn facts(n: usize, name: &str) -> Facts {
    const SYSTEMS: [(&str, &str); 4] = [
        ("Debian 12.11", "6.1.0-37-amd64"),
        ("Ubuntu 24.04", "6.8.0-63-generic"),
        ("Rocky Linux 9.6", "5.14.0-570.el9"),
        ("Alpine Linux 3.22", "6.12.30-0-lts"),
    ];
    let (os, kernel) = SYSTEMS.get(pick(n, 3, SYSTEMS.len())).copied().unwrap_or_default();
    let arch = if scatter(n, 4).is_multiple_of(8) { "aarch64" } else { "x86_64" };
    Facts {
        hostname: format!("{name}.example.net"),
        os: os.to_owned(),
        kernel: kernel.to_owned(),
        arch: arch.to_owned(),
    }
}

/// How the machine is at its `beat`-th sign of life: around a level of its own, never quite the same.
pub(crate) fn metrics(n: usize, beat: u64) -> Metrics {
    let salt = 100 + usize::try_from(beat).unwrap_or(0);
    let cpus = 1_u32 << pick(n, 5, 6);
    let memory = GIB << pick(n, 6, 7);
    let level = part(n, 7).powi(2);
    let now = (level + 0.15 * (part(n, salt) - 0.5)).clamp(0.0, 1.0);
    let share = |of: u64, part: f64| of / 1_000 * permille(part);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a percentage of which nobody reads the seventh digit"
    )]
    let cpu_percent = (now * 100.0) as f32;
    let disk = |mount: &str, salt| {
        let total = (20 * GIB) << pick(n, salt, 6);
        Disk { mount: mount.to_owned(), used_bytes: share(total, part(n, salt + 50)), total_bytes: total }
    };
    Metrics {
        cpu_percent,
        cpus,
        memory_used_bytes: share(memory, 0.1 + 0.85 * part(n, 8)),
        memory_total_bytes: memory,
        swap_used_bytes: 0,
        swap_total_bytes: if scatter(n, 9).is_multiple_of(2) { GIB } else { 0 },
        load: [now, level, level].map(|level| (level * f64::from(cpus) * 100.0).round() / 100.0),
        uptime_secs: scatter(n, 10) % 20_000_000 + beat * 10,
        disks: vec![disk("/", 11), disk("/var", 12)],
    }
}

/// A number that looks like nothing, the same for the same two.
fn scatter(n: usize, salt: usize) -> u64 {
    // splitmix64
    let mut x =
        (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add((salt as u64) << 32 | 0x1234_5678);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn pick(n: usize, salt: usize, of: usize) -> usize {
    usize::try_from(scatter(n, salt) % of as u64).unwrap_or(0)
}

/// From 0 to 1.
fn part(n: usize, salt: usize) -> f64 {
    f64::from(u16::try_from(scatter(n, salt) % 1_000).unwrap_or(0)) / 1_000.0
}

fn permille(part: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1,000")]
    let permille = (part.clamp(0.0, 1.0) * 1_000.0) as u64;
    permille
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use signalbox_schemas::id::MachineToken;

    use super::*;

    #[test]
    fn a_lively_fleet_has_all_kinds_of_machines() {
        let of = |wanted: fn(Temper) -> bool| (0..10_000).filter(|n| wanted(lively(*n))).count();
        assert!((200..400).contains(&of(|temper| temper == Temper::Offline)));
        assert!((400..600).contains(&of(|temper| temper == Temper::Failing)));
        assert!((900..1_100).contains(&of(|temper| matches!(temper, Temper::Slow(_)))));
    }

    #[test]
    fn stories_have_ten_kilobytes_and_differ_where_they_should() {
        let of = |n| match telling(n) {
            Temper::Telling(story) => story.text(n),
            other => panic!("{other:?}"),
        };
        assert!((10_000..12_000).contains(&of(2).len()), "{}", of(2).len());
        assert_eq!((of(2), of(20)), (of(3), of(40)));
        assert_eq!([2, 20, 1, 1_001].map(of).iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn names_are_tokens_and_differ() {
        let names = names(10_000);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 10_000);
        assert!(names.iter().all(|name| MachineToken::new(name).is_ok()));
    }

    #[test]
    fn metrics_are_possible_and_change() {
        for n in 0..1_000 {
            let now = metrics(n, 3);
            assert!(
                (0.0..=100.0).contains(&now.cpu_percent) && now.memory_used_bytes <= now.memory_total_bytes
            );
            assert!(now.disks.iter().all(|disk| disk.used_bytes <= disk.total_bytes), "{now:?}");
        }
        let load = |n, beat| metrics(n, beat).load.map(f64::to_bits);
        let different = (0..1_000).filter(|n| load(*n, 1) != load(*n, 2)).count();
        assert!(different > 800, "{different}");
    }
}
