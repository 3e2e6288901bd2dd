//! How the records of generated events are written.

use crate::avro::wire::SchemaId;
use crate::avro::{CLICK_EVENT_LATER_SCHEMA, encode_event, encode_later_event};
use crate::config::Config;
use crate::event::ClickEvent;
use crate::exit::{Exit, Failure};
use crate::generator::versions::Versions;
use crate::ingest::{Format, Ingest};
use crate::registry::Subject;

/// Appends an event to a buffer.
type Encode = Box<dyn FnMut(&ClickEvent, &mut Vec<u8>)>;

/// How the records of events are written.
pub(super) struct Encoder {
    /// Writes one.
    pub(super) encode: Encode,
    /// The schemas that it writes with, where there is a registry.
    schemas: Vec<SchemaId>,
}

impl Encoder {
    /// Writes bare bodies, or where there is a registry in its wire format. Waits for a registry that does not answer.
    ///
    /// # Errors
    /// When the registry refuses.
    pub(super) fn new(config: &Config) -> Result<Encoder, Failure> {
        let Format::Wire(schemas) = config.format() else {
            return Ok(Encoder { encode: Box::new(encode_event), schemas: Vec::new() });
        };
        let publication = config.schema_registry.publication();
        let Subject { name, schema } = publication.events(&config.kafka.events_topic);
        let id = |schema| {
            let id = schemas.id_of(publication, &Subject { name: name.clone(), schema });
            id.map_err(|error| Failure::new(Exit::Registry, error))
        };
        let published = id(schema)?;
        let prefix = published.prefix();
        let change = config.generator.schema_change;
        if !change.enabled {
            let encode = move |event: &ClickEvent, payload: &mut Vec<u8>| {
                payload.extend_from_slice(&prefix);
                encode_event(event, payload);
            };
            return Ok(Encoder { encode: Box::new(encode), schemas: vec![published] });
        }
        let later = id(CLICK_EVENT_LATER_SCHEMA)?;
        let later_prefix = later.prefix();
        let mut versions = Versions::new(change);
        let encode = move |event: &ClickEvent, payload: &mut Vec<u8>| {
            if versions.later(event.timestamp) {
                payload.extend_from_slice(&later_prefix);
                encode_later_event(event, payload);
            } else {
                payload.extend_from_slice(&prefix);
                encode_event(event, payload);
            }
        };
        Ok(Encoder { encode: Box::new(encode), schemas: vec![published, later] })
    }

    /// Waits until `ingest` can read what this writes.
    pub(super) fn teach(&self, ingest: &Ingest) {
        let Some(schemas) = ingest.format.schemas() else { return };
        self.schemas.iter().for_each(|id| schemas.wait_for(&id.prefix()));
    }
}
