//! Container files, whole and damaged.

use apache_avro::{Codec, DeflateSettings, Writer};

use super::*;

/// A container file of `records`, in blocks of two.
fn container(schema: &str, codec: Codec, records: &[Value]) -> Vec<u8> {
    let schema_text = schema;
    let schema = Schema::parse_str(schema).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), codec).unwrap();
    for (index, record) in records.iter().enumerate() {
        let body = reference_encode_json(schema_text, record);
        let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut body.as_slice()).unwrap();
        writer.append_value(value).unwrap();
        if index % 2 == 1 {
            writer.flush().unwrap();
        }
    }
    writer.into_inner().unwrap()
}

/// What can be read of a container file, and the error that ends it.
fn data(mut reader: ContainerReader<&[u8]>) -> (Vec<Vec<u8>>, Option<ContainerError>) {
    let mut data = Vec::new();
    while let Some(datum) = reader.next_datum() {
        match datum {
            Ok(datum) => data.push(datum.to_owned()),
            Err(error) => {
                assert!(reader.next_datum().is_none());
                return (data, Some(error));
            }
        }
    }
    (data, None)
}

fn numbered(count: i64) -> Vec<Value> {
    let events = (0..count).map(|number| ClickEvent { timestamp: number, ..an_event() });
    events.map(|event| serde_json::to_value(event).unwrap()).collect()
}

#[test]
fn containers_of_every_codec() {
    for codec in
        [Codec::Null, Codec::Deflate(DeflateSettings::default()), Codec::Snappy, Codec::Zstandard(Default::default())]
    {
        let file = container(CLICK_EVENT_SCHEMA, codec, &numbered(5));
        let (bodies, error) = data(ContainerReader::new(&file[..]).unwrap());
        let expected = (0..5).map(|timestamp| encode(&ClickEvent { timestamp, ..an_event() }));
        assert_eq!(bodies, expected.collect::<Vec<_>>());
        assert!(error.is_none());
    }
}

#[test]
fn containers_of_another_schema_are_resolved() {
    let mut fields = [others(), published_fields()].concat();
    fields.retain(|field| field["name"] != "session_duration");
    fields[7]["type"]["symbols"] = json!(["HOVER", "PURCHASE"]);
    let mut records = numbered(3);
    for record in &mut records {
        record.as_object_mut().unwrap().append(others_value().as_object_mut().unwrap());
    }
    records[1]["event_type"] = json!("HOVER");
    let file = container(&schema_of(&fields), Codec::Null, &records);
    let reader = ContainerReader::new(&file[..]).unwrap();
    let decoder = reader.decoder().clone();
    let (bodies, error) = data(reader);
    let events: Vec<_> = bodies.iter().map(|body| decoder.decode(body)).collect();
    let event = |timestamp| ClickEvent { timestamp, session_duration: None, ..an_event() };
    assert_eq!(events, [Ok(needed(&event(0))), Err(DecodeError::UnknownSymbol), Ok(needed(&event(2)))]);
    assert!(error.is_none());
}

#[test]
fn containers_of_no_events_are_refused() {
    let schema = schema_of(&[json!({"name": "user_id", "type": "string"})]);
    let file = container(&schema, Codec::Null, &[json!({"user_id": "u"})]);
    let error = ContainerReader::new(&file[..]).map(drop).unwrap_err().to_string();
    assert!(error.contains("no events that can be read") && error.contains("\"session_id\""), "{error}");
}

#[test]
fn damaged_containers_say_where() {
    let file = container(CLICK_EVENT_SCHEMA, Codec::Snappy, &numbered(4));
    let whole = ContainerReader::new(&file[..]).unwrap();
    let header_bytes = whole.bytes_read() as usize;
    assert_eq!(data(whole).0.len(), 4);
    let block_bytes = (file.len() - header_bytes) / 2;
    for end in 0..file.len() {
        match ContainerReader::new(&file[..end]) {
            Err(error) => assert!(end < header_bytes && error.to_string().contains("too early"), "{end}: {error}"),
            Ok(reader) => {
                let (good, error) = data(reader);
                let blocks = (end - header_bytes) / block_bytes;
                assert_eq!(good.len(), 2 * blocks);
                let at_block_end = end == header_bytes + blocks * block_bytes;
                match error.map(|error| error.to_string()) {
                    None => assert!(at_block_end, "{end}"),
                    Some(error) => {
                        let place = format!("the block at byte {}: the file ends", header_bytes + blocks * block_bytes);
                        assert!(!at_block_end && error.contains(&place), "{error}");
                    }
                }
            }
        }
    }
    for place in 0..file.len() {
        let mut changed = file.clone();
        changed[place] ^= 1;
        if let Ok(reader) = ContainerReader::new(&changed[..]) {
            data(reader);
        }
    }
}

#[test]
fn an_empty_block_does_not_end_a_container() {
    let mut file = container(CLICK_EVENT_SCHEMA, Codec::Null, &numbered(2));
    let header_bytes = ContainerReader::new(&file[..]).unwrap().bytes_read() as usize;
    let empty_block = [&[0, 0][..], &file[header_bytes - 16..header_bytes]].concat();
    file.splice(header_bytes..header_bytes, empty_block);
    assert_eq!(data(ContainerReader::new(&file[..]).unwrap()).0.len(), 2);
}
