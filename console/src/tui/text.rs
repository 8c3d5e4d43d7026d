//! Foreign text, made harmless before it enters the state. Pure.
//!
//! Machines, their output and their names are not to be trusted with a terminal: a byte of theirs must never
//! move the cursor, retitle, answer for the user or turn text around. What leaves this room holds no
//! control character, no mark that reorders or hides text, and nothing whose width terminals disagree about.
//! Colours of output ([`paint`]) stand beside its text, and are the theme's to show.
//! Sequences are those of ECMA-48 (CSI, OSC, DCS, SOS, PM, APC), in their 7-bit and 8-bit spellings.

pub mod paint;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use self::paint::{Paint, Painted, Parameters};

/// Stands for what cannot be shown.
pub const REPLACEMENT: char = '\u{fffd}';
/// Columns between two tab stops.
const TAB_COLUMNS: usize = 8;
/// Marks stacked on one character; more would run into the lines above and below.
const STACKED_MARKS: usize = 3;
/// Longest line of output, bytes: a longer one is broken, so that a stream without line ends stays cheap.
pub const LINE_BYTES: usize = 4096;

/// What becomes of a character.
enum Fate {
    Shown,
    Replaced,
    Dropped,
}

fn fate(c: char) -> Fate {
    match c {
        // Variation selectors and skin tones: terminals disagree about their width.
        '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' => Fate::Dropped,
        c if hides(c) => Fate::Dropped,
        c if breaks(c) || c.is_control() => Fate::Replaced,
        _ => Fate::Shown,
    }
}

/// Invisible, joining and reordering marks and tags: they let text read other than it is.
pub fn hides(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Line and paragraph separators and annotations that are no controls to Unicode.
pub fn breaks(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
}

/// One line of foreign text: controls become U+FFFD, tabs and line ends a space.
pub fn line(text: &str) -> String {
    // As nearly all of it is; heartbeats come by the thousand.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut marks = 0;
    text.chars()
        .filter_map(|c| match c {
            '\t' | '\n' | '\r' => Some(' '),
            c => shown(c, &mut marks),
        })
        .collect()
}

fn shown(c: char, marks: &mut usize) -> Option<char> {
    match fate(c) {
        Fate::Dropped => None,
        Fate::Replaced => Some(REPLACEMENT),
        Fate::Shown if c.width() == Some(0) => {
            *marks += 1;
            (*marks <= STACKED_MARKS).then_some(c)
        }
        Fate::Shown => {
            *marks = 0;
            Some(c)
        }
    }
}

/// The longest beginning of `text` that fits `columns`, ending in `…` (or `~` where only ASCII may be shown)
/// when something was left out.
pub fn fit(text: &str, columns: usize, ellipsis: char) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut fitted = beginning(text, room).to_owned();
    fitted.push(ellipsis);
    fitted
}

/// The longest beginning of `text` that fits `columns`. Costs no more than what it answers.
pub fn beginning(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// `text` without its first `columns` columns. A wide character that is cut leaves a space.
pub fn skip(text: &str, columns: usize) -> String {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        if used >= columns {
            let rest = text.get(at..).unwrap_or_default();
            return " ".repeat(used - columns) + rest;
        }
        used += c.width().unwrap_or(0);
    }
    String::new()
}

/// Where the assembler is within an escape sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Within CSI, up to its final byte.
    Control,
    /// Within OSC, DCS, SOS, PM or APC: dropped up to its end.
    String,
    /// Within such a string, after ESC.
    StringEscape,
}

