//! What a store holds of a job's checkpoints and savepoints, with a cheap check of each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use utoipa::ToSchema;

use super::store::{Store, StoreError};
use super::{Manifest, ObjectRef, choose, names};

/// How a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As far as was looked.
    Good,
    /// Whole, but not for the job as it is configured.
    Unfit,
    /// Unusable.
    Bad,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Judgement {
    /// How it is.
    pub verdict: Verdict,
    /// Why, if it is not good.
    pub reason: Option<String>,
}

impl Judgement {
    /// Unusable, for this reason.
    pub fn bad(reason: String) -> Judgement {
        Judgement { verdict: Verdict::Bad, reason: Some(reason) }
    }

    /// Of a checkpoint that is whole: whether it is one of this job, configured so.
    pub fn of_whole(manifest: &Manifest, job: &str, configuration: &str) -> Judgement {
        match choose::fits(manifest, job, configuration) {
            Ok(()) => Judgement { verdict: Verdict::Good, reason: None },
            Err(reason) => Judgement { verdict: Verdict::Unfit, reason: Some(reason) },
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.verdict {
            Verdict::Good => f.write_str("good"),
            Verdict::Unfit => write!(f, "good, but {reason}"),
            Verdict::Bad => write!(f, "BAD: {reason}"),
        }
    }
}

/// Why a checkpoint was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// By the clock; the oldest are deleted.
    Checkpoint,
    /// On demand; it stays until somebody deletes it.
    Savepoint,
}

/// A checkpoint or savepoint in a store. What is in its manifest is not known if that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Listed {
    /// The name of its manifest in the store.
    pub name: String,
    /// Why it was taken.
    pub kind: Kind,
    /// It goes through this window end, ms since the epoch.
    pub through_ms: Option<i64>,
    /// The run that wrote it.
    pub generation: Option<i64>,
    /// When its manifest was written, ms since the epoch, by the store's clock; not every store knows.
    pub written_at_ms: Option<i64>,
    /// Objects that it refers to.
    pub objects: Option<usize>,
    /// Events that they hold.
    pub events: Option<u64>,
    /// Bytes that they have.
    pub bytes: Option<u64>,
    /// The cheap check: whether the manifest can be read, its objects are there in their lengths, and it is one of this job as
    /// it is configured. `clicktide checkpoint verify` reads them all.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// The manifests of the checkpoints, the newest first, and of the savepoints, by name.
///
/// # Errors
/// When the store can't be asked.
pub fn manifests(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let savepoints = store.list(names::SAVEPOINTS)?.into_iter().map(|(name, _)| name);
    let savepoints = savepoints.filter(|name| names::savepoint_of(name).is_some());
    Ok(choose::newest_first(store)?.into_iter().chain(savepoints).collect())
}

/// Those of `manifests`, looked at. Reads each of them, and asks for the names and lengths of all objects. One that has been
/// deleted meanwhile is left out.
///
/// # Errors
/// When the store can't be asked. A manifest that can't be read is only listed as bad.
pub fn look_at(
    store: &dyn Store,
    manifests: Vec<String>,
    job: &str,
    configuration: &str,
) -> Result<Vec<Listed>, StoreError> {
    let lengths: BTreeMap<String, u64> = store.list(names::PANES)?.into_iter().collect();
    let look_at = |name: String| {
        let manifest = choose::read_manifest(store, &name);
        if manifest.is_err() && matches!(store.get(&name), Err(StoreError::Missing(_))) {
            return None;
        }
        let judgement = match &manifest {
            Err(reason) => Judgement::bad(reason.clone()),
            Ok(manifest) => lengths_fit(manifest, &lengths)
                .map_or_else(Judgement::bad, |()| Judgement::of_whole(manifest, job, configuration)),
        };
        let manifest = manifest.ok();
        let written_at = store.written_at(&name).ok().flatten();
        let written_at = written_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Some(Listed {
            kind: if names::savepoint_of(&name).is_some() { Kind::Savepoint } else { Kind::Checkpoint },
            name,
            through_ms: manifest.as_ref().map(|manifest| manifest.through.0),
            generation: manifest.as_ref().map(|manifest| manifest.generation),
            written_at_ms: written_at.and_then(|at| i64::try_from(at.as_millis()).ok()),
            objects: manifest.as_ref().map(|manifest| manifest.objects.len()),
            events: manifest.as_ref().map(|manifest| sum(manifest, |object| object.events)),
            bytes: manifest.as_ref().map(|manifest| sum(manifest, |object| object.bytes)),
            judgement,
        })
    };
    Ok(manifests.into_iter().filter_map(look_at).collect())
}

/// Of all objects; a manifest may say anything.
fn sum(manifest: &Manifest, of: impl Fn(&ObjectRef) -> u64) -> u64 {
    manifest.objects.iter().map(of).fold(0, u64::saturating_add)
}

/// Whether every object is there, as long as it should be.
fn lengths_fit(manifest: &Manifest, lengths: &BTreeMap<String, u64>) -> Result<(), String> {
    for object in &manifest.objects {
        match lengths.get(&object.name) {
            None => return Err(format!("{} is not there", object.name)),
            Some(length) if *length != object.bytes => {
                return Err(format!("{}: it has {length} bytes, and should have {}", object.name, object.bytes));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
