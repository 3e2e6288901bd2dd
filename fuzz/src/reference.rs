//! Events as `apache_avro` reads them. No file of Clicktide's own is needed for it, so that its own unit tests have it too.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

/// What the analytics read of an event: user, session, page, the symbol of its type, time, duration.
pub type Read = (String, String, String, String, i64, Option<i32>);

/// What `apache_avro` reads of `body`, if that is exactly one event.
///
/// Zeros follow the body, since `apache_avro` takes the end of its input for null in some places.
pub fn read(writer: &Schema, reader: &Schema, body: &[u8]) -> Option<Read> {
    bound_allocations();
    let padded = [body, &[0; 64]].concat();
    let mut rest = padded.as_slice();
    let datum = GenericDatumReader::builder(writer).reader_schema(reader).build().ok()?;
    let value = datum.read_value(&mut rest).ok()?;
    if padded.len() - rest.len() != body.len() {
        return None;
    }
    let Value::Record(fields) = value else { panic!("{value:?} is no record") };
    let field = |name: &str| fields.iter().find(|(of, _)| of == name).expect("a field of ours").1.clone();
    let text = |name| match field(name) {
        Value::String(text) => text,
        other => panic!("{name} is {other:?}"),
    };
    let Value::Enum(_, event_type) = field("event_type") else { panic!("an enum was resolved") };
    let Value::TimestampMillis(timestamp) = field("timestamp") else { panic!("a timestamp was resolved") };
    let session_duration = match field("session_duration") {
        Value::Union(_, value) => match *value {
            Value::Int(seconds) => Some(seconds),
            _ => None,
        },
        other => panic!("the duration is {other:?}"),
    };
    Some((text("user_id"), text("session_id"), text("page_url"), event_type, timestamp, session_duration))
}

/// `apache_avro` allocates what a body claims to hold, up to this.
pub fn bound_allocations() {
    apache_avro::util::max_allocation_bytes(1 << 20);
}

/// Whether a variable-length integer of more than 64 bits may be in `body`: `apache_avro` loses the upper ones.
pub fn has_long_varint(body: &[u8]) -> bool {
    body.windows(10).any(|window| window[..9].iter().all(|byte| *byte >= 0x80) && (2..0x80).contains(&window[9]))
}
