//! Output of machines, in pieces: what comes of it has no control character, its paint is in bounds, pieces give the same
//! as the whole, and what is drawn of it is harmless.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ratatui::style::{Modifier, Style};
use signalbox_console::tui::{
    TuiOptions,
    text::{
        LINE_BYTES, Lines,
        paint::{MOST_STROKES, Painted},
    },
    theme::{Theme, Tone},
};

fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Painted> {
    let (mut all, mut lines) = (Vec::new(), Lines::default());
    for piece in pieces {
        lines.push(piece, |line| all.push(line));
    }
    all.push(lines.finish());
    all
}

fn check(line: &Painted, theme: &Theme) {
    let Painted { text, strokes } = line;
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < LINE_BYTES + 16 && strokes.len() <= MOST_STROKES);
    assert!(strokes.is_sorted_by(|a, b| a.from < b.from));
    for stroke in strokes {
        let from = usize::from(stroke.from);
        assert!(from < text.len() && text.is_char_boundary(from));
        let style = theme.remote.style(Style::new(), stroke.paint);
        assert!(style.fg.is_none() || style.fg != style.bg);
        assert!(!style.add_modifier.intersects(Modifier::HIDDEN | Modifier::SLOW_BLINK | Modifier::RAPID_BLINK));
    }
}

// The first two bytes say how the rest is cut, and which theme shows it.
fuzz_target!(|bytes: &[u8]| {
    let [cut, tone, output @ ..] = bytes else { return };
    let tone = Tone::ALL[usize::from(*tone) % Tone::ALL.len()];
    let theme = Theme::new(&TuiOptions { tone, ..TuiOptions::default() });
    let whole = lines(std::iter::once(output));
    whole.iter().for_each(|line| check(line, &theme));
    assert_eq!(lines(output.chunks(usize::from(*cut % 16) + 1)), whole);
});
