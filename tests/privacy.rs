//! What is left of personal data: a whole run on a real Kafka, all of whose outputs are searched for what went in; and a hash key that
//! is replaced by another one.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aho_corasick::AhoCorasick;
use clicktide::audit::{Click, Definition, Partition, expect};
use clicktide::avro::{decode_page_analytics, sanitised_event_json};
use clicktide::event::ClickEvent;
use clicktide::history::HistoryLimits;
use clicktide::privacy::{Domain, HashKey};
use clicktide::validation::Reason;
use clicktide_dataflows::event::{EventType, PageAnalytics};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::job::{BOUND_MS, DEADLINE, Job, body, now_ms, stop};
use support::topics::{Plain, Topic};
use support::watched::Watched;
use support::{Process, brokers, free_ports};

const PARTITIONS: i32 = 3;
const PEOPLE: i64 = 5;
const KEY: &str = "the key of this test";
/// Nothing but events closes windows, so that the last ones stay.
const NEVER_IDLE: &str = "--set=windows.idle_timeout=off";

// --- People and their events ---

/// Somebody whose data can be told from all else.
struct Person {
    user: String,
    session: String,
    email: String,
    token: String,
    password: String,
    fragment: String,
    symptoms: String,
    agent: String,
    address_v4: String,
    address_v6: String,
}

impl Person {
    fn of(n: i64) -> Person {
        Person {
            user: format!("mallory.{n}.user@mail.test"),
            session: format!("s3ss10n-of-mallory-{n}"),
            email: format!("mallory.{n}.box@mail.test"),
            token: format!("t0ken-5eb1a7e-{n}"),
            password: format!("hunter-pw-{n}"),
            fragment: format!("fragment-0dd-{n}"),
            symptoms: format!("symptoms-of-mallory-{n}"),
            agent: format!("Quirk{n}/77.1.{n}"),
            address_v4: format!("203.0.113.{}", 200 + n),
            address_v6: format!("2001:db8:85a3:{n}d3:1319:8a2e:370:734{n}"),
        }
    }

    /// All that must not be found anywhere.
    fn data(self) -> Vec<String> {
        let Person { user, session, email, token, password, fragment, symptoms, agent, address_v4, address_v6 } = self;
        vec![user, session, email, token, password, fragment, symptoms, agent, address_v4, address_v6]
    }
}

/// The pages of the events with this number: the URL, and its key without a query.
fn page(number: i64, person: &Person) -> (String, &'static str) {
    let Person { email, token, password, fragment, symptoms, .. } = person;
    match number.rem_euclid(4) {
        0 => (
            format!("https://mallory:{password}@shop.test/cart?email={email}&token={token}#{fragment}"),
            "https://shop.test/cart",
        ),
        1 => (format!("/search?q={symptoms}"), "/search"),
        2 => (format!("https://shop.test/@deals#{fragment}?{token}"), "https://shop.test/@deals"),
        _ => (format!("//{password}@shop.test/checkout?{email}"), "//shop.test/checkout"),
    }
}

/// An event, and what others may see of it.
fn event(number: i64, time_ms: i64) -> (ClickEvent, Value) {
    let person = Person::of(number.rem_euclid(PEOPLE));
    let (page_url, page_key) = page(number, &person);
    let v6 = number % 2 == 1;
    let event_types = [(EventType::View, "VIEW"), (EventType::Click, "CLICK"), (EventType::Purchase, "PURCHASE")];
    let (event_type, symbol) = event_types[number.rem_euclid(3) as usize];
    let key = HashKey::new(KEY).expect("a key");
    let sanitised = json!({
        "user_id": format!("{:016x}", key.hash(Domain::User, &person.user)),
        "session_id": format!("{:016x}", key.hash(Domain::Session, &person.session)),
        "event_type": symbol,
        "page_url": page_key,
        "product_id": format!("p-{}", number % 3),
        "timestamp": time_ms,
        "ip_address": if v6 { "2001:db8:85a3::" } else { "203.0.113.0" },
        "browser": "FIREFOX",
        "device": "DESKTOP",
        "referrer": "https://search.test/find",
        "session_duration": number % 7,
    });
    let Person { user, session, agent, symptoms, email, address_v4, address_v6, .. } = person;
    let event = ClickEvent {
        user_id: user,
        session_id: session,
        event_type,
        page_url,
        product_id: Some(format!("p-{}", number % 3)),
        timestamp: time_ms,
        user_agent: format!("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 {agent} Firefox/145.0"),
        ip_address: if v6 { address_v6 } else { address_v4 },
        referrer: Some(format!("https://{email}@search.test/find?q={symptoms}")),
        session_duration: Some((number % 7) as i32),
    };
    (event, sanitised)
}

