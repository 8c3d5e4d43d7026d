//! `signalbox retry`: the same text once more, on machines where it did not end well.
//!
//! A bridge tells what the text was, and the operator signs it: so it is shown whole before that.

use signalbox_schemas::{
    api::{CommandView, RunView},
    command::Target,
    id::MachineToken,
    limit,
    selector::{Selector, fold_names},
};

use super::{
    call,
    confirm::Question,
    exit::{self, Failure},
    follow::Manner,
    run::{Plan, perform},
};
use crate::{args::rollout::Retry, client::sign::Draft, config::Config};

/// Runs it again where it is worth it, and waits for the end.
///
/// # Errors
/// [`Failure`] with the exit code of the table.
pub async fn retry(config: &Config, args: Retry) -> Result<u8, Failure> {
    let what = format!("retry {}", args.id);
    let client = call::connect(config, &what).await?;
    let view = client.command(args.id).await.map_err(|error| Failure::client(&what, &error))?;
    client.link().close().await;
    let draft = draft(view, &args, config.settings.run.expires_in.ms)
        .map_err(|why| Failure::new(exit::NOT_ACCEPTED, format!("cannot {what}: {why}")))?;
    let plan = Plan {
        what,
        timeout_ms: draft.timeout_ms,
        manner: if args.json { Manner::Json } else { Manner::Output },
        no_wait: args.no_wait,
        exec: None,
        asks: Some(Question::of_told(config, &args.sure)),
    };
    perform(config, &draft, &plan).await
}

/// What is asked for, on those machines alone: their grants are signed anew, one by one.
fn draft(view: CommandView, args: &Retry, expires_in_ms: u64) -> Result<Draft, String> {
    let CommandView { summary, runs, .. } = view;
    if summary.changes {
        return Err("it changes what relays keep; give that command again".to_owned());
    }
    let ends = args.ends();
    let again: Vec<&RunView> = runs.iter().filter(|run| ends.contains(&run.state)).collect();
    if again.is_empty() {
        let ends: Vec<&str> = ends.iter().map(|state| state.as_str()).collect();
        return Err(format!("no run of it is {}", ends.join(" or ")));
    }
    let only: Vec<MachineToken> = again.iter().map(|run| run.machine.token()).collect();
    let on = by_name(&again).unwrap_or(summary.on);
    let expires_in_ms = args.expires_in.unwrap_or(expires_in_ms);
    Ok(Draft {
        max_output_bytes: args.max_output,
        only,
        ssh: summary.target.map(|Target::Ssh(ssh)| ssh),
        rollout: args.waves.clone().plan(),
        retry_of: Some(summary.id),
        created_by: summary.created_by,
        ..Draft::new(on, summary.command, summary.timeout_ms, expires_in_ms)
    })
}

/// A selector that names these machines: what the one of then means may have changed. `None`: it would be too long.
fn by_name(runs: &[&RunView]) -> Option<String> {
    let names = fold_names(runs.iter().map(|run| run.machine.as_str()));
    if names.len() > limit::SELECTOR_BYTES {
        return None;
    }
    let selector = Selector::parse(&names).ok()?;
    let is_meant = |run: &&RunView| selector.matches(&run.machine, &run.machine.token());
    runs.iter().all(is_meant).then_some(names)
}
