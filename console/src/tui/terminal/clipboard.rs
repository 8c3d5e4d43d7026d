//! Text for the clipboard: by the terminal itself (OSC 52, which comes through SSH), and by the program that the desktop
//! has for it.

use std::{io, io::Write as _, process::Stdio, time::Duration};

use data_encoding::BASE64;
use tokio::{io::AsyncWriteExt as _, process::Command, task::JoinSet, time::timeout};

/// A program that takes text has this long for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// By what text comes to the clipboard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clipboard {
    /// By the terminal.
    #[default]
    Terminal,
    /// By the terminal, and by this program of the desktop.
    Both(Program),
    /// By this program only.
    Program(Program),
    /// Nothing is copied.
    Off,
}

/// A program that takes text for the clipboard on its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Of Wayland.
    WlCopy,
    /// Of X11.
    Xclip,
    /// Of macOS.
    Pbcopy,
}

impl Program {
    fn command(self) -> Command {
        let (program, arguments): (&str, &[&str]) = match self {
            Self::WlCopy => ("wl-copy", &[]),
            Self::Xclip => ("xclip", &["-selection", "clipboard"]),
            Self::Pbcopy => ("pbcopy", &[]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

impl Clipboard {
    /// Copies a text. The program works on in `tasks`; whether it succeeds is not waited for.
    ///
    /// # Errors
    /// When nothing takes it, or the terminal cannot be written to.
    pub(super) fn copy(self, text: &str, most_bytes: usize, tasks: &mut JoinSet<()>) -> io::Result<()> {
        if text.len() > most_bytes {
            let why = format!("it has {} bytes, and clipboard.max_bytes says {most_bytes}", text.len());
            return Err(io::Error::other(why));
        }
        let (by_terminal, program) = match self {
            Self::Terminal => (true, None),
            Self::Both(program) => (true, Some(program)),
            Self::Program(program) => (false, Some(program)),
            Self::Off => return Err(io::Error::other("copying is switched off")),
        };
        if let Some(program) = program {
            // What has ended needs no place any more.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(hand_over(program, text.to_owned()));
        }
        if by_terminal {
            let mut out = io::stdout().lock();
            out.write_all(sequence(text).as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }
}

/// The sequence that puts a text on the clipboard.
fn sequence(text: &str) -> String {
    format!("\x1b]52;c;{}\x07", BASE64.encode(text.as_bytes()))
}

async fn hand_over(program: Program, text: String) {
    let mut command = program.command();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let work = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).await?;
        }
        child.wait().await
    };
    match timeout(PATIENCE, work).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, ?program, "nothing was copied"),
        Err(_) => tracing::debug!(?program, "the program for the clipboard takes too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_text_reaches_the_terminal_as_it_is() {
        let text = "web-1\x1b]0;title\x07\nweb-2";
        let sequence = sequence(text);
        let inside = sequence.strip_prefix("\x1b]52;c;").and_then(|rest| rest.strip_suffix('\x07')).unwrap();
        assert!(
            inside.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)),
            "{inside}"
        );
        assert_eq!(BASE64.decode(inside.as_bytes()).unwrap(), text.as_bytes());
    }

    #[tokio::test]
    async fn what_cannot_be_copied_is_told() {
        let mut tasks = JoinSet::new();
        let told = Clipboard::Terminal.copy("12345", 4, &mut tasks).unwrap_err();
        assert!(told.to_string().contains("5 bytes, and clipboard.max_bytes says 4"), "{told}");
        assert!(Clipboard::Off.copy("x", 4, &mut tasks).is_err());
    }
}
