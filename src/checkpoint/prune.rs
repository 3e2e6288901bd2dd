//! What a store need not keep any longer.
//!
//! A run deletes what earlier runs have left at once, and what is its own when it has condemned it twice, after two checkpoints in
//! a row: in between, whatever was under way in another process when it was first condemned has come to its end. Manifests go before the objects they refer to, so that a
//! crash in the middle leaves objects without a manifest, which go the next time, and no manifest without its objects.

use std::collections::BTreeSet;

use super::choose::{latest_generation, newest_first};
use super::format::FormatError;
use super::store::{Store, StoreError};
use super::{Manifest, names};

/// The names of what a run may delete, manifests first; nothing if a later run has registered. `written` are the pane objects
/// of this run that no manifest refers to yet.
///
/// These are:
/// - the manifests of checkpoints that are older than the `keep` newest good ones. A damaged one does not count as one of
///   those, and goes as soon as `keep` good ones are newer;
/// - the pane objects of this run and earlier ones that are not in `written`, and that neither a checkpoint that stays nor a
///   savepoint refers to. While there is one of a later format, which can't be asked, no pane object goes;
/// - the markers of earlier runs;
/// - the probes of this run and earlier ones: with its first checkpoint its start is over.
///
/// Savepoints never go. Reads the manifests that stay, and lists the store.
///
/// # Errors
/// When the store fails.
pub fn condemned(
    store: &dyn Store,
    generation: i64,
    keep: usize,
    written: &BTreeSet<String>,
) -> Result<Vec<String>, StoreError> {
    if latest_generation(store)?.is_some_and(|latest| latest > generation) {
        return Ok(Vec::new());
    }
    // The objects first: one that comes later than this is none of ours to judge, and a manifest that comes later than
    // this list still protects its objects.
    let panes = store.list(names::PANES)?;
    let mut condemned = Vec::new();
    let mut referred = Referred::default();
    let mut good = 0;
    for name in newest_first(store)? {
        if good >= keep {
            condemned.push(name);
        } else if referred.by(store, &name)? {
            good += 1;
        }
    }
    for (name, _) in store.list(names::SAVEPOINTS)? {
        if names::savepoint_of(&name).is_some() {
            referred.by(store, &name)?;
        }
    }
    if !referred.unknown {
        let unneeded = panes.into_iter().map(|(name, _)| name).filter(|name| {
            names::pane_generation(name).is_some_and(|of| of <= generation)
                && !written.contains(name)
                && !referred.objects.contains(name)
        });
        condemned.extend(unneeded);
    }
    let markers = store.list(names::GENERATIONS)?.into_iter().map(|(name, _)| name);
    condemned.extend(markers.filter(|name| names::generation_of(name).is_some_and(|of| of < generation)));
    let probes = store.list(names::PROBES)?.into_iter().map(|(name, _)| name);
    condemned.extend(probes.filter(|name| names::probe_generation(name).is_some_and(|of| of <= generation)));
    Ok(condemned)
}

/// The objects that manifests refer to.
#[derive(Default)]
struct Referred {
    objects: BTreeSet<String>,
    /// Whether there is a manifest of which that can't be told, but that may be good.
    unknown: bool,
}

impl Referred {
    /// Adds what a manifest refers to; gives whether it is good.
    fn by(&mut self, store: &dyn Store, name: &str) -> Result<bool, StoreError> {
        let bytes = match store.get(name) {
            // Deleted since it was listed.
            Err(StoreError::Missing(_)) => return Ok(false),
            bytes => bytes?,
        };
        match Manifest::decode(&bytes) {
            Ok(manifest) => {
                self.objects.extend(manifest.objects.into_iter().map(|object| object.name));
                Ok(true)
            }
            Err(FormatError::Version { .. }) => {
                self.unknown = true;
                Ok(false)
            }
            Err(_) => Ok(false),
        }
    }
}

/// What a run has condemned and not yet deleted.
#[derive(Clone, Debug)]
pub struct Pruning {
    generation: i64,
    keep: usize,
    condemned: BTreeSet<String>,
}

impl Pruning {
    /// The pruning of a run, of which `keep` checkpoints are kept.
    pub fn new(generation: i64, keep: usize) -> Self {
        Pruning { generation, keep, condemned: BTreeSet::new() }
    }

    /// Deletes what is no longer needed and was left by earlier runs, or was condemned after the checkpoint before, and
    /// condemns the rest of it. Gives
    /// the names of what it deleted. `written` as for [`condemned`].
    ///
    /// # Errors
    /// When the store fails: what was not deleted is tried again after the next checkpoint.
    pub fn after_checkpoint(
        &mut self,
        store: &dyn Store,
        written: &BTreeSet<String>,
    ) -> Result<Vec<String>, StoreError> {
        let now = condemned(store, self.generation, self.keep, written)?;
        // What earlier runs have left is nobody's work in progress.
        let left = |name: &str| names::generation_in(name).is_some_and(|of| of < self.generation);
        let (due, new): (Vec<_>, Vec<_>) =
            now.into_iter().partition(|name| left(name) || self.condemned.contains(name));
        self.condemned = new.into_iter().collect();
        // What fails below stays condemned.
        self.condemned.extend(due.iter().cloned());
        for name in &due {
            store.delete(name)?;
            self.condemned.remove(name);
        }
        Ok(due)
    }
}

#[cfg(test)]
mod tests;
