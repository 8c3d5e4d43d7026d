//! A terminal's screen as a picture: SVG, which any page shows.

use std::{collections::BTreeMap, fmt::Write as _};

use vt100::{Cell, Color, Screen};

/// A cell, in the picture's units.
const CELL: (f32, f32) = (8.4, 18.0);
/// Around the cells.
const MARGIN: f32 = 12.0;
/// From the top of a row to the line that letters stand on.
const BASE: f32 = 13.5;

/// What the screen of a terminal is like where nothing says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Light letters on dark.
    Dark,
    /// Dark letters on light.
    Light,
}

impl Ground {
    fn colours(self) -> [&'static str; 2] {
        match self {
            Self::Dark => ["#d8dee4", "#14181d"],
            Self::Light => ["#1f2328", "#ffffff"],
        }
    }

    /// The sixteen colours of its own.
    fn sixteen(self) -> [&'static str; 16] {
        match self {
            Self::Dark => [
                "#3b4252", "#e5646e", "#7fc77f", "#e0b459", "#6ea8e8", "#c48ad6", "#5fc0c8", "#d8dee4",
                "#6a7385", "#f2858d", "#9bdc9b", "#f0cc7d", "#8fc1f5", "#d9a6e8", "#83d8df", "#ffffff",
            ],
            Self::Light => [
                "#24292f", "#c4282f", "#18762f", "#8a5a00", "#0a58c2", "#8032a6", "#10707a", "#57606a",
                "#6e7781", "#a31d24", "#116329", "#6f4600", "#0648a0", "#662487", "#0b5a62", "#24292f",
            ],
        }
    }
}

/// How letters are drawn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Style {
    letters: String,
    ground: Option<String>,
    traits: [bool; 4],
}

impl Style {
    fn of(cell: &Cell, ground: Ground) -> Self {
        let [letters, behind] = ground.colours();
        let (mut fg, mut bg) = (colour(cell.fgcolor(), ground), colour(cell.bgcolor(), ground));
        if cell.inverse() {
            (fg, bg) = (
                Some(bg.unwrap_or_else(|| behind.to_owned())),
                Some(fg.unwrap_or_else(|| letters.to_owned())),
            );
        }
        Self {
            letters: fg.unwrap_or_else(|| letters.to_owned()),
            ground: bg,
            traits: [cell.bold(), cell.dim(), cell.italic(), cell.underline()],
        }
    }

    fn css(&self) -> String {
        let [bold, dim, italic, underline] = self.traits;
        let mut css = format!("fill:{}", self.letters);
        for (is_so, rule) in [
            (bold, ";font-weight:700"),
            (dim, ";opacity:.65"),
            (italic, ";font-style:italic"),
            (underline, ";text-decoration:underline"),
        ] {
            css.push_str(if is_so { rule } else { "" });
        }
        css
    }
}

/// `None`: as the screen is.
fn colour(colour: Color, ground: Ground) -> Option<String> {
    match colour {
        Color::Default => None,
        Color::Rgb(r, g, b) => Some(format!("#{r:02x}{g:02x}{b:02x}")),
        Color::Idx(index) => match usize::from(index) {
            own @ 0..16 => ground.sixteen().get(own).map(|own| (*own).to_owned()),
            cube @ 16..232 => {
                let part = |n: usize| if n == 0 { 0 } else { 55 + 40 * n };
                let at = cube - 16;
                Some(format!("#{:02x}{:02x}{:02x}", part(at / 36), part(at / 6 % 6), part(at % 6)))
            }
            grey => {
                let level = 8 + 10 * (grey - 232);
                Some(format!("#{level:02x}{level:02x}{level:02x}"))
            }
        },
    }
}

/// Letters of one style beside each other.
struct Stretch {
    column: u16,
    columns: u16,
    text: String,
    style: Style,
}

