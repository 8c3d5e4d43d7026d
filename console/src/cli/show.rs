//! `signalbox show` and `signalbox cancel`.

use std::io::IsTerminal as _;

use signalbox_schemas::{
    api::{CommandView, RunView},
    id::CommandId,
    output::OutputStream,
};

use super::{
    call,
    card::{NOTHING, moment},
    clean, event,
    event::Event,
    exit::{self, Failure},
    follow,
    lines::{Lines, Sink},
    output,
    printer::{Hangup, Piece, Printer},
    quantity, steer,
    table::{Column, Table},
};
use crate::{
    args,
    client::{Client, clock::now_ms, flow},
    config::Config,
};

/// Columns of the runs.
const RUN_COLUMNS: [Column; 7] =
    [("MACHINE", 0), ("STATE", 0), ("EXIT", 0), ("TOOK", 3), ("STDOUT", 1), ("STDERR", 2), ("", 0)];

/// Shows a command with its runs and their output.
///
/// # Errors
/// [`Failure`].
pub async fn show(config: &Config, args: &args::Show) -> Result<u8, Failure> {
    let id = args.one.id;
    let what = format!("show {id}");
    let client = call::connect(config, &what).await?;
    let view = client.command(id).await.map_err(|error| Failure::client(&what, &error))?;
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let colours = config.environment.has_colours();
    let sink = |is_terminal| Sink { is_terminal, colours };
    let sinks = [sink(std::io::stdout().is_terminal()), sink(std::io::stderr().is_terminal())];
    let machines: Vec<_> = view.runs.iter().map(|run| run.machine.clone()).collect();
    let mut shown = Shown {
        client: &client,
        printer: &printer,
        id,
        json: args.one.listing.json,
        lines: Lines::new(&machines, sinks),
        ellipsis: config.environment.ellipsis(),
    };
    let written = shown.write(&view, args.output).await;
    printer.finish().await.map_err(|error| Failure::written(&error))?;
    written.map(|()| exit::OK)
}

struct Shown<'a> {
    client: &'a Client,
    printer: &'a Printer,
    id: CommandId,
    json: bool,
    lines: Lines,
    ellipsis: char,
}

impl Shown<'_> {
    async fn write(&mut self, view: &CommandView, output_too: bool) -> Result<(), Failure> {
        if self.json {
            self.print(Piece::Out(event::line(view).into())).await?;
        } else {
            self.print(Piece::Out(heading(view, self.ellipsis).into())).await?;
        }
        if self.json && !output_too {
            return Ok(());
        }
        for run in &view.runs {
            for (stream, known) in [(OutputStream::Stdout, &run.stdout), (OutputStream::Stderr, &run.stderr)]
            {
                if known.bytes > 0 {
                    self.output(run, stream).await?;
                }
            }
        }
        Ok(())
    }

    /// The output of one stream, as far as it is known now.
    async fn output(&mut self, run: &RunView, stream: OutputStream) -> Result<(), Failure> {
        let (client, printer, json, lines) = (self.client, self.printer, self.json, &mut self.lines);
        output::each_range(client, self.id, run, stream, async |offset, data| {
            let piece = if json {
                let piece = flow::Piece { machine: run.machine.clone(), stream, offset, data };
                Piece::Out(Event::output(&piece).line().into())
            } else {
                output::to(stream, lines.push(&run.machine, stream, &data))
            };
            printer.print(piece).await.map_err(|Hangup| Failure::hangup())
        })
        .await?;
        let rest = self.lines.finish(&run.machine, stream);
        self.print(output::to(stream, rest)).await
    }

    async fn print(&self, piece: Piece) -> Result<(), Failure> {
        self.printer.print(piece).await.map_err(|Hangup| Failure::hangup())
    }
}

/// What is known of a command, before its output.
fn heading(view: &CommandView, ellipsis: char) -> String {
    let summary = &view.summary;
    let by = match &summary.created_by {
        Some(name) => format!("{} for {}", clean::line(&summary.by), clean::line(name)),
        None => clean::line(&summary.by),
    };
    let mut out = format!(
        "command  {}\nid       {}\non       {}\nby       {}, {}\nstates   {}\n",
        clean::line(&summary.command),
        summary.id,
        clean::line(&summary.place()),
        by,
        moment(summary.created_at, now_ms()),
        follow::show_counts(&summary.counts),
    );
    if let Some(rollout) = &summary.rollout {
        let waves =
            format!("waves    {}\n         {}\n", rollout.plan, steer::told(rollout, Some(summary.id)));
        out.push_str(&waves);
    }
    if let Some(first) = &summary.retry_of {
        out.extend(["retries  ", &first.to_string(), "\n"]);
    }
    let mut table = Table::new(&RUN_COLUMNS);
    for run in &view.runs {
        table.push(vec![
            clean::line(run.machine.as_str()),
            run.state.to_string(),
            exit_of(run),
            run.duration_ms.map_or_else(|| NOTHING.to_owned(), quantity::show_ms),
            quantity::show_bytes(run.stdout.bytes),
            quantity::show_bytes(run.stderr.bytes),
            remark(run),
        ]);
    }
    out.push('\n');
    out.push_str(&table.render(call::columns(), ellipsis));
    out.push('\n');
    out
}

/// How its process ended, if it did: exit code or signal.
pub(super) fn exit_of(run: &RunView) -> String {
    match (run.exit_code, &run.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => clean::line(signal),
        (None, None) => NOTHING.to_owned(),
    }
}

fn remark(run: &RunView) -> String {
    let mut remarks = Vec::new();
    if let Some(error) = &run.error {
        remarks.push(clean::line(&error.message));
    }
    if run.stdout.truncated || run.stderr.truncated {
        remarks.push("output is not complete".to_owned());
    }
    if run.group_dead == Some(false) {
        remarks.push("processes are left".to_owned());
    }
    remarks.join("; ")
}

/// Cancels a command.
///
/// # Errors
/// [`Failure`].
pub async fn cancel(config: &Config, args: &args::One) -> Result<u8, Failure> {
    let id = args.id;
    let what = format!("cancel {id}");
    let client = call::connect(config, &what).await?;
    let n = client.cancel(id).await.map_err(|error| Failure::client(&what, &error))?;
    if args.listing.json {
        let line = serde_json::json!({ "id": id, "cancelling": n });
        return call::print(event::line(&line)).await;
    }
    let text = match n {
        0 => "nothing to cancel: every run had ended\n".to_owned(),
        1 => "cancelling 1 run\n".to_owned(),
        n => format!("cancelling {n} runs\n"),
    };
    call::print(text).await
}
