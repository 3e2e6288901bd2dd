//! Writer schemas that are not ours, resolved by a plan and by `apache_avro`.
//!
//! Where `apache_avro` 0.22 and the Avro specification disagree, the plan follows the specification. Such cases are left out of
//! the random schemas, and each has a line in [`where_the_reference_differs`].

use rand::seq::IndexedMutRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::reference::{self, Read, has_long_varint};
use super::writer_schema::{Writer, needed_schema, reader};
use super::*;
use crate::avro::plan::{Plan, Slots};

fn read(slots: Slots<'_>) -> Read {
    let Slots { user_id, session_id, page_url, event_type, timestamp, session_duration } = slots;
    let symbol = EVENT_TYPES[event_type as usize].0.to_owned();
    (user_id.to_owned(), session_id.to_owned(), page_url.to_owned(), symbol, timestamp, session_duration)
}

fn parse(schema: &Value) -> Schema {
    Schema::parse_str(&schema.to_string()).unwrap()
}

/// The record of a reader's schema, kept for as long as plans want it.
fn record(reader: &Value) -> &'static RecordSchema {
    match Box::leak(Box::new(parse(reader))) {
        Schema::Record(record) => record,
        _ => panic!("it is a record"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The same verdict and the same values as `apache_avro`, for our schema and later versions of it: for whole bodies, for
    /// every one that was cut off, and for bodies of which a bit was changed.
    #[test]
    fn a_plan_agrees_with_the_reference(seed: u64) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let ours = if rng.random() { needed_schema() } else { reader(rng) };
        let writer = Writer::draw(rng, &ours);
        let (schema, lenient, needed) = (parse(&writer.schema), parse(&writer.lenient), parse(&ours));
        let plan = Plan::new(&schema, record(&ours));
        let check = |body: &[u8]| {
            let read = plan.as_ref().ok().map(|plan| plan.read(body).map(read));
            // A schema is refused of which no body can be read.
            let expected = reference::read(&lenient, &needed, body);
            let agrees = expected == read.clone().and_then(Result::ok) || has_long_varint(body);
            prop_assert!(agrees, "{} read as {ours}, {body:x?}: {read:?}, not {expected:?}", writer.schema);
            Ok(())
        };
        for _ in 0..4 {
            let mut body = writer.body(rng);
            check(&body)?;
            body.push(0);
            check(&body)?;
            body.pop();
            for end in 0..body.len() {
                check(&body[..end])?;
            }
            for _ in 0..20.min(body.len()) {
                let mut changed = body.clone();
                *changed.choose_mut(rng).unwrap() ^= 1 << rng.random_range(0..8);
                if writer.blocks {
                    // Nothing panics.
                    let _ = plan.as_ref().map(|plan| plan.read(&changed).map(read));
                } else {
                    check(&changed)?;
                }
            }
        }
    }
}

/// The random schemas are of use: some are refused, and of the others most events can be read, but not all.
#[test]
fn random_schemas_are_of_all_kinds() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let (mut refused, mut unreadable, mut readable, mut blocks) = (0, 0, 0, 0);
    let (mut aliases, mut defaults) = (0, 0);
    for _ in 0..1_000 {
        let ours = reader(rng);
        let writer = Writer::draw(rng, &ours);
        let schema = parse(&writer.schema);
        blocks += usize::from(writer.blocks);
        match Plan::new(&schema, record(&ours)) {
            Err(_) => refused += 1,
            Ok(plan) => {
                let fields = writer.schema["fields"].as_array();
                let has = |name: &str| fields.is_some_and(|fields| fields.iter().any(|field| field["name"] == name));
                aliases += usize::from(has("page_url_v0") && !has("page_url"));
                defaults +=
                    usize::from(fields.is_some() && !has("user_id") && !has("user_id_v0") && !has("user_id_v1"));
                match plan.read(&writer.body(rng)) {
                    Err(_) => unreadable += 1,
                    Ok(_) => readable += 1,
                }
            }
        }
    }
    assert!([refused, unreadable, readable].iter().all(|count| *count > 150), "{refused} {unreadable} {readable}");
    assert!((200..800).contains(&blocks), "{blocks}");
    assert!(aliases > 20 && defaults > 10, "{aliases} {defaults}");
}