/// Draws a screen.
pub(crate) fn svg(screen: &Screen, ground: Ground) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let rows: Vec<Vec<Stretch>> = (0..rows).map(|row| stretches(screen, row, columns, ground)).collect();
    let mut classes = BTreeMap::new();
    for stretch in rows.iter().flatten() {
        let next = classes.len();
        classes.entry(stretch.style.clone()).or_insert(next);
    }
    let (width, height) = (f32::from(columns) * CELL.0, count(rows.len()) * CELL.1);
    let [_, behind] = ground.colours();
    let mut out = String::new();
    // Writing into a text does not fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"'DejaVu Sans Mono','Cascadia Mono',Menlo,Consolas,'DejaVu Sans',monospace\" font-size=\"14\">\n<style>text{{white-space:pre}}",
        width + 2.0 * MARGIN,
        height + 2.0 * MARGIN
    );
    for (style, class) in &classes {
        let _ = write!(out, ".s{class}{{{}}}", style.css());
    }
    let _ = writeln!(out, "</style>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{behind}\"/>");
    for (row, stretches) in rows.iter().enumerate() {
        let top = MARGIN + count(row) * CELL.1;
        for stretch in stretches {
            draw(&mut out, stretch, top, classes.get(&stretch.style).copied().unwrap_or(0));
        }
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, stretch: &Stretch, top: f32, class: usize) {
    let x = MARGIN + f32::from(stretch.column) * CELL.0;
    let width = f32::from(stretch.columns) * CELL.0;
    if let Some(ground) = &stretch.style.ground {
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{ground}\"/>",
            CELL.1
        );
    }
    if stretch.text.trim().is_empty() && !stretch.style.traits[3] {
        return;
    }
    let text = stretch.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let y = top + BASE;
    // Whatever font there is, each stretch keeps its columns.
    let _ = writeln!(
        out,
        "<text class=\"s{class}\" xml:space=\"preserve\" x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
    );
}

fn stretches(screen: &Screen, row: u16, columns: u16, ground: Ground) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column).filter(|cell| !cell.is_wide_continuation()) else {
            continue;
        };
        let style = Style::of(cell, ground);
        let text = if cell.has_contents() { cell.contents() } else { " " };
        let wide = if cell.is_wide() { 2 } else { 1 };
        match all.last_mut() {
            // Not over a gap: what draws the picture may make one space of many.
            Some(last) if last.style == style && !(is_blank(text) && ends_blank(last)) => {
                last.text.push_str(text);
                last.columns += wide;
            }
            _ => all.push(Stretch { column, columns: wide, text: text.to_owned(), style }),
        }
    }
    for stretch in &mut all {
        trim(stretch);
    }
    all.retain(|stretch| !stretch.text.is_empty());
    all
}

fn is_blank(text: &str) -> bool {
    text == " "
}

/// Whether it ends with a space, and is not all ground.
fn ends_blank(stretch: &Stretch) -> bool {
    stretch.text.ends_with(' ') && stretch.style.ground.is_none()
}

/// Spaces around letters need no letters, unless they have a ground of their own or a line below.
fn trim(stretch: &mut Stretch) {
    if stretch.style.ground.is_some() || stretch.style.traits[3] {
        return;
    }
    let before = stretch.text.len() - stretch.text.trim_start_matches(' ').len();
    let after = stretch.text.trim_start_matches(' ').len() - stretch.text.trim_matches(' ').len();
    stretch.text = stretch.text.trim_matches(' ').to_owned();
    let spaces = |n: usize| u16::try_from(n).unwrap_or(0);
    stretch.column += spaces(before);
    stretch.columns = stretch.columns.saturating_sub(spaces(before) + spaces(after));
}

fn count(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    const TWO: NonZeroU16 = NonZeroU16::new(2).unwrap();
    const TWENTY: NonZeroU16 = NonZeroU16::new(20).unwrap();

    fn drawn(bytes: &[u8], ground: Ground) -> String {
        let mut parser = vt100::Parser::new(TWO, TWENTY, 0);
        parser.process(bytes);
        svg(parser.screen(), ground)
    }

    #[test]
    fn letters_keep_their_place_and_colour() {
        let svg = drawn(b"ab \x1b[1;38;5;196m<c>\x1b[0m\r\n\x1b[7mx\x1b[0m", Ground::Dark);
        assert!(svg.contains(">ab</text>") && svg.contains(">&lt;c&gt;</text>"), "{svg}");
        assert!(svg.contains("fill:#ff0000;font-weight:700"), "{svg}");
        assert!(svg.contains("fill=\"#d8dee4\"/>"), "the ground of what is turned around: {svg}");
        let third = MARGIN + 3.0 * CELL.0;
        assert!(svg.contains(&format!("x=\"{third:.1}\"")), "{svg}");
    }

    #[test]
    fn an_empty_screen_has_no_letters() {
        assert!(!drawn(b"", Ground::Light).contains("<text"));
        assert!(drawn(b"", Ground::Light).contains("#ffffff"));
    }

    #[test]
    fn a_gap_is_no_letter() {
        let svg = drawn(b"a b    c", Ground::Dark);
        assert!(svg.contains(">a b</text>") && svg.contains(">c</text>"), "{svg}");
        let seventh = MARGIN + 7.0 * CELL.0;
        assert!(svg.contains(&format!("x=\"{seventh:.1}\"")), "{svg}");
    }

    #[test]
    fn wide_letters_take_two_columns() {
        let svg = drawn("\u{4e2d}a".as_bytes(), Ground::Dark);
        assert!(svg.contains(&format!("textLength=\"{:.1}\"", 3.0 * CELL.0)), "{svg}");
    }
}
