//! Records for people to read.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde_json::Value;

use super::SANITISED_EVENT_SCHEMA;

static SANITISED_EVENT: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(SANITISED_EVENT_SCHEMA).expect("the published schema is a schema"));

/// The sanitised event that `body` is, as JSON with the schema's field names. None if it is none.
pub fn sanitised_event_json(mut body: &[u8]) -> Option<Value> {
    let datum = GenericDatumReader::builder(&SANITISED_EVENT).build().ok()?.read_value(&mut body).ok()?;
    if body.is_empty() { Value::try_from(datum).ok() } else { None }
}
