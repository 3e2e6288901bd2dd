//! Writer schemas that are not ours, resolved by a plan and by `apache_avro`.
//!
//! Where `apache_avro` 0.22 and the Avro specification disagree, the plan follows the specification. Such cases are left out of
//! the random schemas, and each has a line in [`where_the_reference_differs`].

use apache_avro::types::Value as Avro;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::avro::plan::{Plan, Slots};

/// What is read of an event.
type Read = (String, String, String, EventType, i64, Option<i32>);

fn read(slots: Slots<'_>) -> Read {
    let Slots { user_id, session_id, page_url, event_type, timestamp, session_duration } = slots;
    (user_id.to_owned(), session_id.to_owned(), page_url.to_owned(), event_type, timestamp, session_duration)
}

fn parse(schema: &Value) -> Schema {
    Schema::parse_str(&schema.to_string()).unwrap()
}

/// The published schema without the fields that are not read, for these may be anything.
fn needed_schema() -> Value {
    let names = ["user_id", "session_id", "event_type", "page_url", "timestamp", "session_duration"];
    let mut fields = published_fields();
    fields.retain(|field| names.iter().any(|name| field["name"] == *name));
    json!({"type": "record", "name": "ClickstreamEvent", "namespace": "analytics.events", "fields": fields})
}

/// What `apache_avro` reads of `body`, if that is exactly one event.
///
/// Zeros follow the body, since `apache_avro` takes the end of its input for null in some places.
fn reference(writer: &Schema, reader: &Schema, body: &[u8]) -> Option<Read> {
    let padded = [body, &[0; 64]].concat();
    let mut rest = padded.as_slice();
    let datum = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap();
    let value = datum.read_value(&mut rest).ok()?;
    if padded.len() - rest.len() != body.len() {
        return None;
    }
    let Avro::Record(fields) = value else { panic!("{value:?} is no record") };
    let field = |name: &str| fields.iter().find(|(of, _)| of == name).unwrap().1.clone();
    let text = |name| match field(name) {
        Avro::String(text) => text,
        other => panic!("{name} is {other:?}"),
    };
    let Avro::Enum(event_type, _) = field("event_type") else { panic!("an enum was resolved") };
    let Avro::TimestampMillis(timestamp) = field("timestamp") else { panic!("a timestamp was resolved") };
    let session_duration = match field("session_duration") {
        Avro::Union(_, value) => match *value {
            Avro::Int(seconds) => Some(seconds),
            _ => None,
        },
        other => panic!("the duration is {other:?}"),
    };
    let event_type = EVENT_TYPES[event_type as usize].1;
    Some((text("user_id"), text("session_id"), text("page_url"), event_type, timestamp, session_duration))
}

// --- Random writer schemas ---

/// A writer schema that was derived from ours.
struct Writer {
    schema: Value,
    /// The same bytes, with what a plan does not look into made so that `apache_avro` does not look into it either: bytes for
    /// strings, longs for enums and ints, and so on.
    lenient: Value,
    /// Whether blocks are in it, whose claims about themselves `apache_avro` does not read.
    blocks: bool,
}

/// Types that a writer may have for a field of ours.
fn types_for(name: &str, rng: &mut impl Rng) -> Value {
    let kinds = match name {
        "event_type" => {
            let mut symbols = vec!["VIEW", "CLICK", "ADD_TO_CART", "PURCHASE", "SEARCH", "HOVER", "SCROLL"];
            symbols.shuffle(rng);
            symbols.truncate(rng.random_range(1..=7));
            let kind = json!({"type": "enum", "name": "Kind", "symbols": symbols});
            vec![
                kind.clone(),
                kind.clone(),
                kind.clone(),
                json!(["null", kind]),
                json!([kind, "string"]),
                json!({"type": "enum", "name": "EventType", "symbols": ["HOVER"]}),
                json!("int"),
            ]
        }
        "timestamp" => vec![
            json!("long"),
            json!("long"),
            json!({"type": "long", "logicalType": "timestamp-millis"}),
            json!({"type": "long", "logicalType": "of-another-kind"}),
            json!("int"),
            json!(["null", "long"]),
            json!(["int", "long"]),
            json!([{"type": "long", "logicalType": "timestamp-millis"}, "string"]),
            json!([{"type": "long", "logicalType": "timestamp-micros"}, "int"]),
            json!({"type": "long", "logicalType": "timestamp-micros"}),
            json!({"type": "int", "logicalType": "date"}),
            json!("double"),
        ],
        "session_duration" => vec![
            json!(["null", "int"]),
            json!(["int", "null"]),
            json!("int"),
            json!("null"),
            json!(["int"]),
            json!(["string", "null", "int"]),
            json!(["double", "null"]),
            json!(["double", "string"]),
            json!("boolean"),
        ],
        _ => vec![
            json!("string"),
            json!("string"),
            json!("string"),
            json!("bytes"),
            json!("bytes"),
            json!(["null", "string"]),
            json!(["bytes", "null"]),
            json!(["string", "int", "bytes"]),
            json!(["null", "int"]),
        ],
    };
    kinds.choose(rng).unwrap().clone()
}

