//! `--watch`: a list that is read over and over.
//!
//! On a terminal it is drawn over itself, in as many rows as there are; elsewhere, and with `--json`, each change is a line.
//! Between two drawings the terminal is as any program finds it, so nothing is to be given back, however this ends.

use std::{
    collections::{BTreeMap, HashMap},
    io::IsTerminal as _,
    time::Duration,
};

use serde_json::Value;
use signalbox_schemas::error::report;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep, timeout},
};

use super::{
    call::{self, Call, Row},
    clean, event,
    exit::{self, Failure},
    printer::{Hangup, Piece, Printer},
    table::{Table, shorten},
};
use crate::client::{Client, ClientError};

/// It is read anew after this at the earliest.
const EVERY: Duration = Duration::from_secs(1);
/// And what takes long is read no more than this part of the time: a list of ten thousand is work for a bridge.
const SHARE: u32 = 4;
/// What was printed before the end is still written for so long: nobody may be reading.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Rows of a terminal that does not say how many it has.
const ROWS: usize = 24;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not there.
    New,
    /// Something of it is another.
    Changed,
    /// It is no longer there; what is told of it is what was known.
    Gone,
}

/// What is known of a list. Pure.
#[derive(Debug, Default)]
pub struct Known {
    rows: BTreeMap<(String, usize), Value>,
}

impl Known {
    /// Takes a list as it is now, each row by its key; answers what changed, in the order of the list, and then what is gone.
    /// `fleeting` members change without being told. `is_cut`: the list goes on, so what is missing may be further down.
    pub fn take(
        &mut self,
        rows: impl IntoIterator<Item = (String, Value)>,
        fleeting: &[&str],
        is_cut: bool,
    ) -> Vec<(Change, Value)> {
        let mut told = Vec::new();
        let mut now = BTreeMap::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (key, row) in rows {
            // Rows that have one name are told apart by their order.
            let nth = seen.entry(key.clone()).or_default();
            let key = (key, *nth);
            *nth += 1;
            let change = match self.rows.remove(&key) {
                None => Some(Change::New),
                Some(before) if lasting(&before, fleeting) != lasting(&row, fleeting) => {
                    Some(Change::Changed)
                }
                Some(_) => None,
            };
            told.extend(change.map(|change| (change, row.clone())));
            now.insert(key, row);
        }
        let gone = std::mem::replace(&mut self.rows, now);
        if !is_cut {
            told.extend(gone.into_values().map(|row| (Change::Gone, row)));
        }
        told
    }
}

fn lasting(row: &Value, fleeting: &[&str]) -> Value {
    let mut row = row.clone();
    if let Some(members) = row.as_object_mut() {
        members.retain(|name, _| !fleeting.contains(&name.as_str()));
    }
    row
}

/// A change as one line of JSON: the row, and before it what became of it.
pub fn line(change: Change, row: &Value) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        change: Change,
        #[serde(flatten)]
        row: &'a Value,
    }
    event::line(&Line { change, row })
}

/// What was drawn last. Pure.
#[derive(Debug, Default)]
pub struct Frame {
    rows: usize,
    size: (usize, usize),
}

impl Frame {
    /// Draws lines over those before, on a terminal with so many columns and rows; what has no room is counted. The cursor is
    /// hidden within a drawing only.
    pub fn draw(&mut self, lines: &[String], size: (usize, usize), ellipsis: char) -> String {
        let (columns, rows) = size;
        let room = rows.saturating_sub(1).max(1);
        let more = lines.len().saturating_sub(room);
        let shown = if more > 0 { room.saturating_sub(1) } else { room };
        let mut drawn: Vec<String> =
            lines.iter().take(shown).map(|line| shorten(line, columns, ellipsis)).collect();
        if more > 0 {
            let line = format!("and {} more", lines.len() - shown);
            drawn.push(shorten(&line, columns, ellipsis));
        }
        let to_the_first = match self.rows {
            0 => String::new(),
            // Where the lines are now, the terminal alone knows.
            _ if self.size != size => "\u{1b}[2J\u{1b}[H".to_owned(),
            rows => format!("\u{1b}[{rows}A\r"),
        };
        let mut out = format!("\u{1b}[?25l{to_the_first}");
        for line in &drawn {
            out.push_str(line);
            out.push_str("\u{1b}[K\r\n");
        }
        out.push_str("\u{1b}[J\u{1b}[?25h");
        (self.rows, self.size) = (drawn.len(), size);
        out
    }
}

