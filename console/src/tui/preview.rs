//! Prints every screen for eyes: `cargo test -p signalbox tui::preview -- --nocapture`.
//!
//! With colours when the output is looked at through `less -R` or the like: the coloured ones come second.

use super::scenes::scenes;

#[test]
fn every_screen_can_be_looked_at() {
    for (columns, rows) in [(120, 40), (80, 24), (40, 10)] {
        for (name, mut stage) in scenes(columns, rows) {
            let screen = stage.screen();
            assert!(!screen.trim().is_empty(), "{name} is empty at {columns}x{rows}");
            println!("\n== {name} {columns}x{rows}\n{screen}");
            if std::env::var_os("SIGNALBOX_PREVIEW_COLOURS").is_some() {
                println!("{}", stage.coloured());
            }
        }
    }
}
