//! A registry behind TLS that asks for a certificate of the client.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// An authority.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of `name` that an authority has signed, and its key, as PEM.
fn signed(
    name: &str,
    authority: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    change(&mut params);
    [params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem()]
}

/// Answers requests over TLS with a schema, for as long as the test runs; returns the port.
fn serve([certificate, key]: [String; 2], clients: &CertifiedIssuer<'static, KeyPair>) -> u16 {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut trusted = RootCertStore::empty();
    trusted.add(clients.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(trusted.into()).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), connection.unwrap());
            let (_, body) = schema("\"string\"");
            let answer =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            // A client may not like the certificate, or have none.
            if stream.read(&mut [0; 4_096]).is_ok() && stream.write_all(answer.as_bytes()).is_ok() {
                stream.conn.send_close_notify();
                stream.flush().ok();
            }
        }
    });
    port
}

#[test]
fn who_is_trusted_and_who_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let ca_file = Some(file("ca.pem", &ours.pem()));
    let [certificate, key] = signed("clicktide", &ours, |_| ());
    let identity_files = Some((file("client.pem", &certificate), file("client.key", &key)));
    let port = serve(signed("127.0.0.1", &ours, |_| ()), &ours);
    let settings = |port: u16| RegistrySettings {
        ca_file: ca_file.clone(),
        identity_files: identity_files.clone(),
        request_timeout: DEADLINE,
        ..super::settings(&format!("https://127.0.0.1:{port}"))
    };
    let ask = |settings: RegistrySettings| Registry::new(settings).schema(SchemaId(1));
    assert!(ask(settings(port)).is_ok(), "{:?}", ask(settings(port)));
    let unavailable = |settings: RegistrySettings, expected: &str| {
        let error = ask(settings).unwrap_err();
        assert!(matches!(&error, RegistryError::Unavailable(reason) if reason.contains(expected)), "{error}");
    };
    unavailable(RegistrySettings { ca_file: None, ..settings(port) }, "invalid peer certificate: UnknownIssuer");
    let foreign = Some(file("other.pem", &other.pem()));
    unavailable(RegistrySettings { ca_file: foreign, ..settings(port) }, "invalid peer certificate");
    unavailable(RegistrySettings { identity_files: None, ..settings(port) }, "CertificateRequired");
    let old = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    unavailable(
        settings(serve(signed("127.0.0.1", &ours, old), &ours)),
        "invalid peer certificate: certificate expired",
    );
    unavailable(settings(serve(signed("elsewhere.example", &ours, |_| ()), &ours)), "not valid for name");

    // A key that is not the certificate's.
    let mixed = Some((dir.path().join("client.pem"), file("wrong.key", &KeyPair::generate().unwrap().serialize_pem())));
    let error = ask(RegistrySettings { identity_files: mixed, ..settings(port) }).unwrap_err();
    assert!(matches!(&error, RegistryError::Files(_)), "{error}");
    let absent = |path: &str| Path::new(path).to_owned();
    let error =
        ask(RegistrySettings { identity_files: Some((absent("/nowhere"), absent("/nowhere"))), ..settings(port) });
    assert!(matches!(&error, Err(RegistryError::Files(reason)) if reason.contains("certificate_file")), "{error:?}");
}