/// How it is shown.
enum Shown {
    /// Drawn over itself.
    Drawn(Frame),
    /// Written whole when it is another: the terminal cannot draw.
    Whole(String),
    /// The changes.
    Changes(Known),
}

/// Shows a list until Ctrl-C. `most`: how many items it may have.
pub(super) async fn watch<R: Row>(
    call: &Call<'_>,
    most: Option<u32>,
    read: impl AsyncFn(&Client) -> Result<Vec<R>, ClientError>,
) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let client = tokio::select! {
        client = call.connect() => client?,
        () = stop.asked() => return Ok(exit::OK),
    };
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let mut screen = Screen::new(call);
    let mut items: Option<Vec<R>> = None;
    let ended = loop {
        let began = Instant::now();
        let answered = tokio::select! {
            answered = read(&client) => answered,
            () = stop.asked() => break Ok(()),
        };
        let missed = match answered {
            Ok(new) => {
                items = Some(new);
                None
            }
            Err(error) if items.is_none() || !may_pass(&error) => break Err(call.failed(&error)),
            Err(error) => Some(error),
        };
        let shown = screen.show(items.as_deref().unwrap_or_default(), most, missed.as_ref());
        if !goes_on(&printer, shown, &mut stop).await {
            break Ok(());
        }
        let pause = EVERY.max(began.elapsed() * (SHARE - 1));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.asked() => break Ok(()),
        }
    };
    finish(printer, &mut stop).await?;
    ended.map(|()| exit::OK)
}

/// Hands something over to be written; whether it goes on then. Where nobody reads, Ctrl-C is heard all the same.
pub(super) async fn goes_on(printer: &Printer, data: Vec<u8>, stop: &mut Stop) -> bool {
    tokio::select! {
        handed = printer.print(Piece::Out(data.into())) => handed != Err(Hangup),
        () = stop.asked() => false,
    }
}

/// Writes what is left, as far as somebody reads it.
pub(super) async fn finish(printer: Printer, stop: &mut Stop) -> Result<(), Failure> {
    tokio::select! {
        written = timeout(LAST_WORDS, printer.finish()) => match written {
            Ok(written) => written.map_err(|error| Failure::written(&error)),
            Err(_) => Ok(()),
        },
        () = stop.asked() => Ok(()),
    }
}

/// Whether the same question may be answered later.
pub(super) fn may_pass(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Busy(_) | ClientError::NoBridge(_) | ClientError::Connect(_) | ClientError::Publish(_)
    )
}

struct Screen {
    shown: Shown,
    ellipsis: char,
    missing: bool,
}

impl Screen {
    fn new(call: &Call<'_>) -> Self {
        let is_terminal = std::io::stdout().is_terminal() && !call.is_json();
        let shown = match (is_terminal, call.environment().is_dumb()) {
            (true, false) => Shown::Drawn(Frame::default()),
            (true, true) => Shown::Whole(String::new()),
            (false, _) => Shown::Changes(Known::default()),
        };
        Self { shown, ellipsis: call.environment().ellipsis(), missing: false }
    }

    /// What is to be written for a list. `missed`: why it could not be read anew.
    fn show<R: Row>(&mut self, items: &[R], most: Option<u32>, missed: Option<&ClientError>) -> Vec<u8> {
        let missed = missed.map(|error| format!("{}; asking again", clean::line(&report(error))));
        match &mut self.shown {
            Shown::Changes(known) => {
                if let Some(missed) = missed {
                    // Once for each time that it is lost.
                    if !std::mem::replace(&mut self.missing, true) {
                        super::say(&missed);
                    }
                    return Vec::new();
                }
                self.missing = false;
                let is_cut = most.is_some_and(|most| items.len() >= most as usize);
                let rows =
                    items.iter().map(|item| (item.key(), serde_json::to_value(item).unwrap_or_default()));
                let told = known.take(rows, R::FLEETING, is_cut);
                told.iter().flat_map(|(change, row)| line(*change, row)).collect()
            }
            Shown::Drawn(frame) => {
                let (columns, rows) = size();
                let mut lines = lines(items, Some(columns), self.ellipsis);
                if let Some(missed) = missed {
                    // Where it is seen however long the list is.
                    lines.insert(0, missed);
                }
                frame.draw(&lines, (columns, rows), self.ellipsis).into_bytes()
            }
            Shown::Whole(before) => {
                let text = lines(items, call::columns(), self.ellipsis).join("\n") + "\n";
                if *before == text {
                    return Vec::new();
                }
                let gap = if before.is_empty() { "" } else { "\n" };
                before.clone_from(&text);
                format!("{gap}{text}").into_bytes()
            }
        }
    }
}

