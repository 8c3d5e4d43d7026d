//! Lists of machines that a selector means, whose pages are all of one list.
//!
//! A further page names its list by what it was: the moment of its evaluation and the digest of its machines. The bridge that
//! has evaluated it remembers it for a minute. Another bridge, or this one when it has forgotten, looks again from that
//! moment; if it finds the same machines, that is the list. If not, nobody is told half of one list and half of another.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use signalbox_schemas::{
    api::{Listed, Previewed, Target},
    error::{ErrorCode, Problem},
    id::{MachineToken, Sha256},
    selector::Selector,
};

use super::{Api, locked, now_ms};

/// How long a list is remembered, and how old the moment may be that a page names.
const KEPT: Duration = Duration::from_mins(1);
/// Machines of all lists that are remembered: with the longest names some 60 MB.
const MACHINES: usize = 100_000;
/// What a list weighs beside its machines, in machines: its selector's text, and that it is one more.
const WEIGHT: usize = 100;

/// Where a list goes on. Its text is opaque to clients; it sorts like its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    token: MachineToken,
    /// Absent: the page is of what is meant now.
    list: Option<(u64, Sha256)>,
}

impl Place {
    /// Reads `after`.
    ///
    /// # Errors
    /// `invalid` for what no page has answered.
    pub(super) fn parse(after: Option<&str>) -> Result<Option<Self>, Problem> {
        let Some(after) = after else { return Ok(None) };
        let read = || {
            let mut parts = after.splitn(3, ',');
            let token = MachineToken::new(parts.next()?).ok()?;
            let list = match (parts.next(), parts.next()) {
                (None, _) => None,
                (Some(at), Some(sha256)) => Some((at.parse().ok()?, sha256.parse().ok()?)),
                (Some(_), None) => return None,
            };
            Some(Self { token, list })
        };
        let message =
            "cannot list what follows: `after` is no `next` of this list; leave it out to begin anew";
        read().map(Some).ok_or_else(|| Problem::new(ErrorCode::Invalid, message))
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) selector: &'a Selector,
    pub(super) for_secret: bool,
}

/// The machines that a selector means, as it was evaluated.
#[derive(Debug)]
pub(super) struct List {
    /// Sorted by token.
    pub(super) targets: Vec<Target>,
    /// When, Unix ms.
    pub(super) at: u64,
    pub(super) sha256: Sha256,
    /// What had been read then.
    pub(super) cursor: String,
}

impl List {
    /// Those behind a place.
    pub(super) fn behind(&self, place: Option<&Place>) -> &[Target] {
        let from = place.map_or(0, |place| self.targets.partition_point(|it| it.token <= place.token));
        self.targets.get(from..).unwrap_or_default()
    }

    /// The place behind one of them.
    pub(super) fn place(&self, token: &MachineToken) -> String {
        format!("{token},{},{}", self.at, self.sha256)
    }
}

/// A list that is remembered.
struct Kept {
    /// As it was written, which is short: expressions that it is read into are large.
    on: String,
    for_secret: bool,
    until: Instant,
    list: Arc<List>,
}

/// Those that are remembered, the oldest first.
#[derive(Default)]
pub(super) struct Lists {
    kept: VecDeque<Kept>,
    machines: usize,
}

fn weight(list: &List) -> usize {
    list.targets.len() + WEIGHT
}

impl Lists {
    fn find(&self, asked: Asked<'_>, at: u64, sha256: Sha256, now: Instant) -> Option<Arc<List>> {
        let on = asked.selector.to_string();
        let is_it = |kept: &&Kept| {
            let is_list = (kept.list.at, kept.list.sha256) == (at, sha256);
            is_list && kept.until > now && kept.for_secret == asked.for_secret && kept.on == on
        };
        self.kept.iter().find(is_it).map(|kept| Arc::clone(&kept.list))
    }

    /// Remembers a list; older ones make room. One that is larger than all the room is not remembered.
    fn keep(&mut self, asked: Asked<'_>, list: &Arc<List>, now: Instant) {
        let count = weight(list);
        if count > MACHINES {
            return;
        }
        let (on, list) = (asked.selector.to_string(), Arc::clone(list));
        self.kept.push_back(Kept { on, for_secret: asked.for_secret, until: now + KEPT, list });
        self.machines += count;
        while self.machines > MACHINES || self.kept.front().is_some_and(|kept| kept.until <= now) {
            let Some(gone) = self.kept.pop_front() else { return };
            self.machines = self.machines.saturating_sub(weight(&gone.list));
        }
    }
}