/// Assembles clean lines from the bytes of one stream, piece by piece.
///
/// A return without a line feed begins the line anew, as progress bars mean it; a backspace takes one
/// character back. Both stay within the line. Colours go on over line ends, as a terminal has it.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    mode: Mode,
    line: Painted,
    /// How the next character is painted.
    paint: Paint,
    parameters: Parameters,
    columns: usize,
    marks: usize,
    /// The line is begun anew with the next character that is shown.
    returned: bool,
    /// Bytes of a character that is not complete, at most 3.
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes; `end` is called with each line that they complete.
    pub fn push(&mut self, bytes: &[u8], mut end: impl FnMut(Painted)) {
        let mut input = std::mem::take(&mut self.partial);
        input.extend_from_slice(bytes);
        let mut parts = input.utf8_chunks().peekable();
        while let Some(part) = parts.next() {
            for c in part.valid().chars() {
                self.take(c, &mut end);
            }
            let invalid = part.invalid();
            // Only the end of a piece may cut a character in two.
            if parts.peek().is_none() && is_incomplete(invalid) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.take(REPLACEMENT, &mut end);
            }
        }
    }

    /// The line that is not complete yet.
    pub fn open(&self) -> &Painted {
        &self.line
    }

    /// Ends the open line where it is broken: a sequence that was not ended goes on in the next one.
    pub fn cut(&mut self) -> Painted {
        if !std::mem::take(&mut self.partial).is_empty() {
            self.line.paint(self.paint);
            self.line.text.push(REPLACEMENT);
        }
        self.next()
    }

    /// Ends the open line; empty when there was none.
    pub fn finish(&mut self) -> Painted {
        let line = self.cut();
        self.mode = Mode::Text;
        line
    }

    fn next(&mut self) -> Painted {
        self.columns = 0;
        self.marks = 0;
        self.returned = false;
        std::mem::take(&mut self.line)
    }

    fn take(&mut self, c: char, end: &mut impl FnMut(Painted)) {
        match self.mode {
            Mode::Text => self.take_text(c, end),
            Mode::Escape => {
                self.mode = match c {
                    '[' => self.control(),
                    ']' | 'P' | 'X' | '^' | '_' => Mode::String,
                    ' '..='/' => Mode::Escape,
                    _ => Mode::Text,
                }
            }
            Mode::Control => match c {
                '\u{20}'..='\u{3f}' => self.parameters.take(c),
                '\u{1b}' => self.mode = Mode::Escape,
                '\u{40}'..='\u{7e}' => {
                    self.mode = Mode::Text;
                    self.parameters.end(c, &mut self.paint);
                }
                // No part of a sequence: what follows is text again.
                c => {
                    self.mode = Mode::Text;
                    self.take_text(c, end);
                }
            },
            // A line end closes a string that was never closed: it must not swallow all that follows.
            Mode::String => match c {
                '\u{1b}' => self.mode = Mode::StringEscape,
                '\u{7}' | '\u{9c}' => self.mode = Mode::Text,
                '\n' => {
                    self.mode = Mode::Text;
                    self.take_text(c, end);
                }
                _ => {}
            },
            Mode::StringEscape => {
                self.mode = if c == '\\' { Mode::Text } else { Mode::Escape };
                if self.mode == Mode::Escape {
                    self.take(c, end);
                }
            }
        }
    }

    fn control(&mut self) -> Mode {
        self.parameters.begin();
        Mode::Control
    }

    fn take_text(&mut self, c: char, end: &mut impl FnMut(Painted)) {
        match c {
            '\n' => end(self.next()),
            '\r' => self.returned = true,
            '\u{8}' => self.take_back(),
            '\u{7}' => {}
            '\u{1b}' => self.mode = Mode::Escape,
            '\u{9b}' => self.mode = self.control(),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => self.mode = Mode::String,
            c => self.put(c, end),
        }
    }

    fn put(&mut self, c: char, end: &mut impl FnMut(Painted)) {
        if std::mem::take(&mut self.returned) {
            self.next();
        }
        if c == '\t' {
            let columns = TAB_COLUMNS - self.columns % TAB_COLUMNS;
            self.line.paint(self.paint);
            self.line.text.extend(std::iter::repeat_n(' ', columns));
            self.columns += columns;
        } else if let Some(c) = shown(c, &mut self.marks) {
            let columns = c.width().unwrap_or(0);
            // A mark is of the character before it.
            if columns > 0 {
                self.line.paint(self.paint);
            }
            self.line.text.push(c);
            self.columns += columns;
        }
        if self.line.text.len() >= LINE_BYTES {
            end(self.next());
        }
    }

    fn take_back(&mut self) {
        while let Some(c) = self.line.text.pop() {
            let columns = c.width().unwrap_or(0);
            self.columns = self.columns.saturating_sub(columns);
            if columns > 0 {
                break;
            }
        }
        self.line.shortened();
    }
}

