//! A backend that writes nothing where nothing changed.
//!
//! Ratatui compares frames cell by cell, and then resets colours and hides the cursor also after a frame that is the
//! same: forty bytes, a system call, and a terminal that wakes up for nothing.

use ratatui::{
    backend::{Backend, ClearType, WindowSize},
    buffer::Cell,
    layout::{Position, Size},
};

/// Passes on what makes a difference.
#[derive(Debug)]
pub struct Sparing<B> {
    inner: B,
    /// Where the cursor is shown; `None`: not known, or hidden.
    cursor: Option<Position>,
    is_hidden: bool,
    /// Whether anything was passed on since the last flush.
    is_written: bool,
}

impl<B> Sparing<B> {
    /// Passes on to `inner`.
    pub fn new(inner: B) -> Self {
        Self { inner, cursor: None, is_hidden: false, is_written: false }
    }

    /// Somebody else had the terminal: nothing is known of its cursor.
    pub fn forget(&mut self) {
        (self.cursor, self.is_hidden) = (None, false);
    }

    /// The inner backend, to be written to.
    fn write(&mut self) -> &mut B {
        self.is_written = true;
        &mut self.inner
    }
}

impl<B: Backend> Backend for Sparing<B> {
    type Error = B::Error;

    fn draw<'a, I>(&mut self, content: I) -> Result<(), B::Error>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut content = content.peekable();
        if content.peek().is_none() {
            return Ok(());
        }
        self.cursor = None;
        self.write().draw(content)
    }

    fn append_lines(&mut self, n: u16) -> Result<(), B::Error> {
        self.cursor = None;
        self.write().append_lines(n)
    }

    fn hide_cursor(&mut self) -> Result<(), B::Error> {
        if std::mem::replace(&mut self.is_hidden, true) {
            return Ok(());
        }
        self.cursor = None;
        self.write().hide_cursor()
    }

    fn show_cursor(&mut self) -> Result<(), B::Error> {
        if self.cursor.is_some() && !self.is_hidden {
            return Ok(());
        }
        self.is_hidden = false;
        self.write().show_cursor()
    }

    fn get_cursor_position(&mut self) -> Result<Position, B::Error> {
        self.inner.get_cursor_position()
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> Result<(), B::Error> {
        let position = position.into();
        if self.cursor == Some(position) {
            return Ok(());
        }
        self.cursor = Some(position);
        self.write().set_cursor_position(position)
    }

    fn clear(&mut self) -> Result<(), B::Error> {
        self.cursor = None;
        self.write().clear()
    }

    fn clear_region(&mut self, clear_type: ClearType) -> Result<(), B::Error> {
        self.cursor = None;
        self.write().clear_region(clear_type)
    }

    fn size(&self) -> Result<Size, B::Error> {
        self.inner.size()
    }

    fn window_size(&mut self) -> Result<WindowSize, B::Error> {
        self.inner.window_size()
    }

    fn flush(&mut self) -> Result<(), B::Error> {
        if std::mem::take(&mut self.is_written) { self.inner.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io, rc::Rc};

    use super::*;
    use ratatui::{
        Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect, style::Style,
    };

    #[derive(Clone, Default)]
    struct Written(Rc<RefCell<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_frame_that_is_the_same_writes_nothing() {
        let written = Written::default();
        let backend = Sparing::new(CrosstermBackend::new(written.clone()));
        let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, 10, 2)) };
        let mut screen = Terminal::with_options(backend, options).unwrap();
        // What a frame of a text writes, with a cursor or none, after somebody else had the terminal or not.
        let mut draw = |text: &str, cursor: Option<(u16, u16)>, is_forgotten: bool| {
            if is_forgotten {
                screen.backend_mut().forget();
            }
            let drawn = screen.draw(|frame| {
                frame.buffer_mut().set_string(0, 0, text, Style::default());
                if let Some(cursor) = cursor {
                    frame.set_cursor_position(cursor);
                }
            });
            drawn.unwrap();
            String::from_utf8(written.0.take()).unwrap()
        };
        let (hide, show, place) = ("\u{1b}[?25l", "\u{1b}[?25h", "\u{1b}[2;4H");
        assert!(draw("a", None, false).contains(hide), "the cursor is not hidden");
        assert_eq!(draw("a", None, false), "");
        assert!(!draw("b", None, false).contains(hide), "it is hidden already");
        let shown = draw("b", Some((3, 1)), false);
        assert!(shown.contains(show) && shown.contains(place), "{shown:?}");
        assert_eq!(draw("b", Some((3, 1)), false), "");
        let moved = draw("c", Some((3, 1)), false);
        assert!(moved.ends_with(place), "drawing moved the cursor: {moved:?}");
        assert!(draw("c", None, false).contains(hide));
        assert!(draw("c", None, true).contains(hide), "somebody else may have shown it");
        let shown = draw("c", Some((3, 1)), true);
        assert!(shown.contains(show) && shown.contains(place), "{shown:?}");
    }
}
