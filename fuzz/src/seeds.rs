//! Inputs to begin with, by the code that writes such things.

use apache_avro::types::Value as Avro;
use apache_avro::{Codec, DeflateSettings, Schema, Writer, ZstandardSettings};
use clicktide::avro::wire::SchemaId;
use clicktide::avro::{
    CLICK_EVENT_SCHEMA, ProgressRecord, encode_event, encode_page_analytics, encode_progress_record,
};
use clicktide::checkpoint::format::checksum;
use clicktide::checkpoint::{Manifest, ObjectRef, PaneObject, ResumePoint};
use clicktide::event::ClickEvent;
use clicktide::progress::{IdleAdvance, JobState, PartitionCut, Progress};
use clicktide_dataflows::event::{Activity, EventType, PageAnalytics, PageName};
use clicktide_dataflows::time::{PartitionClock, Tick};
use serde_json::{Value, json};

use super::writer_schema::published_fields;

/// A seed: its name, and what it is.
pub type Seed = (String, Vec<u8>);

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Seed> {
    let texts = |texts: &[&str]| numbered(texts.iter().map(|text| text.as_bytes().to_vec()));
    match target {
        "arguments" => texts(&ARGUMENTS),
        "checkpoint" => checkpoint(),
        "configuration" => texts(&CONFIGURATIONS),
        "container" => numbered(containers()),
        "decoder" => numbered(schemas_with_bodies()),
        "handshake" => handshake(),
        "http" => texts(&REQUESTS),
        "json_lines" => texts(&JSON_LINES),
        "progress" => numbered(progress_records()),
        "resolution" => numbered((1..=16_u8).map(|step| (0..160_u8).map(|at| at.wrapping_mul(step * 7)).collect())),
        "wire" => numbered(wire()),
        other => panic!("there is no target {other}"),
    }
}

fn numbered(seeds: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seed> {
    (1..).zip(seeds).map(|(number, seed)| (format!("{number:02}"), seed)).collect()
}

/// Parts with a line `==` between them.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b"\n==\n"[..])
}

fn event(number: i64) -> ClickEvent {
    ClickEvent {
        user_id: format!("user-{number}"),
        session_id: "s".to_owned(),
        event_type: [EventType::View, EventType::Click, EventType::Purchase][number as usize % 3],
        page_url: "https://shop.example/p?q=1".to_owned(),
        product_id: None,
        timestamp: 1_795_737_600_000 + number,
        user_agent: "Mozilla/5.0".to_owned(),
        ip_address: "192.0.2.1".to_owned(),
        referrer: Some("/".to_owned()),
        session_duration: Some(60),
    }
}

fn encoded(event: &ClickEvent) -> Vec<u8> {
    let mut body = Vec::new();
    encode_event(event, &mut body);
    body
}

fn schemas_with_bodies() -> Vec<Vec<u8>> {
    let record = |fields: Vec<Value>| json!({"type": "record", "name": "E", "namespace": "n", "fields": fields});
    let changed = |changes: &[(&str, Value)]| {
        let mut fields = published_fields();
        for field in &mut fields {
            let change = changes.iter().find(|(name, _)| field["name"] == *name);
            if let Some((_, kind)) = change {
                field["type"] = kind.clone();
            }
        }
        record(fields)
    };
    let list = json!({"type": "record", "name": "List", "fields": [{"name": "tail", "type": ["null", "List"]}]});
    let more =
        |kind: Value| record([published_fields(), vec![json!({"name": "x", "type": kind, "aliases": ["y"]})]].concat());
    let body = encoded(&event(0));
    let with = |schema: &Value, more: &[u8]| joined(&[schema.to_string().as_bytes(), &[&body[..], more].concat()]);
    let null_or = json!(["null", "string"]);
    vec![
        joined(&[CLICK_EVENT_SCHEMA.as_bytes(), &body]),
        with(&changed(&[("user_id", json!("bytes")), ("page_url", json!("bytes"))]), &[]),
        with(&more(list.clone()), &[2, 2, 0]),
        with(&more(json!({"type": "array", "items": list})), &[2, 2, 0, 0]),
        with(&more(json!({"type": "map", "values": ["boolean", "double"]})), &[2, 2, b'k', 0, 1, 0]),
        with(&more(json!({"type": "fixed", "name": "m.Two", "size": 2})), &[1, 2]),
        with(&more(json!({"type": "long", "logicalType": "timestamp-micros"})), &[2]),
        joined(&[changed(&[("user_id", null_or)]).to_string().as_bytes(), &[&[2], &body[..]].concat()]),
        joined(&[json!(["null", changed(&[])]).to_string().as_bytes(), &[&[2], &body[..]].concat()]),
    ]
}

