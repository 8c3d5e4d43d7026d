//! `signalbox man`: a page for each command, made from the command line as it is.

use std::path::Path;

use clap::Command;

use super::{
    call,
    exit::{self, Failure},
};
use crate::args::Args;

/// Prints the page of the program, or writes one for each command.
///
/// # Errors
/// [`Failure`].
pub async fn man(dir: Option<&Path>) -> Result<u8, Failure> {
    const WHAT: &str = "write the pages of man";
    let failed = |error: &std::io::Error| Failure::system(WHAT, error);
    let pages = pages(Args::whole()).map_err(|error| failed(&error))?;
    let Some(dir) = dir else {
        return call::print(pages.into_iter().next().map(|(_, page)| page).unwrap_or_default()).await;
    };
    let dir = dir.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&dir)?;
        // For everybody, as the umask allows: they hold nothing of one's own.
        pages.iter().try_for_each(|(name, page)| std::fs::write(dir.join(name), page))
    });
    written.await.map_err(|error| Failure::system(WHAT, &error))?.map_err(|error| failed(&error))?;
    Ok(exit::OK)
}

/// The pages by the names of their files, that of the program first.
///
/// # Errors
/// Never in practice: they are written to memory.
pub fn pages(mut command: Command) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    // What is global is known to every command from here on.
    command.build();
    let mut pages = Vec::new();
    collect(&command, command.get_name(), &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    // As people type it, and as the file is called.
    let shown = command.clone().display_name(name.to_owned());
    let mut page = Vec::new();
    clap_mangen::Man::new(shown).title(name.to_uppercase()).render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set());
    for sub in subcommands {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::example;

    fn leaves<'a>(command: &'a Command, path: &str, found: &mut Vec<(String, &'a Command)>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name()).trim().to_owned();
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                found.push((path, sub));
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_are_right_and_a_page_with_them() {
        let command = Args::whole();
        let pages = pages(command.clone()).unwrap();
        let mut found = Vec::new();
        leaves(&command, "", &mut found);
        assert!(found.len() > 40, "{}", found.len());
        for (path, _) in found {
            let examples = example::of(&path);
            assert!(!examples.is_empty(), "`{path}` has no example; write one in args/example.rs");
            let file = format!("signalbox-{}.1", path.replace(' ', "-"));
            let (_, page) =
                pages.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("no {file}"));
            let page = String::from_utf8(page.clone()).unwrap();
            assert!(page.contains("Examples:") && page.contains(".SH OPTIONS"), "{file}: {page}");
            for written in examples.iter().filter(|example| example.starts_with("signalbox ")) {
                reads(&path, written);
            }
        }
        assert_eq!(pages[0].0, "signalbox.1");
        assert!(String::from_utf8_lossy(&pages[0].1).contains("signalbox\\-run(1)"));
    }

    /// An example is read, as the command that it is of.
    fn reads(path: &str, written: &str) {
        let line = written.split(['|', '>']).next().unwrap_or_default();
        let words = shell_words(line);
        let matches =
            Args::whole().try_get_matches_from(words).unwrap_or_else(|error| panic!("{written}: {error}"));
        let mut matches = &matches;
        let mut read = Vec::new();
        while let Some((name, inner)) = matches.subcommand() {
            read.push(name);
            matches = inner;
        }
        assert_eq!(read.join(" "), path, "{written}");
    }

    /// Words, of which some are in single quotes.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (n, part) in line.split('\'').enumerate() {
            if n % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }
}
