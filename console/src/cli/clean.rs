//! Foreign bytes on a terminal: made harmless, told apart. Pure.
//!
//! A machine may print anything. On a terminal only text, line ends, tabs and colours pass; whatever could move
//! the cursor, retitle the window, answer for the user or turn the text around becomes U+FFFD or nothing.

use std::{fmt::Write as _, mem};

use crate::tui::text::{breaks, hides};

/// Longest escape sequence that is looked at; longer ones are dropped as they come.
const SEQUENCE_BYTES: usize = 64;
/// What stands for something that is not shown.
const REPLACEMENT: char = '\u{fffd}';
/// Ends all colours.
const RESET: &str = "\u{1b}[0m";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and intermediate bytes.
    Intermediate,
    /// After `ESC [`: parameters are collected.
    Control,
    /// Within OSC, DCS, APC, PM or SOS: dropped up to its end.
    String,
    /// Within such a string, after ESC.
    StringEscape,
}

/// Makes a stream of bytes harmless, piece by piece.
#[derive(Debug, Default)]
pub struct Cleaner {
    colours: bool,
    mode: Mode,
    parameters: String,
    /// Bytes of a character that is not complete.
    partial: Vec<u8>,
    after_return: bool,
    coloured: bool,
}

impl Cleaner {
    /// `colours`: whether SGR sequences pass.
    pub fn new(colours: bool) -> Self {
        Self { colours, ..Self::default() }
    }

    /// The next bytes, cleaned.
    pub fn clean(&mut self, bytes: &[u8]) -> String {
        let mut input = mem::take(&mut self.partial);
        input.extend_from_slice(bytes);
        let mut out = String::with_capacity(input.len());
        let mut parts = input.utf8_chunks().peekable();
        while let Some(part) = parts.next() {
            for c in part.valid().chars() {
                self.take(c, &mut out);
            }
            let invalid = part.invalid();
            // A character may be cut by the end of a piece: it is completed by the next.
            if !invalid.is_empty() && parts.peek().is_none() && is_beginning(invalid) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.take(REPLACEMENT, &mut out);
            }
        }
        out
    }

    /// The stream has ended: what was cut off, and the end of colours.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        if !mem::take(&mut self.partial).is_empty() {
            out.push(REPLACEMENT);
        }
        if mem::take(&mut self.after_return) {
            out.push('\n');
        }
        self.mode = Mode::Text;
        if mem::take(&mut self.coloured) {
            out.push_str(RESET);
        }
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        match self.mode {
            Mode::Text => self.take_text(c, out),
            Mode::Escape => {
                self.mode = match c {
                    '[' => Mode::Control,
                    ']' | 'P' | 'X' | '^' | '_' => Mode::String,
                    ' '..='/' => Mode::Intermediate,
                    _ => Mode::Text,
                };
                self.parameters.clear();
            }
            Mode::Intermediate => {
                if !(' '..='/').contains(&c) {
                    self.mode = Mode::Text;
                }
            }
            Mode::Control => self.take_control(c, out),
            Mode::String => match c {
                '\u{1b}' => self.mode = Mode::StringEscape,
                '\u{7}' | '\u{9c}' | '\n' => self.mode = Mode::Text,
                _ => {}
            },
            Mode::StringEscape => {
                self.mode = if c == '\\' { Mode::Text } else { Mode::String };
            }
        }
    }

    fn take_text(&mut self, c: char, out: &mut String) {
        // A return ends the line, alone or with a line feed: it must not lead back over a prefix.
        if mem::take(&mut self.after_return) {
            out.push('\n');
            if c == '\n' {
                return;
            }
        }
        match c {
            '\r' => self.after_return = true,
            '\n' | '\t' => out.push(c),
            '\u{1b}' => self.mode = Mode::Escape,
            '\u{9b}' => {
                self.parameters.clear();
                self.mode = Mode::Control;
            }
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => self.mode = Mode::String,
            c if is_harmful(c) => out.push(REPLACEMENT),
            c => out.push(c),
        }
    }

    fn take_control(&mut self, c: char, out: &mut String) {
        match c {
            ' '..='?' => {
                if self.parameters.len() < SEQUENCE_BYTES {
                    self.parameters.push(c);
                }
            }
            'm' => {
                let plain = |b: u8| b.is_ascii_digit() || b == b';' || b == b':';
                if self.colours && self.parameters.bytes().all(plain) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\u{1b}[{}m", self.parameters);
                    self.coloured = true;
                }
                self.mode = Mode::Text;
            }
            '\n' => {
                self.mode = Mode::Text;
                self.take_text(c, out);
            }
            _ => self.mode = Mode::Text,
        }
    }
}

/// Controls, and marks that reorder or hide text.
fn is_harmful(c: char) -> bool {
    c.is_control() || hides(c) || breaks(c)
}

/// Whether bytes may be the beginning of a character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

/// JSON whose strings are foreign text: what a terminal would act on, or what turns text around, is escaped, which
/// JSON reads as the same. Its own escapes stop at U+001F.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Outside of strings there are no others of these than line ends.
        if c == '\n' || !is_harmful(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// One line of foreign text: no control characters, no line ends.
pub fn line(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect()
}
