//! What is left of personal data: a whole run on a real Kafka, all of whose outputs are searched for what went in; and a hash key that
//! is replaced by another one.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

#[path = "privacy/mod.rs"]
mod privacy;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use clicktide::avro::{decode_page_analytics, sanitised_event_json};
use clicktide::privacy::{Domain, HashKey};
use clicktide_dataflows::event::PageAnalytics;
use privacy::outputs::{before, everything, files, records, said, sanitised_before, sanitised_topic, take_savepoint};
use privacy::people::{KEY, PARTITIONS, PEOPLE, Person, Script};
use privacy::search::Search;
use serde_json::{Value, json};
use support::job::{Job, stop};
use support::topics::Topic;
use support::watched::Watched;
use support::{Process, brokers, free_ports};

/// Nothing but events closes windows, so that the last ones stay.
const NEVER_IDLE: &str = "--set=windows.idle_timeout=off";

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
    let savepoint = take_savepoint(ports[0]);

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
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/late"), 2);
    assert!(
        audit.number("/sanitised_events/expected") as usize >= before(script.at(25), script.sanitised.clone()).len()
    );
    assert_eq!(audit.number("/sanitised_events/actual") as usize, published.len());
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
    take_savepoint(port);
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
