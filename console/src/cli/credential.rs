//! `signalbox credentials`, `shared-credentials` and `shared-credential`.

use signalbox_schemas::api::{
    ById, CredentialView, ListCredentials, NewSharedCredential, Page, SharedCredentialView,
    UpdateSharedCredential, op,
};

use super::{
    call::{Call, Row},
    card::{NOTHING, moment},
    clean,
    exit::Failure,
    input,
    table::Column,
};
use crate::{
    args::{
        Listing,
        credential::{Credentials, SharedAction, SharedCredential, SharedId},
    },
    client::clock::now_ms,
    config::Config,
};

/// Largest sealed value.
const VALUE_BYTES: usize = 64 * 1024;
const VALUE: &str = "the encrypted value";

impl Row for CredentialView {
    const COLUMNS: &'static [Column] = &[
        ("ASSIGNMENT", 3),
        ("MACHINE", 0),
        ("TYPE", 0),
        ("MODE", 2),
        ("CHANGED", 1),
        ("HOST", 0),
        ("NAME", 0),
    ];

    fn key(&self) -> String {
        format!("{} {}", self.assignment_id, self.meta.credential_name)
    }

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        vec![
            clean::line(&self.assignment_id),
            clean::line(self.machine_id.as_str()),
            self.meta.credential_type.as_str().to_owned(),
            self.meta.storage_mode.as_str().to_owned(),
            moment(self.meta.last_updated_at, now_ms()),
            host(self.meta.target_host.as_deref()),
            clean::line(&self.meta.credential_name),
        ]
    }
}

impl Row for SharedCredentialView {
    const COLUMNS: &'static [Column] =
        &[("ID", 0), ("TYPE", 0), ("RELAYS", 1), ("CHANGED", 2), ("BY", 3), ("HOST", 0), ("NAME", 0)];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        vec![
            clean::line(&self.id),
            self.credential_type.as_str().to_owned(),
            self.assigned.len().to_string(),
            moment(self.updated_at, now_ms()),
            clean::line(&self.created_by),
            host(self.target_host.as_deref()),
            clean::line(&self.name),
        ]
    }
}

fn host(host: Option<&str>) -> String {
    host.map_or_else(|| NOTHING.to_owned(), clean::line)
}

/// Lists what relays hold.
///
/// # Errors
/// [`Failure`].
pub async fn list(config: &Config, args: Credentials) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the credentials");
    let asked =
        ListCredentials { assignment_id: args.relay, target_host: args.target, ..ListCredentials::default() };
    call.list::<_, CredentialView>(op::CREDENTIALS_LIST, asked, None).await
}

/// Lists shared credentials.
///
/// # Errors
/// [`Failure`].
pub async fn shared(config: &Config, args: &Listing) -> Result<u8, Failure> {
    let call = Call::of(config, args, "list the shared credentials");
    call.list::<_, SharedCredentialView>(op::SHARED_LIST, Page::default(), None).await
}

/// Does one thing with a shared credential.
///
/// # Errors
/// [`Failure`].
pub async fn act(config: &Config, args: SharedCredential) -> Result<u8, Failure> {
    let call = |what: String| Call::new(config, args.within.json, what);
    let (call, view): (_, SharedCredentialView) = match args.action {
        SharedAction::Create { name, credential_type, target, value_file, to } => {
            let encrypted_value = input::text(&value_file, VALUE_BYTES, VALUE).await?;
            let call = call(format!("share credential {}", clean::line(&name)));
            let asked = NewSharedCredential {
                name,
                credential_type,
                target_host: target,
                encrypted_value,
                assigned: to,
            };
            let view = call.change(op::SHARED_CREATE, &asked).await?;
            (call, view)
        }
        SharedAction::Update { id, name, target, value_file, to, to_nobody } => {
            let encrypted_value = match &value_file {
                Some(path) => Some(input::text(path, VALUE_BYTES, VALUE).await?),
                None => None,
            };
            let call = call(format!("change shared credential {}", clean::line(&id)));
            let assigned = (to_nobody || !to.is_empty()).then_some(to);
            let asked = UpdateSharedCredential { id, name, target_host: target, encrypted_value, assigned };
            let view = call.change(op::SHARED_UPDATE, &asked).await?;
            (call, view)
        }
        SharedAction::Show(SharedId { id }) => {
            let call = call(format!("show shared credential {}", clean::line(&id)));
            let view = call.ask(op::SHARED_GET, &ById { id }).await?;
            (call, view)
        }
        SharedAction::Remove(SharedId { id }) => {
            let call = call(format!("remove shared credential {}", clean::line(&id)));
            let view = call.change(op::SHARED_REMOVE, &ById { id }).await?;
            (call, view)
        }
    };
    call.show(&view).await
}