// --- Cases ---

/// A plan for the published fields but these, read into the published schema but for these fields of the reader's.
fn plan(writer: &[Value], reader: &[Value]) -> Result<Plan, SchemaError> {
    let changed = |changes: &[Value]| {
        let mut fields = published_fields();
        for change in changes {
            match fields.iter_mut().find(|field| field["name"] == change["name"]) {
                Some(field) if change["type"].is_null() => field["name"] = json!("gone"),
                Some(field) => *field = change.clone(),
                None => fields.push(change.clone()),
            }
        }
        serde_json::from_str::<Value>(&schema_of(&fields)).unwrap()
    };
    Plan::new(&parse(&changed(writer)), record(&changed(reader)))
}

/// A field of another type, or of none, which is none.
fn field(name: &str, kind: Value) -> Value {
    json!({"name": name, "type": kind})
}

#[test]
fn aliases_are_the_readers() {
    let page = json!({"name": "page_url", "type": "string", "aliases": ["url", "location"]});
    // What comes last in the body: "f" if there is one more field, then "g" if there are two.
    let decode = |writer: &[Value], reader: &[Value]| {
        let more = writer.iter().filter(|field| field["name"] != "page_url");
        let more = &b"\x02f\x02g"[..2 * more.count()];
        let plan = plan(writer, reader)?;
        let body = [&encode(&an_event()), more].concat();
        Ok::<_, SchemaError>(plan.read(&body).unwrap().page_url.to_owned())
    };
    let gone = field("page_url", json!(null));
    let (url, location) = (field("url", json!("string")), field("location", json!("string")));
    assert_eq!(decode(&[], std::slice::from_ref(&page)), Ok("/p".to_owned()));
    // The name comes before the aliases, and these in their order.
    assert_eq!(decode(std::slice::from_ref(&url), std::slice::from_ref(&page)), Ok("/p".to_owned()));
    assert_eq!(decode(&[gone.clone(), url.clone()], std::slice::from_ref(&page)), Ok("f".to_owned()));
    assert_eq!(decode(&[gone.clone(), location, url], std::slice::from_ref(&page)), Ok("g".to_owned()));
    // A writer's aliases mean nothing to a reader.
    let aliased = json!({"name": "url", "type": "string", "aliases": ["page_url"]});
    let error = decode(&[gone.clone(), aliased], &[]).unwrap_err();
    assert!(error.to_string().contains("no field \"page_url\""), "{error}");
    let error = decode(&[gone, field("url", json!("int"))], &[page]).unwrap_err();
    assert!(error.to_string().contains("field \"url\", read as \"page_url\", is \"int\""), "{error}");
}

#[test]
fn what_the_writer_lacks_is_our_default() {
    let names = ["user_id", "session_id", "event_type", "page_url", "timestamp", "session_duration"];
    let gone = names.map(|name| field(name, json!(null)));
    let kind = json!({"type": "enum", "name": "EventType", "symbols": ["VIEW", "SEARCH"]});
    let reader = [
        json!({"name": "user_id", "type": "string", "default": "somebody"}),
        json!({"name": "session_id", "type": "string", "default": ""}),
        json!({"name": "event_type", "type": kind, "default": "SEARCH"}),
        json!({"name": "page_url", "type": "string", "default": "/"}),
        json!({"name": "timestamp", "type": "long", "default": -5}),
        json!({"name": "session_duration", "type": ["int", "null"], "default": 7}),
    ];
    // The published schema's fields are there still, under other names.
    let plan_of_all = plan(&gone[5..], &reader).unwrap();
    let body = encode(&an_event());
    assert_eq!(plan_of_all.read(&body).unwrap().session_duration, Some(7));
    let writer = Schema::parse_str(&schema_of(&[field("other", json!("null"))])).unwrap();
    let reader = record(&serde_json::from_str(&schema_of(&reader)).unwrap());
    let expected = ("somebody".into(), String::new(), "/".into(), "SEARCH".into(), -5, Some(7));
    assert_eq!(Plan::new(&writer, reader).unwrap().read(&[]).map(read), Ok(expected));
}

