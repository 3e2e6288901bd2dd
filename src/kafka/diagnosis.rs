//! Why nobody lets us in, found out by knocking ourselves: librdkafka says the same of a broker's certificate that has expired,
//! one that is another host's and one that nobody trusted has signed, and nothing of a listener that wants another protocol.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::client::{Cause, Connection};

/// How long a broker may take to take a connection, and for each step of a handshake.
const PATIENCE: Duration = Duration::from_secs(2);

/// What can be found out about a connection that fails for this cause.
pub(super) fn diagnose(connection: &Connection, cause: Cause) -> Option<String> {
    let addresses = || connection.brokers.split(',').map(str::trim);
    match cause {
        Cause::Unreachable | Cause::TimedOut => addresses().find_map(|address| listener(connection, address)),
        Cause::Tls => addresses().find_map(|address| certificates(connection, address)),
        _ => None,
    }
}

/// Somebody is there, and does not speak with us.
fn listener(connection: &Connection, address: &str) -> Option<String> {
    connect(address)?;
    let protocol = connection.properties.get("security.protocol").unwrap_or("plaintext");
    Some(format!(
        "{address} takes connections and ends them without an answer: is its listener for another protocol than \
         security.protocol = {protocol:?}, or is it a proxy that reaches no broker?"
    ))
}

fn connect(address: &str) -> Option<TcpStream> {
    let stream =
        address.to_socket_addrs().ok()?.find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok())?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// Which certificate is not good, and why.
#[cfg(not(feature = "tls"))]
fn certificates(_: &Connection, _: &str) -> Option<String> {
    None
}

/// Which certificate is not good, and why: the broker's, or else the client's.
#[cfg(feature = "tls")]
fn certificates(connection: &Connection, address: &str) -> Option<String> {
    with_tls::brokers(connection, address).or_else(|| with_tls::clients(connection))
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::fs;

    use openssl::asn1::Asn1Time;
    use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
    use openssl::x509::{X509, X509NameRef, X509Ref, X509VerifyResult};

    use super::{Connection, connect};

    /// What is wrong with a broker's certificate, as the client would see it.
    pub(super) fn brokers(connection: &Connection, address: &str) -> Option<String> {
        let properties = &connection.properties;
        let (host, _) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut connector = SslConnector::builder(SslMethod::tls_client()).ok()?;
        // It is looked at, not trusted.
        connector.set_verify(SslVerifyMode::NONE);
        match properties.get("ssl.ca.location").filter(|file| *file != "probe") {
            Some(folder) if fs::metadata(folder).is_ok_and(|found| found.is_dir()) => {
                connector.load_verify_locations(None, Some(folder.as_ref())).ok()?;
            }
            Some(file) => connector.set_ca_file(file).ok()?,
            None => connector.set_default_verify_paths().ok()?,
        }
        let mut configuration = connector.build().configure().ok()?;
        configuration.set_verify_hostname(properties.get("ssl.endpoint.identification.algorithm") != Some("none"));
        let stream = configuration.connect(host, connect(address)?).ok()?;
        let why = match stream.ssl().verify_result() {
            X509VerifyResult::OK => return None,
            why => why.error_string(),
        };
        let certificate = stream.ssl().peer_certificate()?;
        Some(format!("the certificate of {address} is not good: {why} ({})", described(&certificate)))
    }

    /// What is wrong with our own certificate, which the brokers do not accept.
    pub(super) fn clients(connection: &Connection) -> Option<String> {
        let properties = &connection.properties;
        let given = |name| properties.get(name).is_some();
        let Some(file) = properties.get("ssl.certificate.location") else {
            let none = !given("ssl.keystore.location") && !given("ssl.certificate.pem");
            return none.then(|| {
                "do the brokers ask for a certificate of the client? There is none: see ssl.certificate.location and \
                 ssl.key.location"
                    .to_owned()
            });
        };
        let certificate = X509::from_pem(&fs::read(file).ok()?).ok()?;
        let now = Asn1Time::days_from_now(0).ok()?;
        let why = match () {
            () if certificate.not_after() < now => "it has expired",
            () if certificate.not_before() > now => "it is not valid yet",
            () => "do they trust its issuer?",
        };
        let described = described(&certificate);
        Some(format!("the brokers do not accept the certificate in ssl.certificate.location: {why} ({described})"))
    }

    fn described(certificate: &X509Ref) -> String {
        let name = |name: &X509NameRef| {
            let entries = name.entries().filter_map(|entry| entry.data().to_string().ok());
            entries.collect::<Vec<_>>().join(", ")
        };
        let names = certificate.subject_alt_names().into_iter().flatten().filter_map(|name| match name.dnsname() {
            Some(host) => Some(host.to_owned()),
            None => address(name.ipaddress()?),
        });
        let names = names.collect::<Vec<_>>().join(", ");
        format!(
            "of {}{}{names}, signed by {}, valid from {} to {}",
            name(certificate.subject_name()),
            if names.is_empty() { "" } else { " for " },
            name(certificate.issuer_name()),
            certificate.not_before(),
            certificate.not_after(),
        )
    }

    fn address(bytes: &[u8]) -> Option<String> {
        let v4 = || <[u8; 4]>::try_from(bytes).ok().map(std::net::IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(bytes).ok().map(std::net::IpAddr::from);
        v4().or_else(v6).map(|address| address.to_string())
    }
}