fn containers() -> Vec<Vec<u8>> {
    let schema = Schema::parse_str(CLICK_EVENT_SCHEMA).expect("the published schema");
    let codecs = [
        Codec::Null,
        Codec::Deflate(DeflateSettings::default()),
        Codec::Snappy,
        Codec::Zstandard(ZstandardSettings::default()),
    ];
    let of = |codec| {
        let mut writer = Writer::with_codec(&schema, Vec::new(), codec).expect("a writer");
        for number in 0..3 {
            let value = apache_avro::to_value(event(number)).and_then(|value: Avro| value.resolve(&schema));
            writer.append_value(value.expect("an event")).expect("a value of the schema");
        }
        writer.into_inner().expect("bytes")
    };
    codecs.map(of).to_vec()
}

fn wire() -> Vec<Vec<u8>> {
    let result = PageAnalytics {
        page_url: "/p".to_owned(),
        window_start: 0,
        window_end: 300_000,
        view_count: 70,
        unique_users: 3,
        click_count: 2,
        conversion_count: 1,
        engagement_rate: 0.5,
        bounce_rate: 0.25,
        avg_session_duration: 12.5,
    };
    let mut bare = Vec::new();
    encode_page_analytics(&result, &mut bare);
    let in_front_of = |body: &[u8]| [&SchemaId(258).prefix()[..], body].concat();
    vec![in_front_of(&bare), in_front_of(&encoded(&event(1))), in_front_of(b""), bare]
}

fn cut() -> PartitionCut {
    PartitionCut {
        replay_from: 3,
        position: 9,
        clock_ms: Some(90_000),
        history_from: Some(2),
        ..PartitionCut::start(0, 2, None)
    }
}

fn progress_records() -> Vec<Vec<u8>> {
    let progress = Progress {
        job: "clicktide".to_owned(),
        generation: 7,
        committed_through: Some(120_000),
        began_after: None,
        state: JobState::Running,
        configuration: r#"{"windows":{"size":"5m"}}"#.to_owned(),
        topic_id: Some("id".to_owned()),
        input: vec![cut(), PartitionCut { partition: 1, until: Some(40), ..cut() }],
    };
    let finished =
        Progress { state: JobState::Finished, committed_through: None, input: Vec::new(), ..progress.clone() };
    let extremes = [i64::MIN, i64::MIN + 1, -(1 << 61), 1 << 61, i64::MAX].map(|extreme| Progress {
        generation: extreme,
        committed_through: Some(extreme),
        input: vec![PartitionCut { clock_ms: Some(extreme), floor_ms: Some(extreme), ..cut() }],
        ..progress.clone()
    });
    let of_one = [
        Progress { generation: i64::MAX, ..progress.clone() },
        Progress { committed_through: Some(i64::MAX), ..progress.clone() },
        Progress { input: vec![PartitionCut { clock_ms: Some(i64::MIN), ..cut() }], ..progress.clone() },
        Progress {
            input: vec![PartitionCut { position: i64::MAX, replay_from: i64::MIN, ..cut() }],
            ..progress.clone()
        },
    ];
    let advance = IdleAdvance { partition: 1, next_offset: 17, floor_ms: 60_000 };
    let records =
        [ProgressRecord::Progress(progress), ProgressRecord::Progress(finished), ProgressRecord::IdleAdvance(advance)];
    let far = extremes.into_iter().chain(of_one).map(ProgressRecord::Progress);
    records.into_iter().chain(far).map(|record| encode_progress_record(&record)).collect()
}

