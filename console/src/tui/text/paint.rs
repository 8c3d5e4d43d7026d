//! Colours and weights of remote output, read from SGR (`CSI … m`) and nothing else. Pure.
//!
//! What a stream says about colour is foreign, too: how long a sequence may be, how many numbers it has and how often
//! a line changes its colour are bounded. Blinking and hidden text are not shown.

/// Longest parameters of one sequence, bytes. The longest that says anything has about sixty; a longer one says nothing.
const PARAMETER_BYTES: usize = 128;
/// Most changes of colour within a line; what follows the last one keeps its colour.
pub const MOST_STROKES: usize = 512;

/// A colour as the stream named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colour {
    /// The terminal's own.
    #[default]
    Own,
    /// One of 256; the first 16 are the terminal's palette.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How text is drawn, as the stream wished it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paint {
    /// Of the letters.
    pub letters: Colour,
    /// Behind them.
    pub ground: Colour,
    weights: u8,
}

/// A weight or a shape of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Bold.
    Bold = 1,
    /// Dim.
    Dim = 2,
    /// Italic.
    Italic = 4,
    /// Underlined, however.
    Underlined = 8,
    /// Letters and ground exchanged.
    Reversed = 16,
    /// Struck through.
    Struck = 32,
}

impl Paint {
    /// Whether it is drawn as text without colours is.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// Whether it has a weight.
    pub fn has(self, weight: Weight) -> bool {
        self.weights & weight as u8 != 0
    }

    fn set(&mut self, weight: Weight, is_on: bool) {
        let bit = weight as u8;
        self.weights = if is_on { self.weights | bit } else { self.weights & !bit };
    }

    /// Applies the parameters of one sequence. What is not understood changes nothing; an extended colour that is not
    /// understood ends it, since nobody knows where it ends.
    fn apply(&mut self, parameters: &str) {
        let mut all = parameters.split(';');
        while let Some(parameter) = all.next() {
            let (head, parts) = parameter.split_once(':').map_or((parameter, None), |(h, p)| (h, Some(p)));
            let Some(code) = number(head) else { continue };
            match (code, parts) {
                (38 | 48 | 58, parts) => {
                    let colour = match parts {
                        Some(parts) => with_colons(parts),
                        None => with_semicolons(&mut all),
                    };
                    match (code, colour) {
                        (38, Some(colour)) => self.letters = colour,
                        (48, Some(colour)) => self.ground = colour,
                        // The colour of the line under letters is passed over.
                        (_, Some(_)) => {}
                        (_, None) if parts.is_some() => {}
                        (_, None) => return,
                    }
                }
                (4, Some(how)) => self.set(Weight::Underlined, number(how) != Some(0)),
                (code, None) => self.simple(code),
                (_, Some(_)) => {}
            }
        }
    }

    fn simple(&mut self, code: u16) {
        // The palette: eight colours, and eight bright ones behind them.
        let indexed = |first: u16, to: u16| Colour::Indexed(u8::try_from(code - first + to).unwrap_or(0));
        match code {
            0 => *self = Self::default(),
            1 => self.set(Weight::Bold, true),
            2 => self.set(Weight::Dim, true),
            3 => self.set(Weight::Italic, true),
            4 | 21 => self.set(Weight::Underlined, true),
            7 => self.set(Weight::Reversed, true),
            9 => self.set(Weight::Struck, true),
            22 => {
                self.set(Weight::Bold, false);
                self.set(Weight::Dim, false);
            }
            23 => self.set(Weight::Italic, false),
            24 => self.set(Weight::Underlined, false),
            27 => self.set(Weight::Reversed, false),
            29 => self.set(Weight::Struck, false),
            30..=37 => self.letters = indexed(30, 0),
            39 => self.letters = Colour::Own,
            40..=47 => self.ground = indexed(40, 0),
            49 => self.ground = Colour::Own,
            90..=97 => self.letters = indexed(90, 8),
            100..=107 => self.ground = indexed(100, 8),
            _ => {}
        }
    }
}

/// A parameter; an empty one is 0, one that is no number of three digits or so is none.
fn number(text: &str) -> Option<u16> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

fn byte(text: &str) -> Option<u8> {
    number(text).and_then(|number| u8::try_from(number).ok())
}

/// `5;n` or `2;r;g;b`.
fn with_semicolons<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Colour> {
    match parts.next().and_then(number)? {
        5 => byte(parts.next()?).map(Colour::Indexed),
        2 => {
            let [red, green, blue] = [parts.next()?, parts.next()?, parts.next()?].map(byte);
            Some(Colour::Rgb(red?, green?, blue?))
        }
        _ => None,
    }
}

