//! Logging in: the ways of a hop in their order, as far as the host offers them.
//!
//! What a host does not offer is not tried, since it hears few tries. One that wants two ways (`partial success`) is given the
//! second one too.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use russh::{
    AgentAuthError, MethodKind, MethodSet, SendError, Signer,
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse, Prompt},
    keys::{
        Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg,
        agent::{AgentIdentity, client::AgentClient},
        signature::Signer as _,
        ssh_encoding::Encode as _,
        ssh_key::{self, private::KeypairData},
    },
};
use signalbox_schemas::{Secret, credential::CredentialValue, ssh::SshFault};
use tokio::net::UnixStream;

use super::{
    dial::Watch,
    failure::Failure,
    route::{Hop, SetBy, Way},
};
use crate::vault::key::{self, KeyFault};

/// Tries of one login: more than any server hears.
const MAX_TRIES: usize = 24;
/// Keys of an agent that are tried: a server hears six tries by default.
const MAX_AGENT_KEYS: usize = 5;
/// Rounds of questions of an interactive login, and questions of one round.
const MAX_ROUNDS: usize = 4;
const MAX_PROMPTS: usize = 8;

/// A way whose key was opened.
pub(crate) enum Prepared {
    Key {
        name: String,
        key: Arc<PrivateKey>,
        certificate: Result<Option<Box<Certificate>>, KeyFault>,
    },
    Password {
        name: String,
        password: Secret,
    },
    Agent {
        socket: PathBuf,
    },
    /// A key that cannot be used, and why.
    Unusable {
        name: String,
        fault: KeyFault,
    },
}

impl Prepared {
    /// Opens what has to be. Takes a tenth of a second where there is a passphrase.
    pub(crate) fn new(way: Way) -> Self {
        match way {
            Way::Key { name, key, passphrase, certificate } => {
                open_key(name, &CredentialValue::SshKey { key, passphrase, certificate })
            }
            Way::Password { name, password } => Self::Password { name, password },
            Way::Agent { socket } => Self::Agent { socket },
        }
    }
}

/// Opens a key as the vault does: what could be stored can be used.
fn open_key(name: String, value: &CredentialValue) -> Prepared {
    match key::open(value) {
        Ok(key) => {
            // A certificate that cannot be used costs only itself.
            let certificate = key::certificate(value, &key).map(|certificate| certificate.map(Box::new));
            Prepared::Key { name, key: Arc::new(key), certificate }
        }
        Err(fault) => Prepared::Unusable { name, fault },
    }
}

/// One thing to try.
#[derive(Clone)]
enum Try {
    Certificate { name: String, key: Arc<PrivateKey>, certificate: Box<Certificate> },
    Key { name: String, key: Arc<PrivateKey> },
    Password { name: String, password: Secret },
    Interactive { name: String, password: Secret },
    Agent { socket: PathBuf },
}

impl Try {
    fn of(way: &Prepared) -> Vec<Self> {
        match way {
            Prepared::Key { name, key, certificate } => {
                let (name, key) = (name.clone(), Arc::clone(key));
                let certificate = certificate.clone().ok().flatten().map(|certificate| Self::Certificate {
                    name: name.clone(),
                    key: Arc::clone(&key),
                    certificate,
                });
                certificate.into_iter().chain([Self::Key { name, key }]).collect()
            }
            Prepared::Password { name, password } => vec![
                Self::Password { name: name.clone(), password: password.clone() },
                Self::Interactive { name: name.clone(), password: password.clone() },
            ],
            Prepared::Agent { socket } => vec![Self::Agent { socket: socket.clone() }],
            Prepared::Unusable { .. } => Vec::new(),
        }
    }

    fn method(&self) -> MethodKind {
        match self {
            Self::Certificate { .. } | Self::Key { .. } | Self::Agent { .. } => MethodKind::PublicKey,
            Self::Password { .. } => MethodKind::Password,
            Self::Interactive { .. } => MethodKind::KeyboardInteractive,
        }
    }

    fn label(&self) -> String {
        match self {
            Self::Certificate { name, .. } => format!("certificate of `{name}`"),
            Self::Key { name, .. } => format!("key `{name}`"),
            Self::Password { name, .. } => format!("password `{name}`"),
            Self::Interactive { name, .. } => format!("password `{name}` (interactive)"),
            Self::Agent { socket } => format!("agent {}", socket.display()),
        }
    }
}

/// What a try came to.
enum Outcome {
    LoggedIn,
    /// It was not taken, or not alone: what the host offers now.
    Refused {
        offers: MethodSet,
        partial: bool,
    },
    /// It could not be tried.
    NotTried(String),
}

impl From<AuthResult> for Outcome {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::LoggedIn,
            AuthResult::Failure { remaining_methods: offers, partial_success: partial } => {
                Self::Refused { offers, partial }
            }
        }
    }
}

/// A login that goes on.
struct Login<'a> {
    handle: &'a mut Handle<Watch>,
    hop: &'a Hop,
    place: &'a str,
    set_by: SetBy,
}

