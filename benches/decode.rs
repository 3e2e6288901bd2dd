//! Avro decoding: from a body to what the dataflows see of it.
//!
//! What it isolates: bodies that lie in memory one after the other → events → activities. No Kafka, no dataflow, one thread. The
//! events are the generator's, so that ids and pages are as long as in any run; user agents, which nobody reads, are cut so that
//! an event has some 150 bytes. They are written with several writer schemas:
//!
//! - published: the schema that is published.
//! - reordered: the same fields in another order, and others among them: a nested record, an array, a map.
//! - promoted: ids and page are bytes, the timestamp is an int, and so is the session's duration, which is never null.
//! - nullable: every field that is read is a union with null.
//!
//! What is measured, each in what the one before it does:
//!
//! - bytes: adds up all bytes. Nothing that looks at a body at all takes less.
//! - walk: reads the published schema's lengths and numbers by hand, and takes the six fields without looking at them.
//! - decode: [`Decoder::decode`].
//! - decode + validate: [`Ingest::read`], which finds the page's key too.
//! - accept: [`Ingest::accept`], which judges the event by its partition's clock and hashes page, user and session.
//! - accept, de-duplicated: the same with a history that remembers every event for as long as a window; pages limited: with one
//!   that tells 50 pages apart.
//! - hashes: the three hashes alone, of events that are decoded already; judge: the partition's clock alone.
//!
//! Against them stands `apache_avro`: its `Value` of the writer schema, the same resolved into the published schema, and, where
//! both schemas are the same, its decoding into a struct by serde.
//!
//! All take turns within every repetition. Reported are medians of CPU time per event, and allocations per event, counted in
//! a pass of their own.

#[path = "harness.rs"]
mod harness;
#[path = "memory.rs"]
mod memory;

use std::error::Error;
use std::hint::black_box;
use std::ops::Range;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use clap::Parser;
use clicktide::avro::{CLICK_EVENT_SCHEMA, Decoder};
use clicktide::event::ClickEvent;
use clicktide::generator::model::Model;
use clicktide::generator::settings::Settings;
use clicktide::history::{History, HistoryLimits};
use clicktide::ingest::{Accepted, Format, Ingest, Record};
use clicktide::privacy::{Domain, HashKey, PageKey};
use clicktide::validation::Limits;
use clicktide_dataflows::event::EventType;
use clicktide_dataflows::time::{Judgement, PartitionClock, Windows};
use harness::{Report, ReportFiles, Spent, Table, median};
use memory::CountingAllocator;
use serde::Deserialize;
use serde_json::json;

/// Avro decoding: from a body to what the dataflows see of it.
#[derive(Parser)]
struct Args {
    /// Events, all in memory.
    #[arg(long, default_value_t = 65_536)]
    events: usize,
    /// Repetitions.
    #[arg(long, default_value_t = 15)]
    repetitions: usize,
    #[command(flatten)]
    files: ReportFiles,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut report = Report::new("decode");
    report.setting("events", args.events);
    report.setting("repetitions", args.repetitions);
    let mut table = Table::new(
        "CPU time and allocations per event; times as long as accepting an event of the same schema",
        &["writer schema", "what"],
        &[("ns/event", 1), ("allocations/event", 1), ("/ accept", 2)],
    );
    for (name, schema) in schemas() {
        let bodies = Bodies::write(&schema, args.events)?;
        report.setting(&format!("bytes per event, {name}"), bodies.bytes.len() / args.events);
        measure(name, &schema, &bodies, args.repetitions, &mut table)?;
    }
    report.table(table);
    report.finish(&args.files)
}

// --- What is read ---

/// The length of a user agent: all are ASCII.
const USER_AGENT_BYTES: usize = 11;

/// The published record, for serde. `apache_avro` wants the struct to have the record's name.
#[derive(Deserialize)]
#[allow(dead_code)]
struct ClickstreamEvent {
    user_id: String,
    session_id: String,
    event_type: EventType,
    page_url: String,
    product_id: Option<String>,
    timestamp: i64,
    user_agent: String,
    ip_address: String,
    referrer: Option<String>,
    session_duration: Option<i32>,
}

