//! Output of several machines, told apart by a prefix on each line. Pure.

use std::collections::HashMap;

use bytes::Bytes;
use signalbox_schemas::{id::MachineId, output::OutputStream};
use unicode_width::UnicodeWidthStr as _;

use super::clean::{self, Cleaner};

/// A line that goes on longer is broken: its beginning is not kept for ever. Times two streams of 1,000
/// machines this is 32 MiB.
const LINE_BYTES: usize = 16 * 1024;
/// Prefixes are filled up to the longest name, but not further than this.
const PREFIX_COLUMNS: usize = 24;

/// Where one of our two streams goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sink {
    /// A terminal: foreign bytes are cleaned.
    pub is_terminal: bool,
    /// Colours pass.
    pub colours: bool,
}

/// Turns pieces of output into what is written.
#[derive(Debug)]
pub struct Lines {
    prefixes: HashMap<MachineId, String>,
    sinks: [Sink; 2],
    streams: HashMap<(MachineId, OutputStream), Stream>,
}

#[derive(Debug)]
struct Stream {
    cleaner: Option<Cleaner>,
    /// The last line, without its end.
    open: Vec<u8>,
}

impl Lines {
    /// For the output of `machines`: one is written as it is, several get a prefix per line. `sinks` are where
    /// stdout and stderr go.
    pub fn new(machines: &[MachineId], sinks: [Sink; 2]) -> Self {
        let names: Vec<String> = machines.iter().map(|machine| clean::line(machine.as_str())).collect();
        let widest = names.iter().map(|name| name.width()).max().unwrap_or(0).min(PREFIX_COLUMNS);
        let prefix = |name: &String| {
            let fill = widest.saturating_sub(name.width());
            format!("{name}{:fill$} | ", "")
        };
        let prefixes = if machines.len() > 1 {
            machines.iter().cloned().zip(names.iter().map(prefix)).collect()
        } else {
            HashMap::new()
        };
        Self { prefixes, sinks, streams: HashMap::new() }
    }

    /// The next bytes of a stream: what to write now.
    pub fn push(&mut self, machine: &MachineId, stream: OutputStream, data: &Bytes) -> Bytes {
        let sink = self.sink(stream);
        let prefix = self.prefixes.get(machine);
        if prefix.is_none() && !sink.is_terminal {
            return data.clone();
        }
        let state = self.streams.entry((machine.clone(), stream)).or_insert_with(|| Stream {
            cleaner: sink.is_terminal.then(|| Cleaner::new(sink.colours)),
            open: Vec::new(),
        });
        let cleaned = state.cleaner.as_mut().map(|cleaner| Bytes::from(cleaner.clean(data)));
        let data = cleaned.unwrap_or_else(|| data.clone());
        match prefix {
            None => data,
            Some(prefix) => state.prefixed(prefix, &data),
        }
    }

    /// A run has ended: the line that has no end, if any.
    pub fn finish(&mut self, machine: &MachineId, stream: OutputStream) -> Bytes {
        let Some(mut state) = self.streams.remove(&(machine.clone(), stream)) else { return Bytes::new() };
        let rest = Bytes::from(state.cleaner.as_mut().map(Cleaner::finish).unwrap_or_default());
        match self.prefixes.get(machine) {
            None => rest,
            Some(prefix) => {
                let mut out = state.prefixed(prefix, &rest).to_vec();
                if !state.open.is_empty() {
                    state.write_line(prefix, &mut out);
                }
                out.into()
            }
        }
    }

    fn sink(&self, stream: OutputStream) -> Sink {
        let [stdout, stderr] = self.sinks;
        match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        }
    }
}

impl Stream {
    /// Adds `data` and gives the lines that are complete.
    fn prefixed(&mut self, prefix: &str, data: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(data.len() + prefix.len() * 2);
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(line) => {
                    self.open.extend_from_slice(line);
                    self.write_line(prefix, &mut out);
                }
                None => self.open.extend_from_slice(part),
            }
            if self.open.len() > LINE_BYTES {
                self.write_line(prefix, &mut out);
            }
        }
        out.into()
    }

    fn write_line(&mut self, prefix: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(prefix.as_bytes());
        // On a terminal a colour must not run on into the next machine's line.
        let may_be_coloured = self.cleaner.is_some() && self.open.contains(&0x1b);
        out.append(&mut self.open);
        out.extend_from_slice(if may_be_coloured { b"\x1b[0m\n" } else { b"\n" });
    }
}
