//! Log lines of the positional command line: `[2026-01-02T03:04:05.678Z] INFO  message {"json":"fields"}`.
//!
//! What reads the logs of the relay that this one replaces goes on reading them. What happens goes to standard output, what
//! is not as it should be to standard error. Commands are logged by id and length and never by their text, on no level: it
//! may hold secrets.

use std::{fmt, io};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
        writer::MakeWriterExt as _,
    },
    registry::LookupSpan,
};

use crate::legacy_args::LogLevel;

/// Begins logging. To be called once.
pub(crate) fn init(level: LogLevel) {
    // Libraries speak when something is wrong, and then only.
    let others = if level == LogLevel::Error { "error" } else { "warn" };
    let filter = EnvFilter::new(format!("{others},signalbox_relay={}", level.as_str()));
    let writer = io::stderr.with_max_level(Level::WARN).or_else(io::stdout);
    // A line that cannot be written is lost and no more: printing that failure would panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    log.log_internal_errors(false).event_format(Lines).init();
}

struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        writeln!(writer, "{}", said.line(OffsetDateTime::now_utc(), *event.metadata().level()))
    }
}

/// What one event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn line(self, at: OffsetDateTime, level: Level) -> String {
        let (date, time) = (at.date(), at.time());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        let (hour, minute, second, ms) = time.as_hms_milli();
        let at = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
        let line = format!("[{at}] {:<5} {}", level.as_str(), self.message);
        if self.fields.is_empty() { line } else { format!("{line} {}", Value::Object(self.fields)) }
    }

    fn set(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            // One event is one line.
            self.message = text.replace('\n', " ");
        } else {
            self.set(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Level::INFO, "INFO ")]
    #[case(Level::ERROR, "ERROR")]
    fn a_line_has_time_level_message_and_fields(#[case] level: Level, #[case] padded: &str) {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_767_323_045_006_000_000).unwrap();
        let plain = Said { message: "started".to_owned(), fields: Map::new() };
        assert_eq!(plain.line(at, level), format!("[2026-01-02T03:04:05.006Z] {padded} started"));
        let mut fields = Map::new();
        fields.insert("error".to_owned(), "a\n\"b\"".into());
        let said = Said { message: "no".to_owned(), fields };
        let line = format!(r#"[2026-01-02T03:04:05.006Z] {padded} no {{"error":"a\n\"b\""}}"#);
        assert_eq!(said.line(at, level), line);
    }
}
