//! Everything against `apache_avro` as the reference.

mod compatibility;
mod container;
mod details;
// Shared with the fuzz targets.
#[path = "../../../fuzz/src/reference.rs"]
mod reference;
mod resolution;
#[path = "../../../fuzz/src/writer_schema.rs"]
mod writer_schema;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, from_value, to_value};
use clicktide_dataflows::event::PageAnalytics;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::event::{ClickEvent, DecodedEvent, EventDetails};
use writer_schema::published_fields;

fn reference_encode(schema: &str, record: &impl Serialize) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    let value = to_value(record).unwrap().resolve(&schema).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn reference_decode<T: DeserializeOwned>(schema: &str, mut body: &[u8]) -> T {
    let schema = Schema::parse_str(schema).unwrap();
    let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut body).unwrap();
    assert!(body.is_empty());
    from_value(&value).unwrap()
}

fn needed(event: &ClickEvent) -> DecodedEvent<'_> {
    DecodedEvent {
        user_id: event.user_id.as_str().into(),
        session_id: event.session_id.as_str().into(),
        page_url: event.page_url.as_str().into(),
        event_type: event.event_type,
        timestamp: event.timestamp,
        session_duration: event.session_duration,
    }
}

fn details(event: &ClickEvent) -> EventDetails<'_> {
    EventDetails {
        product_id: event.product_id.as_deref().map(Into::into),
        user_agent: Some(event.user_agent.as_str().into()),
        ip_address: Some(event.ip_address.as_str().into()),
        referrer: event.referrer.as_deref().map(Into::into),
    }
}

fn encode(event: &ClickEvent) -> Vec<u8> {
    let mut body = Vec::new();
    encode_event(event, &mut body);
    body
}

prop_compose! {
    fn any_event()(
        (user_id, session_id, page_url) in (".*", ".*", ".*"),
        (user_agent, ip_address) in (".*", ".*"),
        (product_id, referrer) in (proptest::option::of(".*"), proptest::option::of(".*")),
        kind in 0..EVENT_TYPES.len(),
        timestamp: i64,
        session_duration: Option<i32>,
    ) -> ClickEvent {
        let event_type = EVENT_TYPES[kind].1;
        ClickEvent {
            user_id, session_id, event_type, page_url, product_id, timestamp, user_agent, ip_address, referrer,
            session_duration,
        }
    }
}

prop_compose! {
    fn any_result()(
        page_url in ".*",
        (window_start, window_end, view_count) in any::<(i64, i64, i64)>(),
        unique_users: i32,
        (click_count, conversion_count) in any::<(i64, i64)>(),
        (engagement_rate, bounce_rate, avg_session_duration) in (0.0..1.0, 0.0..1.0, proptest::num::f64::NORMAL),
    ) -> PageAnalytics {
        PageAnalytics {
            page_url, window_start, window_end, view_count, unique_users, click_count, conversion_count, engagement_rate,
            bounce_rate, avg_session_duration,
        }
    }
}

