//! Looking for secrets where none may be: in files, arguments and environments, as they are and as programs write bytes down.
//!
//! Base64 knows three places at which a secret can begin within what is encoded, and each writes other characters. So of each the
//! characters are looked for that the secret alone decides. Line ends count for nothing, since PEM and MIME break long lines.

use std::{
    fmt, fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use data_encoding::{BASE64, BASE64URL, Encoding, HEXLOWER, HEXUPPER};
use rustix::io::Errno;

/// A needle that is shorter is found where there is none.
const LEAST_BYTES: usize = 12;
/// Bytes that one character of base64 decides in part, and characters of each group.
const BASE64_GROUP: (usize, usize) = (3, 4);
/// What processes show to who may look.
const SHOWN: [&str; 2] = ["cmdline", "environ"];

/// How bytes are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// Two digits each, `0-9a-f`.
    HexLower,
    /// Two digits each, `0-9A-F`.
    HexUpper,
    /// A list of numbers, as `Debug` has it.
    Numbers,
    /// A list of numbers without spaces, as JSON has it.
    NumbersTight,
    /// Base64 with `+` and `/`.
    Base64,
    /// Base64 with `-` and `_`.
    Base64Url,
    /// Base64 of base64 with `+` and `/`. The outer one has neither those nor `-` and `_`.
    Base64Twice,
    /// Base64 of base64 with `-` and `_`.
    Base64UrlTwice,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Plain,
        Self::HexLower,
        Self::HexUpper,
        Self::Numbers,
        Self::NumbersTight,
        Self::Base64,
        Self::Base64Url,
        Self::Base64Twice,
        Self::Base64UrlTwice,
    ];

    /// What bytes look like in this form.
    pub fn written(self, bytes: &[u8]) -> Vec<u8> {
        let encodings = self.encodings();
        if !encodings.is_empty() {
            return encodings.iter().fold(bytes.to_vec(), |bytes, by| by.encode(&bytes).into_bytes());
        }
        let listed = |between: &str| {
            let numbers: Vec<String> = bytes.iter().map(ToString::to_string).collect();
            numbers.join(between).into_bytes()
        };
        match self {
            Self::HexLower => HEXLOWER.encode(bytes).into_bytes(),
            Self::HexUpper => HEXUPPER.encode(bytes).into_bytes(),
            Self::Numbers => listed(", "),
            Self::NumbersTight => listed(","),
            _ => bytes.to_vec(),
        }
    }

    /// The kinds of base64 that make it, the inner one first.
    fn encodings(self) -> Vec<Encoding> {
        match self {
            Self::Plain | Self::HexLower | Self::HexUpper | Self::Numbers | Self::NumbersTight => vec![],
            Self::Base64 => vec![BASE64],
            Self::Base64Url => vec![BASE64URL],
            Self::Base64Twice => vec![BASE64, BASE64],
            Self::Base64UrlTwice => vec![BASE64URL, BASE64],
        }
    }

    /// What is there for certain wherever a secret is written in this form, whatever stands around it.
    fn cores(self, secret: &[u8]) -> Vec<Vec<u8>> {
        let encodings = self.encodings();
        if encodings.is_empty() {
            return vec![self.written(secret)];
        }
        let each_way = |by: &Encoding, bytes: &[u8]| -> Vec<Vec<u8>> {
            (0..BASE64_GROUP.0).map(|before| core(by, bytes, before)).collect()
        };
        encodings.iter().fold(vec![secret.to_vec()], |inner, by| {
            inner.iter().flat_map(|bytes| each_way(by, bytes)).collect()
        })
    }
}

/// The characters that these bytes alone decide where so many others go before them.
fn core(by: &Encoding, bytes: &[u8], before: usize) -> Vec<u8> {
    let (group, characters) = BASE64_GROUP;
    let whole = by.encode(&[&vec![0; before], bytes].concat()).into_bytes();
    let first = (before * characters).div_ceil(group);
    let end = (before + bytes.len()) * characters / group;
    whole.get(first..end).unwrap_or_default().to_vec()
}

/// Where a secret lies, and how it is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// A file or folder.
    pub path: PathBuf,
    /// How it is written there.
    pub form: Form,
}

struct Needle {
    form: Form,
    bytes: Vec<u8>,
}

/// Secrets that are looked for.
pub struct Leaks {
    needles: Vec<Needle>,
    /// For each pair of bytes whether a needle begins so: most of what is looked through does not.
    begins: Vec<bool>,
}