/// Events of all partitions in turn from an hour ago on, one every 250 ms in each. Kept, to compute from.
struct Script {
    plain: Plain,
    start_ms: i64,
    /// The events that count, by their partitions.
    counted: Vec<Vec<ClickEvent>>,
    /// What others may see of the valid ones.
    sanitised: Vec<Value>,
    rejected: usize,
}

impl Script {
    fn new(brokers: &str) -> Script {
        let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
        let counted = vec![Vec::new(); PARTITIONS as usize];
        Script { plain: Plain::new(brokers), start_ms, counted, sanitised: Vec::new(), rejected: 0 }
    }

    /// The time of a second of it.
    fn at(&self, second: i64) -> i64 {
        self.start_ms + second * 1_000
    }

    /// Events that count, now and then one of them twice.
    fn produce(&mut self, job: &Job, seconds: std::ops::Range<i64>) {
        for time_ms in (self.at(seconds.start)..self.at(seconds.end)).step_by(250) {
            for partition in 0..PARTITIONS {
                let number = time_ms / 250 + i64::from(partition) * 7;
                let (event, sanitised) = event(number, time_ms - number % 3 * 40);
                for _ in 0..if number % 11 == 0 { 2 } else { 1 } {
                    self.plain.send(&job.events.name, partition, Some(&body(&event)));
                    self.counted[partition as usize].push(event.clone());
                    self.sanitised.push(sanitised.clone());
                }
            }
        }
        self.plain.flush();
    }

    /// Records of every kind that does not count, after seconds up to this one have been produced.
    fn produce_uncounted(&mut self, job: &Job, second: i64) {
        let user = Person::of(0).user;
        let valid = || event(second, self.start_ms + second * 1_000).0;
        let rejected = [
            ClickEvent { user_id: String::new(), ..valid() },
            ClickEvent { user_id: user.repeat(20), ..valid() },
            ClickEvent { session_id: Person::of(1).session.repeat(20), ..valid() },
            ClickEvent { page_url: format!("nowhere {user}"), ..valid() },
            ClickEvent { page_url: format!("/{}", user.repeat(100)), ..valid() },
            ClickEvent { timestamp: -5, ..valid() },
            ClickEvent { timestamp: now_ms() + 3_600_000, ..valid() },
            ClickEvent { session_duration: Some(-1), ..valid() },
        ];
        let undecodable = [format!("no event of {user}").into_bytes(), body(&valid())[..40].to_vec()];
        let bytes: Vec<Vec<u8>> = rejected.iter().map(body).chain(undecodable).collect();
        self.rejected += bytes.len();
        bytes.iter().for_each(|bytes| self.plain.send(&job.events.name, 0, Some(bytes)));
        // Valid, but all its windows are closed.
        let (late, sanitised) = event(second, self.at(0));
        self.plain.send(&job.events.name, 0, Some(&body(&late)));
        self.sanitised.push(sanitised);
        self.plain.flush();
    }

    /// The results of all windows that end at or before this one, computed from the events themselves.
    fn results(&self, through: i64) -> Vec<PageAnalytics> {
        let click = |event: &ClickEvent| Click {
            user_id: event.user_id.clone(),
            session_id: event.session_id.clone(),
            page_url: event.page_url.clone(),
            event_type: event.event_type,
            time_ms: event.timestamp,
            record_timestamp_ms: None,
            session_duration_s: event.session_duration,
            payload: 0,
        };
        let records = |events: &Vec<ClickEvent>| {
            let clicks: Vec<_> = events.iter().map(click).collect();
            (0..).zip(clicks).map(|(offset, click)| Ok::<_, ()>((offset, Ok::<_, Reason>(click))))
        };
        let partitions =
            self.counted.iter().map(|events| Partition { records: records(events), idle_advances: vec![] });
        let history = HistoryLimits::default();
        let definition = Definition { windows: Job::windows(), bound_ms: BOUND_MS, through_ms: Some(through), history };
        let mut results = Vec::new();
        expect(&definition, partitions.collect(), |result| results.push(result), |_| {}).expect("events");
        results
    }
}