proptest! {
    #[test]
    fn events_agree_with_the_reference(event in any_event()) {
        let body = encode(&event);
        prop_assert_eq!(&body, &reference_encode(CLICK_EVENT_SCHEMA, &event));
        prop_assert_eq!(&event, &reference_decode(CLICK_EVENT_SCHEMA, &body));
        prop_assert_eq!(Decoder::default().decode(&body), Ok(needed(&event)));
    }

    #[test]
    fn events_of_the_later_version_agree_with_the_reference(event in any_event()) {
        let mut body = Vec::new();
        encode_later_event(&event, &mut body);
        let decoder = Decoder::new(CLICK_EVENT_LATER_SCHEMA).unwrap();
        prop_assert_eq!(decoder.decode(&body).unwrap(), needed(&event));
        // Resolved into the published schema by the reference.
        let [writer, reader] = [CLICK_EVENT_LATER_SCHEMA, CLICK_EVENT_SCHEMA].map(|text| Schema::parse_str(text).unwrap());
        let resolved = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        let value = resolved.read_value(&mut &body[..]).unwrap();
        prop_assert_eq!(from_value::<ClickEvent>(&value).unwrap(), event);
    }

    #[test]
    fn results_agree_with_the_reference(result in any_result()) {
        let mut body = Vec::new();
        encode_page_analytics(&result, &mut body);
        prop_assert_eq!(&body, &reference_encode(PAGE_ANALYTICS_SCHEMA, &result));
        prop_assert_eq!(&result, &reference_decode(PAGE_ANALYTICS_SCHEMA, &body));
        prop_assert_eq!(decode_page_analytics(&body), Ok(result));
        prop_assert!((0..body.len()).all(|end| decode_page_analytics(&body[..end]).is_err()));
        body.push(0);
        prop_assert_eq!(decode_page_analytics(&body), Err(DecodeError::TrailingBytes { count: 1 }));
    }

    #[test]
    fn fields_in_any_order_among_others(event in any_event(), order in Just((0..15).collect::<Vec<_>>()).prop_shuffle()) {
        let fields = [published_fields(), others()].concat();
        let shuffled: Vec<_> = order.iter().map(|index| fields[*index].clone()).collect();
        // The type that refers to another by its name must come after it.
        let place = |name: &str| shuffled.iter().position(|field| field["name"] == name).unwrap();
        prop_assume!(place("list") < place("again"));
        let schema = schema_of(&shuffled);
        let mut record = serde_json::to_value(&event).unwrap();
        record.as_object_mut().unwrap().append(others_value().as_object_mut().unwrap());
        let body = reference_encode_json(&schema, &record);
        let decoder = Decoder::new(&schema).unwrap();
        prop_assert_eq!(decoder.decode(&body), Ok(needed(&event)));
        prop_assert_eq!(decoder.details(&body), Ok(details(&event)));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Decoder::default().decode(&bytes);
        let _ = Decoder::new(&schema_of(&[published_fields(), others()].concat())).unwrap().decode(&bytes);
        let _ = decode_page_analytics(&bytes);
        if let Ok(mut reader) = ContainerReader::new(&bytes[..]) {
            while reader.next_datum().is_some() {}
        }
    }

    #[test]
    fn no_change_of_a_body_panics(event in any_event(), place: prop::sample::Index, bit in 0..8_u32) {
        let mut body = encode(&event);
        prop_assert!((0..body.len()).all(|end| Decoder::default().decode(&body[..end]).is_err()));
        let place = place.index(body.len());
        body[place] ^= 1_u8 << bit;
        let _ = Decoder::default().decode(&body);
    }
}

fn schema_of(fields: &[Value]) -> String {
    json!({"type": "record", "name": "E", "namespace": "n", "fields": fields}).to_string()
}

/// Fields of other types: nested, recursive, named elsewhere, and of no bytes.
fn others() -> Vec<Value> {
    let list = json!({"type": "record", "name": "List", "fields": [
        {"name": "head", "type": {"type": "fixed", "name": "Two", "size": 2}},
        {"name": "tail", "type": ["null", "List"]},
    ]});
    let inner = json!({"type": "record", "name": "Inner", "namespace": "m", "fields": [
        {"name": "f", "type": "float"}, {"name": "d", "type": "double"}, {"name": "b", "type": "bytes"},
    ]});
    vec![
        json!({"name": "list", "type": list}),
        json!({"name": "again", "type": {"type": "array", "items": "List"}}),
        json!({"name": "map", "type": {"type": "map", "values": ["boolean", inner]}}),
        json!({"name": "nulls", "type": {"type": "array", "items": "null"}}),
        json!({"name": "when", "type": {"type": "int", "logicalType": "date"}}),
    ]
}

fn others_value() -> Value {
    let list = json!({"head": [1, 2], "tail": {"head": [3, 4], "tail": null}});
    let inner = json!({"f": 0.5, "d": 0.25, "b": [7]});
    json!({"list": list, "again": [list, list], "map": {"x": true, "y": inner}, "nulls": [null, null], "when": 3})
}