/// Logs the user of a hop in.
pub(crate) async fn log_in(
    handle: &mut Handle<Watch>,
    hop: &Hop,
    (place, set_by): (&str, SetBy),
    ways: Vec<Prepared>,
) -> Result<(), Failure> {
    let tries: VecDeque<Try> = ways.iter().flat_map(Try::of).take(MAX_TRIES).collect();
    let unusable = ways.iter().filter_map(|way| match way {
        Prepared::Unusable { name, fault } => Some((name.as_str(), *fault)),
        _ => None,
    });
    let unusable: Vec<(&str, KeyFault)> = unusable.collect();
    let without_certificate = ways.iter().filter_map(|way| match way {
        Prepared::Key { name, certificate: Err(fault), .. } => {
            Some(format!("certificate of `{name}` ({fault})"))
        }
        _ => None,
    });
    let (mut said, mut offers) = (without_certificate.collect(), None);
    let mut login = Login { handle, hop, place, set_by };
    if !tries.is_empty() && login.run(tries, &mut said, &mut offers).await? {
        return Ok(());
    }
    Err(refusal(hop, place, &unusable, &said, offers.as_ref()))
}

/// What is said when nothing was taken.
fn refusal(
    hop: &Hop,
    place: &str,
    unusable: &[(&str, KeyFault)],
    tried: &[String],
    offers: Option<&MethodSet>,
) -> Failure {
    let tried = if tried.is_empty() { "nothing that could be tried".to_owned() } else { tried.join(", ") };
    let offers: Vec<&str> = offers.into_iter().flat_map(|offers| offers.iter()).map(Into::into).collect();
    let offers = if offers.is_empty() { String::new() } else { format!("; it offers {}", offers.join(", ")) };
    if unusable.is_empty() {
        let message = format!(
            "{place} took none of the credentials for `{}`: {tried}{offers}; is the key among its authorized keys, and the password \
             right?",
            hop.user
        );
        return Failure::new(SshFault::AuthFailed, message);
    }
    let (code, advice) = if unusable.iter().any(|(_, fault)| *fault == KeyFault::Passphrase) {
        (SshFault::KeyPassphrase, "with its passphrase")
    } else {
        (SshFault::AuthFailed, "with a key that can be read")
    };
    let unusable: Vec<String> =
        unusable.iter().map(|(name, fault)| format!("key `{name}`: {fault}")).collect();
    let message = format!(
        "{}, and {place} took nothing else ({tried}){offers}; store the credential again {advice}",
        unusable.join(", ")
    );
    Failure::new(code, message)
}

