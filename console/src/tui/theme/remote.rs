//! How colours of remote output are shown: as this terminal can, and only where the text stays readable. Pure.
//!
//! What cannot be told from its ground (the same colour, or nearly; black or white on a ground that may be just that) is
//! shown as text without colours, since a machine could hide there what it says.

use ratatui::style::{Color, Modifier, Style};

use super::Tone;
use crate::tui::{
    TuiOptions,
    text::paint::{Colour, Paint, Weight},
};

/// Two colours whose parts all differ by less cannot be told apart.
const APART: u8 = 48;

/// The sixteen colours as most terminals have them.
const PALETTE: [(Color, [u8; 3]); 16] = [
    (Color::Black, [0, 0, 0]),
    (Color::Red, [205, 0, 0]),
    (Color::Green, [0, 205, 0]),
    (Color::Yellow, [205, 205, 0]),
    (Color::Blue, [0, 0, 238]),
    (Color::Magenta, [205, 0, 205]),
    (Color::Cyan, [0, 205, 205]),
    (Color::Gray, [229, 229, 229]),
    (Color::DarkGray, [127, 127, 127]),
    (Color::LightRed, [255, 0, 0]),
    (Color::LightGreen, [0, 255, 0]),
    (Color::LightYellow, [255, 255, 0]),
    (Color::LightBlue, [92, 92, 255]),
    (Color::LightMagenta, [255, 0, 255]),
    (Color::LightCyan, [0, 255, 255]),
    (Color::White, [255, 255, 255]),
];

/// What of remote colours is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// No colour at all.
    is_plain: bool,
    /// Sixteen, and not all.
    is_sixteen: bool,
    /// What the terminal's own ground may be.
    grounds: &'static [[u8; 3]],
}

impl Remote {
    /// For this terminal.
    pub(super) fn new(options: &TuiOptions) -> Self {
        let is_plain = options.no_color || options.tone == Tone::Mono;
        let grounds: &[[u8; 3]] = match options.tone {
            Tone::Dark => &[[0, 0, 0]],
            Tone::Light => &[[255, 255, 255]],
            Tone::Auto | Tone::Sixteen | Tone::Mono => &[[0, 0, 0], [255, 255, 255]],
        };
        Self { is_plain, is_sixteen: options.tone == Tone::Sixteen, grounds }
    }

    /// Text of a style, painted.
    pub fn style(self, base: Style, paint: Paint) -> Style {
        let mut style = base;
        for (weight, modifier) in [
            (Weight::Bold, Modifier::BOLD),
            (Weight::Dim, Modifier::DIM),
            (Weight::Italic, Modifier::ITALIC),
            (Weight::Underlined, Modifier::UNDERLINED),
            (Weight::Reversed, Modifier::REVERSED),
            (Weight::Struck, Modifier::CROSSED_OUT),
        ] {
            if paint.has(weight) {
                style = style.add_modifier(modifier);
            }
        }
        if self.is_plain {
            return style;
        }
        let letters = self.colour(paint.letters);
        let ground = self.colour(paint.ground);
        if !self.is_readable(letters.or_else(|| base.fg.and_then(known)), ground) {
            return style;
        }
        style.fg = letters.map(|(colour, _)| colour).or(style.fg);
        style.bg = ground.map(|(colour, _)| colour).or(style.bg);
        style
    }

    /// A colour of this terminal, and what it looks like; `None`: the terminal's own.
    fn colour(self, colour: Colour) -> Option<(Color, [u8; 3])> {
        let (shown, seen) = match colour {
            Colour::Own => return None,
            Colour::Indexed(index) => match PALETTE.get(usize::from(index)) {
                Some(named) => return Some(*named),
                None => (Color::Indexed(index), of_256(index)),
            },
            Colour::Rgb(red, green, blue) => (Color::Rgb(red, green, blue), [red, green, blue]),
        };
        if self.is_sixteen {
            return PALETTE.into_iter().min_by_key(|(_, known)| distance(*known, seen));
        }
        Some((shown, seen))
    }

    fn is_readable(self, letters: Option<(Color, [u8; 3])>, ground: Option<(Color, [u8; 3])>) -> bool {
        match (letters, ground) {
            (None, None) => true,
            (Some((_, letters)), Some((_, ground))) => is_apart(letters, ground),
            (Some((_, letters)), None) => self.grounds.iter().all(|ground| is_apart(letters, *ground)),
            // The terminal's own letters are what its ground is not.
            (None, Some((_, ground))) => self.grounds.iter().all(|own| is_apart(opposite(*own), ground)),
        }
    }
}

