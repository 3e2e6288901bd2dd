//! Today's schemas against all that have been published: whoever has an earlier one reads what is written today, and what
//! was written with an earlier one is read today.
//!
//! The published versions are in `tests/schemas`, and are never changed.

use std::fs;
use std::path::Path;

use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use apache_avro::types::Value as Avro;

use super::writer_schema::body;
use super::*;
use crate::progress::{IdleAdvance, JobState, PartitionCut, Progress};

/// Why the two can't be read by each other, if so.
fn incompatibility(earlier: &str, today: &str) -> Option<String> {
    let (old, new) = (Schema::parse_str(earlier).unwrap(), Schema::parse_str(today).unwrap());
    for (what, writer, reader) in
        [("what is written today, by earlier readers", &new, &old), ("what was written earlier, today", &old, &new)]
    {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => return Some(format!("{what}: some values can't be read")),
            Err(error) => return Some(format!("{what}: {error}")),
        }
    }
    // Readers with generated classes go by the full names. Others may come.
    let (old, new): (Value, Value) = (serde_json::from_str(earlier).unwrap(), serde_json::from_str(today).unwrap());
    let new = named_types(&new);
    let gone = named_types(&old).into_iter().find(|name| !new.contains(name));
    gone.map(|name| format!("there is no type {name} any more"))
}

