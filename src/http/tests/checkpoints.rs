//! What the API says of a checkpoint store, whatever that does.

use std::sync::mpsc::{Receiver, channel};

use clicktide_dataflows::time::Tick;

use super::*;
use crate::checkpoint::store::{MemoryStore, Store, StoreError};
use crate::checkpoint::{Manifest, names};

fn site(store: impl Store + 'static) -> JobSite {
    let store = JobStore { store: Arc::new(store), job: "clicks".into(), configuration: "{}".into() };
    JobSite { store: Some(store), ..site_of_process_0() }
}

fn manifest(through: i64, job: &str) -> Manifest {
    Manifest {
        job: job.into(),
        generation: 7,
        configuration: "{}".into(),
        topic_id: None,
        through: Tick(through),
        input: Vec::new(),
        resume: Vec::new(),
        idle_advances: Vec::new(),
        objects: Vec::new(),
    }
}

#[test]
fn what_the_store_holds() {
    let store = MemoryStore::default();
    let put = |name: String, body: Vec<u8>| store.put_new(&name, body).expect("a new name");
    put(names::checkpoint(Tick(10_000), 7), manifest(10_000, "clicks").encode());
    put(names::checkpoint(Tick(20_000), 7), manifest(20_000, "clicks").encode());
    put(names::savepoint("mine").expect("a good name"), manifest(10_000, "another").encode());
    put(names::savepoint("torn").expect("a good name"), b"{".to_vec());
    let served = process_0_on("127.0.0.1:0", site(store.clone()));
    let answer = get(served.address(), "/v1/checkpoints").json();
    let listed: Vec<_> = answer["checkpoints"].as_array().expect("a list").iter().collect();
    let shown = |field: &str| listed.iter().map(|listed| listed[field].clone()).collect::<Vec<_>>();
    assert_eq!(
        shown("name"),
        ["checkpoints/0000000020000-7", "checkpoints/0000000010000-7", "savepoints/mine", "savepoints/torn"]
    );
    assert_eq!(shown("kind"), ["checkpoint", "checkpoint", "savepoint", "savepoint"]);
    assert_eq!(shown("through_ms"), [json!(20_000), json!(10_000), json!(10_000), json!(null)]);
    assert_eq!(shown("verdict"), ["good", "good", "unfit", "bad"]);
    assert_eq!(listed[2]["reason"], json!("it is of job \"another\", not \"clicks\""));
    assert_eq!(answer["total"], json!(4));

    // For a while, the answer stands.
    store.delete("savepoints/mine").expect("deleted");
    assert_eq!(get(served.address(), "/v1/checkpoints").json(), answer);
}

#[test]
fn a_job_without_checkpoints_has_no_store() {
    let answer = get(process_0().address(), "/v1/checkpoints");
    assert_eq!((answer.code, answer.json()["status"].clone()), (404, json!(404)));
}

/// A store that answers when it is told to.
struct Slow(Mutex<Receiver<Result<(), StoreError>>>);

impl Store for Slow {
    fn put_new(&self, name: &str, _: Vec<u8>) -> Result<(), StoreError> {
        Err(StoreError::Exists(name.into()))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Missing(name.into()))
    }

    fn list(&self, _: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let told = self.0.lock().expect("nobody panics").recv();
        told.expect("somebody tells").map(|()| Vec::new())
    }

    fn delete(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn a_store_that_hangs_or_fails_harms_nobody_else() {
    let (tell, told) = channel();
    let served = process_0_on("127.0.0.1:0", site(Slow(Mutex::new(told))));
    let address = served.address();
    let waiting: Vec<_> = (0..4).map(|_| std::thread::spawn(move || get(address, "/v1/checkpoints"))).collect();
    for path in ["/healthz", "/v1/windows", "/v1/cluster"] {
        assert_eq!(get(address, path).code, 200, "{path}");
    }
    for waiting in waiting {
        let answer = waiting.join().expect("an answer");
        assert_eq!(answer.code, 504, "{}", answer.body);
        assert!(answer.body.contains("has not answered within"), "{}", answer.body);
    }
    // It was asked once, and what it says in the end counts.
    let failed = StoreError::Failed { name: "checkpoints/".into(), reason: "out of order".into() };
    tell.send(Err(failed)).expect("it hears");
    let answer = get(address, "/v1/checkpoints");
    assert_eq!(answer.code, 502, "{}", answer.body);
    assert!(answer.body.contains("out of order"), "{}", answer.body);
}