impl Api {
    /// The machines that a selector means: now, or of the list that a place names.
    ///
    /// # Errors
    /// `invalid` for a selector that takes too long, `id_conflict` when the list cannot be given again.
    pub(super) async fn list_of(
        &self,
        asked: Asked<'_>,
        place: Option<&Place>,
    ) -> Result<Arc<List>, Problem> {
        let named = place.and_then(|place| place.list);
        if let Some((at, sha256)) = named {
            let found = locked(&self.frozen).find(asked, at, sha256, Instant::now());
            if let Some(list) = found {
                return Ok(list);
            }
            if now_ms().abs_diff(at) > KEPT.as_secs() * 1_000 {
                return Err(changed("its first page was read more than a minute ago"));
            }
        }
        let cursor = self.view.cursors().to_string();
        let at = named.map_or_else(now_ms, |(at, _)| at);
        let targets = self.meant_at(asked.selector, asked.for_secret, at).await?;
        let sha256 = Previewed::digest(targets.iter().map(|target| &target.token));
        if named.is_some_and(|(_, wanted)| wanted != sha256) {
            return Err(changed("other machines are meant now than when its first page was read"));
        }
        Ok(Arc::new(List { targets, at, sha256, cursor }))
    }

    /// Remembers a list of which another page will be asked for.
    pub(super) fn remember<T>(&self, asked: Asked<'_>, list: &Arc<List>, page: &Listed<T>) {
        let (mut lists, now) = (locked(&self.frozen), Instant::now());
        if page.next.is_some() && lists.find(asked, list.at, list.sha256, now).is_none() {
            lists.keep(asked, list, now);
        }
    }
}

fn changed(why: &str) -> Problem {
    let message = format!("cannot go on with the list of machines: {why}; begin anew, without `after`");
    Problem::new(ErrorCode::IdConflict, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use signalbox_schemas::{api::Liveness, id::MachineId};

    fn list(count: usize, at: u64) -> Arc<List> {
        let target = |n| {
            let id = MachineId::new(format!("m-{n:06}")).unwrap();
            Target { token: id.token(), id, state: Liveness::Online }
        };
        let targets: Vec<Target> = (0..count).map(target).collect();
        let sha256 = Previewed::digest(targets.iter().map(|it| &it.token));
        Arc::new(List { targets, at, sha256, cursor: String::new() })
    }

    #[rstest]
    #[case("web-1", true)]
    #[case("Web", false)]
    #[case("", false)]
    #[case("web-1,", false)]
    #[case("web-1,5", false)]
    #[case("web-1,x,aa", false)]
    #[case("web-1,5,aa", false)]
    fn a_place_is_read_strictly(#[case] after: &str, #[case] is_one: bool) {
        assert_eq!(Place::parse(Some(after)).is_ok(), is_one);
    }

    #[test]
    fn a_place_is_behind_its_machine_and_sorts_like_it() {
        let list = list(20, 7);
        let places: Vec<String> = list.targets.iter().map(|it| list.place(&it.token)).collect();
        assert!(places.is_sorted());
        let place = Place::parse(places.get(4).map(String::as_str)).unwrap().unwrap();
        assert_eq!(place.list, Some((7, list.sha256)));
        assert_eq!(list.behind(Some(&place)), &list.targets[5..]);
    }

    #[test]
    fn lists_are_remembered_for_a_minute_and_so_many_machines() {
        let now = Instant::now();
        let (web, db) = (Selector::parse("web-*").unwrap(), Selector::parse("db-*").unwrap());
        let asked = |selector, for_secret| Asked { selector, for_secret };
        let mut lists = Lists::default();
        let first = list(MACHINES / 2 - WEIGHT, 1);
        lists.keep(asked(&web, false), &first, now);
        let finds =
            |lists: &Lists, asked, list: &List, at| lists.find(asked, list.at, list.sha256, at).is_some();
        assert!(finds(&lists, asked(&web, false), &first, now));
        // Another selector's list, one for a secret, and one that is too old are others.
        assert!(!finds(&lists, asked(&db, false), &first, now));
        assert!(!finds(&lists, asked(&web, true), &first, now));
        assert!(!finds(&lists, asked(&web, false), &first, now + KEPT));
        let second = list(MACHINES / 2 - WEIGHT + 1, 2);
        lists.keep(asked(&web, false), &second, now);
        assert!(!finds(&lists, asked(&web, false), &first, now), "it has made room");
        assert!(finds(&lists, asked(&web, false), &second, now));
        lists.keep(asked(&web, false), &list(MACHINES - WEIGHT + 1, 3), now);
        assert_eq!((lists.kept.len(), lists.machines), (1, MACHINES / 2 + 1));
        lists.keep(asked(&web, false), &list(1, 4), now + KEPT);
        assert_eq!((lists.kept.len(), lists.machines), (1, 1 + WEIGHT), "what is too old goes");
        for at in 0..10_000 {
            lists.keep(asked(&web, false), &list(1, at), now + KEPT);
        }
        assert!(lists.kept.len() < 1_000, "so many of few machines are not remembered");
    }
}
