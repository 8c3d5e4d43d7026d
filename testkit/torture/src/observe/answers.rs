//! Everything that a bridge answers.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use signalbox_schemas::{
    id::{CommandId, MachineId},
    output::OutputStream,
};
use signalbox_testkit::{eventually_within, http::Http};

use crate::{
    observed::{Answers, Output},
    told::Piece,
};

/// Commands of a page: small, so that pages are put together.
const PAGE: u32 = 25;
/// Most pages: a plan has far fewer commands.
const PAGES: u32 = 400;
/// Into pieces of so many bytes output is cut, wherever a bridge cuts it.
const PIECE: usize = 64 * 1024;
/// How long one answer is asked for again: a bridge that was just healed may still read the streams.
const TRY_FOR: Duration = Duration::from_secs(20);

/// Asks for all commands, all runs, and all output.
pub(super) async fn ask(http: &Http, name: &str) -> Result<Answers> {
    let mut answers = Answers {
        bridge: name.to_owned(),
        listed: list(http).await?,
        commands: BTreeMap::new(),
        outputs: vec![],
    };
    for item in &answers.listed {
        let id = item.get("id").and_then(Value::as_str).context("a command without an id")?;
        let id: CommandId = id.parse()?;
        let command = get(http, &format!("/api/v1/commands/{id}")).await?;
        let runs = command.get("runs").and_then(Value::as_array).context("a command without runs")?;
        for run in runs {
            let machine = run.get("machine").and_then(Value::as_str).context("a run without a machine")?;
            for stream in OutputStream::ALL {
                let read = eventually_within("reading output", TRY_FOR, || output(http, id, machine, stream));
                answers.outputs.push(read.await?);
            }
        }
        answers.commands.insert(id, command);
    }
    answers.outputs.sort_by(|a, b| (a.command, &a.machine, a.stream).cmp(&(b.command, &b.machine, b.stream)));
    Ok(answers)
}

async fn get(http: &Http, path: &str) -> Result<Value> {
    eventually_within(path, TRY_FOR, || http.json(path)).await
}

async fn list(http: &Http) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut after = String::new();
    for _ in 0..PAGES {
        let page = get(http, &format!("/api/v1/commands?limit={PAGE}{after}")).await?;
        items.extend(page.get("items").and_then(Value::as_array).context("no items")?.iter().cloned());
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(items),
        }
    }
    bail!("the list of commands has no end")
}

/// One stream of a run. Where bytes were left out it goes on behind them.
async fn output(http: &Http, command: CommandId, machine: &str, stream: OutputStream) -> Result<Output> {
    let token = MachineId::new(machine)?.token();
    let mut read = Output { command, machine: token, stream, total: 0, truncated: false, pieces: vec![] };
    let mut offset: u64 = 0;
    loop {
        let path =
            format!("/api/v1/commands/{command}/output?machine={machine}&stream={stream}&offset={offset}");
        let answer = http.get(&path).await?;
        ensure!(answer.status == 200, "{path} answers {}: {}", answer.status, answer.text());
        read.total = answer.header("signalbox-total").context("no total")?.parse()?;
        read.truncated |= answer.header("signalbox-truncated") == Some("true");
        for bytes in answer.body.chunks(PIECE) {
            read.pieces.push(Piece::of(stream, offset, bytes));
            offset += bytes.len() as u64;
        }
        let next: Option<u64> = answer.header("signalbox-next-offset").map(str::parse).transpose()?;
        match next {
            Some(next) if next > offset => offset = next,
            // Nothing more is there, whatever the total says: the checker says whether that is right.
            _ if answer.body.is_empty() || offset >= read.total => return Ok(read),
            _ => {}
        }
    }
}