impl Writer {
    fn draw(rng: &mut impl Rng) -> Self {
        let mut junk = Junk::default();
        let mut record = |rng: &mut ChaCha8Rng, name: &str| {
            let (mut fields, mut lenient) = (Vec::new(), Vec::new());
            let mut ours: Vec<_> = needed_schema()["fields"].as_array().unwrap().clone();
            ours.extend([json!(null), json!(null), json!(null)]);
            ours.shuffle(rng);
            for (place, mut field) in ours.into_iter().enumerate() {
                if field.is_null() {
                    let (kind, like) = junk.draw(rng, 3);
                    fields.push(json!({"name": format!("other{place}"), "type": kind}));
                    lenient.push(json!({"name": format!("other{place}"), "type": like}));
                    continue;
                }
                let name = field["name"].as_str().unwrap().to_owned();
                if rng.random_ratio(1, 2) {
                    field = json!({"name": name, "type": types_for(&name, rng)});
                }
                // Two records of one union may not define a type of the same name.
                if let Some(named) = named_type(&mut field["type"]) {
                    *named = json!(junk.name());
                }
                if !rng.random_ratio(1, 40) {
                    fields.push(field.clone());
                    lenient.push(field);
                }
            }
            let of = |fields| json!({"type": "record", "name": name, "fields": fields});
            (of(fields), of(lenient))
        };
        let mut random = ChaCha8Rng::seed_from_u64(rng.next_u64());
        let (mut schema, mut lenient) = record(&mut random, ["ClickstreamEvent", "Another"].choose(rng).unwrap());
        if rng.random_ratio(1, 6) {
            let (other, like) = record(&mut random, "Third");
            (schema, lenient) = (json!(["null", schema, other]), json!(["null", lenient, like]));
        }
        Self { schema, lenient, blocks: junk.blocks }
    }
}

/// The name of the type that `kind` defines itself or in a branch.
fn named_type(kind: &mut Value) -> Option<&mut Value> {
    match kind {
        Value::Array(branches) => branches.iter_mut().find_map(named_type),
        Value::Object(object) => object.get_mut("name"),
        _ => None,
    }
}

/// Types that nobody reads.
#[derive(Default)]
struct Junk {
    names: usize,
    /// Named types that stand before, and what is lenient in their place.
    defined: Vec<(String, Value)>,
    blocks: bool,
}

