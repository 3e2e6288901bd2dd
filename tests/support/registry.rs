//! A real schema registry, for the tests of its client.

use std::time::Duration;

use clicktide::avro::wire::SchemaId;
use clicktide::avro::{encode_event, encode_later_event};
use clicktide::event::ClickEvent;
use clicktide::registry::{Registry, RegistrySettings};

use super::proxy::Proxy;
use super::{free_port, required};

/// The registry to test against. Without one the test is skipped, which `scripts/test` reports, or fails if
/// `CLICKTIDE_REQUIRE_KAFKA=1`.
pub fn schema_registry() -> Option<String> {
    required("CLICKTIDE_SCHEMA_REGISTRY", std::env::var("CLICKTIDE_REQUIRE_KAFKA").is_ok_and(|value| value == "1"))
}

/// A client of the registry, as a producer of events has one.
pub fn client(url: &str) -> Registry {
    Registry::new(RegistrySettings {
        urls: url.parse().expect("a URL"),
        login: None,
        ca_file: None,
        identity_files: None,
        request_timeout: Duration::from_secs(30),
        retry: (Duration::from_millis(50), Duration::from_secs(1)),
        negative_answers_kept: Duration::from_secs(60),
    })
}

/// A way to the registry that can be cut, and its URL.
pub fn behind_proxy(url: &str) -> (Proxy, String) {
    let address = url.split('/').nth(2).expect("an address");
    let server = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let port = free_port();
    (Proxy::start(port, server), url.replace(address, &format!("127.0.0.1:{port}")))
}

/// The flags with which a command uses a registry, and does not wait long before it asks again.
pub fn flags(url: &str) -> Vec<String> {
    ["url=", "request_timeout=1s", "retry_first=50ms", "retry_max=500ms"]
        .map(|key| format!("--set=schema_registry.{key}{}", if key == "url=" { url } else { "" }))
        .to_vec()
}

/// An event in the wire format, of the published version of the schema.
pub fn published(id: SchemaId, event: &ClickEvent) -> Vec<u8> {
    let mut payload = id.prefix().to_vec();
    encode_event(event, &mut payload);
    payload
}

/// An event in the wire format, of the later version of the schema.
pub fn later(id: SchemaId, event: &ClickEvent) -> Vec<u8> {
    let mut payload = id.prefix().to_vec();
    encode_later_event(event, &mut payload);
    payload
}