fn opposite([red, green, blue]: [u8; 3]) -> [u8; 3] {
    [255 - red, 255 - green, 255 - blue]
}

/// What a colour of the theme looks like.
fn known(colour: Color) -> Option<(Color, [u8; 3])> {
    match colour {
        Color::Indexed(index) => Some((colour, of_256(index))),
        _ => PALETTE.into_iter().find(|(named, _)| *named == colour),
    }
}

fn is_apart(a: [u8; 3], b: [u8; 3]) -> bool {
    a.into_iter().zip(b).any(|(a, b)| a.abs_diff(b) >= APART)
}

fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.into_iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

/// What one of the 256 colours looks like: the palette, a cube of six by six by six, and 24 greys.
fn of_256(index: u8) -> [u8; 3] {
    if let Some((_, seen)) = PALETTE.get(usize::from(index)) {
        return *seen;
    }
    if index >= 232 {
        return [8 + (index - 232) * 10; 3];
    }
    let step = |step: u8| if step == 0 { 0 } else { 55 + step * 40 };
    let at = index - 16;
    [step(at / 36), step(at / 6 % 6), step(at % 6)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::text::Lines;
    use proptest::prelude::*;
    use rstest::rstest;

    fn painted(parameters: &str) -> Paint {
        let mut lines = Lines::default();
        lines.push(format!("\u{1b}[{parameters}mx").as_bytes(), |_| ());
        lines.open().strokes.last().map_or_else(Paint::default, |stroke| stroke.paint)
    }

    fn style(tone: Tone, parameters: &str) -> Style {
        let remote = Remote::new(&TuiOptions { tone, ..TuiOptions::default() });
        remote.style(Style::new(), painted(parameters))
    }

    #[rstest]
    #[case(Tone::Auto, "31", Some(Color::Red), None)]
    #[case(Tone::Auto, "38;5;208", Some(Color::Indexed(208)), None)]
    #[case(Tone::Auto, "38;2;9;200;9;44", Some(Color::Rgb(9, 200, 9)), Some(Color::Blue))]
    #[case(Tone::Sixteen, "38;2;9;200;9", Some(Color::Green), None)]
    #[case(Tone::Sixteen, "38;5;208", Some(Color::Yellow), None)]
    #[case(Tone::Mono, "31;44", None, None)]
    // What cannot be read is shown as text without colours.
    #[case(Tone::Auto, "31;41", None, None)]
    #[case(Tone::Auto, "30", None, None)]
    #[case(Tone::Auto, "97", None, None)]
    #[case(Tone::Auto, "47", None, None)]
    #[case(Tone::Auto, "40", None, None)]
    #[case(Tone::Dark, "30", None, None)]
    #[case(Tone::Dark, "47", None, None)]
    #[case(Tone::Dark, "97", Some(Color::White), None)]
    #[case(Tone::Light, "97", None, None)]
    #[case(Tone::Light, "30", Some(Color::Black), None)]
    #[case(Tone::Auto, "30;40", None, None)]
    #[case(Tone::Auto, "38;2;1;2;3;48;2;3;2;1", None, None)]
    #[case(Tone::Auto, "30;47", Some(Color::Black), Some(Color::Gray))]
    fn colours_of_this_terminal(
        #[case] tone: Tone,
        #[case] parameters: &str,
        #[case] letters: Option<Color>,
        #[case] ground: Option<Color>,
    ) {
        let style = style(tone, parameters);
        assert_eq!((style.fg, style.bg), (letters, ground));
    }

    #[test]
    fn a_ground_like_the_letters_of_the_theme_hides_nothing() {
        let remote = Remote::new(&TuiOptions::default());
        let warn = Style::new().fg(Color::Indexed(178));
        assert_eq!(remote.style(warn, painted("48;5;178")), warn);
        assert_eq!(remote.style(warn, painted("44")).bg, Some(Color::Blue));
    }

    #[test]
    fn weights_are_shown_without_colours_too() {
        let bold = style(Tone::Mono, "1;4;31").add_modifier;
        assert_eq!(bold, Modifier::BOLD | Modifier::UNDERLINED);
        assert_eq!(style(Tone::Auto, "5;6;8"), Style::new(), "nothing blinks, nothing is hidden");
    }

    proptest! {
        #[test]
        fn letters_can_be_told_from_their_ground(parameters in "[0-9:;]{0,30}", tone in 0..5_usize) {
            let style = style(Tone::ALL[tone], &parameters);
            prop_assert!(style.fg.is_none() || style.fg != style.bg);
            prop_assert!(!style.add_modifier.intersects(
                Modifier::HIDDEN | Modifier::SLOW_BLINK | Modifier::RAPID_BLINK
            ));
        }
    }
}
