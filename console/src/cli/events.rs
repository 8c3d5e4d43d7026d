//! `signalbox events`: what happened, and with `--watch` what happens.

use std::{io::IsTerminal as _, time::Duration};

use signalbox_schemas::{
    api::{EventView, ListEvents, op},
    error::report,
};
use tokio::time::sleep;

use super::{
    call::{Call, Row},
    card::{NOTHING, moment},
    clean, event,
    exit::{self, Failure},
    printer::Printer,
    table::Column,
    watch::{Stop, finish, goes_on, may_pass},
};
use crate::{
    args::system,
    client::{Client, clock::now_ms, list::MOST},
    config::Config,
};

/// How often `--watch` asks for what is new.
const WATCH_EVERY: Duration = Duration::from_secs(2);

impl Row for EventView {
    const COLUMNS: &'static [Column] =
        &[("WHEN", 0), ("TYPE", 0), ("MACHINE", 2), ("BRIDGE", 3), ("WHAT", 0)];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let event = &self.event;
        let machine =
            event.machine_id.as_ref().map_or_else(|| NOTHING.to_owned(), |id| clean::line(id.as_str()));
        vec![
            moment(self.stored_at, now_ms()),
            clean::line(&event.kind),
            machine,
            event.bridge.to_string(),
            clean::line(&event.text),
        ]
    }
}

/// Lists events, newest first; with `--watch` the oldest first, and goes on.
///
/// # Errors
/// [`Failure`].
pub async fn events(config: &Config, args: &system::Events) -> Result<u8, Failure> {
    let call = Call::new(config, args.listing.json, "list events");
    let asked = ListEvents {
        machine: args.machine.clone(),
        kind: args.kind.clone(),
        since: args.since.map(|ms| now_ms().saturating_sub(ms)),
        ..ListEvents::default()
    };
    if !args.listing.watch {
        return call.list::<_, EventView>(op::EVENTS_LIST, asked, Some(args.limit)).await;
    }
    let mut stop = Stop::listen()?;
    let client = tokio::select! {
        client = call.connect() => client?,
        () = stop.asked() => return Ok(exit::OK),
    };
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let ended = tell(&call, &client, &printer, &mut stop, &asked, args.limit as usize).await;
    finish(printer, &mut stop).await?;
    ended.map(|()| exit::OK)
}

/// Tells events until Ctrl-C; of those that there are the last `most`.
async fn tell(
    call: &Call<'_>,
    client: &Client,
    printer: &Printer,
    stop: &mut Stop,
    asked: &ListEvents,
    mut most: usize,
) -> Result<(), Failure> {
    let is_json = call.is_json() || !std::io::stdout().is_terminal();
    let (mut behind, mut is_missed) = (None, false);
    loop {
        let page = ListEvents { behind, ..asked.clone() };
        let listed = tokio::select! {
            listed = client.list::<_, EventView>(op::EVENTS_LIST, page, most) => listed,
            () = stop.asked() => return Ok(()),
        };
        match listed {
            Ok(mut events) => {
                events.reverse();
                (behind, most, is_missed) =
                    (events.last().map(|view| view.sequence).or(behind).or(Some(0)), MOST, false);
                let lines: Vec<u8> = events.iter().flat_map(|view| line(view, is_json)).collect();
                if !lines.is_empty() && !goes_on(printer, lines, stop).await {
                    return Ok(());
                }
            }
            Err(error) if behind.is_some() && may_pass(&error) => {
                // Once for each time that it is lost.
                if !std::mem::replace(&mut is_missed, true) {
                    super::say(&format!("{}; asking again", clean::line(&report(&error))));
                }
            }
            Err(error) => return Err(call.failed(&error)),
        }
        tokio::select! {
            () = sleep(WATCH_EVERY) => {}
            () = stop.asked() => return Ok(()),
        }
    }
}

fn line(view: &EventView, is_json: bool) -> Vec<u8> {
    if is_json {
        return event::line(view);
    }
    format!("{}\n", view.cells('…').join("  ")).into_bytes()
}