impl Junk {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("Type{}", self.names)
    }

    /// A type, and a lenient one of the same bytes.
    fn draw(&mut self, rng: &mut impl Rng, depth: u32) -> (Value, Value) {
        let same = |kind: &str| (json!(kind), json!(kind));
        match rng.random_range(0..if depth == 0 { 14 } else { 19 }) {
            0 => same("null"),
            1 => same("long"),
            2 => same("float"),
            3 => same("double"),
            4 => same("bytes"),
            5 | 6 => (json!("string"), json!("bytes")),
            7 => (json!("int"), json!("long")),
            8 => (json!({"type": "int", "logicalType": "date"}), json!("long")),
            9 => (json!({"type": "string", "logicalType": "uuid"}), json!("bytes")),
            10 => (json!({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}), json!("bytes")),
            11 => {
                let like = json!({"type": "fixed", "name": self.name(), "size": 1});
                (json!("boolean"), like)
            }
            12 => {
                let name = self.name();
                let kind = json!({"type": "fixed", "name": name, "size": rng.random_range(0..9)});
                self.defined.push((name.clone(), json!(name)));
                (kind.clone(), kind)
            }
            13 => match self.defined.choose(rng) {
                Some((name, like)) => (json!(name), like.clone()),
                None => same("null"),
            },
            14 => {
                let name = self.name();
                self.defined.push((name.clone(), json!("long")));
                (json!({"type": "enum", "name": name, "symbols": ["A", "B", "C"]}), json!("long"))
            }
            15 => {
                self.blocks = true;
                let (items, like) = self.draw(rng, depth - 1);
                (json!({"type": "array", "items": items}), json!({"type": "array", "items": like}))
            }
            16 => {
                self.blocks = true;
                let (values, like) = self.draw(rng, depth - 1);
                let fields = [json!({"name": "key", "type": "bytes"}), json!({"name": "value", "type": like})];
                let entry = json!({"type": "record", "name": self.name(), "fields": fields});
                (json!({"type": "map", "values": values}), json!({"type": "array", "items": entry}))
            }
            17 => {
                // A union may hold a type once only, so that its branches are records.
                let branches = (0..rng.random_range(1..4)).map(|_| self.record(rng, depth - 1));
                let (branches, like): (Vec<_>, Vec<_>) = branches.collect();
                (json!(branches), json!(like))
            }
            _ => self.record(rng, depth - 1),
        }
    }

    fn record(&mut self, rng: &mut impl Rng, depth: u32) -> (Value, Value) {
        let name = self.name();
        let (mut fields, mut lenient) = (Vec::new(), Vec::new());
        for place in 0..rng.random_range(0..3) {
            let (kind, like) = self.draw(rng, depth);
            fields.push(json!({"name": format!("f{place}"), "type": kind}));
            lenient.push(json!({"name": format!("f{place}"), "type": like}));
        }
        if rng.random_ratio(1, 3) {
            // It contains itself.
            let own = json!({"name": "own", "type": ["null", name]});
            fields.push(own.clone());
            lenient.push(own);
        }
        self.defined.push((name.clone(), json!(name)));
        let of = |fields| json!({"type": "record", "name": name, "fields": fields});
        (of(fields), of(lenient))
    }
}