// --- The search ---

/// What is looked for, in all the forms that it might be written in.
struct Search {
    forms: AhoCorasick,
    /// What each form is.
    names: Vec<String>,
}

impl Search {
    fn new(data: &[String]) -> Search {
        let mut forms = Vec::new();
        let mut names = Vec::new();
        for datum in data {
            for (form, bytes) in written(datum) {
                forms.push(bytes);
                names.push(format!("{datum} ({form})"));
            }
        }
        Search { forms: AhoCorasick::new(forms).expect("patterns"), names }
    }

    /// What is found in these bytes of that place.
    fn look(&self, place: &str, bytes: &[u8], found: &mut BTreeSet<String>) {
        let names = self.forms.find_overlapping_iter(bytes).map(|hit| &self.names[hit.pattern().as_usize()]);
        found.extend(names.map(|name| format!("{place}: {name}")));
    }
}

/// The forms in which a text might be written: as it is, encoded, and as a hash that anybody can compute.
fn written(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let utf_16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let mut forms = vec![
        ("as it is", bytes.to_vec()),
        ("upper case", text.to_uppercase().into_bytes()),
        ("reversed", bytes.iter().rev().copied().collect()),
        ("hex", hex(bytes).into_bytes()),
        ("HEX", hex(bytes).to_uppercase().into_bytes()),
        ("UTF-16, little endian", utf_16(u16::to_le_bytes)),
        ("UTF-16, big endian", utf_16(u16::to_be_bytes)),
        ("percent", bytes.iter().map(|byte| percent(*byte)).collect::<String>().into_bytes()),
        ("percent of all", bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>().into_bytes()),
        ("numbers", format!("{bytes:?}").trim_matches(['[', ']']).into()),
        ("XXH3", xxhash_rust::xxh3::xxh3_64(bytes).to_le_bytes().to_vec()),
        ("SipHash-1-3 without a key", siphasher::sip::SipHasher13::new().hash(bytes).to_le_bytes().to_vec()),
        ("SHA-256", Sha256::digest(bytes).to_vec()),
        ("SHA-256 in hex", hex(&Sha256::digest(bytes)).into_bytes()),
    ];
    // Base64 has three forms, by where the text begins among what is before it.
    for before in 0..3 {
        forms.push(("base64", base64_within(bytes, before)));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        forms.push(("16 bytes", address.octets().to_vec()));
        forms.push(("in full", address.segments().map(|segment| format!("{segment:04x}")).join(":").into_bytes()));
    }
    forms
}

/// The letters that base64 has for `bytes` wherever they stand behind `before` other bytes, but for those at either end that depend on
/// what is beside them.
fn base64_within(bytes: &[u8], before: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded = [&vec![0; before][..], bytes].concat();
    let bits = |place: usize| padded[place / 8] >> (7 - place % 8) & 1;
    let letters = before.div_ceil(3) * 4..padded.len() / 3 * 4;
    let letter = |letter: usize| (letter * 6..letter * 6 + 6).fold(0, |number, place| number << 1 | bits(place));
    letters.map(|place| LETTERS[usize::from(letter(place))]).collect()
}

#[test]
fn the_search_finds_every_form() {
    let datum = "mallory.0.user@mail.test";
    let search = Search::new(&[datum.to_owned(), Person::of(1).address_v6]);
    let check = |text: &[u8], form: &str| {
        let mut found = BTreeSet::new();
        search.look("here", text, &mut found);
        assert!(found.iter().any(|name| name.ends_with(&format!("({form})"))), "{form}: {found:?}");
    };
    check(b"{\"user\":\"mallory.0.user@mail.test\"}", "as it is");
    check(b"6d616c6c6f72792e302e75736572406d61696c2e74657374", "hex");
    check(b"m\0a\0l\0l\0o\0r\0y\0.\x000\0.\0u\0s\0e\0r\0@\0m\0a\0i\0l\0.\0t\0e\0s\0t\0", "UTF-16, little endian");
    check(b"?q=mallory%2E0%2Euser%40mail%2Etest", "percent");
    // printf '...' | base64, with 0, 1 and 2 letters before it.
    check(b"bWFsbG9yeS4wLnVzZXJAbWFpbC50ZXN0", "base64");
    check(b"eG1hbGxvcnkuMC51c2VyQG1haWwudGVzdA==", "base64");
    check(b"eHhtYWxsb3J5LjAudXNlckBtYWlsLnRlc3Q=", "base64");
    check(b"2001:0db8:85a3:01d3:1319:8a2e:0370:7341", "in full");
    let mut found = BTreeSet::new();
    search.look("here", b"mallory.1.user@mail.test, 2001:db8:85a3::", &mut found);
    assert!(found.is_empty(), "{found:?}");
}