fn checkpoint() -> Vec<Seed> {
    let activity = |enter, time_ms, session_duration_s| Activity {
        enter: Tick(enter),
        leave: Tick(enter + 300_000),
        page: 1,
        user: u64::MAX,
        session: 3,
        event_type: EventType::Purchase,
        session_duration_s,
        time_ms,
    };
    let object = PaneObject {
        activities: vec![activity(110_000, 100_500, Some(7)), activity(120_000, 119_999, None)],
        names: vec![PageName { page: 1, page_url: "/käse".to_owned(), keep_until: Tick(500_000) }],
    };
    let bytes = object.encode();
    let body = &bytes[20..bytes.len() - 8];
    let manifest = Manifest {
        job: "clicktide".to_owned(),
        generation: 7,
        configuration:
            r#"{"kafka":{"events_topic":"clickstream-events"},"windows":{"size":"5m","disorder_bound":"30s"}}"#
                .to_owned(),
        topic_id: None,
        through: Tick(120_000),
        input: vec![cut()],
        resume: vec![ResumePoint {
            partition: 0,
            after: Tick(110_000),
            offset: 5,
            clock: PartitionClock::default(),
            history_from: Some(3),
        }],
        idle_advances: vec![IdleAdvance { partition: 0, next_offset: 4, floor_ms: 80_000 }],
        objects: vec![ObjectRef {
            name: "panes/7-0-1".to_owned(),
            bytes: bytes.len() as u64,
            checksum: checksum(&bytes),
            events: 2,
            needed_until: Tick(420_000),
            counts_through: Tick(120_000),
        }],
    };
    let json = |manifest: &Manifest| serde_json::to_vec(manifest).expect("texts and numbers");
    let far = Manifest { through: Tick(i64::MAX), ..manifest.clone() };
    let long_ago = Manifest { input: vec![PartitionCut { clock_ms: Some(i64::MIN), ..cut() }], ..manifest.clone() };
    let many = ObjectRef { events: u64::MAX, ..manifest.objects[0].clone() };
    let many = Manifest { objects: vec![many.clone(), many], ..manifest.clone() };
    let seed = |name: &str, kind: u8, rest: &[u8]| (name.to_owned(), [&[kind], rest].concat());
    vec![
        seed("object", b'p', &bytes),
        seed("object-body", b'P', body),
        seed("manifest", b'm', &manifest.encode()),
        seed("store", b'M', &joined(&[&json(&manifest), body])),
        seed("store-far", b'M', &joined(&[&json(&far), body])),
        seed("store-long-ago", b'M', &joined(&[&json(&long_ago), body])),
        seed("store-of-many", b'M', &joined(&[&json(&many), body])),
    ]
}

fn handshake() -> Vec<Seed> {
    let protocol = concat!("clicktide/", "0.1.0", "/2");
    let hello =
        json!({"protocol": protocol, "purpose": "workers", "connecting": 1, "accepting": 0, "nonce": vec![1; 32]});
    let greeting = json!({
        "identity": "the job", "processes": 3, "workers": 2, "heartbeat_timeout_ms": 10_000, "generation": 7
    });
    let answer = json!({"Yes": vec![2; 32]});
    let welcome = json!({"Yes": {
        "generation": 1, "committed_through": null, "topic_id": null, "input": [cut()], "idle_advances": [],
        "restore": null, "probe": null
    }});
    let refusal = json!({"No": "the secret differs"});
    let seed = |name: &str, flags: u8, says: &[&Value]| {
        let says: Vec<Vec<u8>> = says.iter().map(|says| format!("{says}\n").into_bytes()).collect();
        let says: Vec<&[u8]> = says.iter().map(Vec::as_slice).collect();
        (name.to_owned(), [&[flags], &joined(&says)[..]].concat())
    };
    // Bit 0: who listens; bits 1 to 3: where the truth is said.
    vec![
        seed("accepts-truth", 0b1110, &[]),
        seed("connects-truth", 0b1111, &[]),
        seed("accepts-lies", 0b0000, &[&hello, &json!(vec![0; 32]), &greeting]),
        seed("accepts-hello", 0b1100, &[&hello]),
        seed("accepts-proof", 0b1010, &[&json!(vec![0; 32])]),
        seed("accepts-greeting", 0b0110, &[&greeting]),
        seed("connects-lies", 0b0001, &[&answer, &answer, &welcome]),
        seed("connects-answer", 0b1101, &[&answer]),
        seed("connects-welcome", 0b0111, &[&welcome]),
        seed("connects-refusal", 0b0111, &[&refusal]),
    ]
}

