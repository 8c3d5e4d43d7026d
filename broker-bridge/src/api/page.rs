//! Pages of lists: bounded in items and in bytes.

use serde::Serialize;
use signalbox_schemas::{
    api::Listed,
    error::{ErrorCode, Problem},
};

use crate::view::PAGE_BYTES;

/// Items when no limit is given.
const DEFAULT: u32 = 100;
/// Most items of a page.
pub(crate) const MOST: u32 = 1000;

/// The limit of a page.
pub(super) fn limit(asked: Option<u32>) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(DEFAULT);
    if (1..=MOST).contains(&limit) {
        return Ok(limit as usize);
    }
    let message = format!("cannot list {limit} items: limit must be 1 to {MOST}; follow `next` for more");
    Err(Problem::new(ErrorCode::Invalid, message))
}

/// Refuses a place that no page has answered.
pub(super) fn check_after(after: Option<&str>, is_place: impl Fn(&str) -> bool) -> Result<(), Problem> {
    if after.is_none_or(is_place) {
        return Ok(());
    }
    let message = "cannot list what follows: `after` is no `next` of this list; leave it out to begin anew";
    Err(Problem::new(ErrorCode::Invalid, message))
}

/// The page that these items begin with: `limit` of them, or as many as fit a message, at least one. `place` says what the
/// next page begins behind. Of what follows one item is looked at.
pub(super) fn cut<T: Serialize>(
    items: impl Iterator<Item = T>,
    limit: usize,
    place: impl Fn(&T) -> String,
) -> Listed<T> {
    cut_within(items, Some(limit), place)
}

/// The same; without a limit it is all of them, which may be more than fits a message.
pub(super) fn cut_within<T: Serialize>(
    items: impl Iterator<Item = T>,
    limit: Option<usize>,
    place: impl Fn(&T) -> String,
) -> Listed<T> {
    let Some(limit) = limit else { return Listed { items: items.collect(), next: None } };
    let (mut listed, mut bytes) = (Vec::new(), 0);
    for item in items {
        // With its comma.
        bytes += serde_json::to_vec(&item).map_or(0, |json| json.len() + 1);
        if listed.len() == limit || (bytes > PAGE_BYTES && !listed.is_empty()) {
            let next = listed.last().map(place);
            return Listed { items: listed, next };
        }
        listed.push(item);
    }
    Listed { items: listed, next: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, Some(100))]
    #[case(Some(1), Some(1))]
    #[case(Some(1000), Some(1000))]
    #[case(Some(0), None)]
    #[case(Some(1001), None)]
    #[case(Some(u32::MAX), None)]
    fn limits_are_1_to_1000(#[case] asked: Option<u32>, #[case] answered: Option<usize>) {
        assert_eq!(limit(asked).ok(), answered);
    }

    #[rstest]
    #[case(0, vec![], None)]
    #[case(2, vec![1, 2], None)]
    #[case(3, vec![1, 2], Some("2"))]
    fn a_page_says_where_the_next_one_begins(
        #[case] items: u32,
        #[case] listed: Vec<u32>,
        #[case] next: Option<&str>,
    ) {
        let page = cut(1..=items, 2, ToString::to_string);
        assert_eq!((page.items, page.next.as_deref()), (listed, next));
    }

    #[rstest]
    #[case(100_000, 20, 7)]
    #[case(2_000_000, 3, 1)]
    #[case(1, 2, 2)]
    fn a_page_fits_a_message_and_always_gets_on(
        #[case] size: usize,
        #[case] items: usize,
        #[case] fit: usize,
    ) {
        let page = cut(vec!["x".repeat(size); items].into_iter(), 1_000, Clone::clone);
        assert_eq!((page.items.len(), page.next.is_some()), (fit, fit < items));
    }
}
