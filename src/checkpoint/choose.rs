//! Which checkpoint a run goes on from, and whether it may write others.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clicktide_dataflows::event::PageId;
use clicktide_dataflows::time::Tick;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::checksum;
use super::store::{Store, StoreError};
use super::{Manifest, ObjectRef, PaneObject, names};

/// How many objects are read at a time.
const READERS: usize = 4;

/// Why a run may not write to the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A run with a later generation, or another one with the same, is or was there.
    #[error(
        "generation {latest} of the job has registered in the checkpoint store, and this run is generation {own}: it has been \
         superseded; if the job's topics were made anew, delete what the store keeps of the job, or give the job another name"
    )]
    Fenced {
        /// This run's generation.
        own: i64,
        /// The other's.
        latest: i64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes this run the one that writes to the store. To be called once per run, before anything else is written.
///
/// # Errors
/// When a later run has registered, or another one with this generation; when the store fails.
pub fn register(store: &dyn Store, generation: i64) -> Result<(), RegisterError> {
    match store.put_new(&names::generation(generation), nonce().into_bytes()) {
        Err(StoreError::Exists(_)) => return Err(RegisterError::Fenced { own: generation, latest: generation }),
        answer => answer?,
    }
    // After the marker is there, so that of two that register at once the earlier one sees the later.
    match latest_generation(store)? {
        Some(latest) if latest > generation => Err(RegisterError::Fenced { own: generation, latest }),
        _ => Ok(()),
    }
}

/// The latest run that has registered.
///
/// # Errors
/// When the store fails.
pub fn latest_generation(store: &dyn Store) -> Result<Option<i64>, StoreError> {
    let markers = store.list(names::GENERATIONS)?;
    Ok(markers.iter().filter_map(|(name, _)| names::generation_of(name)).max())
}

/// A checkpoint that can't be used, and why: one clear line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The name of its manifest.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// The checkpoint to go on from, if there is one, and those that were passed over.
pub type Choice = (Option<(String, Manifest)>, Vec<Rejected>);

/// The names of all checkpoints' manifests, the newest first: of the latest run, and of that the one with the latest window
/// end.
///
/// The run comes first, since what an earlier one wrote beyond that may be of a log that has lost its end.
///
/// # Errors
/// When the store can't be asked.
pub fn newest_first(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let found = store.list(names::CHECKPOINTS)?.into_iter();
    let mut checkpoints: Vec<_> = found
        .filter_map(|(name, _)| names::checkpoint_of(&name).map(|(through, run)| ((run, through), name)))
        .collect();
    checkpoints.sort_unstable_by(|a, b| b.cmp(a));
    Ok(checkpoints.into_iter().map(|(_, name)| name).collect())
}

/// The newest checkpoint from which `job` can go on that has committed through `committed_through`, and those that are newer
/// but can't be used. Reads the objects of the one it gives, and of no more than it has to.
///
/// # Errors
/// When the store can't be asked which checkpoints there are. A single one that can't be read is only rejected.
pub fn newest(
    store: &dyn Store,
    job: &str,
    configuration: &str,
    committed_through: Option<Tick>,
) -> Result<Choice, StoreError> {
    let mut rejected = Vec::new();
    for name in newest_first(store)? {
        let usable = match committed_through {
            None => Err("nothing is committed".to_owned()),
            Some(committed) => read_manifest(store, &name).and_then(|manifest| {
                fits(&manifest, job, configuration)?;
                if manifest.through > committed {
                    let (ahead, committed) = (manifest.through.0, committed.0);
                    return Err(format!("it holds what entered through {ahead}, and only {committed} is committed"));
                }
                check_objects(store, &manifest)?;
                Ok(manifest)
            }),
        };
        match usable {
            Ok(manifest) => return Ok((Some((name, manifest)), rejected)),
            Err(reason) => rejected.push(Rejected { name, reason }),
        }
    }
    Ok((None, rejected))
}

/// Reads the manifest under a name.
///
/// # Errors
/// When it can't be read, or is not as it was written: a clear line.
pub fn read_manifest(store: &dyn Store, name: &str) -> Result<Manifest, String> {
    let bytes = store.get(name).map_err(|error| match error {
        StoreError::Missing(_) => "it is not there".to_owned(),
        error => error.to_string(),
    })?;
    let manifest = Manifest::decode(&bytes).map_err(|error| error.to_string())?;
    match names::checkpoint_of(name) {
        Some((through, generation)) if (through, generation) != (manifest.through, manifest.generation) => Err(
            format!("it is that of another checkpoint: {}", names::checkpoint(manifest.through, manifest.generation)),
        ),
        _ => Ok(manifest),
    }
}

/// Whether a checkpoint is of this job with this configuration.
///
/// # Errors
/// When it is not: a clear line.
pub fn fits(manifest: &Manifest, job: &str, configuration: &str) -> Result<(), String> {
    if manifest.job != job {
        return Err(format!("it is of job {:?}, not {job:?}", manifest.job));
    }
    if !same_json(&manifest.configuration, configuration) {
        return Err("it was written with another configuration".to_owned());
    }
    Ok(())
}

/// The order of keys means nothing.
fn same_json(a: &str, b: &str) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    a == b || value(a).is_some_and(|a| Some(a) == value(b))
}

