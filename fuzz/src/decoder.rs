//! A writer schema and a body: `SCHEMA`, a line `==`, and the body.
//!
//! Whatever the schema, it is refused or resolved; whatever the body, it is refused or read. What both `apache_avro` and the
//! plan read, they read alike, and it can be sanitised. (Both verdicts are compared where the schemas are known to be good: see `resolution`.)

use apache_avro::Schema;
use clicktide::avro::Decoder;
use clicktide::event::DecodedEvent;

use super::reference::{self, Read};
use super::writer_schema::needed_schema;

/// Checks one schema and body.
pub fn run(data: &[u8]) {
    let (schema, body) = super::parts(data);
    let Ok(schema) = std::str::from_utf8(schema) else { return };
    let Ok(decoder) = Decoder::new(schema) else { return };
    let Ok(event) = decoder.decode(body) else { return };
    let details = decoder.details(body).expect("an event was read");
    super::sanitised::check(&event, &details);
    let writer = Schema::parse_str(schema).expect("a decoder was made from it");
    // Where a block says how long it is, the plan believes it, and `apache_avro` reads the items.
    let canonical = writer.canonical_form();
    if canonical.contains("\"array\"") || canonical.contains("\"map\"") || reference::has_long_varint(body) {
        return;
    }
    let reader = Schema::parse_str(&needed_schema().to_string()).expect("it is a part of the published schema");
    if let Some(expected) = reference::read(&writer, &reader, body) {
        assert_eq!(owned(&event), expected);
    }
}

/// What our decoder has read.
pub(crate) fn owned(event: &DecodedEvent<'_>) -> Read {
    let DecodedEvent { user_id, session_id, page_url, event_type, timestamp, session_duration } = event;
    let symbol = serde_json::to_value(event_type).ok().and_then(|symbol| symbol.as_str().map(str::to_owned));
    let symbol = symbol.expect("an event type is a text");
    (user_id.to_string(), session_id.to_string(), page_url.to_string(), symbol, *timestamp, *session_duration)
}
