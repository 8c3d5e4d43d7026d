//! Who asks, and where: an operator's two keys and the broker's address.

use std::{path::Path, sync::Arc};

use signalbox_link::Login;
use signalbox_schemas::{
    id::{OperatorId, Workspace},
    layout::Layout,
    signed::SigningKey,
};

use super::ClientError;

/// The operator that `init` makes.
pub const LOCAL_OPERATOR: &str = "local";

/// An operator's identity and the broker to go to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access {
    /// Workspace.
    pub ws: Workspace,
    /// Who.
    pub operator: OperatorId,
    /// The broker.
    pub nats_url: String,
    /// Logs in, for nothing else.
    pub login: Login,
    /// Signs, for nothing else.
    pub key: Arc<SigningKey>,
}

impl Access {
    /// Reads the local operator's identity from a state directory. `nats_url` goes before the address that
    /// `signalbox up` left there.
    ///
    /// # Errors
    /// [`ClientError::Identity`], [`ClientError::Seed`], [`ClientError::Login`], [`ClientError::NoBroker`].
    pub fn local(layout: &Layout, nats_url: Option<&str>) -> Result<Self, ClientError> {
        let name = format!("operator-{LOCAL_OPERATOR}");
        let creds = layout.creds(&name);
        let seed_path = layout.seed(&name);
        // First what a newcomer lacks first.
        if !layout.state_json().exists() {
            return Err(ClientError::NoBroker(layout.root().to_owned()));
        }
        let operator = OperatorId::new(LOCAL_OPERATOR).map_err(|_| ClientError::Malformed("operator"))?;
        let access = Self::by_files(&creds, &seed_path, layout, nats_url)?;
        Ok(Self { operator, ..access })
    }

    /// Reads an operator's identity from its two files: who it is stands in the login. Without `nats_url` the broker is the
    /// one that `signalbox up` left in the state directory.
    ///
    /// # Errors
    /// As [`Self::local`].
    pub fn by_files(
        login: &Path,
        signing_key: &Path,
        layout: &Layout,
        nats_url: Option<&str>,
    ) -> Result<Self, ClientError> {
        let login = Login::from_creds_file(login).map_err(ClientError::Login)?;
        let key = SigningKey::from_seed(&read(signing_key)?)
            .map_err(|_| ClientError::Seed(signing_key.to_owned()))?;
        let nats_url = match nats_url {
            Some(url) => url.to_owned(),
            None => read(&nats_url_file(layout))
                .map(|text| text.trim().to_owned())
                .map_err(|_| ClientError::NoBroker(layout.root().to_owned()))?,
        };
        let operator =
            OperatorId::new(login.user_name()).map_err(|_| ClientError::Malformed("the operator's login"))?;
        Ok(Self { ws: Workspace::main(), operator, nats_url, login, key: Arc::new(key) })
    }
}

/// Where `signalbox up` leaves the broker's address.
pub fn nats_url_file(layout: &Layout) -> std::path::PathBuf {
    layout.root().join("run").join("nats.url")
}

fn read(path: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(path).map_err(|source| ClientError::Identity { path: path.to_owned(), source })
}