impl Login<'_> {
    /// Whether one of the tries was taken, or several that were wanted together.
    async fn run(
        &mut self,
        mut tries: VecDeque<Try>,
        said: &mut Vec<String>,
        offers: &mut Option<MethodSet>,
    ) -> Result<bool, Failure> {
        // Those that were refused before another one was wanted first.
        let mut again = Vec::new();
        for _ in 0..MAX_TRIES {
            let is_offered =
                |method| offers.as_ref().is_none_or(|offers: &MethodSet| offers.contains(&method));
            let Some(next) = tries.iter().position(|one| is_offered(one.method())) else { return Ok(false) };
            let Some(one) = tries.remove(next) else { return Ok(false) };
            match self.attempt(&one).await? {
                Outcome::LoggedIn => return Ok(true),
                Outcome::Refused { offers: now, partial } => {
                    said.push(if partial {
                        format!("{} (taken, and not enough)", one.label())
                    } else {
                        one.label()
                    });
                    *offers = Some(now);
                    if partial {
                        tries.extend(again.drain(..));
                    } else {
                        again.push(one);
                    }
                }
                Outcome::NotTried(why) => said.push(format!("{} ({why})", one.label())),
            }
            if self.handle.is_closed() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn attempt(&mut self, one: &Try) -> Result<Outcome, Failure> {
        let user = self.hop.user.clone();
        let outcome = match one {
            Try::Certificate { key, certificate, .. } => self.with_certificate(user, key, certificate).await,
            Try::Key { key, .. } => self.with_key(user, key).await,
            Try::Password { password, .. } => {
                self.handle.authenticate_password(user, password.expose()).await.map(Outcome::from)
            }
            Try::Interactive { password, .. } => self.interactively(user, password).await,
            Try::Agent { socket } => self.with_agent(user, socket).await,
        };
        outcome.map_err(|error| Failure::of_protocol(self.place, "the user was logged in", &error))
    }

    /// The hash to sign with, where the key is one of RSA; or why there is none.
    async fn hash_for(&self, is_rsa: bool) -> Result<Result<Option<HashAlg>, String>, russh::Error> {
        if !is_rsa {
            return Ok(Ok(None));
        }
        Ok(match self.handle.best_supported_rsa_hash().await? {
            Some(Some(hash)) => Ok(Some(hash)),
            // It does not say. All that are not old know this one.
            None => Ok(Some(HashAlg::Sha512)),
            Some(None) if self.hop.allow_non_strict => Ok(None),
            Some(None) => Err(format!("the host knows SHA-1 only; {}", self.set_by.cure_for_old_hosts())),
        })
    }

    async fn with_key(&mut self, user: String, key: &Arc<PrivateKey>) -> Result<Outcome, russh::Error> {
        match self.hash_for(key.algorithm().is_rsa()).await? {
            Err(why) => Ok(Outcome::NotTried(why)),
            Ok(hash) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                self.handle.authenticate_publickey(user, key).await.map(Outcome::from)
            }
        }
    }

    async fn with_certificate(
        &mut self,
        user: String,
        key: &Arc<PrivateKey>,
        certificate: &Certificate,
    ) -> Result<Outcome, russh::Error> {
        match self.hash_for(key.algorithm().is_rsa()).await? {
            Err(why) => Ok(Outcome::NotTried(why)),
            Ok(hash) => {
                let mut signer = KeySigner(Arc::clone(key));
                let certificate = certificate.clone();
                let result =
                    self.handle.authenticate_certificate_with(user, certificate, hash, &mut signer).await;
                Ok(result.map_or_else(|SignError(why)| Outcome::NotTried(why), Outcome::from))
            }
        }
    }

    async fn interactively(&mut self, user: String, password: &Secret) -> Result<Outcome, russh::Error> {
        let mut answer = self.handle.authenticate_keyboard_interactive_start(user, None).await?;
        for _ in 0..MAX_ROUNDS {
            match answer {
                KeyboardInteractiveAuthResponse::Success => return Ok(Outcome::LoggedIn),
                KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods: offers,
                    partial_success: partial,
                } => {
                    return Ok(Outcome::Refused { offers, partial });
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    if prompts.len() > MAX_PROMPTS {
                        break;
                    }
                    let answers = prompts.iter().map(|prompt| answer_to(prompt, password)).collect();
                    answer = self.handle.authenticate_keyboard_interactive_respond(answers).await?;
                }
            }
        }
        // The host waits for an answer, and hears no other way before it has one.
        Ok(Outcome::NotTried("it asks too much".to_owned()))
    }

    async fn with_agent(&mut self, user: String, socket: &PathBuf) -> Result<Outcome, russh::Error> {
        let not_tried =
            |error: russh::keys::Error| Ok(Outcome::NotTried(format!("it does not answer: {error}")));
        let mut agent = match AgentClient::connect_uds(socket).await {
            Ok(agent) => agent,
            Err(error) => return not_tried(error),
        };
        if let Some(binding) = self.handle.agent_session_binding()
            && let Err(error) = agent.bind_session(binding, false).await
        {
            // Only keys that are for certain hosts need it, and only some agents know it.
            tracing::debug!(%error, "agent not bound to the session");
        }
        let identities = match agent.request_identities().await {
            Ok(identities) => identities,
            Err(error) => return not_tried(error),
        };
        let mut outcome = Outcome::NotTried("it has no keys".to_owned());
        for identity in identities.into_iter().take(MAX_AGENT_KEYS) {
            outcome = self.with_identity(user.clone(), identity, &mut agent).await?;
            let goes_on = match &outcome {
                Outcome::LoggedIn => false,
                Outcome::Refused { offers, partial } => !partial && offers.contains(&MethodKind::PublicKey),
                Outcome::NotTried(_) => true,
            };
            if !goes_on || self.handle.is_closed() {
                break;
            }
        }
        Ok(outcome)
    }

    async fn with_identity(
        &mut self,
        user: String,
        identity: AgentIdentity,
        agent: &mut AgentClient<UnixStream>,
    ) -> Result<Outcome, russh::Error> {
        let hash = match self.hash_for(identity.public_key().algorithm().is_rsa()).await? {
            Err(why) => return Ok(Outcome::NotTried(why)),
            Ok(hash) => hash,
        };
        let result: Result<AuthResult, AgentAuthError> = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                self.handle.authenticate_publickey_with(user, key, hash, agent).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                self.handle.authenticate_certificate_with(user, certificate, hash, agent).await
            }
        };
        Ok(result.map_or_else(|error| Outcome::NotTried(format!("it does not sign: {error}")), Outcome::from))
    }
}

/// What is answered to a question: the password, where what is typed is not shown.
fn answer_to(prompt: &Prompt, password: &Secret) -> String {
    if prompt.echo { String::new() } else { password.expose().to_owned() }
}

/// Signs for a certificate with the hash that the host knows: what russh does itself takes SHA-1 for RSA.
struct KeySigner(Arc<PrivateKey>);

struct SignError(String);

impl From<SendError> for SignError {
    fn from(error: SendError) -> Self {
        Self(error.to_string())
    }
}

impl From<ssh_key::Error> for SignError {
    fn from(error: ssh_key::Error) -> Self {
        Self(error.to_string())
    }
}

impl Signer for KeySigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _identity: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let signature: ssh_key::Signature = match self.0.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&to_sign).map_err(ssh_key::Error::from)?,
            pair => pair.try_sign(&to_sign).map_err(ssh_key::Error::from)?,
        };
        let mut blob = Vec::new();
        signature.encode(&mut blob).map_err(ssh_key::Error::from)?;
        blob.encode(&mut to_sign).map_err(ssh_key::Error::from)?;
        Ok(to_sign)
    }
}
