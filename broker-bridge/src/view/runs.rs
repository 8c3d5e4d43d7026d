//! Runs by machine and state.

use std::{fmt, str::FromStr};

use signalbox_schemas::{
    api::{Listed, MachineRunView},
    id::MachineToken,
    run::RunState,
};

use super::{PAGE_BYTES, View};
use crate::store::{StoreError, key};

/// Commands, and runs, that are looked at for one page: some tens of milliseconds.
const LOOKED_AT: usize = 5_000;

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunsAsked {
    /// Those of this machine only.
    pub mid: Option<MachineToken>,
    /// Those in this state only.
    pub state: Option<RunState>,
    /// Those behind this place.
    pub after: Option<RunPlace>,
    /// Most items.
    pub limit: usize,
}

/// The place of a run in the order of all: commands newest first, and the runs of one by machine token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlace {
    /// When its command was accepted, Unix ms, and that one's sequence in CMD.
    order: (u64, u64),
    /// Its machine; `None` stands for the end of its command.
    mid: Option<MachineToken>,
}

impl fmt::Display for RunPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, sequence) = self.order;
        write!(f, "{at}.{sequence}")?;
        self.mid.as_ref().map_or(Ok(()), |mid| write!(f, ".{mid}"))
    }
}

/// The text is no place of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the list of runs")]
pub struct PlaceError;

impl FromStr for RunPlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(PlaceError);
        let order = (number()?, number()?);
        let mid = parts.next().map(MachineToken::new).transpose().map_err(|_| PlaceError)?;
        Ok(Self { order, mid })
    }
}

impl View {
    /// A page of runs, as many as fit a message. A page may hold few, or none, and still say where the next one begins: only so
    /// many are looked at for one. For a thread that may block.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn runs(&self, asked: &RunsAsked) -> Result<Listed<MachineRunView>, StoreError> {
        let end = asked.after.as_ref().map_or_else(
            || key::after(&[key::ORDER]),
            |after| {
                let mut end = key::order(after.order.0, after.order.1);
                // Its other runs may follow.
                end.extend(after.mid.iter().map(|_| 0));
                end
            },
        );
        let mut page = Page { items: Vec::new(), bytes: 0, looked_at: 0, last: None };
        for row in self.shared.store.range(vec![key::ORDER], end).rev() {
            if page.looked_at >= LOOKED_AT {
                return Ok(page.until_here());
            }
            let (found, cid) = row?;
            let mut reader = key::Reader(found.get(1..).unwrap_or_default());
            let order = reader.u64().zip(reader.u64()).ok_or(StoreError::Damaged("order"))?;
            let cid = key::Reader(&cid).cid().ok_or(StoreError::Damaged("order"))?;
            if self.runs_of(order, cid, asked, &mut page)? {
                return Ok(page.until_here());
            }
            page.looked_at += 1;
            page.last = Some(RunPlace { order, mid: None });
        }
        Ok(Listed { items: page.items, next: None })
    }

    /// Adds the runs of one command; answers whether the page is full.
    fn runs_of(
        &self,
        order: (u64, u64),
        cid: signalbox_schemas::id::CommandId,
        asked: &RunsAsked,
        page: &mut Page,
    ) -> Result<bool, StoreError> {
        let machines = match &asked.mid {
            // Without a look at the others.
            Some(mid) if self.is_run(cid, mid)? => vec![mid.clone()],
            Some(_) => return Ok(false),
            None => self.command_row(cid)?.map(|row| row.machines).unwrap_or_default(),
        };
        let before = asked.after.as_ref().filter(|after| after.order == order).and_then(|it| it.mid.as_ref());
        let mut summary = None;
        for mid in machines.iter().filter(|mid| before.is_none_or(|before| *mid > before)) {
            if page.looked_at >= LOOKED_AT {
                return Ok(true);
            }
            page.looked_at += 1;
            let run = self.run_view(cid, mid)?;
            if asked.state.is_none_or(|wanted| run.state == wanted) {
                if summary.is_none() {
                    summary = self.summary(cid)?;
                }
                let Some(command) = summary.clone() else { return Ok(false) };
                if page.items.len() == asked.limit || !page.push(MachineRunView { command, run }) {
                    return Ok(true);
                }
            }
            page.last = Some(RunPlace { order, mid: Some(mid.clone()) });
        }
        Ok(false)
    }
}

/// A page that grows.
struct Page {
    items: Vec<MachineRunView>,
    bytes: usize,
    looked_at: usize,
    /// The last place that was looked at.
    last: Option<RunPlace>,
}

impl Page {
    /// Adds an item; false when there is no room for it.
    fn push(&mut self, item: MachineRunView) -> bool {
        // With its comma.
        self.bytes += serde_json::to_vec(&item).map_or(0, |json| json.len() + 1);
        let has_room = self.bytes <= PAGE_BYTES || self.items.is_empty();
        if has_room {
            self.items.push(item);
        }
        has_room
    }

    fn until_here(self) -> Listed<MachineRunView> {
        Listed { items: self.items, next: self.last.map(|last| last.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1.2", true)]
    #[case("1.2.web-1", true)]
    #[case("1.2.", false)]
    #[case("1.2.web-1.x", false)]
    #[case("1", false)]
    #[case("1.x.web-1", false)]
    #[case("", false)]
    fn a_place_is_read_as_it_was_written(#[case] text: &str, #[case] is_place: bool) {
        let place = text.parse::<RunPlace>().ok();
        assert_eq!(place.map(|place| place.to_string()), is_place.then(|| text.to_owned()));
    }
}
