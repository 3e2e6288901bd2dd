//! What a checkpoint store may hold. The first byte says what the rest is:
//!
//! - `p`: a pane object, as it is; `P`: the body of one, with a header and a checksum that fit;
//! - `m`: a manifest, as it is; `M`: the manifest's own JSON, in an envelope with a checksum that fits. After a line `==`
//!   there may be the body of a pane object, which is put in the store under each name that the manifest refers to.
//!
//! Whatever it is, it is refused, or it is what comes out when it is written again. A store that holds it can be listed, a start
//! can choose from it, and a run can go on from what it has chosen.

use clicktide::checkpoint::format::checksum;
use clicktide::checkpoint::restore::Restore;
use clicktide::checkpoint::store::{MemoryStore, Store};
use clicktide::checkpoint::{Manifest, ObjectRef, PaneObject, choose, listing, names, prune};
use clicktide::recovery::{Asked, Bounds, Recovery};
use clicktide_dataflows::event::Activity;
use clicktide_dataflows::time::{Tick, Windows};

/// Checks one object, or one store.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b'p' => pane_object(rest),
        b'P' => pane_object(&sealed_object(rest)),
        b'm' => drop(manifest(rest)),
        b'M' => {
            let (text, body) = super::parts(rest);
            if let Some(manifest) = manifest(&sealed_manifest(text)) {
                store_with(manifest, &sealed_object(body));
            }
        }
        _ => {}
    }
}

fn pane_object(bytes: &[u8]) {
    let Ok(object) = PaneObject::decode(bytes) else { return };
    let again = PaneObject::decode(&object.encode()).expect("what was written can be read");
    assert_eq!((sorted(object.activities), object.names), (sorted(again.activities), again.names));
}

/// Events are in no order.
fn sorted(mut activities: Vec<Activity>) -> Vec<Activity> {
    let key =
        |a: &Activity| (a.enter, a.leave, a.time_ms, a.page, a.user, a.session, a.event_type, a.session_duration_s);
    activities.sort_by_key(key);
    activities
}

fn manifest(bytes: &[u8]) -> Option<Manifest> {
    let manifest = Manifest::decode(bytes).ok()?;
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
    Some(manifest)
}

fn sealed_object(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"CTpanes\0".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    let sum = u64::from_str_radix(&checksum(&bytes), 16).expect("hexadecimal digits");
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn sealed_manifest(manifest: &[u8]) -> Vec<u8> {
    let mut bytes = b"{\n  \"format\": \"clicktide-checkpoint\",\n  \"version\": 1,\n  \"manifest\": ".to_vec();
    bytes.extend(manifest);
    let tail = format!(",\n  \"checksum\": \"{}\"\n}}", checksum(&bytes));
    bytes.extend(tail.as_bytes());
    bytes
}

/// A store with a checkpoint and a savepoint of this manifest, once as it is and once so that its objects fit it.
fn store_with(manifest: Manifest, object: &[u8]) {
    let Ok(decoded) = PaneObject::decode(object) else { return };
    let fitting = |reference: &ObjectRef| ObjectRef {
        bytes: object.len() as u64,
        checksum: checksum(object),
        events: decoded.activities.len() as u64,
        ..reference.clone()
    };
    let fits = Manifest { objects: manifest.objects.iter().map(fitting).collect(), ..manifest.clone() };
    for manifest in [manifest, fits] {
        let store = MemoryStore::default();
        for reference in &manifest.objects {
            store.overwrite(&reference.name, object.to_vec());
        }
        store.overwrite(&names::checkpoint(manifest.through, manifest.generation), manifest.encode());
        store.overwrite(&names::savepoint("kept").expect("a good name"), manifest.encode());
        look_at(&store, &manifest);
    }
}

fn look_at(store: &MemoryStore, manifest: &Manifest) {
    let (job, configuration) = (&manifest.job, &manifest.configuration);
    let listed = listing::look_at(store, listing::manifests(store).expect("a store"), job, configuration);
    // An object may have the name of a manifest.
    assert!(listed.expect("a store").len() <= 2 + manifest.objects.len());
    prune::condemned(store, manifest.generation, 1, &Default::default()).expect("a store");
    let (chosen, rejected) = choose::newest(store, job, configuration, Some(Tick(i64::MAX))).expect("a store");
    match chosen {
        Some((name, chosen)) => start_from(name, chosen),
        None => assert!(!rejected.is_empty() || store.list(names::CHECKPOINTS).expect("a store").is_empty()),
    }
}

/// Goes on from a checkpoint in a new job, and in a run of a job that has committed as much.
fn start_from(name: String, manifest: Manifest) {
    let restore = Restore::of(name, manifest.clone());
    let asked = Asked {
        job: "another",
        events: "clickstream-events",
        topic_id: None,
        progress: "clicktide-progress",
        until_end: false,
        configuration: &manifest.configuration,
        differences: &|_| Vec::new(),
        windows: Windows::new(300_000, 10_000, 0).expect("windows"),
        bound_ms: 30_000,
        keeps_history: true,
        accept_gap: manifest.generation % 2 == 0,
        generation_seen: 0,
    };
    let log = [Bounds { low: 2, high: 100 }, Bounds { low: 0, high: 0 }];
    for cut in &manifest.input {
        restore.resume_point(cut.partition);
    }
    restore.objects_to_keep();
    restore.events();
    if let Ok(taken_over) = Recovery::taken_over(&asked, restore, &manifest, &log) {
        assert_eq!(taken_over.progress.job, "another");
    }
}