// --- What there is to be searched ---

/// A record of a topic.
struct Kept {
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<u8>,
}

/// All records of a topic: those that were committed, or all.
fn records(topic: &Topic, isolation: &str) -> Vec<Kept> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.brokers).set("group.id", "test").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("isolation.level", isolation).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(&topic.name), DEADLINE).expect("metadata");
    let mut assigned = TopicPartitionList::new();
    let mut open = 0;
    for partition in metadata.topics()[0].partitions() {
        assigned.add_partition_offset(&topic.name, partition.id(), Offset::Beginning).expect("an offset");
        open += 1;
    }
    consumer.assign(&assigned).expect("it is assigned");
    let mut records = Vec::new();
    while open > 0 {
        // The end of a partition comes as an error.
        let Ok(record) = consumer.poll(DEADLINE).expect("a record or an end") else {
            open -= 1;
            continue;
        };
        let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(Kept {
            key: record.key().unwrap_or_default().to_vec(),
            value: record.payload().unwrap_or_default().to_vec(),
            headers: headers
                .flat_map(|header| [header.key.as_bytes(), header.value.unwrap_or_default()].concat())
                .collect(),
        });
    }
    records
}

/// The names and contents of all files below a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            // What was pruned meanwhile is gone.
            found.extend(fs::read(&path).ok().map(|bytes| (path.display().to_string(), bytes)));
        }
    }
    found
}

/// What a process answers to every GET that its own document has, and for a while on its stream.
fn answers(port: u16) -> Vec<(String, Vec<u8>)> {
    let watched = Watched(port);
    let document = watched.until("the document", |watched| watched.json("/v1/openapi.json"));
    let pages = watched.json("/v1/pages?limit=100");
    let pages = pages.iter().flat_map(|pages| pages["pages"].as_array().cloned().unwrap_or_default());
    let pages: Vec<String> = pages.filter_map(|page| Some(page["page_url"].as_str()?.to_owned())).collect();
    let latest = watched.json("/v1/windows/latest").and_then(|window| window["window_end"].as_i64());
    let mut paths: BTreeSet<String> = ["/", "/metrics", "/no/such/path"].map(str::to_owned).into();
    for (path, item) in document["paths"].as_object().expect("paths") {
        if item.get("get").is_none() || path == "/v1/stream" {
            continue;
        }
        let path = path.replace("{window_end}", &latest.unwrap_or(0).to_string());
        if path.contains("{page}") {
            let encoded = |page: &String| page.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            paths.extend(pages.iter().map(|page| path.replace("{page}", &encoded(page))));
        } else {
            paths.insert(path);
        }
    }
    let mut answers: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let (_, answer) = watched.get(&path).unwrap_or_else(|| panic!("{path}: no answer"));
            (path, answer.into_bytes())
        })
        .collect();
    answers.push(("/v1/stream".to_owned(), streamed(port)));
    answers
}

/// What comes on the stream of closed windows, until there is a window or nothing at all for a while.
fn streamed(port: u16) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
    write!(socket, "GET /v1/stream HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is asked");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let (mut received, mut part, start) = (Vec::new(), [0; 65_536], Instant::now());
    while let Ok(length @ 1..) = socket.read(&mut part) {
        received.extend_from_slice(&part[..length]);
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    received
}

/// What `clicktide` says with these arguments.
fn said(arguments: &[&str], flags: &[String]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
    let output = command.args(arguments).args(flags).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    [output.stdout, output.stderr].concat()
}

