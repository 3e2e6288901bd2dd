//! Random schemas of readers and writers, derived from the published one, and random bodies of them.
//!
//! A writer's schema comes with a lenient one of the same bytes, in which what a plan does not look into is such that
//! `apache_avro` does not look into it either, and in which fields have our names where the reader knows them by an alias, which
//! `apache_avro` 0.22 does not. So both have to come to the same verdict about any body, whole or damaged. Where `apache_avro`
//! and the Avro specification disagree otherwise, nothing is drawn; such cases are listed in
//! `src/avro/tests/resolution.rs`, in `where_the_reference_differs`.

use apache_avro::schema::{NamesRef, ResolvedSchema};
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Days, Duration, Millis, Months, Schema};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};
use serde_json::{Value, json};

const PUBLISHED: &str = include_str!("../../config/schemas/clickstream-event.avsc");

/// The fields of events that the analytics need.
pub const NEEDED: [&str; 6] = ["user_id", "session_id", "event_type", "page_url", "timestamp", "session_duration"];

/// The fields of the published schema.
pub fn published_fields() -> Vec<Value> {
    let schema: Value = serde_json::from_str(PUBLISHED).expect("the published schema is JSON");
    schema["fields"].as_array().expect("it is a record").clone()
}

/// The published schema without the fields that are not read, for these may be anything.
pub fn needed_schema() -> Value {
    let mut fields = published_fields();
    fields.retain(|field| NEEDED.iter().any(|name| field["name"] == *name));
    json!({"type": "record", "name": "ClickstreamEvent", "namespace": "analytics.events", "fields": fields})
}

// --- Readers ---

/// A later version of the published schema, as far as it is read: with aliases, and defaults of fields and of the enum.
pub fn reader(rng: &mut impl Rng) -> Value {
    let mut schema = needed_schema();
    schema["aliases"] = json!(["Click", "analytics.old.Event"]);
    for field in schema["fields"].as_array_mut().expect("it is a record") {
        let name = field["name"].as_str().expect("a field has a name").to_owned();
        if rng.random() {
            field["aliases"] = json!([format!("{name}_v1"), format!("{name}_v0")]);
        }
        let default = match name.as_str() {
            "event_type" => json!("SEARCH"),
            "timestamp" => json!(-5),
            "session_duration" => continue,
            _ => json!("somebody"),
        };
        if rng.random_ratio(1, 4) {
            field["default"] = default;
        }
        if name == "event_type" && rng.random() {
            field["type"]["default"] = json!("CLICK");
        }
        if name == "session_duration" && rng.random() {
            field["type"] = json!(["int", "null"]);
            field["default"] = json!(7);
        }
    }
    schema
}

// --- Writers ---

/// A writer schema that was derived from a reader's.
pub struct Writer {
    /// The schema.
    pub schema: Value,
    /// The lenient one of the same bytes.
    pub lenient: Value,
    /// Whether blocks are in it, whose claims about themselves `apache_avro` does not read.
    pub blocks: bool,
}

impl Writer {
    /// One whose events `reader` may read, or may not.
    pub fn draw(rng: &mut impl Rng, reader: &Value) -> Self {
        let mut junk = Junk::default();
        let name = ["ClickstreamEvent", "Another", "analytics.events.ClickstreamEvent", "shop.v2.Click"].choose(rng);
        let (mut schema, mut lenient) = event(rng, reader, name.expect("there are some"), &mut junk);
        if rng.random_ratio(1, 6) {
            let (other, like) = event(rng, reader, "Third", &mut junk);
            (schema, lenient) = (json!(["null", schema, other]), json!(["null", lenient, like]));
        }
        Self { schema, lenient, blocks: junk.blocks }
    }

    /// The bytes of some value of the schema, or of the lenient one, where what is not looked into may be anything.
    pub fn body(&self, rng: &mut impl Rng) -> Vec<u8> {
        let schema = if rng.random_ratio(3, 4) { &self.schema } else { &self.lenient };
        body(&Schema::parse_str(&schema.to_string()).expect("a schema was drawn"), rng)
    }
}