/// Encodes JSON by the schema, for the types that these tests use.
fn reference_encode_json(schema: &str, record: &Value) -> Vec<u8> {
    use apache_avro::types::Value as Avro;
    fn convert(schema: &Schema, names: &apache_avro::schema::NamesRef<'_>, value: &Value) -> Option<Avro> {
        Some(match schema {
            Schema::Null => value.is_null().then_some(Avro::Null)?,
            Schema::Boolean => Avro::Boolean(value.as_bool()?),
            Schema::Int => Avro::Int(value.as_i64()?.try_into().ok()?),
            Schema::Date => Avro::Date(value.as_i64()?.try_into().ok()?),
            Schema::TimestampMillis => Avro::TimestampMillis(value.as_i64()?),
            Schema::Float => Avro::Float(value.as_f64()? as f32),
            Schema::Double => Avro::Double(value.as_f64()?),
            Schema::String => Avro::String(value.as_str()?.to_owned()),
            Schema::Bytes => Avro::Bytes(bytes(value)?),
            Schema::Fixed(fixed) => Avro::Fixed(fixed.size, bytes(value)?),
            Schema::Enum(symbols) => {
                let symbol = value.as_str()?;
                Avro::Enum(symbols.symbols.iter().position(|s| s == symbol)? as u32, symbol.to_owned())
            }
            Schema::Array(array) => Avro::Array(
                value.as_array()?.iter().map(|item| convert(&array.items, names, item)).collect::<Option<_>>()?,
            ),
            Schema::Map(map) => {
                let entries = value.as_object()?.iter().map(|(k, v)| Some((k.clone(), convert(&map.types, names, v)?)));
                Avro::Map(entries.collect::<Option<_>>()?)
            }
            Schema::Union(union) => {
                let branches = union.variants().iter().enumerate();
                let mut fitting = branches.filter_map(|(index, branch)| Some((index, convert(branch, names, value)?)));
                let (index, value) = fitting.next()?;
                Avro::Union(index as u32, Box::new(value))
            }
            Schema::Record(record) => {
                let fields = record.fields.iter();
                let fields = fields.map(|f| Some((f.name.clone(), convert(&f.schema, names, value.get(&f.name)?)?)));
                Avro::Record(fields.collect::<Option<_>>()?)
            }
            Schema::Ref { name } => convert(names.get(name)?, names, value)?,
            _ => return None,
        })
    }
    fn bytes(value: &Value) -> Option<Vec<u8>> {
        value.as_array()?.iter().map(|byte| byte.as_u64()?.try_into().ok()).collect()
    }
    let schema = Schema::parse_str(schema).unwrap();
    let resolved = apache_avro::schema::ResolvedSchema::new(&schema).unwrap();
    let value = convert(&schema, resolved.get_names(), record).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn an_event() -> ClickEvent {
    ClickEvent {
        user_id: "u".into(),
        session_id: "s".into(),
        event_type: EventType::Purchase,
        page_url: "/p".into(),
        product_id: None,
        timestamp: 1_700_000_000_000,
        user_agent: "-".into(),
        ip_address: "10.0.0.1".into(),
        referrer: Some("/".into()),
        session_duration: Some(60),
    }
}

#[test]
fn event_types_are_the_schemas_symbols() {
    let symbols: Vec<_> = EVENT_TYPES.iter().map(|(symbol, _)| *symbol).collect();
    assert_eq!(published_fields()[2]["type"]["symbols"], json!(symbols));
    for (index, (symbol, kind)) in EVENT_TYPES.iter().enumerate() {
        assert_eq!((*kind as usize, serde_json::to_value(kind).unwrap()), (index, json!(symbol)));
    }
}

#[test]
fn writer_schemas() {
    fn check(field: &str, change: Option<Value>, expected: &str) {
        let mut fields = published_fields();
        fields.retain(|f| f["name"] != field);
        fields.extend(change.map(|kind| json!({"name": field, "type": kind})));
        let actual = Decoder::new(&schema_of(&fields)).map_or_else(|error| error.to_string(), |_| "good".to_owned());
        assert!(actual.contains(expected), "{field}: {actual}");
    }
    check("user_id", None, "no field \"user_id\"");
    check("timestamp", None, "no field \"timestamp\"");
    check("session_duration", None, "good");
    check("user_agent", None, "good");
    check("user_id", Some(json!("bytes")), "good");
    check("user_id", Some(json!(["null", "string"])), "good");
    check("user_id", Some(json!("int")), "\"user_id\", is \"int\"; it must be a string");
    check("page_url", Some(json!(["null", "int"])), "must be a string, bytes, or a union with one");
    check("timestamp", Some(json!("long")), "good");
    check("timestamp", Some(json!("int")), "good");
    check("timestamp", Some(json!("double")), "must be a long or an int of milli");
    check("session_duration", Some(json!(["int", "null"])), "good");
    check("session_duration", Some(json!("int")), "good");
    check("session_duration", Some(json!(["null", "long"])), "good");
    check("session_duration", Some(json!("long")), "must be an int, null");
    check("event_type", Some(json!("string")), "must be an enum");
    for (schema, expected) in [("{", "not an Avro schema"), ("\"string\"", "an event is a record")] {
        assert!(Decoder::new(schema).unwrap_err().to_string().contains(expected));
    }
}

#[test]
fn enums_and_unions_of_another_order() {
    let mut fields = published_fields();
    fields[2]["type"]["symbols"] = json!(["SEARCH", "HOVER", "VIEW"]);
    fields[9]["type"] = json!(["int", "null"]);
    let schema = schema_of(&fields);
    let decoder = Decoder::new(&schema).unwrap();
    for (symbol, session_duration, expected) in [
        ("VIEW", Some(3), Ok((EventType::View, Some(3)))),
        ("SEARCH", None, Ok((EventType::Search, None))),
        ("HOVER", None, Err(DecodeError::UnknownSymbol)),
    ] {
        let mut record = serde_json::to_value(an_event()).unwrap();
        record["event_type"] = json!(symbol);
        record["session_duration"] = json!(session_duration);
        let body = reference_encode_json(&schema, &record);
        let actual = decoder.decode(&body).map(|event| (event.event_type, event.session_duration));
        assert_eq!(actual, expected);
    }
}

#[test]
fn what_is_no_event() {
    fn check(expected: DecodeError, change: impl FnOnce(&mut Vec<u8>)) {
        let mut body = encode(&an_event());
        change(&mut body);
        assert_eq!(Decoder::default().decode(&body), Err(expected), "{body:x?}");
    }
    // The body begins: 2 'u' 2 's' 6 (PURCHASE) 4 '/' 'p' 0 (no product).
    check(DecodeError::Truncated, |body| body.clear());
    check(DecodeError::TrailingBytes { count: 2 }, |body| body.extend([0, 0]));
    check(DecodeError::NegativeLength, |body| body[0] = 1);
    check(DecodeError::Truncated, |body| {
        drop(body.splice(0..1, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]))
    });
    check(DecodeError::BadVarint, |body| drop(body.splice(0..1, [0xff; 10])));
    check(DecodeError::InvalidUtf8, |body| body[1] = 0xff);
    check(DecodeError::UnknownSymbol, |body| body[4] = 10);
    check(DecodeError::UnknownSymbol, |body| body[4] = 1);
    check(DecodeError::UnknownBranch, |body| body[8] = 4);
    check(DecodeError::UnknownBranch, |body| body[8] = 1);
    // The body ends: 2 (a duration) 120 (60 s).
    let last = encode(&an_event()).len() - 1;
    check(DecodeError::UnknownBranch, |body| body[last - 1] = 4);
    check(DecodeError::IntOutOfRange, |body| drop(body.splice(last.., [0x80, 0x80, 0x80, 0x80, 0x10])));
}