/// A topic for sanitised events, and the flag for it.
fn sanitised_topic(brokers: &str) -> (Topic, String) {
    let topic = Topic::create(brokers, "sanitised-events", PARTITIONS, &[]);
    let flag = format!("--set=kafka.sanitised_events_topic={}", topic.name);
    (topic, flag)
}

/// Sanitised events of before a time, in an order that does not depend on how they were published.
fn before(end_ms: i64, events: impl IntoIterator<Item = Value>) -> Vec<String> {
    let events = events.into_iter().filter(|event| event["timestamp"].as_i64() < Some(end_ms));
    let mut events: Vec<String> = events.map(|event| event.to_string()).collect();
    events.sort();
    events
}

fn sanitised_before(end_ms: i64, records: &[Kept]) -> Vec<String> {
    before(
        end_ms,
        records.iter().map(|record| {
            let event = sanitised_event_json(&record.value).expect("a sanitised event");
            assert_eq!(event["user_id"].as_str().map(str::as_bytes), Some(&record.key[..]), "keyed by the user");
            event
        }),
    )
}

/// Everything there is of a job, by where it is.
fn everything(job: &Job, sanitised: &Topic, ports: &[u16]) -> Vec<(String, Vec<u8>)> {
    let mut all = files(&job.dir().join("checkpoints"));
    for topic in [&job.results, &job.dead_letters, &job.progress, sanitised] {
        let place = format!("topic {}", topic.name);
        // What was aborted is in the topic, too.
        all.extend(
            records(topic, "read_uncommitted")
                .into_iter()
                .flat_map(|record| [record.key, record.headers, record.value].map(|bytes| (place.clone(), bytes))),
        );
    }
    for port in ports {
        all.extend(answers(*port));
    }
    let flags = job.check_flags();
    all.push(("dead-letters list".to_owned(), said(&["dead-letters", "list"], &flags)));
    all.push(("dead-letters show".to_owned(), said(&["dead-letters", "show", "0/0"], &flags)));
    let store: Vec<_> = flags.iter().filter(|flag| flag.contains("checkpoints.store")).cloned().collect();
    all.push(("checkpoint list".to_owned(), said(&["checkpoint", "list", "--name", &job.name], &store)));
    all.push(("audit".to_owned(), said(&["audit"], &job.job_flags(&job.brokers))));
    all
}