fn lines<R: Row>(items: &[R], columns: Option<usize>, ellipsis: char) -> Vec<String> {
    let mut table = Table::new(R::COLUMNS);
    for item in items {
        table.push(item.cells(ellipsis));
    }
    table.render(columns, ellipsis).lines().map(str::to_owned).collect()
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let (columns, rows) = size.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    (if columns > 0 { columns } else { 80 }, if rows > 0 { rows } else { ROWS })
}

/// Ctrl-C, or the wish to end.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::system("listen to Ctrl-C", &error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(known: &mut Known, rows: &[(&str, u32, u32)], is_cut: bool) -> Vec<(Change, String)> {
        let rows = rows.iter().map(|(key, state, seen)| {
            ((*key).to_owned(), json!({ "id": key, "state": state, "seen": seen }))
        });
        let told = known.take(rows.collect::<Vec<_>>(), &["seen"], is_cut);
        told.into_iter()
            .map(|(change, row)| (change, format!("{} {}", row["id"].as_str().unwrap(), row["state"])))
            .collect()
    }

    #[test]
    fn only_what_is_new_changed_or_gone_is_told() {
        use Change::{Changed, Gone, New};
        let mut known = Known::default();
        let told = |change, text: &str| (change, text.to_owned());
        assert_eq!(
            take(&mut known, &[("b", 1, 1), ("a", 1, 1)], false),
            [told(New, "b 1"), told(New, "a 1")]
        );
        assert_eq!(take(&mut known, &[("b", 1, 2), ("a", 1, 9)], false), []);
        assert_eq!(
            take(&mut known, &[("c", 1, 1), ("a", 2, 9)], false),
            [told(New, "c 1"), told(Changed, "a 2"), told(Gone, "b 1")]
        );
        // What slips off the end of a list with a bound is not gone.
        assert_eq!(take(&mut known, &[("d", 1, 1), ("c", 1, 9)], true), [told(New, "d 1")]);
        // Two of one name are two.
        assert_eq!(
            take(&mut known, &[("d", 1, 1), ("d", 5, 1)], false),
            [told(New, "d 5"), told(Gone, "c 1")]
        );
        assert_eq!(
            line(Change::New, &json!({ "id": "a\u{9b}" })),
            b"{\"change\":\"new\",\"id\":\"a\\u009b\"}\n"
        );
    }

    #[test]
    fn a_list_is_drawn_over_itself_in_the_rows_that_there_are() {
        let mut terminal = vt100::Parser::new(4.try_into().unwrap(), 10.try_into().unwrap(), 0);
        terminal.process(b"$ watch\r\n");
        let mut frame = Frame::default();
        let mut draw = |terminal: &mut vt100::Parser, lines: &[&str], size| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            terminal.process(frame.draw(&lines, size, '…').as_bytes());
            assert!(!terminal.screen().hide_cursor());
            terminal.screen().contents()
        };
        assert_eq!(draw(&mut terminal, &["one", "a longer line"], (10, 4)), "$ watch\none\na longer …");
        assert_eq!(draw(&mut terminal, &["1", "2"], (10, 4)), "$ watch\n1\n2");
        assert_eq!(draw(&mut terminal, &["x"], (10, 4)), "$ watch\nx");
        assert_eq!(
            draw(&mut terminal, &["日本語日本語", "2", "3", "4", "5"], (10, 4)),
            "日本語日…\n2\nand 3 more"
        );
        assert_eq!(draw(&mut terminal, &["a", "b"], (10, 4)), "a\nb");
        // Of another size everything is drawn anew.
        terminal.screen_mut().set_size(3.try_into().unwrap(), 6.try_into().unwrap());
        assert_eq!(draw(&mut terminal, &["a", "b", "c"], (6, 3)), "a\nand 2…");
    }
}