#[test]
fn unknown_symbols_are_the_enums_default() {
    let kind = |default: Option<&str>| {
        let symbols = ["VIEW", "CLICK", "ADD_TO_CART", "PURCHASE", "SEARCH"];
        let mut kind = json!({"type": "enum", "name": "EventType", "symbols": symbols});
        if let Some(default) = default {
            kind["default"] = json!(default);
        }
        field("event_type", kind)
    };
    // The writer's own default says nothing.
    let writer = |symbols: &[&str]| {
        let kind = json!({"type": "enum", "name": "Kind", "symbols": symbols, "default": symbols[0]});
        field("event_type", kind)
    };
    let event_type = |symbols: &[&str], default, symbol: u8| {
        let plan = plan(&[writer(symbols)], &[kind(default)])?;
        let mut body = encode(&an_event());
        body[4] = 2 * symbol;
        Ok::<_, SchemaError>(plan.read(&body).map(|slots| slots.event_type))
    };
    assert_eq!(event_type(&["HOVER", "SEARCH"], None, 0), Ok(Err(DecodeError::UnknownSymbol)));
    assert_eq!(event_type(&["HOVER", "SEARCH"], None, 1), Ok(Ok(EventType::Search)));
    assert_eq!(event_type(&["HOVER", "SEARCH"], Some("CLICK"), 0), Ok(Ok(EventType::Click)));
    assert_eq!(event_type(&["HOVER", "SEARCH"], Some("CLICK"), 1), Ok(Ok(EventType::Search)));
    assert_eq!(event_type(&["HOVER", "SEARCH"], Some("CLICK"), 2), Ok(Err(DecodeError::UnknownSymbol)));
    assert_eq!(event_type(&["HOVER"], Some("CLICK"), 0), Ok(Ok(EventType::Click)));
    assert!(event_type(&["HOVER"], None, 0).unwrap_err().to_string().contains("\"HOVER\""));
}

#[test]
fn unions_of_which_a_branch_resolves() {
    let read_duration = |kind: Value, bytes: &[u8]| {
        let plan = plan(&[field("session_duration", kind)], &[])?;
        let mut body = encode(&ClickEvent { session_duration: None, ..an_event() });
        body.pop();
        body.extend(bytes);
        Ok::<_, SchemaError>(plan.read(&body).map(|slots| slots.session_duration))
    };
    assert_eq!(read_duration(json!(["string", "int"]), &[2, 8]), Ok(Ok(Some(4))));
    assert_eq!(read_duration(json!(["string", "int"]), &[0, 0]), Ok(Err(DecodeError::UnreadableBranch)));
    assert_eq!(read_duration(json!(["string", "int"]), &[4, 0]), Ok(Err(DecodeError::UnknownBranch)));
    assert_eq!(read_duration(json!(["string", "int"]), &[1, 0]), Ok(Err(DecodeError::UnknownBranch)));
    assert_eq!(read_duration(json!("int"), &[8]), Ok(Ok(Some(4))));
    assert_eq!(read_duration(json!("null"), &[]), Ok(Ok(None)));
    assert!(read_duration(json!(["string", "double"]), &[]).is_err());
    assert!(read_duration(json!([]), &[]).is_err());
}

