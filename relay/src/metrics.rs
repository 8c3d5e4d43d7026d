//! How the machine is: CPU, memory, swap, load and disks. The only room that knows sysinfo.

use std::{collections::BTreeMap, path::Path};

use signalbox_schemas::heartbeat::{Disk, Facts, Metrics};
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

/// Most file systems that are reported.
const MAX_DISKS: usize = 16;
/// Longest text taken from the system, characters.
const MAX_TEXT_CHARS: usize = 128;

/// What has to be remembered between two looks: CPU use is a difference.
pub(crate) struct Sampler {
    /// Absent on a system that does not tell.
    system: Option<System>,
}

impl Sampler {
    /// Takes the first look, for the second to compare with.
    pub(crate) fn new() -> Self {
        let what = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing().with_usage());
        Self { system: System::new_with_specifics(what).ok() }
    }

    /// Looks again. Blocks: a hanging file system can hold it for long.
    pub(crate) fn sample(&mut self) -> Option<Metrics> {
        Some(Metrics { disks: disks(), ..self.sample_without_disks()? })
    }

    /// Looks again, at no file system.
    pub(crate) fn sample_without_disks(&mut self) -> Option<Metrics> {
        let system = self.system.as_mut()?;
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::everything());
        let load = System::load_average().ok()?;
        Some(Metrics {
            cpu_percent: system.global_cpu_usage().clamp(0.0, 100.0),
            cpus: u32::try_from(system.cpus().len()).unwrap_or(u32::MAX),
            memory_used_bytes: system.used_memory(),
            memory_total_bytes: system.total_memory(),
            swap_used_bytes: system.used_swap(),
            swap_total_bytes: system.total_swap(),
            load: [load.one, load.five, load.fifteen],
            uptime_secs: System::uptime().ok()?,
            disks: Vec::new(),
        })
    }
}

/// File systems on disks, the largest first, each once however often it is mounted.
fn disks() -> Vec<Disk> {
    let what = DiskRefreshKind::nothing().with_storage();
    let Ok(found) = Disks::new_with_refreshed_list_specifics(what) else { return Vec::new() };
    let mut by_device = BTreeMap::new();
    for disk in found.iter().filter(|disk| disk.total_space() > 0) {
        let Some(entry) = file_system(disk.mount_point()) else { continue };
        // The shortest mount point is the one people mean.
        let kept = by_device.entry(disk.name().to_owned()).or_insert_with(|| entry.clone());
        if entry.mount.len() < kept.mount.len() {
            *kept = entry;
        }
    }
    let mut disks: Vec<Disk> = by_device.into_values().collect();
    disks.sort_by(|a, b| b.total_bytes.cmp(&a.total_bytes).then_with(|| a.mount.cmp(&b.mount)));
    disks.truncate(MAX_DISKS);
    disks
}

/// Bytes used of the root file system, and its size with what is reserved for root.
pub(crate) fn root_file_system() -> Option<(u64, u64)> {
    let space = rustix::fs::statvfs("/").ok()?;
    let used_bytes = space.f_blocks.saturating_sub(space.f_bfree).saturating_mul(space.f_frsize);
    Some((used_bytes, space.f_blocks.saturating_mul(space.f_frsize)))
}

/// A file system as `df` counts it: what is reserved for root counts neither as used nor as there, so that 100 %
/// is where writing ends.
fn file_system(mount: &Path) -> Option<Disk> {
    let space = rustix::fs::statvfs(mount).ok()?;
    let used_bytes = space.f_blocks.saturating_sub(space.f_bfree).saturating_mul(space.f_frsize);
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let total_bytes = used_bytes.saturating_add(free_bytes);
    Some(Disk { mount: short(&mount.to_string_lossy()), used_bytes, total_bytes })
}

/// What the machine is. Reads a few small files once.
pub(crate) fn facts() -> Facts {
    let text = |found: Result<String, sysinfo::Error>| short(&found.unwrap_or_default());
    Facts {
        hostname: text(System::host_name()),
        os: text(System::long_os_version()),
        kernel: text(System::kernel_version()),
        arch: short(&System::cpu_arch()),
    }
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_as_full_as_df_says() {
        let root = file_system(Path::new("/")).unwrap();
        let df = std::process::Command::new("df").args(["--output=pcent", "/"]).output().unwrap();
        let text = String::from_utf8(df.stdout).unwrap();
        let percent: u64 = text.lines().nth(1).unwrap().trim().trim_end_matches('%').parse().unwrap();
        assert!((root.used_bytes * 100 / root.total_bytes).abs_diff(percent) <= 2, "{root:?} and {text}");
    }

    #[test]
    fn the_machine_is_described_with_real_numbers() {
        let metrics = Sampler::new().sample().unwrap();
        assert!(metrics.cpus >= 1);
        assert!(
            metrics.memory_total_bytes > 1 << 20 && metrics.memory_used_bytes <= metrics.memory_total_bytes
        );
        assert!(metrics.uptime_secs > 0);
        assert!(metrics.disks.iter().all(|disk| disk.used_bytes <= disk.total_bytes));
        assert!(!facts().arch.is_empty());
    }
}