const ARGUMENTS: [&str; 10] = [
    "demo\n--rate\n500\n--http\noff\n--duration\n10s",
    "run\n-n\n2\n-p\n0\n-w\n2\n-h\nhosts.txt\n--config\nconfig/production.toml",
    "run\n--size\n5m\n--slide\n10s\n--offset\n-1s\n--from\nearliest\n--until-end",
    "launch\n-n\n2\n-w\n2\n--restarts\n3",
    "generate\n--rate\n1000\n--duration\n1m",
    "topics\ncreate",
    "replay\nevents.jsonl\n--set\nwindows.size=1m",
    "audit\n--json",
    "checkpoint\nlist",
    "dead-letters\nshow\n0/17\n--raw",
];

const REQUESTS: [&str; 12] = [
    "GET /healthz",
    "GET /metrics",
    "GET /v1/pages?sort=conversion_rate&order=asc&limit=3&contains=1&prefix=%2F&view_count_min=2&window_end=20",
    "GET /v1/pages?cursor=0123456789abcdef0123456789abcdef01234567",
    "GET /v1/pages/%2F2/windows?window_end_min=0&window_end_max=30&limit=2\nAuthorization: Bearer a token that is long enough",
    "GET /v1/windows/latest",
    "GET /v1/windows?order=asc&limit=1",
    "GET /v1/stream?page=%2F3&sort=page_url&limit=5\nAccept: text/event-stream",
    "GET /v1/cluster\nOrigin: https://shop.example",
    "GET /v1/openapi.json",
    "POST /v1/savepoints\nContent-Type: application/json\n==\n{\"name\": \"before-the-change\"}",
    "PUT /v1/logging\nContent-Type: application/json\n==\n{\"filter\": \"info,clicktide::kafka=debug\", \"for\": \"5m\"}",
];

const JSON_LINES: [&str; 6] = [
    r#"{"user_id":"u","session_id":"s","event_type":"ADD_TO_CART","page_url":"/p","timestamp":-3,"session_duration":4,"record_timestamp":5}"#,
    r#" {"user\u005fid":"\u00e9\ud83d\ude00","session_id":null,"event_type":"VIEW","page_url":"/","timestamp":9223372036854775808} "#,
    r#"{"ip_address":[{"a":1.5e300}],"event_type":"CLICK","timestamp":1,"timestamp":-1e400,"user_id":"x","user_id":"y"}"#,
    r#"{"event_type":"PURCHASE","timestamp":0,"record_timestamp":null,"session_duration":2147483648}"#,
    r#"["u","s","/p","VIEW",1,null,null]"#,
    r#"{"event_type":"SEARCH","timestamp":1.0}"#,
];

const CONFIGURATIONS: [&str; 5] = [
    "[windows]\nsize = \"1m\"\nslide = \"7s\"\noffset = \"-3s\"\nidle_timeout = \"off\"\n==\nKAFKA_BROKERS=a:9092,b:9092\nEVENTS_PER_SECOND=12.5\nEVENT_DURATION_HOURS=0.25",
    "[kafka.properties]\nsecurity.protocol = \"SASL_SSL\"\n\"sasl.password\" = \"env:PASSWORD\"\n==\nPASSWORD=x\nCLICKTIDE_KAFKA__PROPERTIES__SASL_USERNAME=me",
    "[checkpoints]\nstore = \"s3://bucket/prefix\"\ninterval = \"30s\"\n[checkpoints.options]\nregion = \"eu\"\n==\n--set http.listen=127.0.0.1:0\n--set privacy.page_key=path",
    "[generator]\nusers = 10\nrate = -1\n==\nCLICKTIDE_CLUSTER__PROCESSES=3\n--set cluster.process=2",
    "job = 3\n==\nCLICKTIDE_WINDOWS__SIZE=90x",
];
