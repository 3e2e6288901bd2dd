//! An Avro container file.
//!
//! Every datum is found and is an event or none, or the damage is named by its place. What `apache_avro` reads as well is as
//! many data.

use apache_avro::Reader;
use clicktide::avro::ContainerReader;

use super::reference::bound_allocations;

/// Checks one file.
pub fn run(data: &[u8]) {
    bound_allocations();
    let Ok(mut reader) = ContainerReader::new(data) else { return };
    let decoder = reader.decoder().clone();
    let (mut found, mut damaged) = (0_usize, false);
    while let Some(datum) = reader.next_datum() {
        match datum {
            Ok(datum) => {
                found += 1;
                decoder.decode(datum).ok();
            }
            Err(error) => {
                damaged = true;
                assert!(error.to_string().contains("byte"), "{error}");
            }
        }
        // Data of no bytes are as many as the file claims.
        if found > 10_000 {
            return;
        }
    }
    assert!(reader.next_datum().is_none());
    assert!(reader.bytes_read() <= data.len() as u64);
    if damaged {
        return;
    }
    let Ok(reference) = Reader::new(data) else { return };
    // Where a block of an array says how long it is, we believe it, and `apache_avro` reads the items.
    let canonical = reference.writer_schema().canonical_form();
    if canonical.contains("\"array\"") || canonical.contains("\"map\"") {
        return;
    }
    if let Ok(values) = reference.collect::<Result<Vec<_>, _>>() {
        // It ends at a block without data; we do not.
        assert!(values.len() <= found, "{} and not {found}", values.len());
    }
}