/// The writer schemas, by name.
fn schemas() -> [(&'static str, String); 4] {
    let published: serde_json::Value = serde_json::from_str(CLICK_EVENT_SCHEMA).expect("the published schema is JSON");
    let fields = published["fields"].as_array().expect("it is a record");
    let record = |fields: Vec<serde_json::Value>| {
        json!({"type": "record", "name": "ClickstreamEvent", "fields": fields}).to_string()
    };
    let with_types = |types: &[(&str, serde_json::Value)]| {
        let mut fields = fields.clone();
        for field in &mut fields {
            if let Some((_, kind)) = types.iter().find(|(name, _)| field["name"] == *name) {
                *field = json!({"name": field["name"], "type": kind});
            }
        }
        record(fields)
    };
    let others = [
        json!({"name": "screen", "type": {"type": "record", "name": "Screen", "fields": [
            {"name": "width", "type": "int"}, {"name": "height", "type": "int"}, {"name": "scale", "type": "double"},
        ]}}),
        json!({"name": "experiments", "type": {"type": "array", "items": "string"}}),
        json!({"name": "labels", "type": {"type": "map", "values": "string"}}),
    ];
    let mut reordered: Vec<_> = fields.iter().rev().cloned().collect();
    for (place, other) in [3, 6, 9].into_iter().zip(others) {
        reordered.insert(place, other);
    }
    let bytes = || json!("bytes");
    let nullable =
        |name: &str| json!(["null", fields.iter().find(|field| field["name"] == name).expect("is a field")["type"]]);
    [
        ("published", CLICK_EVENT_SCHEMA.to_owned()),
        ("reordered", record(reordered)),
        (
            "promoted",
            with_types(&[
                ("user_id", bytes()),
                ("session_id", bytes()),
                ("page_url", bytes()),
                ("timestamp", json!("int")),
                ("session_duration", json!("int")),
            ]),
        ),
        (
            "nullable",
            with_types(
                &["user_id", "session_id", "event_type", "page_url", "timestamp"].map(|name| (name, nullable(name))),
            ),
        ),
    ]
}

/// Bodies of one schema, one after the other.
struct Bodies {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Bodies {
    /// Events of the generator, a millisecond apart, written with `schema`.
    fn write(schema: &str, events: usize) -> Result<Self, Box<dyn Error>> {
        let schema = Schema::parse_str(schema)?;
        let Schema::Record(record) = &schema else { return Err("a writer schema is a record".into()) };
        let writer = GenericDatumWriter::builder(&schema).build()?;
        let mut model = Model::new(&Settings::default())?;
        let mut event = Model::blank_event();
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        // An int has room for the first 24 days of 1970.
        let start = if record.fields.iter().any(|field| field.schema == Schema::Int) {
            1_000_000_000
        } else {
            1_700_000_000_000
        };
        for number in 0..events {
            model.write_next(start + number as i64, &mut event);
            event.user_agent.truncate(USER_AGENT_BYTES);
            let fields =
                record.fields.iter().map(|field| (field.name.clone(), value(&field.name, &field.schema, &event)));
            let start = bytes.len();
            bytes.extend(writer.write_value_to_vec(Value::Record(fields.collect()))?);
            places.push(start..bytes.len());
        }
        Ok(Self { bytes, places })
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.bytes[place.clone()])
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.iter().map(|payload| Record { offset: 0, record_timestamp_ms: None, payload })
    }
}

/// A field of `event` as `schema` writes it.
fn value(name: &str, schema: &Schema, event: &ClickEvent) -> Value {
    let text = |text: &str| match schema {
        Schema::Bytes => Value::Bytes(text.as_bytes().to_vec()),
        _ => Value::String(text.to_owned()),
    };
    let optional = |value: Option<Value>| {
        value.map_or(Value::Union(0, Box::new(Value::Null)), |value| Value::Union(1, Box::new(value)))
    };
    let value = match name {
        "user_id" => text(&event.user_id),
        "session_id" => text(&event.session_id),
        "event_type" => Value::Enum(
            event.event_type as u32,
            ["VIEW", "CLICK", "ADD_TO_CART", "PURCHASE", "SEARCH"][event.event_type as usize].to_owned(),
        ),
        "page_url" => text(&event.page_url),
        "product_id" => return optional(event.product_id.as_deref().map(text)),
        "timestamp" if *schema == Schema::Int => Value::Int(event.timestamp as i32),
        "timestamp" => Value::TimestampMillis(event.timestamp),
        "user_agent" => text(&event.user_agent),
        "ip_address" => text(&event.ip_address),
        "referrer" => return optional(event.referrer.as_deref().map(text)),
        "session_duration" if *schema == Schema::Int => Value::Int(event.session_duration.unwrap_or(0)),
        "session_duration" => return optional(event.session_duration.map(Value::Int)),
        "screen" => Value::Record(vec![
            ("width".into(), Value::Int(1920)),
            ("height".into(), Value::Int(1080)),
            ("scale".into(), Value::Double(1.5)),
        ]),
        "experiments" => Value::Array(vec![text("checkout-2"), text("banner")]),
        _ => Value::Map([("shop".to_owned(), text("north"))].into()),
    };
    if matches!(schema, Schema::Union(_)) { Value::Union(1, Box::new(value)) } else { value }
}

// --- How it is read ---

type Pass<'a> = Box<dyn Fn() -> u64 + 'a>;

fn measure(
    name: &str,
    schema: &str,
    bodies: &Bodies,
    repetitions: usize,
    table: &mut Table,
) -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = (Schema::parse_str(CLICK_EVENT_SCHEMA)?, Schema::parse_str(schema)?);
    let writer_only = GenericDatumReader::builder(&theirs).build()?;
    let resolving = GenericDatumReader::builder(&theirs).reader_schema(&ours).build()?;
    let ingest = Ingest {
        format: Format::Avro(Decoder::new(schema)?),
        limits: Limits::default(),
        hash_key: HashKey::new("benchmark")?,
        page_key: PageKey::NoQuery,
        windows: Windows::new(300_000, 10_000, 0)?,
        bound_ms: 30_000,
    };
    let ingest = &ingest;
    let Format::Avro(decoder) = &ingest.format else { return Err("events are Avro".into()) };
    let events: Vec<_> = bodies.iter().map(|body| decoder.decode(body)).collect::<Result<_, _>>()?;
    let events = &events;

    let mut passes: Vec<(&'static str, Pass)> = vec![
        ("bytes", Box::new(|| bodies.iter().map(|body| body.iter().map(|byte| u64::from(*byte)).sum::<u64>()).sum())),
        (
            "decode",
            Box::new(|| {
                bodies.iter().map(|body| decoder.decode(body).map_or(0, |event| kept(black_box(event).timestamp))).sum()
            }),
        ),
        (
            "decode + validate",
            Box::new(|| {
                bodies
                    .records()
                    .map(|record| ingest.read(&record).map_or(0, |valid| kept(black_box(valid).event.timestamp)))
                    .sum()
            }),
        ),
        ("accept", Box::new(|| accept(ingest, bodies, HistoryLimits::default()))),
        (
            "accept, de-duplicated",
            Box::new(|| accept(ingest, bodies, HistoryLimits { horizon_ms: Some(300_000), pages_max: None })),
        ),
        (
            "accept, pages limited",
            Box::new(|| accept(ingest, bodies, HistoryLimits { horizon_ms: None, pages_max: Some(50) })),
        ),
        (
            "hashes",
            Box::new(|| {
                let hash = |domain, text| ingest.hash_key.hash(domain, text);
                let hashes = events.iter().map(|event| {
                    black_box((
                        hash(Domain::Page, &event.page_url),
                        hash(Domain::User, &event.user_id),
                        hash(Domain::Session, &event.session_id),
                    ))
                    .0
                });
                hashes.map(|_| 1).sum()
            }),
        ),
        (
            "judge",
            Box::new(|| {
                let mut clock = PartitionClock::default();
                let judge = |time_ms| match black_box(clock.judge(&ingest.windows, ingest.bound_ms, time_ms, None)) {
                    Judgement::Counts { .. } => 1,
                    Judgement::Late => 0,
                };
                events.iter().map(|event| event.timestamp).map(judge).sum()
            }),
        ),
        (
            "apache_avro, Value",
            Box::new(|| {
                bodies.iter().map(|mut body| u64::from(black_box(writer_only.read_value(&mut body)).is_ok())).sum()
            }),
        ),
        (
            "apache_avro, Value resolved",
            Box::new(|| {
                bodies.iter().map(|mut body| u64::from(black_box(resolving.read_value(&mut body)).is_ok())).sum()
            }),
        ),
    ];
    if name == "published" {
        passes.insert(
            1,
            ("walk", Box::new(|| bodies.iter().map(|body| u64::from(black_box(walk(body)).is_some())).sum())),
        );
        passes.push((
            "apache_avro, serde",
            Box::new(|| {
                bodies
                    .iter()
                    .map(|mut body| u64::from(black_box(writer_only.read_deser::<ClickstreamEvent>(&mut body)).is_ok()))
                    .sum()
            }),
        ));
    }
    let mut times = vec![Vec::with_capacity(repetitions); passes.len()];
    let mut allocations = Vec::new();
    for (what, pass) in &passes {
        let (read, count) = CountingAllocator::allocations(pass);
        if *what != "bytes" && read != bodies.places.len() as u64 {
            return Err(format!("{what} read {read} of {} events", bodies.places.len()).into());
        }
        allocations.push(count as f64 / bodies.places.len() as f64);
    }
    let ns_per_event = |spent: Spent| spent.cpu.as_nanos() as f64 / bodies.places.len() as f64;
    for _ in 0..repetitions {
        for ((_, pass), times) in passes.iter().zip(&mut times) {
            times.push(ns_per_event(Spent::by(|| black_box(pass())).1));
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let accept = passes.iter().position(|(what, _)| *what == "accept").map_or(f64::NAN, |place| medians[place]);
    for (((what, _), ns), allocations) in passes.iter().zip(medians).zip(allocations) {
        table.row([name, what], [ns, allocations, ns / accept]);
    }
    Ok(())
}

/// Accepts the events of a partition whose past is kept so.
fn accept(ingest: &Ingest, bodies: &Bodies, limits: HistoryLimits) -> u64 {
    let (mut clock, mut history) = (PartitionClock::default(), History::new(limits, ingest.windows));
    let mut accept = |record| match black_box(ingest.accept(&mut clock, &mut history, &record)) {
        Accepted::Counted { activity, .. } => kept(activity.time_ms),
        Accepted::Late | Accepted::Duplicate | Accepted::Rejected(_) => 0,
    };
    bodies.records().map(&mut accept).sum()
}

/// Counts an event by something of it, so that none is left out.
fn kept(time_ms: i64) -> u64 {
    u64::from(time_ms > 0)
}

/// The six fields of a body, unchecked.
type Fields<'a> = (&'a [u8], &'a [u8], &'a [u8], u64, u64, u64);

/// What a body of the published schema consists of, by hand.
fn walk(body: &[u8]) -> Option<Fields<'_>> {
    let mut rest = body;
    let user = text(&mut rest)?;
    let session = text(&mut rest)?;
    let event_type = varint(&mut rest)?;
    let page = text(&mut rest)?;
    optional_text(&mut rest)?;
    let timestamp = varint(&mut rest)?;
    text(&mut rest)?;
    text(&mut rest)?;
    optional_text(&mut rest)?;
    let duration = if varint(&mut rest)? == 0 { 0 } else { varint(&mut rest)? };
    Some((user, session, page, event_type, timestamp, duration))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(rest)? as usize >> 1;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

fn optional_text(rest: &mut &[u8]) -> Option<()> {
    if varint(rest)? != 0 {
        text(rest)?;
    }
    Some(())
}