/// Reads all objects of a checkpoint, four at a time, and checks that each is as the manifest says and can be decoded.
///
/// # Errors
/// The first that is not: a clear line.
pub fn check_objects(store: &dyn Store, manifest: &Manifest) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let bad = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(manifest.objects.len()) {
            scope.spawn(|| {
                while let Some(object) = manifest.objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(reason) = read_object(store, object) {
                        // The others end after the object they are at.
                        next.store(manifest.objects.len(), Ordering::Relaxed);
                        bad.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(reason);
                    }
                }
            });
        }
    });
    bad.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
}

/// Reads an object that a manifest refers to.
///
/// # Errors
/// When it is not there, or not as the manifest says: a clear line with its name.
pub fn read_object(store: &dyn Store, object: &ObjectRef) -> Result<PaneObject, String> {
    let bytes = store.get(&object.name).map_err(|error| error.to_string())?;
    let refuse = |reason: String| Err(format!("{}: {reason}", object.name));
    if bytes.len() as u64 != object.bytes {
        return refuse(format!("it has {} bytes, and should have {}", bytes.len(), object.bytes));
    }
    if checksum(&bytes) != object.checksum {
        // What is wrong with it by itself says more, if anything is.
        let reason = PaneObject::decode(&bytes).map_or_else(
            |error| error.to_string(),
            |_| "it is another object than the one that was written under this name".to_owned(),
        );
        return refuse(reason);
    }
    let decoded = PaneObject::decode(&bytes).map_err(|error| format!("{}: {error}", object.name))?;
    if decoded.activities.len() as u64 != object.events {
        return refuse(format!("it has {} events, and should have {}", decoded.activities.len(), object.events));
    }
    if !all_named(&decoded) {
        return refuse("it has events of a page that it does not name for as long as they count".to_owned());
    }
    Ok(decoded)
}

/// Whether every page has its name for as long as it has events: no result can be given without.
fn all_named(object: &PaneObject) -> bool {
    let names: HashMap<PageId, Tick, FixedState> =
        object.names.iter().map(|name| (name.page, name.keep_until)).collect();
    object.activities.iter().all(|activity| names.get(&activity.page).is_some_and(|until| activity.leave <= *until))
}

/// An object by which processes find out whether they share the store: put by one, looked for by the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name in the store.
    pub name: String,
    /// What it holds.
    pub content: String,
}

/// Why a probe was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Another process has put it, and this one doesn't see it.
    #[error(
        "this process does not see {0} in the checkpoint store, which another process has just put there: they do not share \
         the store; a directory must be on a file system that all hosts have mounted at this path, or use s3://…"
    )]
    NotShared(String),
    /// A second object under the same name was taken.
    #[error(
        "the checkpoint store replaces what it should only take once ({0}): it does not honour the condition If-None-Match, \
         without which a run that was superseded could overwrite what is newer"
    )]
    Overwrites(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts a probe, and makes sure that the store takes nothing else under its name.
///
/// # Errors
/// When the store fails, or takes it.
pub fn put_probe(store: &dyn Store, generation: i64) -> Result<Probe, ProbeError> {
    let probe = Probe { name: names::probe(generation, nonce()), content: nonce() };
    store.put_new(&probe.name, probe.content.clone().into_bytes())?;
    match store.put_new(&probe.name, nonce().into_bytes()) {
        Err(StoreError::Exists(_)) => Ok(probe),
        Err(error) => Err(error.into()),
        Ok(()) => Err(ProbeError::Overwrites(probe.name)),
    }
}

/// Looks for a probe that another process has put.
///
/// # Errors
/// When it is not there, which means that the processes have different stores; when the store fails.
pub fn find_probe(store: &dyn Store, probe: &Probe) -> Result<(), ProbeError> {
    match store.get(&probe.name) {
        Ok(content) if content == probe.content.as_bytes() => Ok(()),
        Ok(_) | Err(StoreError::Missing(_)) => Err(ProbeError::NotShared(probe.name.clone())),
        Err(error) => Err(error.into()),
    }
}

/// A text that nobody else has: 32 hexadecimal digits.
fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
pub(super) mod tests;
