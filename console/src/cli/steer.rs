//! `signalbox pause`, `resume` and `abort`: wishes about the rollout of a command.

use signalbox_schemas::{
    api::{RolloutView, SteerRollout, Steered},
    id::CommandId,
    rollout::{RolloutState, Steer},
};

use super::{call::Call, clean, event, exit::Failure};
use crate::{args, config::Config};

/// Asks for it, and prints how the rollout stands then.
///
/// # Errors
/// [`Failure`].
pub async fn steer(config: &Config, args: &args::One, wish: Steer) -> Result<u8, Failure> {
    let id = args.id;
    let call = Call::new(config, args.listing.json, format!("{} {id}", wish.as_str()));
    let Steered { rollout } = call.change(wish.op(), &SteerRollout { id }).await?;
    if call.is_json() {
        let line = serde_json::json!({ "id": id, "rollout": rollout });
        return super::call::print(event::line(&line)).await;
    }
    super::call::print(format!("{}\n", told(&rollout, Some(id)))).await
}

/// `wave 2 of 6, 12 let go, paused: 1 of 5 runs failed; `signalbox resume ID` goes on`.
pub(super) fn told(rollout: &RolloutView, id: Option<CommandId>) -> String {
    let RolloutView { wave, waves, released, state, .. } = rollout;
    let why = match &rollout.why {
        Some(why) => format!(": {}", clean::line(why)),
        None if *state != RolloutState::Going => format!(" by {}", clean::line(&rollout.by)),
        None => String::new(),
    };
    let advice = id.filter(|_| *state == RolloutState::Paused);
    let advice =
        advice.map(|id| format!("; `signalbox resume {id}` goes on, `signalbox abort {id}` ends it"));
    format!("wave {wave} of {waves}, {released} let go, {state}{why}{}", advice.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::api::Counts;

    use super::*;

    #[test]
    fn how_it_stands_is_said_with_what_to_do_next() {
        let view = RolloutView::new("canary 1, 5".parse().unwrap(), 12, None, &Counts::new());
        assert_eq!(told(&view, None), "wave 1 of 4, 0 let go, going");
        let paused = RolloutView { state: RolloutState::Paused, by: "operator:a".to_owned(), ..view };
        assert_eq!(told(&paused, None), "wave 1 of 4, 0 let go, paused by operator:a");
        let failed = RolloutView { why: Some("1 of 1 runs failed\u{1b}".to_owned()), ..paused };
        let id = "0193a2b4-0000-7000-8000-000000000000".parse().unwrap();
        let line = told(&failed, Some(id));
        assert!(line.starts_with("wave 1 of 4, 0 let go, paused: 1 of 1 runs failed"), "{line}");
        assert!(
            line.ends_with(&format!("`signalbox resume {id}` goes on, `signalbox abort {id}` ends it")),
            "{line}"
        );
        assert!(!line.contains('\u{1b}'));
    }
}
