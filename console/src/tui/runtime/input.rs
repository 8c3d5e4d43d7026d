//! Keys, pasted text and sizes, read from the terminal by a task of their own.

use crossterm::event::{
    self as crossterm_event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton,
    MouseEvent, MouseEventKind,
};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::tui::{
    event::Event,
    keymap::key::{Code, Key},
};

/// Reads until nobody wants to know any more. A terminal that is gone ends the console.
pub(super) async fn read(events: mpsc::Sender<Event>) {
    let mut input = EventStream::new();
    while let Some(Ok(read)) = input.next().await {
        let event = match read {
            crossterm_event::Event::Key(pressed) => key(pressed).map(Event::Key),
            crossterm_event::Event::Paste(text) => Some(Event::Paste(text)),
            crossterm_event::Event::Resize(columns, rows) => Some(Event::Resize(columns, rows)),
            crossterm_event::Event::Mouse(mouse) => pointed(mouse),
            crossterm_event::Event::FocusGained | crossterm_event::Event::FocusLost => None,
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::Terminate).await;
}

fn pointed(mouse: MouseEvent) -> Option<Event> {
    match mouse.kind {
        MouseEventKind::ScrollDown => Some(Event::Wheel(1)),
        MouseEventKind::ScrollUp => Some(Event::Wheel(-1)),
        MouseEventKind::Down(MouseButton::Left) => Some(Event::Click(mouse.column, mouse.row)),
        _ => None,
    }
}

fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    let has = |modifier| pressed.modifiers.contains(modifier);
    let named = |name| Key::named(name).map(|key| key.code);
    let code = match pressed.code {
        // Terminals send some of these as control characters: Ctrl with a letter has no case.
        KeyCode::Char(c) if has(KeyModifiers::CONTROL) => Some(Code::Char(c.to_ascii_lowercase())),
        KeyCode::Char(c) => Some(Code::Char(c)),
        KeyCode::Enter => named("enter"),
        KeyCode::Esc => named("esc"),
        KeyCode::Tab => named("tab"),
        KeyCode::BackTab => named("s-tab"),
        KeyCode::Backspace => named("backspace"),
        KeyCode::Delete => named("delete"),
        KeyCode::Left => named("left"),
        KeyCode::Right => named("right"),
        KeyCode::Up => named("up"),
        KeyCode::Down => named("down"),
        KeyCode::Home => named("home"),
        KeyCode::End => named("end"),
        KeyCode::PageUp => named("pgup"),
        KeyCode::PageDown => named("pgdn"),
        KeyCode::Insert => named("insert"),
        _ => None,
    };
    code.map(|code| Key { code, ctrl: has(KeyModifiers::CONTROL), alt: has(KeyModifiers::ALT) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(KeyCode::Char('j'), KeyModifiers::NONE, Some("j"))]
    #[case(KeyCode::Char('G'), KeyModifiers::SHIFT, Some("G"))]
    #[case(KeyCode::Char('D'), KeyModifiers::CONTROL, Some("<c-d>"))]
    #[case(KeyCode::BackTab, KeyModifiers::SHIFT, Some("<s-tab>"))]
    #[case(KeyCode::Left, KeyModifiers::ALT, Some("<a-left>"))]
    #[case(KeyCode::F(1), KeyModifiers::NONE, None)]
    fn keys_of_the_terminal_are_our_keys(
        #[case] code: KeyCode,
        #[case] modifiers: KeyModifiers,
        #[case] expected: Option<&str>,
    ) {
        let written = key(KeyEvent::new(code, modifiers)).map(|key| key.to_string());
        assert_eq!(written.as_deref(), expected);
    }
}