#[test]
fn nothing_that_comes_out_holds_personal_data() {
    let Some(brokers) = brokers() else { return };
    let data: Vec<String> = (0..PEOPLE).flat_map(|n| Person::of(n).data()).collect();
    let search = Search::new(&data);
    let mut script = Script::new(&brokers);
    let mut job = Job::new(&brokers, PARTITIONS);
    let (sanitised, flag) = sanitised_topic(&brokers);
    job.flags.extend([
        flag,
        format!("--set=privacy.hash_key={KEY}"),
        "--set=privacy.page_key=no_query".to_owned(),
        "--set=privacy.dead_letter_payload=sanitised".to_owned(),
        "--set=dead_letters.late=true".to_owned(),
        NEVER_IDLE.to_owned(),
    ]);
    let ports = free_ports(2);
    let run = |job: &Job| -> Vec<Process> {
        let logged = format!("--set=logging.file={}", job.dir().join("clicktide.log").display());
        let flags = ["--log=trace", "--set=logging.repeats_max=off", &logged];
        let process =
            |process: usize| job.process(2, process, 1, &[&flags[..], &[&Watched(ports[process]).flag()]].concat());
        (0..2).map(process).collect()
    };
    script.produce(&job, 0..12);
    script.produce_uncounted(&job, 12);
    let mut processes = run(&job);
    job.until_final(script.at(8), &mut processes);
    // Killed, so that what had not been committed is read again.
    processes.iter_mut().for_each(Process::kill);
    job.move_to("again-");
    script.produce(&job, 12..24);
    script.produce_uncounted(&job, 24);
    script.produce(&job, 24..26);
    let mut processes = run(&job);
    job.until_final(script.at(25), &mut processes);
    let savepoint = said(&["checkpoint", "savepoint", "mine", "--http", &format!("127.0.0.1:{}", ports[0])], &[]);

    let mut all = everything(&job, &sanitised, &ports);
    stop(&mut processes, "TERM");
    all.push(("savepoint".to_owned(), savepoint));
    let logs = files(job.dir()).into_iter().filter(|(name, _)| !name.contains("/checkpoints/"));
    all.extend(logs);

    // There is something to be found in each of these.
    let bytes_of =
        |part: &str| all.iter().filter(|(place, _)| place.contains(part)).map(|(_, bytes)| bytes.len()).sum::<usize>();
    let parts = [
        "/panes/",
        "/checkpoints/",
        "/savepoints/mine",
        "topic results",
        "topic dead-letters",
        "topic progress",
        "topic sanitised",
        "/metrics",
        "/v1/pages",
        "/windows",
        "/v1/cluster",
        "/v1/checkpoints",
        "/v1/stream",
        "process-0.stderr",
        "again-process-1.stderr",
        "clicktide-0.log",
        "dead-letters list",
        "audit",
    ];
    for part in parts {
        assert!(bytes_of(part) > 0, "{part} has nothing to be searched");
    }
    let kept = Search::new(&["shop.test/cart".to_owned()]);
    for part in ["/panes/", "topic results", "topic sanitised", "topic dead-letters", "/v1/pages", "/v1/stream"] {
        let mut found = BTreeSet::new();
        all.iter().filter(|(place, _)| place.contains(part)).for_each(|(_, bytes)| kept.look(part, bytes, &mut found));
        assert!(!found.is_empty(), "{part}: what may be kept is not found there");
    }
    assert!(
        all.iter().any(|(place, bytes)| place.contains("clicktide-0.log") && bytes.windows(5).any(|w| w == b"TRACE"))
    );

    let mut found = BTreeSet::new();
    all.iter().for_each(|(place, bytes)| search.look(place, bytes, &mut found));
    assert!(found.is_empty(), "{found:#?}");

    // And all of it is there, once; the last ones wait for their windows.
    let published = records(&sanitised, "read_committed");
    assert_eq!(sanitised_before(script.at(25), &published), before(script.at(25), script.sanitised.clone()));
    let letters = records(&job.dead_letters, "read_committed");
    assert_eq!(letters.len(), script.rejected + 2, "rejected, and late");
    let kept = |what: &str| {
        let header = format!("payload{what}");
        letters.iter().filter(|letter| letter.headers.ends_with(header.as_bytes())).count()
    };
    assert_eq!((kept("sanitised"), kept("nothing"), kept("original")), (script.rejected - 4 + 2, 4, 0));
    assert_eq!(job.audit_agrees().number("/input/late"), 2);
    // What is not as it came is not sent back.
    let replayed = said(&["dead-letters", "replay", "--json", "--reason", "empty_user_id"], &job.check_flags());
    let replayed: Value = serde_json::from_slice(&replayed).expect("a summary");
    assert_eq!((&replayed["sent"], &replayed["not_whole"]), (&json!(0), &json!(2)));

    the_search_can_fail(&job, &script, &search);
}

/// With whole URLs as pages and whole records as dead letters, the same is found.
fn the_search_can_fail(job: &Job, script: &Script, search: &Search) {
    let mut control = Job::new(&job.brokers, 1);
    control.events = Topic { brokers: job.brokers.clone(), name: job.events.name.clone() };
    let (sanitised, flag) = sanitised_topic(&job.brokers);
    control.flags.extend([flag, "--set=privacy.page_key=full".to_owned(), NEVER_IDLE.to_owned()]);
    let port = free_ports(1)[0];
    let mut processes = vec![control.process(1, 0, 2, &[&Watched(port).flag()])];
    control.until_final(script.at(25), &mut processes);
    let mut found = BTreeSet::new();
    for (place, bytes) in everything(&control, &sanitised, &[port]) {
        search.look(&place, &bytes, &mut found);
    }
    stop(&mut processes, "TERM");
    let Person { user, token, .. } = Person::of(0);
    for (place, datum) in [
        (format!("topic {}", control.results.name), &token),
        (format!("topic {}", sanitised.name), &token),
        (format!("topic {}", control.dead_letters.name), &user),
        ("/v1/pages".to_owned(), &token),
        ("/v1/stream".to_owned(), &token),
    ] {
        assert!(found.contains(&format!("{place}: {datum} (as it is)")), "{place}: {datum}: {found:#?}");
    }
    let in_state = format!("{token} (as it is)");
    assert!(found.iter().any(|name| name.contains("/panes/") && name.ends_with(&in_state)), "{found:#?}");
}

