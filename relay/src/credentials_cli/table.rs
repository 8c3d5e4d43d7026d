//! Credentials as people read them. Pure.

use signalbox_schemas::credential::CredentialMeta;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What stands where there is nothing.
const NOTHING: &str = "-";

/// One line for each credential, under the names of the columns.
pub(super) fn table(credentials: &[CredentialMeta]) -> String {
    let head = ["NAME", "TYPE", "TARGET", "USER", "MODE", "CHANGED"].map(str::to_owned);
    let row = |meta: &CredentialMeta| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| NOTHING.to_owned());
        [
            meta.credential_name.clone(),
            meta.credential_type.as_str().to_owned(),
            text(&meta.target_host),
            text(&meta.username),
            meta.storage_mode.as_str().to_owned(),
            time(meta.last_updated_at),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(credentials.iter().map(row)).collect();
    let mut widths = [0; 6];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).ok();
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| NOTHING.to_owned())
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::credential::{CredentialType, StorageMode};

    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let meta = |name: &str, target: Option<&str>, at| CredentialMeta {
            credential_name: name.to_owned(),
            credential_type: CredentialType::ApiKey,
            target_host: target.map(str::to_owned),
            storage_mode: StorageMode::Shared,
            last_updated_at: at,
            username: None,
            created_at: Some(1),
        };
        let text =
            table(&[meta("db", Some("*.lan:22"), 1_700_000_000_000), meta("a long näme", None, u64::MAX)]);
        assert_eq!(
            text,
            "NAME         TYPE     TARGET    USER  MODE    CHANGED\n\
             db           api_key  *.lan:22  -     shared  2023-11-14T22:13:20Z\n\
             a long näme  api_key  -         -     shared  -\n"
        );
    }
}
