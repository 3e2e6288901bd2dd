//! The schemas that are known, for the fast path: found without a lock.

use std::array;
use std::sync::OnceLock;

use crate::avro::Decoder;
use crate::avro::wire::SchemaId;

/// Lists of schemas, by the last bits of their ids, which registries give out one after the other. A list only grows.
pub(super) struct Known([OnceLock<Box<Schema>>; LISTS]);

const LISTS: usize = 64;

/// A schema that has been fetched.
struct Schema {
    id: SchemaId,
    /// Reads its bodies; none if they can't be read as events.
    decoder: Option<Decoder>,
    next: OnceLock<Box<Schema>>,
}

impl Default for Known {
    fn default() -> Self {
        Known(array::from_fn(|_| OnceLock::new()))
    }
}

impl Known {
    /// The schema with this id: what reads its bodies, if anything can. None if it is not known.
    #[inline]
    pub(super) fn get(&self, id: SchemaId) -> Option<Option<&Decoder>> {
        let mut place = self.list(id);
        while let Some(schema) = place.get() {
            if schema.id == id {
                return Some(schema.decoder.as_ref());
            }
            place = &schema.next;
        }
        None
    }

    /// Adds what reads the bodies of a schema.
    pub(super) fn add(&self, id: SchemaId, decoder: Option<Decoder>) {
        let mut schema = Box::new(Schema { id, decoder, next: OnceLock::new() });
        let mut place = self.list(id);
        while let Err(left) = place.set(schema) {
            schema = left;
            match place.get() {
                Some(taken) => place = &taken.next,
                None => return,
            }
        }
    }

    #[inline]
    fn list(&self, id: SchemaId) -> &OnceLock<Box<Schema>> {
        &self.0[id.0 as usize % LISTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found() {
        let known = Known::default();
        let ids = [0, 1, 64, 128, u32::MAX, 65].map(SchemaId);
        for (count, id) in ids.into_iter().enumerate() {
            assert!(known.get(id).is_none());
            known.add(id, (count % 2 == 0).then(Decoder::default));
        }
        for (count, id) in ids.into_iter().enumerate() {
            assert_eq!(known.get(id).map(|decoder| decoder.is_some()), Some(count % 2 == 0), "{id}");
        }
        assert!(known.get(SchemaId(192)).is_none());
    }
}
