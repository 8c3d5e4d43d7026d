//! Pages of lists: bounded in items and in bytes.

use serde::Serialize;
use signalbox_schemas::{
    api::Page,
    error::{ErrorCode, Problem},
};

use crate::view::PAGE_BYTES;

/// Items when no limit is given.
const DEFAULT: u32 = 100;
/// Most items of a page.
pub(crate) const MOST: u32 = 1000;

/// The limit of a page.
pub(super) fn limit(page: &Page) -> Result<usize, Problem> {
    let limit = page.limit.unwrap_or(DEFAULT);
    if (1..=MOST).contains(&limit) {
        return Ok(limit as usize);
    }
    let message = format!("cannot list {limit} items: limit must be 1 to {MOST}; follow `next` for more");
    Err(Problem::new(ErrorCode::Invalid, message))
}

/// Refuses a place that no page has answered.
pub(super) fn check_after(page: &Page, is_place: impl Fn(&str) -> bool) -> Result<(), Problem> {
    if page.after.as_deref().is_none_or(is_place) {
        return Ok(());
    }
    let message = "cannot list what follows: `after` is no `next` of this list; leave it out to begin anew";
    Err(Problem::new(ErrorCode::Invalid, message))
}

/// How many of `items`, from the first, fit a page; at least one.
pub(super) fn fitting<T: Serialize>(items: &[T]) -> usize {
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        bytes += serde_json::to_vec(item).map_or(0, |json| json.len() + 1);
        bytes <= PAGE_BYTES
    });
    fits.count().max(1)
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
        let page = Page { limit: asked, after: None };
        assert_eq!(limit(&page).ok(), answered);
    }

    #[test]
    fn a_page_fits_a_message_and_always_gets_on() {
        let big = "x".repeat(100_000);
        assert_eq!(fitting(&vec![big.clone(); 20]), 7);
        assert_eq!(fitting(&["x".repeat(2_000_000)]), 1);
        assert_eq!(fitting(&["a", "b"]), 2);
    }
}