/// The record of an event, and the lenient one.
fn event(rng: &mut impl Rng, reader: &Value, name: &str, junk: &mut Junk) -> (Value, Value) {
    let mut ours: Vec<_> = reader["fields"].as_array().expect("it is a record").iter().map(Some).collect();
    ours.extend([None, None, None]);
    ours.shuffle(rng);
    let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
    let (mut fields, mut lenient) = (Vec::new(), Vec::new());
    for (place, field) in ours.into_iter().enumerate() {
        let Some(field) = field else {
            let (kind, like) = junk.draw(rng, namespace, 3);
            fields.push(json!({"name": format!("other{place}"), "type": kind}));
            lenient.push(json!({"name": format!("other{place}"), "type": like}));
            continue;
        };
        if rng.random_ratio(1, if field.get("default").is_some() { 6 } else { 40 }) {
            continue;
        }
        let name = field["name"].as_str().expect("a field has a name");
        let mut kind = if rng.random() { field["type"].clone() } else { type_for(name, rng) };
        // Two records of one union may not define a type of the same name.
        if let Some(named) = named_type(&mut kind) {
            *named = json!(junk.short_name());
        }
        let mut names = vec![name.to_owned()];
        names.extend(
            field["aliases"].as_array().into_iter().flatten().map(|alias| alias.as_str().expect("a text").into()),
        );
        let at = rng.random_range(0..names.len());
        fields.push(json!({"name": names[at], "type": kind}));
        lenient.push(json!({"name": name, "type": kind}));
        // Of two names that the reader knows, the one that comes first counts.
        if let Some(decoy) = names.get(at + 1).filter(|_| rng.random_ratio(1, 4)) {
            fields.push(json!({"name": decoy, "type": "string"}));
            lenient.push(json!({"name": decoy, "type": "bytes"}));
        }
    }
    let of = |fields| json!({"type": "record", "name": name, "aliases": ["analytics.events.Old"], "fields": fields});
    (of(fields), of(lenient))
}