/// `5:n`, `2:r:g:b` or, with a colour space that nobody has, `2::r:g:b`.
fn with_colons(parts: &str) -> Option<Colour> {
    let all: Vec<&str> = parts.split(':').take(8).collect();
    match all.as_slice() {
        ["5", index, ..] => byte(index).map(Colour::Indexed),
        ["2", red, green, blue] | ["2", _, red, green, blue, ..] => {
            Some(Colour::Rgb(byte(red)?, byte(green)?, byte(blue)?))
        }
        _ => None,
    }
}

/// Collects the parameters of a control sequence as it comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters {
    text: String,
    /// It has what SGR has not, or too much.
    is_foreign: bool,
}

impl Parameters {
    /// A sequence begins.
    pub(super) fn begin(&mut self) {
        self.text.clear();
        self.is_foreign = false;
    }

    /// A character before the final one.
    pub(super) fn take(&mut self, c: char) {
        if !matches!(c, '0'..=';') || self.text.len() >= PARAMETER_BYTES {
            self.is_foreign = true;
        } else if !self.is_foreign {
            self.text.push(c);
        }
    }

    /// What it holds, bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity()
    }

    /// The final character came.
    pub(super) fn end(&mut self, last: char, paint: &mut Paint) {
        if last == 'm' && !self.is_foreign {
            paint.apply(&self.text);
        }
    }
}

/// From this byte of a line on, text is painted so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stroke {
    /// Byte of the line's text.
    pub from: u16,
    /// How.
    pub paint: Paint,
}

/// One line: clean text, and how it is painted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Painted {
    /// The text.
    pub text: String,
    /// Where it changes; sorted, before the first one plain. Empty for a line without colours.
    pub strokes: Vec<Stroke>,
}

impl Painted {
    /// The next character is painted so.
    pub(super) fn paint(&mut self, paint: Paint) {
        let now = self.strokes.last().map_or_else(Paint::default, |stroke| stroke.paint);
        if now == paint || self.strokes.len() >= MOST_STROKES {
            return;
        }
        if let Ok(from) = u16::try_from(self.text.len()) {
            self.strokes.push(Stroke { from, paint });
        }
    }

    /// Text was taken from the end.
    pub(super) fn shortened(&mut self) {
        while self.strokes.last().is_some_and(|stroke| usize::from(stroke.from) >= self.text.len()) {
            self.strokes.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn painted(parameters: &str) -> Paint {
        let mut paint = Paint::default();
        paint.apply(parameters);
        paint
    }

    #[rstest]
    #[case("31", Colour::Indexed(1), Colour::Own)]
    #[case("97;104", Colour::Indexed(15), Colour::Indexed(12))]
    #[case("38;5;208", Colour::Indexed(208), Colour::Own)]
    #[case("38;2;1;2;3;41", Colour::Rgb(1, 2, 3), Colour::Indexed(1))]
    #[case("38:2::1:2:3", Colour::Rgb(1, 2, 3), Colour::Own)]
    #[case("38:2:1:2:3;44", Colour::Rgb(1, 2, 3), Colour::Indexed(4))]
    #[case("48:5:7", Colour::Own, Colour::Indexed(7))]
    #[case("58;2;9;9;9;32", Colour::Indexed(2), Colour::Own)]
    #[case("31;39", Colour::Own, Colour::Own)]
    #[case("31;", Colour::Own, Colour::Own)]
    #[case("31;38;5;256", Colour::Indexed(1), Colour::Own)]
    #[case("31;38;5", Colour::Indexed(1), Colour::Own)]
    #[case("31;4294967296;99999999999999999999", Colour::Indexed(1), Colour::Own)]
    #[case("8;5;6", Colour::Own, Colour::Own)]
    fn colours_are_read(#[case] parameters: &str, #[case] letters: Colour, #[case] ground: Colour) {
        assert_eq!((painted(parameters).letters, painted(parameters).ground), (letters, ground));
    }

    #[test]
    fn weights_come_and_go() {
        let paint = painted("1;2;3;4;7;9");
        let all =
            [Weight::Bold, Weight::Dim, Weight::Italic, Weight::Underlined, Weight::Reversed, Weight::Struck];
        assert!(all.into_iter().all(|weight| paint.has(weight)));
        assert!(painted("1;2;3;4;7;9;22;23;24;27;29").is_plain());
        assert!(painted("4:3").has(Weight::Underlined) && painted("4;4:0").is_plain());
        assert!(painted("").is_plain() && painted("5;6;8;53").is_plain());
    }
}