#[test]
fn writer_schemas_that_are_unions_of_records() {
    let event = |name: &str| json!({"type": "record", "name": name, "fields": published_fields()});
    let other = json!({"type": "record", "name": "Other", "fields": [{"name": "x", "type": "long"}]});
    let decoder = Decoder::new(&json!(["null", other, event("Event")]).to_string()).unwrap();
    let decode = |branch: u8, body: &[u8]| decoder.decode(&[&[2 * branch], body].concat()).map(|event| event.timestamp);
    assert_eq!(decode(2, &encode(&an_event())), Ok(an_event().timestamp));
    assert_eq!(decode(1, &[2]), Err(DecodeError::UnreadableBranch));
    assert_eq!(decode(0, &[]), Err(DecodeError::UnreadableBranch));
    assert_eq!(decode(3, &[]), Err(DecodeError::UnknownBranch));
    for (schema, expected) in
        [(json!(["null", other]), "no field \"user_id\""), (json!(["null"]), "an event is a record")]
    {
        let error = Decoder::new(&schema.to_string()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Where the plan follows the specification and `apache_avro` does not. Each case says which of them reads the event.
#[test]
fn where_the_reference_differs() {
    let needed = parse(&needed_schema());
    let check = |name: &str, kind: Value, value: &[u8], reference_reads: bool| {
        let mut fields = needed_schema()["fields"].as_array().unwrap().clone();
        fields.retain(|field| field["name"] != name);
        fields.push(field(name, kind));
        let schema = Schema::parse_str(&schema_of(&fields)).unwrap();
        // The others: "u", "s", VIEW, "/", 3, no duration, without the one that comes last.
        let others = [
            ("user_id", &b"\x02u"[..]),
            ("session_id", b"\x02s"),
            ("event_type", b"\0"),
            ("page_url", b"\x02/"),
            ("timestamp", b"\x06"),
            ("session_duration", b"\0"),
        ];
        let others: Vec<_> = others.iter().filter(|(of, _)| *of != name).map(|(_, bytes)| *bytes).collect();
        let body = [&others.concat(), value].concat();
        let ours = Plan::new(&schema, published_event()).ok().and_then(|plan| plan.read(&body).ok().map(read));
        assert_eq!(reference::read(&schema, &needed, &body).is_some(), reference_reads, "{name}: {schema:?}");
        assert_eq!(ours.is_some(), !reference_reads, "{name}: {schema:?}");
    };
    // A long is no int, even if this one fits.
    check("session_duration", json!("long"), b"\x02", true);
    check("session_duration", json!(["null", "long"]), b"\x02\x02", true);
    // Only bytes are promoted to a string, and only an enum is an enum.
    check("user_id", json!({"type": "fixed", "name": "One", "size": 1}), b"u", true);
    check("event_type", json!("string"), b"\x08VIEW", true);
    // A uuid is a string, whatever is in it.
    let uuid = json!({"type": "string", "logicalType": "uuid"});
    check("user_id", uuid, b"\x4867e55044-10b1-426f-9247-bb680e5fe0c8", false);
}

/// Logical types of which the specification says only that they annotate a type: values that mean something else than ours
/// are refused, as `apache_avro` does.
#[test]
fn other_units_are_refused() {
    for (name, underlying, logical_type) in [
        ("timestamp", "long", "timestamp-micros"),
        ("timestamp", "long", "timestamp-nanos"),
        ("timestamp", "long", "local-timestamp-millis"),
        ("timestamp", "long", "time-micros"),
        ("timestamp", "int", "date"),
        ("timestamp", "int", "time-millis"),
        ("session_duration", "int", "date"),
        ("session_duration", "int", "time-millis"),
        ("user_id", "bytes", "big-decimal"),
    ] {
        let kind = json!({"type": underlying, "logicalType": logical_type});
        let error = plan(&[field(name, kind)], &[]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(logical_type), "{error}");
    }
    assert!(plan(&[field("timestamp", json!({"type": "long", "logicalType": "of-another-kind"}))], &[]).is_ok());
}

/// Names of types are not compared.
#[test]
fn named_references() {
    let mut fields = published_fields();
    let kind = json!({"type": "enum", "name": "m.Kind", "symbols": ["SEARCH", "VIEW"]});
    fields[2]["type"] = json!("m.Kind");
    fields.insert(0, field("last_type", json!(["null", kind])));
    let decoder = Decoder::new(&schema_of(&fields)).unwrap();
    let mut body = encode(&an_event());
    body[4] = 2;
    assert_eq!(decoder.decode(&[&[0], &body[..]].concat()).unwrap().event_type, EventType::View);
}
