//! Which credentials go with a host. Pure.

use std::cmp::Reverse;

use signalbox_schemas::host::Closeness;

use super::Entry;

/// How a credential's user fits the one that is asked for; the lesser one is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The same, or none is asked for.
    Same,
    /// It has none.
    Any,
    /// Another.
    Other,
}

fn fit(entry: &Entry, asked: Option<&str>) -> Fit {
    match (asked, entry.label.username.as_deref()) {
        (None, _) => Fit::Same,
        (Some(asked), Some(own)) if asked == own => Fit::Same,
        (Some(_), None) => Fit::Any,
        (Some(_), Some(_)) => Fit::Other,
    }
}

pub(super) fn find<'a>(entries: &'a [Entry], host: &str, port: u16, asked: Option<&str>) -> Vec<&'a Entry> {
    let means = |entry: &'a Entry| -> Option<(Closeness, Fit, &'a Entry)> {
        let closeness = entry.label.target.as_ref()?.matches(host, port)?;
        Some((closeness, fit(entry, asked), entry))
    };
    let mut found: Vec<_> = entries.iter().filter_map(means).collect();
    found.sort_by_key(|(closeness, fit, entry)| {
        (Reverse(*closeness), *fit, Reverse(entry.updated_at), entry.label.name.clone())
    });
    // The first of equally close ones says whether one of them has exactly the user.
    let mut exact = None;
    found.retain(|(closeness, fit, _)| {
        if *fit == Fit::Same {
            exact = Some(*closeness);
        }
        *fit != Fit::Other || exact != Some(*closeness)
    });
    found.into_iter().map(|(_, _, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::{
        Base64Url,
        credential::{CredentialLabel, CredentialType, StorageMode},
        id::CredentialName,
    };

    use super::*;

    /// `name target user updated_at`, with `-` for none.
    fn entries(lines: &[&str]) -> Vec<Entry> {
        let entry = |line: &&str| {
            let [name, target, user, updated_at] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let some = |text: &str| (text != "-").then(|| text.to_owned());
            let label = CredentialLabel {
                name: CredentialName::new(name).unwrap(),
                credential_type: CredentialType::Password,
                target: some(target).map(|target| target.parse().unwrap()),
                username: some(user),
                storage_mode: StorageMode::RelayOnly,
            };
            let updated_at = updated_at.parse().unwrap();
            Entry { label, created_at: 1, updated_at, sealed: Base64Url(vec![]) }
        };
        lines.iter().map(entry).collect()
    }

    #[rstest]
    #[case::closest_first(&["a * - 9", "b 10.0.0.0/8 - 8", "c 10.0.0.7 - 1", "d 10.0.0.7:22 - 1"], None, "dcba")]
    #[case::without_a_target_never(&["a - - 9", "b * - 1"], None, "b")]
    #[case::other_hosts_never(&["a 10.0.0.8 - 9", "b 10.0.0.7:23 - 1"], None, "")]
    #[case::newer_then_by_name(&["a * - 1", "b * - 2", "c * - 2"], None, "bca")]
    #[case::any_user_when_none_is_asked(&["a * root 1", "b * - 2", "c * bob 3"], None, "cba")]
    #[case::the_user_then_any(&["a * - 9", "b * bob 1"], Some("bob"), "ba")]
    #[case::others_only_where_nobody_has_it(&["a * root 9", "b * - 1"], Some("bob"), "ba")]
    #[case::others_are_left_out(&["a * root 9", "b * bob 1", "c * - 5"], Some("bob"), "bc")]
    #[case::the_host_goes_before_the_user(&["a * bob 9", "b 10.0.0.7 root 1"], Some("bob"), "ba")]
    #[case::others_of_each_closeness(&["a * bob 9", "b * root 9", "c 10.0.0.7 root 1"], Some("bob"), "ca")]
    fn the_best_comes_first(#[case] lines: &[&str], #[case] asked: Option<&str>, #[case] expected: &str) {
        let entries = entries(lines);
        let found = find(&entries, "10.0.0.7", 22, asked);
        assert_eq!(found.iter().map(|entry| entry.label.name.as_str()).collect::<String>(), expected);
    }
}