/// A value of `schema`.
fn value(schema: &Schema, names: &apache_avro::schema::NamesRef<'_>, rng: &mut impl Rng, depth: u32) -> Avro {
    let long = |rng: &mut dyn Rng| rng.next_u64() as i64 >> (rng.next_u64() % 64);
    let text = |rng: &mut dyn Rng| {
        let length = rng.next_u64() >> (58 + rng.next_u64() % 6) as u32;
        let characters =
            (0..length * 2).map(|_| *['a', 'b', '/', '\u{e9}', '\u{20ac}'].choose(&mut &mut *rng).unwrap());
        characters.collect::<String>()
    };
    match schema {
        Schema::Null => Avro::Null,
        Schema::Boolean => Avro::Boolean(rng.random()),
        Schema::Int => Avro::Int(long(rng) as i32),
        Schema::Date => Avro::Date(long(rng) as i32),
        Schema::Long => Avro::Long(long(rng)),
        Schema::TimestampMillis => Avro::TimestampMillis(long(rng)),
        Schema::TimestampMicros => Avro::TimestampMicros(long(rng)),
        Schema::Float => Avro::Float(rng.random()),
        Schema::Double => Avro::Double(rng.random()),
        Schema::Bytes | Schema::Decimal(_) => {
            let mut bytes = text(rng).into_bytes();
            if rng.random_ratio(1, 10) {
                bytes.push(0xff);
            }
            if *schema == Schema::Bytes {
                Avro::Bytes(bytes)
            } else {
                // A number has a byte at least.
                bytes.push(1);
                Avro::Decimal(bytes.into())
            }
        }
        Schema::String => Avro::String(text(rng)),
        Schema::Uuid(_) => Avro::Uuid("67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap()),
        Schema::Fixed(fixed) => Avro::Fixed(fixed.size, (0..fixed.size).map(|_| rng.random()).collect()),
        Schema::Enum(symbols) => {
            let index = rng.random_range(0..symbols.symbols.len());
            Avro::Enum(index as u32, symbols.symbols[index].clone())
        }
        Schema::Array(array) => {
            let count = rng.random_range(0..4);
            Avro::Array((0..count).map(|_| value(&array.items, names, rng, depth)).collect())
        }
        Schema::Map(map) => {
            let count = rng.random_range(0..4);
            Avro::Map((0..count).map(|_| (text(rng), value(&map.types, names, rng, depth))).collect())
        }
        Schema::Union(union) => {
            // Types that contain themselves do so in the second branch.
            let index = if depth == 0 { 0 } else { rng.random_range(0..union.variants().len()) };
            let branch = &union.variants()[index];
            Avro::Union(index as u32, Box::new(value(branch, names, rng, depth.saturating_sub(1))))
        }
        Schema::Record(record) => {
            let fields = record.fields.iter();
            Avro::Record(fields.map(|field| (field.name.clone(), value(&field.schema, names, rng, depth))).collect())
        }
        Schema::Ref { name } => value(names[name], names, rng, depth),
        other => panic!("{other:?} is not drawn"),
    }
}

/// Any value of `schema` in bytes.
fn body(schema: &Schema, rng: &mut impl Rng) -> Vec<u8> {
    let names = apache_avro::schema::ResolvedSchema::new(schema).unwrap();
    let value = value(schema, names.get_names(), rng, 6);
    GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
}

/// Whether a variable-length integer of more than 64 bits may be in `body`: `apache_avro` loses the upper ones.
fn has_long_varint(body: &[u8]) -> bool {
    body.windows(10).any(|window| window[..9].iter().all(|byte| *byte >= 0x80) && (2..0x80).contains(&window[9]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The same verdict and the same values as `apache_avro`: for whole bodies, for every one that was cut off, and for
    /// bodies of which a bit was changed.
    #[test]
    fn a_plan_agrees_with_the_reference(seed: u64) {
        apache_avro::util::max_allocation_bytes(1 << 20);
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let writer = Writer::draw(rng);
        let (schema, lenient, needed) = (parse(&writer.schema), parse(&writer.lenient), parse(&needed_schema()));
        let plan = Plan::new(&schema, published_event());
        let check = |body: &[u8]| {
            let ours = plan.as_ref().ok().map(|plan| plan.read(body).map(read));
            // A schema is refused of which no body can be read.
            let expected = reference(&lenient, &needed, body);
            let agrees = expected == ours.clone().and_then(Result::ok) || has_long_varint(body);
            prop_assert!(agrees, "{} {body:x?}: {ours:?}, not {expected:?}", writer.schema);
            Ok(())
        };
        for _ in 0..4 {
            let mut body = body(&schema, rng);
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
    for _ in 0..1_000 {
        let writer = Writer::draw(rng);
        let schema = parse(&writer.schema);
        blocks += usize::from(writer.blocks);
        match Plan::new(&schema, published_event()) {
            Err(_) => refused += 1,
            Ok(plan) => match plan.read(&body(&schema, rng)) {
                Err(_) => unreadable += 1,
                Ok(_) => readable += 1,
            },
        }
    }
    assert!([refused, unreadable, readable].iter().all(|count| *count > 150), "{refused} {unreadable} {readable}");
    assert!((200..800).contains(&blocks), "{blocks}");
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
        Schema::parse_str(&schema_of(&fields)).unwrap()
    };
    let reader: &'static Schema = Box::leak(Box::new(changed(reader)));
    let Schema::Record(reader) = reader else { panic!("it is a record") };
    Plan::new(&changed(writer), reader)
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
    let reader: &'static Schema = Box::leak(Box::new(Schema::parse_str(&schema_of(&reader)).unwrap()));
    let Schema::Record(reader) = reader else { panic!("it is a record") };
    let expected = ("somebody".into(), String::new(), "/".into(), EventType::Search, -5, Some(7));
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
        assert_eq!(reference(&schema, &needed, &body).is_some(), reference_reads, "{name}: {schema:?}");
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