// --- Another key ---

#[test]
fn another_hash_key_takes_over_at_a_window_end() {
    let Some(brokers) = brokers() else { return };
    let mut script = Script::new(&brokers);
    let mut old = Job::new(&brokers, PARTITIONS);
    let (sanitised, flag) = sanitised_topic(&brokers);
    old.flags.extend([flag.clone(), format!("--set=privacy.hash_key={KEY}"), NEVER_IDLE.to_owned()]);
    script.produce(&old, 0..20);
    let mut processes = old.run(2, 1);
    old.until_final(script.at(15), &mut processes);
    // In good order: with a last checkpoint, of all that it has committed.
    stop(&mut processes, "TERM");
    let through = old.committed().progress.and_then(|progress| progress.committed_through).expect("windows");
    let store = format!("--set=checkpoints.store={}", old.dir().join("checkpoints").display());
    let listed = said(&["checkpoint", "list", "--json", "--name", &old.name], std::slice::from_ref(&store));
    let listed: Value = serde_json::from_slice(&listed).expect("a list");
    let newest = listed.as_array().and_then(|list| list.first()).expect("a checkpoint");
    assert_eq!(newest["through_ms"].as_i64(), Some(through), "{listed:#}");
    let name = newest["name"].as_str().expect("a name");

    // The new job goes on with the topics of the old one, but for what it remembers itself.
    let mut new = Job::new(&brokers, 1);
    let same = |topic: &Topic| Topic { brokers: brokers.clone(), name: topic.name.clone() };
    (new.events, new.results, new.dead_letters) = (same(&old.events), same(&old.results), same(&old.dead_letters));
    new.flags.extend([flag, "--set=privacy.hash_key=another one".to_owned(), NEVER_IDLE.to_owned(), store]);
    let from = format!("--from-savepoint={}/{name}", old.name);
    let mut processes = vec![new.process(1, 0, 2, &[&from])];
    script.produce(&old, 20..30);
    assert_eq!(new.until_final(script.at(25), &mut processes).began_after, Some(through));
    processes[0].kill();
    script.produce(&old, 30..40);
    new.move_to("again-");
    let mut processes: Vec<Process> = (0..2).map(|process| new.process(2, process, 1, &[&from])).collect();
    new.until_final(script.at(38), &mut processes);
    stop(&mut processes, "TERM");

    // No window is missing and none is there twice; each is what it would have been with either key.
    let last = new.committed().progress.and_then(|progress| progress.committed_through).expect("windows");
    let mut results: Vec<PageAnalytics> = records(&old.results, "read_committed")
        .iter()
        .map(|record| decode_page_analytics(&record.value).expect("a result"))
        .collect();
    results.sort_by(|a, b| (a.window_end, &a.page_url).cmp(&(b.window_end, &b.page_url)));
    assert_eq!(results, script.results(last));
    assert!(results.iter().any(|result| result.window_end == through) && last > through);
    old.audit_agrees();
    assert_eq!(new.audit_agrees().number("/compared_from"), through + 1);

    // Every event has gone out once, under the one key or the other.
    let mut by_key = BTreeMap::new();
    let keys = [KEY, "another one"].map(|key| HashKey::new(key).expect("a key"));
    let events = records(&sanitised, "read_committed");
    for event in &events {
        let hash = String::from_utf8_lossy(&event.key).into_owned();
        let of = |key: &HashKey| {
            (0..PEOPLE).any(|n| format!("{:016x}", key.hash(Domain::User, &Person::of(n).user)) == hash)
        };
        *by_key.entry(keys.iter().position(of)).or_insert(0) += 1;
    }
    assert!(by_key.len() == 2 && !by_key.contains_key(&None), "{by_key:?}");
    let without_ids = |event: &Value| {
        let mut event = event.clone();
        let fields = event.as_object_mut().expect("a record");
        fields.retain(|field, _| !["user_id", "session_id", "page_url"].contains(&field.as_str()));
        event
    };
    let published = events.iter().map(|event| without_ids(&sanitised_event_json(&event.value).expect("an event")));
    let expected = script.sanitised.iter().map(without_ids);
    // The last ones wait for their windows.
    assert_eq!(before(script.at(38), published), before(script.at(38), expected));
}
