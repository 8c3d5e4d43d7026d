//! A center behind TLS: who is trusted, and what is said to the others.

use std::{fs, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use signalbox_testkit::{eventually_within, process::Daemon};
use tokio_rustls::TlsAcceptor;

use crate::{
    center::{Center, KEY},
    harness::{Machine, PATIENCE, QUICK},
};

/// A center with a certificate for a name or an address, and the certificate of who vouches for it.
async fn center_of(name: &str) -> Result<(Center, String)> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let authority_cert = authority.self_signed(&authority_key)?;
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(authority, authority_key);
    let cert = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let center = Center::start_with("127.0.0.1:0", Some(TlsAcceptor::from(Arc::new(config)))).await?;
    Ok((center, authority_cert.pem()))
}

fn relay(machine: &Machine, center: &Center, trusted: &str) -> Result<Daemon> {
    let roots = machine.file("roots.pem");
    fs::write(&roots, trusted)?;
    let mut command = machine.program();
    command.args([KEY, &center.url]).args(QUICK).arg("--store-dir").arg(machine.store());
    Daemon::spawn(command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR"))
}

#[tokio::test]
async fn a_center_that_is_vouched_for_is_spoken_to() -> Result<()> {
    let (center, authority) = center_of("127.0.0.1").await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo hello");
    let relay = relay(&machine, &center, &authority)?;
    assert_eq!(center.result("c1", PATIENCE).await?["output"], "hello\n");
    assert!(!relay.stderr()?.contains("without encryption"));
    Ok(())
}

#[rstest::rstest]
#[case::by_nobody("127.0.0.1", false)]
#[case::under_another_name("center.example", true)]
#[tokio::test]
async fn a_center_that_is_not_vouched_for_hears_nothing(
    #[case] name: &str,
    #[case] is_trusted: bool,
) -> Result<()> {
    let (center, authority) = center_of(name).await?;
    let (_other, stranger) = center_of("127.0.0.1").await?;
    let machine = Machine::new()?;
    let relay = relay(&machine, &center, if is_trusted { &authority } else { &stranger })?;
    eventually_within("it is asked twice", PATIENCE, || async {
        ensure!(relay.stderr()?.matches("is asked again").count() >= 2);
        Ok(())
    })
    .await?;
    assert_eq!(center.requests().len(), 0, "the key went to a stranger");
    relay.stderr()?.to_lowercase().contains("cert").then_some(()).context("it does not say why")
}
