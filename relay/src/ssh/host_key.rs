//! Whether a host is who it is said to be.

use russh::keys::{
    Certificate, HashAlg, PublicKey, PublicKeyOrCertificate,
    ssh_key::{certificate::CertType, public::KeyData},
};
use signalbox_schemas::{error::report, host::wildcard, ssh::SshFault};

use super::{
    failure::Failure,
    known_hosts::{
        Line, Lines, Place, Verdict,
        file::{KnownHosts, KnownHostsError},
        fingerprint, name_of,
    },
    route::HostKeyPolicy,
};
use crate::clock::unix_ms;

/// What is known of a host, and what becomes of it otherwise.
#[derive(Debug, Clone)]
pub(crate) struct HostKeys {
    file: KnownHosts,
    policy: HostKeyPolicy,
    host: String,
    port: u16,
    /// What it is called in the file.
    name: String,
    /// The lines that speak of it.
    lines: Lines,
}

impl HostKeys {
    /// Reads what is known of a host. Blocks on the disk.
    pub(crate) fn read(
        file: KnownHosts,
        policy: HostKeyPolicy,
        host: &str,
        port: u16,
    ) -> Result<Self, Failure> {
        let name = name_of(host, port);
        let lines = file.read().map_err(|error| failed(&error))?.about(&name);
        Ok(Self { file, policy, host: host.to_owned(), port, name, lines })
    }

    /// The kinds of key that are known to be its own.
    pub(crate) fn known_types(&self) -> Vec<String> {
        self.lines.keys_of(&self.name).map(|line| line.key_type.clone()).collect()
    }

    /// Whether somebody is known to sign certificates for it.
    pub(crate) fn has_authority(&self) -> bool {
        self.lines.authorities_of(&self.name).next().is_some()
    }

    /// Whether what the host shows is its own. Blocks on the disk where a key is new.
    pub(crate) fn check(&self, shown: &PublicKeyOrCertificate) -> Result<(), Failure> {
        if let Some(certificate) = shown.certificate() {
            match self.check_certificate(certificate) {
                Ok(()) => return Ok(()),
                // The key in it may be known without it, as OpenSSH has it too.
                Err(why) => return self.check_key(&shown.public_key(), Some(&why)),
            }
        }
        self.check_key(&shown.public_key(), None)
    }

    fn check_key(&self, key: &PublicKey, certificate: Option<&str>) -> Result<(), Failure> {
        let blob = key.to_bytes().map_err(|error| {
            Failure::new(SshFault::Protocol, format!("the host key of {} cannot be read: {error}", self.host))
        })?;
        let verdict = match self.lines.look_up(&self.name, &blob) {
            Verdict::Unknown if self.policy == HostKeyPolicy::AcceptNew && certificate.is_none() => {
                let learnt = self.file.learn(&self.host, self.port, key).map_err(|error| failed(&error))?;
                if learnt == Verdict::Known {
                    tracing::info!(host = %self.name, key = %fingerprint(&blob), "host key is new and was written down");
                }
                learnt
            }
            verdict => verdict,
        };
        let shown = format!("{} ({})", fingerprint(&blob), key.algorithm());
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::Unknown => Err(self.unknown(&shown, certificate)),
            Verdict::Changed(places) => Err(self.changed(&shown, &places)),
            Verdict::Revoked(place) => Err(self.revoked(&shown, &place)),
        }
    }

    /// Whether a certificate is one for this host, by somebody who may sign it; if not, why.
    fn check_certificate(&self, certificate: &Certificate) -> Result<(), String> {
        let signer = certificate.signature_key().clone();
        let blob =
            |key: &KeyData| PublicKey::new(key.clone(), "").to_bytes().map_err(|error| error.to_string());
        for key in [blob(&signer)?, blob(certificate.public_key())?] {
            if let Some(place) = self.lines.revocation(&self.name, &key) {
                return Err(format!("{} was revoked in line {}", place.fingerprint, place.line));
            }
        }
        let key_of =
            |line: &Line| PublicKey::from_bytes(&line.key).ok().map(|key| key.fingerprint(HashAlg::Sha256));
        let authorities: Vec<_> = self.lines.authorities_of(&self.name).filter_map(key_of).collect();
        if certificate.cert_type() != CertType::Host {
            return Err("its certificate is not one of a host".to_owned());
        }
        // Host certificates have no options that a client must know.
        if !certificate.critical_options().is_empty() {
            return Err("its certificate has options that are not known".to_owned());
        }
        let names_it = |principal: &String| {
            wildcard(&principal.to_lowercase(), &signalbox_schemas::host::plain(&self.host))
        };
        if certificate.valid_principals().is_empty() || !certificate.valid_principals().iter().any(names_it) {
            return Err(format!("its certificate is not for {}", self.host));
        }
        let now_s = unix_ms() / 1000;
        certificate.validate_at(now_s, &authorities).map_err(|_| {
            "its certificate has expired, is not valid yet, or is signed by nobody who is known to".to_owned()
        })
    }

    /// The command that does something with this host's keys.
    fn command(&self, action: &str) -> String {
        format!("`signalbox-relay known-hosts {action} {} --file {}`", self.name, self.file.path().display())
    }

    fn unknown(&self, shown: &str, certificate: Option<&str>) -> Failure {
        let beside = certificate.map(|why| format!(", and {why}")).unwrap_or_default();
        let scan = self.command("scan");
        let message = format!(
            "the host key of {} is not known{beside}: it shows {shown}; compare that on the host itself, then {scan} with --add",
            self.name
        );
        Failure::new(SshFault::HostKeyUnknown, message)
    }

    fn changed(&self, shown: &str, places: &[Place]) -> Failure {
        let known: Vec<String> = places
            .iter()
            .take(2)
            .map(|place| format!("{} (line {})", place.fingerprint, place.line))
            .collect();
        let remove = self.command("remove");
        let message = format!(
            "the host key of {} has changed: it shows {shown}, known is {}; if its key was replaced and nobody is in between: \
             {remove}",
            self.name,
            known.join(", ")
        );
        Failure::new(SshFault::HostKeyChanged, message)
    }

    fn revoked(&self, shown: &str, place: &Place) -> Failure {
        let message = format!(
            "the host key of {} was revoked: it shows {shown}, which line {} of {} says is not to be believed; give the host a \
             new key",
            self.name,
            place.line,
            self.file.path().display()
        );
        Failure::new(SshFault::HostKeyChanged, message)
    }
}

/// Where nothing can be known, nothing is believed.
fn failed(error: &KnownHostsError) -> Failure {
    Failure::new(SshFault::HostKeyUnknown, report(error))
}