impl Leaks {
    /// Looks for these secrets.
    ///
    /// # Errors
    /// When one of them is too short to be told from what stands there by chance.
    pub fn of(secrets: &[&[u8]]) -> Result<Self> {
        let mut needles: Vec<Needle> = Vec::new();
        let mut begins = vec![false; 1 << 16];
        for secret in secrets {
            ensure!(secret.len() >= LEAST_BYTES, "a secret of {} bytes is found by chance", secret.len());
            for form in Form::ALL {
                for core in form.cores(secret) {
                    let bytes = without_line_ends(&core);
                    if needles.iter().any(|needle| needle.bytes == bytes) {
                        continue;
                    }
                    let begin = begins.get_mut(pair(&bytes).context("an empty needle")?);
                    *begin.context("no such pair")? = true;
                    needles.push(Needle { form, bytes });
                }
            }
        }
        Ok(Self { needles, begins })
    }

    /// The form in which a secret is somewhere in these bytes.
    pub fn within(&self, bytes: &[u8]) -> Option<Form> {
        let bytes = without_line_ends(bytes);
        (0..bytes.len()).find_map(|at| {
            let rest = bytes.get(at..)?;
            if !pair(rest).and_then(|pair| self.begins.get(pair)).is_some_and(|begins| *begins) {
                return None;
            }
            self.needles.iter().find(|needle| rest.starts_with(&needle.bytes)).map(|needle| needle.form)
        })
    }

    /// Looks through a folder and all below it: what files hold, and what they and folders are called.
    ///
    /// # Errors
    /// When something there cannot be read.
    pub fn in_folder(&self, folder: &Path) -> Result<Vec<Found>> {
        let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            // What is there may go while it is looked at.
            let Some(entries) = unless_gone(fs::read_dir(&folder), &folder)? else { continue };
            for entry in entries {
                let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
                let Some(kind) = unless_gone(fs::symlink_metadata(&path), &path)? else { continue };
                let mut form = path.file_name().and_then(|name| self.within(name.as_bytes()));
                if kind.is_dir() {
                    folders.push(path.clone());
                } else if kind.is_file() {
                    let bytes = unless_gone(fs::read(&path), &path)?.unwrap_or_default();
                    form = form.or_else(|| self.within(&bytes));
                }
                found.extend(form.map(|form| Found { path, form }));
            }
        }
        Ok(found)
    }

    /// Looks through the arguments and the environments of all processes that this one may look at.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub fn in_processes(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let folder = entry.context("reading /proc")?.path();
            if !folder.file_name().is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit)) {
                continue;
            }
            for name in SHOWN {
                let path = folder.join(name);
                let bytes = match fs::read(&path) {
                    // Who may not look at all of it is told nothing there either.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                    read => unless_gone(read, &path)?.unwrap_or_default(),
                };
                found.extend(self.within(&bytes).map(|form| Found { path, form }));
            }
        }
        Ok(found)
    }
}

/// It is full of secrets.
impl fmt::Debug for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaks").field("needles", &self.needles.len()).finish_non_exhaustive()
    }
}

fn without_line_ends(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect()
}

/// The first two bytes as one number.
fn pair(bytes: &[u8]) -> Option<usize> {
    let [first, second, ..] = bytes else { return None };
    Some(usize::from(*first) << 8 | usize::from(*second))
}

