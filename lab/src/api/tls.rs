//! Certificates of the server's own making, and the TLS that it speaks.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// The certificates that clients need, as PEM.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The authority that signed the server's.
    pub(crate) authority: String,
    /// A client's, and its key.
    pub(crate) client: String,
    pub(crate) client_key: String,
}

/// Makes an authority, a server certificate for the addresses and names, and a client certificate.
pub(crate) fn make(addresses: &[IpAddr], names: &[String]) -> Result<(TlsAcceptor, Certificates)> {
    let authority_key = KeyPair::generate().context("making the key of the authority")?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "lab-ca");
    let authority = params
        .self_signed(&authority_key)
        .context("signing the authority")?;
    let issuer = Issuer::new(params, authority_key);

    let mut subjects = names.to_vec();
    subjects.extend(["localhost".to_owned(), "kubernetes.default.svc".to_owned()]);
    subjects.extend(addresses.iter().map(IpAddr::to_string));
    let (server, server_key) = leaf(
        &issuer,
        subjects,
        "kube-apiserver",
        ExtendedKeyUsagePurpose::ServerAuth,
    )?;
    let (client, client_key) = leaf(
        &issuer,
        Vec::new(),
        "system:kube-proxy",
        ExtendedKeyUsagePurpose::ClientAuth,
    )?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.der().clone())
        .context("trusting the authority")?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("preparing the check of client certificates")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server.der().clone()],
            PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
        )
        .context("using the server's certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let certificates = Certificates {
        authority: authority.pem(),
        client: client.pem(),
        client_key: client_key.serialize_pem(),
    };
    Ok((TlsAcceptor::from(Arc::new(config)), certificates))
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    subjects: Vec<String>,
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<(rcgen::Certificate, KeyPair)> {
    let key = KeyPair::generate().with_context(|| format!("making the key of {common_name}"))?;
    let mut params =
        CertificateParams::new(subjects).with_context(|| format!("naming the subjects of {common_name}"))?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let certificate = params
        .signed_by(&key, issuer)
        .with_context(|| format!("signing {common_name}"))?;
    Ok((certificate, key))
}