/// The type that a writer may have for a field of ours.
fn type_for(name: &str, rng: &mut impl Rng) -> Value {
    let kinds = match name {
        "event_type" => {
            let mut symbols = vec!["VIEW", "CLICK", "ADD_TO_CART", "PURCHASE", "SEARCH", "HOVER", "SCROLL"];
            symbols.shuffle(rng);
            symbols.truncate(rng.random_range(1..=7));
            // A writer's default says nothing.
            let kind = json!({"type": "enum", "name": "Kind", "symbols": symbols, "default": symbols[0]});
            vec![
                kind.clone(),
                kind.clone(),
                kind.clone(),
                json!(["null", kind]),
                json!([kind, "double"]),
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
            json!({"type": "long", "logicalType": "local-timestamp-millis"}),
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
            json!({"type": "int", "logicalType": "time-millis"}),
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
    kinds.choose(rng).expect("there are some").clone()
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
    defined: Vec<(Named, Value)>,
    blocks: bool,
}

/// A type's name in its namespace, which may be that of what encloses it.
#[derive(Clone)]
struct Named {
    namespace: String,
    name: String,
}

impl Named {
    fn full(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}.{}", self.namespace, self.name) }
    }

    /// A type of this name, written in one of the ways there are; the same way in both.
    fn define(&self, rng: &mut impl Rng, enclosing: &str, pair: [Value; 2]) -> (Value, Value) {
        let way = rng.random_range(0..3);
        let [a, b] = pair.map(|mut kind| {
            match way {
                0 if self.namespace == enclosing => kind["name"] = json!(self.name),
                1 if !self.namespace.is_empty() => {
                    kind["name"] = json!(self.name);
                    kind["namespace"] = json!(self.namespace);
                }
                _ => kind["name"] = json!(self.full()),
            }
            kind
        });
        (a, b)
    }
}

impl Junk {
    fn short_name(&mut self) -> String {
        self.names += 1;
        format!("Type{}", self.names)
    }

    fn name(&mut self, rng: &mut impl Rng, enclosing: &str) -> Named {
        let namespace = [enclosing, "junk", "junk.deep"].choose(rng).expect("there are some").to_string();
        Named { namespace, name: self.short_name() }
    }

    /// Defines a type that is the same in both schemas.
    fn defined_alike(&mut self, rng: &mut impl Rng, enclosing: &str, kind: Value, like: Value) -> (Value, Value) {
        let named = self.name(rng, enclosing);
        self.defined.push((named.clone(), json!(named.full())));
        named.define(rng, enclosing, [kind, like])
    }

    /// A type, and a lenient one of the same bytes.
    fn draw(&mut self, rng: &mut impl Rng, enclosing: &str, depth: u32) -> (Value, Value) {
        let same = |kind: &str| (json!(kind), json!(kind));
        match rng.random_range(0..if depth == 0 { 15 } else { 20 }) {
            0 => same("null"),
            1 => same("long"),
            2 => same("float"),
            3 => same("double"),
            4 => same("bytes"),
            5 | 6 => (json!("string"), json!("bytes")),
            7 => (json!("int"), json!("long")),
            8 => self.logical(rng),
            9 => (json!({"type": "string", "logicalType": "uuid"}), json!("bytes")),
            10 => (json!({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}), json!("bytes")),
            11 => {
                let like = json!({"type": "fixed", "name": self.short_name(), "size": 1});
                (json!("boolean"), like)
            }
            12 => {
                let kind = json!({"type": "fixed", "size": rng.random_range(0..9)});
                self.defined_alike(rng, enclosing, kind.clone(), kind)
            }
            13 => self.logical_fixed(rng, enclosing),
            14 => self.reference(rng, enclosing).unwrap_or_else(|| same("null")),
            15 => {
                let named = self.name(rng, enclosing);
                self.defined.push((named.clone(), json!("long")));
                let kind = json!({"type": "enum", "symbols": ["A", "B", "C"], "aliases": ["Letter"]});
                (named.define(rng, enclosing, [kind.clone(), kind]).0, json!("long"))
            }
            16 => {
                self.blocks = true;
                let (items, like) = self.draw(rng, enclosing, depth - 1);
                (json!({"type": "array", "items": items}), json!({"type": "array", "items": like}))
            }
            17 => {
                self.blocks = true;
                let (values, like) = self.draw(rng, enclosing, depth - 1);
                let fields = [json!({"name": "key", "type": "bytes"}), json!({"name": "value", "type": like})];
                // Its short name leaves what it encloses in the namespace that it is in.
                let entry = json!({"type": "record", "name": self.short_name(), "fields": fields});
                (json!({"type": "map", "values": values}), json!({"type": "array", "items": entry}))
            }
            18 => {
                // A union may hold a type once only, so that its branches are records.
                let branches = (0..rng.random_range(1..4)).map(|_| self.record(rng, enclosing, depth - 1));
                let (branches, like): (Vec<_>, Vec<_>) = branches.collect();
                (json!(branches), json!(like))
            }
            _ => self.record(rng, enclosing, depth - 1),
        }
    }

    fn logical(&mut self, rng: &mut impl Rng) -> (Value, Value) {
        let kinds = [
            ("int", "date"),
            ("int", "time-millis"),
            ("long", "time-micros"),
            ("long", "timestamp-nanos"),
            ("long", "local-timestamp-millis"),
            ("long", "local-timestamp-micros"),
            ("long", "local-timestamp-nanos"),
        ];
        let (underlying, logical_type) = kinds.choose(rng).expect("there are some");
        (json!({"type": underlying, "logicalType": logical_type}), json!("long"))
    }

    fn logical_fixed(&mut self, rng: &mut impl Rng, enclosing: &str) -> (Value, Value) {
        let fixed = |size: usize| json!({"type": "fixed", "size": size});
        let (size, properties) = match rng.random_range(0..3) {
            0 => (12, json!({"logicalType": "duration"})),
            1 => (16, json!({"logicalType": "uuid"})),
            _ => (4, json!({"logicalType": "decimal", "precision": 5, "scale": 2})),
        };
        let mut kind = fixed(size);
        kind.as_object_mut().expect("an object").extend(properties.as_object().expect("an object").clone());
        self.defined_alike(rng, enclosing, kind, fixed(size))
    }

    /// A type that stands before, by its name.
    fn reference(&self, rng: &mut impl Rng, enclosing: &str) -> Option<(Value, Value)> {
        let (named, like) = self.defined.choose(rng)?;
        // From within a namespace nothing refers to what is in none.
        if named.namespace.is_empty() && !enclosing.is_empty() {
            return None;
        }
        let short = named.namespace == enclosing && rng.random();
        Some((if short { json!(named.name) } else { json!(named.full()) }, like.clone()))
    }

    fn record(&mut self, rng: &mut impl Rng, enclosing: &str, depth: u32) -> (Value, Value) {
        let named = self.name(rng, enclosing);
        let (mut fields, mut lenient) = (Vec::new(), Vec::new());
        for place in 0..rng.random_range(0..3) {
            let (kind, like) = self.draw(rng, &named.namespace, depth);
            fields.push(json!({"name": format!("f{place}"), "type": kind}));
            lenient.push(json!({"name": format!("f{place}"), "type": like}));
        }
        if rng.random_ratio(1, 3) {
            // It contains itself.
            let own = if rng.random() { named.name.clone() } else { named.full() };
            let own = json!({"name": "own", "type": ["null", own]});
            fields.push(own.clone());
            lenient.push(own);
        }
        self.defined.push((named.clone(), json!(named.full())));
        let of = |fields| json!({"type": "record", "fields": fields});
        named.define(rng, enclosing, [of(fields), of(lenient)])
    }
}

// --- Bodies ---

/// Any value of `schema` in bytes, as `apache_avro` writes them.
pub fn body(schema: &Schema, rng: &mut impl Rng) -> Vec<u8> {
    let names = ResolvedSchema::new(schema).expect("a schema was drawn");
    let value = value(schema, names.get_names(), rng, 6);
    let writer = GenericDatumWriter::builder(schema).build().expect("a schema was drawn");
    writer.write_value_to_vec(value).expect("a value of the schema was drawn")
}

/// A value of `schema`.
fn value(schema: &Schema, names: &NamesRef<'_>, rng: &mut impl Rng, depth: u32) -> Avro {
    match schema {
        Schema::Null => Avro::Null,
        Schema::Boolean => Avro::Boolean(rng.random()),
        Schema::Int => Avro::Int(long(rng) as i32),
        Schema::Date => Avro::Date(long(rng) as i32),
        Schema::TimeMillis => Avro::TimeMillis(long(rng) as i32),
        Schema::Long => Avro::Long(long(rng)),
        Schema::TimeMicros => Avro::TimeMicros(long(rng)),
        Schema::TimestampMillis => Avro::TimestampMillis(long(rng)),
        Schema::TimestampMicros => Avro::TimestampMicros(long(rng)),
        Schema::TimestampNanos => Avro::TimestampNanos(long(rng)),
        Schema::LocalTimestampMillis => Avro::LocalTimestampMillis(long(rng)),
        Schema::LocalTimestampMicros => Avro::LocalTimestampMicros(long(rng)),
        Schema::LocalTimestampNanos => Avro::LocalTimestampNanos(long(rng)),
        Schema::Float => Avro::Float(rng.random()),
        Schema::Double => Avro::Double(rng.random()),
        Schema::Bytes => {
            let mut bytes = text(rng).into_bytes();
            if rng.random_ratio(1, 10) {
                bytes.push(0xff);
            }
            Avro::Bytes(bytes)
        }
        // A number has a byte at least.
        Schema::Decimal(_) => Avro::Decimal((long(rng) as i32).to_be_bytes().into()),
        Schema::String => Avro::String(text(rng)),
        Schema::Uuid(_) => Avro::Uuid("67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("a UUID")),
        Schema::Duration(_) => {
            let mut part = || rng.random_range(0..1_000);
            Avro::Duration(Duration::new(Months::new(part()), Days::new(part()), Millis::new(part())))
        }
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

/// An integer of any number of bits.
fn long(rng: &mut impl Rng) -> i64 {
    rng.random::<i64>() >> rng.random_range(0..64)
}

/// A text of up to 60 characters of one, two and three bytes, most shorter.
fn text(rng: &mut impl Rng) -> String {
    let length = rng.random_range(0..64) >> rng.random_range(0..6);
    (0..length).map(|_| *['a', 'b', '/', '\u{e9}', '\u{20ac}'].choose(rng).expect("there are some")).collect()
}