/// The full names of the records, enums and fixed types in a schema.
fn named_types(schema: &Value) -> Vec<String> {
    fn walk(schema: &Value, namespace: &str, found: &mut Vec<String>) {
        match schema {
            Value::Array(parts) => parts.iter().for_each(|part| walk(part, namespace, found)),
            Value::Object(object) => {
                let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
                if let (Some(Value::String(name)), Some(Value::String(kind))) = (object.get("name"), object.get("type"))
                    && ["record", "enum", "fixed"].contains(&kind.as_str())
                {
                    found.push(format!("{namespace}.{name}"));
                }
                for key in ["fields", "type", "items", "values"] {
                    object.get(key).into_iter().for_each(|part| walk(part, namespace, found));
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(schema, "", &mut found);
    found
}

/// The versions of a schema that have been published, the first one first.
fn published(name: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let versions = (1..).map_while(|version| fs::read_to_string(folder.join(format!("{name}-v{version}.avsc"))).ok());
    versions.collect()
}

#[test]
fn todays_schemas_and_the_published_ones_read_each_other() {
    for (name, today) in [
        ("clickstream-event", CLICK_EVENT_SCHEMA),
        ("page-analytics", PAGE_ANALYTICS_SCHEMA),
        ("progress", PROGRESS_SCHEMA),
        ("sanitised-event", SANITISED_EVENT_SCHEMA),
    ] {
        let versions = published(name);
        for (version, earlier) in (1..).zip(&versions) {
            assert_eq!(incompatibility(earlier, today), None, "{name}, version {version}");
        }
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let latest = versions.last().unwrap_or_else(|| panic!("tests/schemas has no {name}-v1.avsc"));
        let next = versions.len() + 1;
        assert!(
            json(latest) == json(today),
            "config/schemas/{name}.avsc is new: keep it as tests/schemas/{name}-v{next}.avsc"
        );
    }
}

/// The check above would fail if somebody did this.
#[test]
fn what_breaks_readers_is_found() {
    let check = |change: &dyn Fn(&mut Value), breaks: bool| {
        let mut changed: Value = serde_json::from_str(PROGRESS_SCHEMA).unwrap();
        change(&mut changed);
        let changed = changed.to_string();
        let found = incompatibility(PROGRESS_SCHEMA, &changed);
        assert_eq!(found.is_some(), breaks, "{changed}: {found:?}");
    };
    let field = |name: &str, kind: Value| json!({"name": name, "type": kind});
    let with_default = |name: &str| json!({"name": name, "type": ["null", "long"], "default": null});
    let fields = |schema: &mut Value, change: &dyn Fn(&mut Vec<Value>)| {
        change(schema[0]["fields"].as_array_mut().unwrap());
    };
    check(&|_| {}, false);
    check(&|schema| fields(schema, &|fields| fields.insert(2, with_default("new"))), false);
    check(&|schema| fields(schema, &|fields| fields.swap(0, 1)), false);
    // Fields that come without a default, or go without one.
    check(&|schema| fields(schema, &|fields| fields.push(field("new", json!("long")))), true);
    check(&|schema| fields(schema, &|fields| drop(fields.remove(0))), true);
    check(&|schema| fields(schema, &|fields| fields[0]["name"] = json!("job_name")), true);
    // A field that has a default may go: whoever still knows it takes the default.
    check(&|schema| fields(schema, &|fields| fields.retain(|field| field["name"] != "topic_id")), false);
    // Types that are read one way only, or not at all.
    check(&|schema| fields(schema, &|fields| fields[1]["type"] = json!("int")), true);
    check(&|schema| fields(schema, &|fields| fields[1]["type"] = json!("double")), true);
    check(&|schema| fields(schema, &|fields| fields[1]["type"] = json!("string")), true);
    check(&|schema| fields(schema, &|fields| fields[0]["type"] = json!(["null", "string"])), true);
    // The symbol of a state that earlier readers don't know.
    let states = |schema: &mut Value, symbols: Value| schema[0]["fields"][4]["type"]["symbols"] = symbols;
    check(&|schema| states(schema, json!(["RUNNING", "FINISHED", "PAUSED"])), true);
    check(&|schema| states(schema, json!(["RUNNING"])), true);
    // Other names, and another record in the union.
    check(&|schema| schema[0]["name"] = json!("Advance"), true);
    check(&|schema| schema[0]["namespace"] = json!("elsewhere"), true);
    check(&|schema| schema.as_array_mut().unwrap().truncate(1), true);
}

/// `written` with the schema of today, read by somebody who has an earlier one.
fn read_by(earlier: &Schema, today: &str, written: &[u8]) -> Avro {
    let today = Schema::parse_str(today).unwrap();
    let reader = GenericDatumReader::builder(&today).reader_schema(earlier).build().unwrap();
    let mut rest = written;
    let value = reader.read_value(&mut rest).unwrap();
    assert!(rest.is_empty());
    value
}

proptest! {
    /// Consumers with yesterday's schema read today's results.
    #[test]
    fn results_are_read_with_earlier_schemas(result in any_result()) {
        let mut written = Vec::new();
        encode_page_analytics(&result, &mut written);
        let all = serde_json::to_value(&result).unwrap();
        for earlier in published("page-analytics") {
            let earlier = Schema::parse_str(&earlier).unwrap();
            let Avro::Record(fields) = read_by(&earlier, PAGE_ANALYTICS_SCHEMA, &written) else { panic!("a record") };
            for (name, value) in fields {
                let expected = &all[&name];
                let agrees = match &value {
                    Avro::String(text) => *expected == json!(text),
                    Avro::Long(number) | Avro::TimestampMillis(number) => *expected == json!(number),
                    Avro::Int(number) => *expected == json!(number),
                    Avro::Double(number) => *expected == json!(number),
                    _ => false,
                };
                prop_assert!(agrees, "{name} is {value:?}, not {expected}");
            }
        }
    }

    /// And events that producers with yesterday's schema write.
    #[test]
    fn events_of_earlier_schemas_are_read(seed: u64) {
        use rand::SeedableRng;
        for earlier in published("clickstream-event") {
            let schema = Schema::parse_str(&earlier).unwrap();
            let written = body(&schema, &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            prop_assert!(Decoder::new(&earlier).unwrap().decode(&written).is_ok());
        }
    }
}

/// Whoever waits for a window with yesterday's schema of the progress still sees it.
#[test]
fn progress_is_read_with_earlier_schemas() {
    let cut = PartitionCut { replay_from: 1, floor_ms: Some(5), ..PartitionCut::start(0, 3, Some(4)) };
    let progress = Progress {
        job: "j".to_owned(),
        generation: 1,
        committed_through: Some(10),
        began_after: None,
        state: JobState::Finished,
        configuration: "{}".to_owned(),
        topic_id: None,
        input: vec![cut],
    };
    let advance = IdleAdvance { partition: 3, next_offset: 17, floor_ms: 60_000 };
    for earlier in published("progress") {
        let earlier = Schema::parse_str(&earlier).unwrap();
        let check = |record: ProgressRecord, field: &str, expected: Avro| {
            let read = read_by(&earlier, PROGRESS_SCHEMA, &encode_progress_record(&record));
            let Avro::Union(_, record) = read else { panic!("{read:?}") };
            let Avro::Record(fields) = *record else { panic!("a record") };
            assert!(fields.contains(&(field.to_owned(), expected)), "{fields:?}");
        };
        let through = Avro::Union(1, Box::new(Avro::TimestampMillis(10)));
        check(ProgressRecord::Progress(progress.clone()), "committed_through", through);
        check(ProgressRecord::IdleAdvance(advance), "floor", Avro::TimestampMillis(60_000));
    }
}