#[test]
fn claims_cost_nothing() {
    // 2^62 nulls, then the end; a list nested in itself for ever; a type that is nothing but itself.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let decode = |kind: Value, field: &[u8]| {
        let schema = schema_of(&[published_fields(), vec![json!({"name": "x", "type": kind})]].concat());
        Decoder::new(&schema).unwrap().decode(&[&encode(&an_event()), field].concat()).map(drop)
    };
    let huge_then_end = [&huge[..], &[0]].concat();
    assert_eq!(decode(json!({"type": "array", "items": "null"}), &huge_then_end[..]).map(drop), Ok(()));
    let unit = json!({"type": "record", "name": "Unit", "fields": [{"name": "n", "type": "null"}]});
    let units = json!({"type": "record", "name": "Units", "fields": [
        {"name": "a", "type": unit}, {"name": "b", "type": {"type": "array", "items": "Unit"}},
        {"name": "c", "type": {"type": "array", "items": "Unit"}},
    ]});
    assert_eq!(decode(units, &[&huge_then_end[..], &huge_then_end[..]].concat()), Ok(()));
    assert_eq!(decode(json!({"type": "array", "items": "int"}), &huge), Err(DecodeError::Truncated));
    assert_eq!(decode(json!({"type": "map", "values": "null"}), &huge), Err(DecodeError::Truncated));
    // A block that says how long it is: -1 items in 3 bytes.
    assert_eq!(decode(json!({"type": "array", "items": "int"}), &[1, 6, 9, 9, 9, 0]), Ok(()));
    assert_eq!(decode(json!({"type": "array", "items": "int"}), &[1, 1]), Err(DecodeError::NegativeLength));
    let list = json!({"type": "record", "name": "L", "fields": [{"name": "l", "type": ["null", "L"]}]});
    assert_eq!(decode(list.clone(), &[2, 2, 2, 0]), Ok(()));
    assert_eq!(decode(list, &[2; 1_000_000]), Err(DecodeError::TooDeep));
    let own = json!({"type": "record", "name": "Self", "fields": [{"name": "s", "type": "Self"}]});
    assert_eq!(decode(own.clone(), &[]), Err(DecodeError::TooDeep));
    assert_eq!(decode(json!({"type": "array", "items": own}), &huge), Err(DecodeError::TooDeep));
}