/// Whether bytes may be the beginning of a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::{
        paint::{Colour, MOST_STROKES, Weight},
        *,
    };
    use proptest::prelude::*;
    use rstest::rstest;

    fn painted(pieces: &[&[u8]]) -> Vec<Painted> {
        let (mut lines, mut assembler) = (Vec::new(), Lines::default());
        for piece in pieces {
            assembler.push(piece, |line| lines.push(line));
        }
        let last = assembler.finish();
        lines.extend((!last.text.is_empty()).then_some(last));
        lines
    }

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        painted(pieces).into_iter().map(|line| line.text).collect()
    }

    /// Where the colour of letters changes in each line.
    fn letters(bytes: &[u8]) -> Vec<Vec<(u16, Colour)>> {
        let of = |line: &Painted| line.strokes.iter().map(|s| (s.from, s.paint.letters)).collect();
        painted(&[bytes]).iter().map(of).collect()
    }

    #[test]
    fn colours_stand_beside_the_text_and_go_on_over_line_ends() {
        let (red, own) = (Colour::Indexed(1), Colour::Own);
        assert_eq!(letters(b"plain\n"), [vec![]]);
        assert_eq!(letters(b"a\x1b[31mbc\nd\x1b[0me\n"), [vec![(1, red)], vec![(0, red), (1, own)]]);
        assert_eq!(letters(b"\x1b[31m\x1b[32m\x1b[0mx\n"), [vec![]], "only what is on a character counts");
        assert_eq!(letters(b"a\x1b[31mb\x08\x1b[0mc\n"), [vec![]], "what was taken back has no colour");
        assert_eq!(letters(b"\x1b[31m10 %\r\x1b[mdone\n"), [vec![]]);
        assert_eq!(letters("\u{9b}31mx".as_bytes()), [vec![(0, red)]]);
    }

    #[rstest]
    #[case(b"\x1b[>31mx")]
    #[case(b"\x1b[?31mx")]
    #[case(b"\x1b[31 mx")]
    #[case(b"\x1b[31\x1b[0mx")]
    #[case(b"\x1b]31mx\x07x")]
    fn what_only_looks_like_a_colour_is_none(#[case] bytes: &[u8]) {
        assert_eq!(letters(bytes), [vec![]]);
    }

    #[test]
    fn a_hostile_colour_costs_no_memory() {
        let mut lines = Lines::default();
        lines.push(b"\x1b[31m\x1b[", |_| ());
        for _ in 0..1_000 {
            lines.push(b"1;2;99999999999999999999;", |_| ());
        }
        assert!(lines.parameters.bytes() <= 256, "{} bytes", lines.parameters.bytes());
        let mut ended = Vec::new();
        lines.push(b"mx\n", |line| ended.push(line));
        // What is too long says nothing: red stays.
        assert_eq!(ended[0].strokes[0].paint.letters, Colour::Indexed(1));
        assert!(!ended[0].strokes[0].paint.has(Weight::Bold));

        let rainbow: Vec<u8> =
            (0..LINE_BYTES - 1).flat_map(|n| format!("\x1b[3{}mx", n % 7 + 1).into_bytes()).collect();
        assert_eq!(painted(&[&rainbow])[0].strokes.len(), MOST_STROKES);
    }

    #[rstest]
    #[case(b"a\nb", &["a", "b"])]
    #[case(b"a\r\nb\r\n", &["a", "b"])]
    #[case(b"10 %\r90 %\rdone\n", &["done"])]
    #[case(b"a\tb", &["a       b"])]
    #[case(b"ab\x08c", &["ac"])]
    #[case(b"\x1b[31mred\x1b[0m", &["red"])]
    #[case(b"\x1b[2J\x1b[Hhome", &["home"])]
    #[case(b"\x1b]0;title\x07x\x1b]52;c;aGk=\x1b\\y", &["xy"])]
    #[case(b"\x1bPq#0\x1b\\z", &["z"])]
    #[case(b"\x1b]0;never closed\nnext", &["", "next"])]
    #[case(b"\x1b(Bplain", &["plain"])]
    #[case(b"\xff\xfe", &["\u{fffd}\u{fffd}"])]
    #[case(b"nul\0", &["nul\u{fffd}"])]
    #[case("\u{202e}evil\u{2066}".as_bytes(), &["evil"])]
    #[case("\u{9b}31mx".as_bytes(), &["x"])]
    #[case("wide \u{4f60}\u{597d}".as_bytes(), &["wide \u{4f60}\u{597d}"])]
    fn output_is_made_harmless(#[case] bytes: &[u8], #[case] expected: &[&str]) {
        assert_eq!(lines(&[bytes]), expected);
    }

    #[test]
    fn stacked_marks_end_somewhere() {
        let zalgo = format!("a{}b", "\u{301}".repeat(50));
        assert_eq!(line(&zalgo).chars().count(), 2 + STACKED_MARKS);
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let lines = lines(&[&vec![b'x'; 3 * LINE_BYTES]]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES; 3]);
    }

    #[rstest]
    #[case("abc", 3, "abc")]
    #[case("abcd", 3, "ab…")]
    #[case("你好吗", 4, "你…")]
    #[case("abc", 0, "")]
    fn fits(#[case] text: &str, #[case] columns: usize, #[case] expected: &str) {
        assert_eq!(fit(text, columns, '…'), expected);
    }

    #[rstest]
    #[case("abcd", 2, "cd")]
    #[case("你好", 1, " 好")]
    #[case("ab", 5, "")]
    fn skips(#[case] text: &str, #[case] columns: usize, #[case] expected: &str) {
        assert_eq!(skip(text, columns), expected);
    }

    fn is_harmless(text: &str) -> bool {
        text.chars().all(|c| !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c))
    }

    /// Bytes with far more escapes in them than chance would give.
    fn nasty() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            "\x1b[\\[\\]PX^_()#][0-9;?]{0,5}[a-zA-Z]?".prop_map(String::into_bytes),
            "\x1b\\[[0-9:;]{0,12}m[a-z\u{301}\t\u{8}]{0,3}".prop_map(String::into_bytes),
            Just(b"\r".to_vec()),
            Just("\u{202e}\u{200d}\u{9d}".as_bytes().to_vec()),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_harmful_comes_out(bytes in nasty(), columns in 0..40_usize) {
            for Painted { text: line, strokes } in painted(&[&bytes]) {
                prop_assert!(strokes.is_sorted_by(|a, b| a.from < b.from));
                prop_assert!(strokes.iter().all(|stroke| line.is_char_boundary(stroke.from.into())));
                prop_assert!(strokes.iter().all(|stroke| usize::from(stroke.from) < line.len()));
                prop_assert!(is_harmless(&line), "{line:?}");
                prop_assert!(fit(&line, columns, '…').width() <= columns);
                prop_assert!(line.len() < LINE_BYTES + 8);
            }
            let text = line(&String::from_utf8_lossy(&bytes));
            prop_assert!(is_harmless(&text));
            prop_assert!(beginning(&text, columns).width() <= columns);
        }

        #[test]
        fn pieces_make_the_same_lines_as_the_whole(bytes in nasty(), cut in any::<prop::sample::Index>()) {
            let at = cut.index(bytes.len() + 1);
            let (head, tail) = bytes.split_at(at);
            prop_assert_eq!(painted(&[head, tail]), painted(&[&bytes]));
        }
    }
}