fn unless_gone<T>(read: io::Result<T>, path: &Path) -> Result<Option<T>> {
    let is_gone = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
    };
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rstest::rstest;

    use super::*;
    use crate::{eventually, process::Daemon};

    /// One that base64 writes differently with `+/` and with `-_`, and that no other process on this machine has.
    fn secret(test: &str) -> Vec<u8> {
        format!("hunter2>>>???~~~ {test} {}", std::process::id()).into_bytes()
    }

    /// The secret in each form, so many bytes behind the beginning of what is encoded. Base64 of base64 has its alignments as
    /// well: what goes before moves them.
    fn planted(secret: &[u8]) -> Vec<(Form, String)> {
        let all = Form::ALL.into_iter().flat_map(|form| (0..9).map(move |before| (form, before)));
        all.map(|(form, before)| {
            let text = [&b"b".repeat(before), secret, b" and more"].concat();
            (form, String::from_utf8(form.written(&text)).unwrap())
        })
        .collect()
    }

    /// Two forms of some bytes can be the same text: that it is found is what counts.
    fn paths(found: &[Found]) -> Vec<PathBuf> {
        found.iter().map(|found| found.path.clone()).collect()
    }

    #[rstest]
    #[case(Form::Plain, "~~?>")]
    #[case(Form::HexLower, "7e7e3f3e")]
    #[case(Form::HexUpper, "7E7E3F3E")]
    #[case(Form::Numbers, "126, 126, 63, 62")]
    #[case(Form::NumbersTight, "126,126,63,62")]
    #[case(Form::Base64, "fn4/Pg==")]
    #[case(Form::Base64Url, "fn4_Pg==")]
    #[case(Form::Base64Twice, "Zm40L1BnPT0=")]
    #[case(Form::Base64UrlTwice, "Zm40X1BnPT0=")]
    fn forms_are_what_they_are_called(#[case] form: Form, #[case] text: &str) {
        assert_eq!(String::from_utf8(form.written(b"~~?>")).unwrap(), text);
    }

    #[test]
    fn a_secret_in_a_file_is_found_in_every_form() {
        let (secret, folder) = (secret("file"), tempfile::tempdir().unwrap());
        let leaks = Leaks::of(&[&secret]).unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("innocent"), b"hunter3".repeat(10_000)).unwrap();
        assert_eq!(leaks.in_folder(folder.path()).unwrap(), []);
        for (form, text) in planted(&secret) {
            let path = deep.join("planted");
            fs::write(&path, format!("before it {text}\nbehind it")).unwrap();
            let found = leaks.in_folder(folder.path()).unwrap();
            assert_eq!(paths(&found), [path], "{form:?}: {text}");
        }
    }

    #[test]
    fn a_secret_is_found_across_lines_and_in_names() {
        let (secret, folder) = (secret("lines"), tempfile::tempdir().unwrap());
        let leaks = Leaks::of(&[&secret]).unwrap();
        for (form, text) in planted(&secret) {
            let lines: Vec<_> = text.as_bytes().chunks(16).map(String::from_utf8_lossy).collect();
            assert!(leaks.within(lines.join("\r\n").as_bytes()).is_some(), "{form:?}: {text}");
        }
        let path = folder.path().join(HEXLOWER.encode(&secret));
        fs::create_dir(&path).unwrap();
        assert_eq!(leaks.in_folder(folder.path()).unwrap(), [Found { path, form: Form::HexLower }]);
    }

    #[test]
    fn what_is_half_a_secret_is_none_and_what_is_too_short_is_not_looked_for() {
        let secret = secret("half");
        let leaks = Leaks::of(&[&secret]).unwrap();
        for (_, text) in planted(&secret[..secret.len() / 2]) {
            assert_eq!(leaks.within(text.as_bytes()), None, "{text}");
        }
        assert!(Leaks::of(&[b"hunter2"]).is_err());
    }

    /// What a process shows is looked for as soon as it has become the program.
    async fn shown_by(process: &Daemon, leaks: &Leaks, name: &str) -> Vec<PathBuf> {
        let pid = process.pid();
        eventually("the program", || async move {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            ensure!(["sleep", "sh"].contains(&comm.trim()), "it is {comm}");
            Ok(())
        })
        .await
        .unwrap();
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        let found = leaks.in_processes().unwrap();
        paths(&found).into_iter().filter(|found| *found == path).collect()
    }

    #[tokio::test]
    async fn a_secret_in_an_argument_is_found_in_every_form() {
        let secret = secret("argument");
        let leaks = Leaks::of(&[&secret]).unwrap();
        assert_eq!(leaks.in_processes().unwrap(), []);
        for (form, text) in planted(&secret) {
            let mut command = Command::new("sh");
            let process = Daemon::spawn(command.args(["-c", "sleep 300 & wait", "sh", &text])).unwrap();
            let found = shown_by(&process, &leaks, "cmdline").await;
            assert_eq!(found.len(), 1, "{form:?}: {text}");
        }
    }

    #[tokio::test]
    async fn a_secret_in_an_environment_is_found_in_every_form() {
        let secret = secret("environment");
        let leaks = Leaks::of(&[&secret]).unwrap();
        for (form, text) in planted(&secret) {
            let mut command = Command::new("sleep");
            let process = Daemon::spawn(command.arg("300").env("PLANTED", &text)).unwrap();
            let found = shown_by(&process, &leaks, "environ").await;
            assert_eq!(found.len(), 1, "{form:?}: {text}");
        }
    }
}
