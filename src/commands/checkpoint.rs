//! `clicktide checkpoint`: what a job's checkpoint store holds, looked at, checked and tidied up.

use std::time::{Duration, UNIX_EPOCH};

use clicktide_dataflows::time::Tick;

use crate::checkpoint::choose::{self, Rejected};
use crate::checkpoint::listing::{Judgement, Verdict, look_at, manifests};
use crate::checkpoint::store::{Store, StoreError, StoreLocation};
use crate::checkpoint::{Manifest, names, prune};
use crate::config::Config;
use crate::exit::{Exit, Failure};

/// What is done with the store.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// A table of checkpoints and savepoints, each with a cheap check.
    List {
        /// As JSON.
        json: bool,
    },
    /// One manifest, for people.
    Show {
        /// Which.
        name: String,
    },
    /// All of one is read and checked, or of every one.
    Verify {
        /// Which; all if none.
        name: Option<String>,
    },
    /// What is not needed is deleted.
    Prune {
        /// How many checkpoints stay, in place of the configuration's.
        keep: Option<usize>,
        /// Whether no process of the job is running.
        stopped: bool,
        /// Whether it is only said what would be deleted.
        dry_run: bool,
    },
    /// A checkpoint's or savepoint's manifest is deleted.
    Delete {
        /// Which.
        name: String,
    },
}

/// Does it to the store of the job that the configuration names.
///
/// # Errors
/// When there is no such store, no such checkpoint, or the store fails; with its own exit code when something is damaged.
pub fn checkpoint(command: Checkpoint, config: &Config) -> Result<(), Failure> {
    let store = open(config)?;
    let store = &*store;
    match command {
        Checkpoint::List { json } => list(store, config, json),
        Checkpoint::Show { name } => show(store, &full_name(&name)?),
        Checkpoint::Verify { name } => verify(store, config, name.as_deref()),
        Checkpoint::Prune { keep, stopped, dry_run } => {
            prune(store, keep.unwrap_or(config.checkpoints.keep), stopped, dry_run)
        }
        Checkpoint::Delete { name } => delete(store, &full_name(&name)?),
    }
}

fn failed(error: StoreError) -> Failure {
    Failure::new(Exit::Checkpoints, error)
}

/// The store, which has to be there already: a command that looks makes no directories.
fn open(config: &Config) -> Result<std::sync::Arc<dyn Store>, Failure> {
    let refuse = |why: String| Err(Failure::new(Exit::Configuration, why));
    let job = &config.job.name;
    if let Some(StoreLocation::Directory(directory)) = &config.checkpoints.store
        && !directory.join(job).is_dir()
    {
        return refuse(format!(
            "checkpoints.store = {directory:?} has no directory {job:?}: the job has kept nothing there"
        ));
    }
    match config.checkpoint_store(job).map_err(failed)? {
        Some(store) => Ok(store),
        None => refuse("checkpoints.store is off".to_owned()),
    }
}

/// The manifest that is meant: `checkpoints/…`, `savepoints/…`, or only what follows.
fn full_name(text: &str) -> Result<String, Failure> {
    if names::checkpoint_of(text).is_some() || names::savepoint_of(text).is_some() {
        return Ok(text.to_owned());
    }
    let checkpoint = format!("{}{text}", names::CHECKPOINTS);
    if names::checkpoint_of(&checkpoint).is_some() {
        return Ok(checkpoint);
    }
    names::savepoint(text).map_err(|_| {
        Failure::new(
            Exit::Configuration,
            format!("{text:?} is the name of no checkpoint, and no savepoint can be called so"),
        )
    })
}

fn list(store: &dyn Store, config: &Config, json: bool) -> Result<(), Failure> {
    let manifests = manifests(store).map_err(failed)?;
    let rows = look_at(store, manifests, &config.job.name, &config.meaning().to_json()).map_err(failed)?;
    if json {
        println!("{}", serde_json::to_string(&rows).map_err(|e| Failure::new(Exit::Failure, e))?);
        return Ok(());
    }
    let head = ["name", "through", "run", "objects", "events", "bytes", "verdict"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let shown = |number: Option<String>| number.unwrap_or_else(|| "?".to_owned());
        [
            row.name.clone(),
            shown(row.through_ms.map(|ms| time(Tick(ms)))),
            shown(row.generation.map(|run| run.to_string())),
            shown(row.objects.map(|objects| objects.to_string())),
            shown(row.events.map(|events| events.to_string())),
            shown(row.bytes.map(|bytes| bytes.to_string())),
            row.judgement.to_string(),
        ]
    });
    print!("{}", table(std::iter::once(head).chain(cells)));
    Ok(())
}

fn show(store: &dyn Store, name: &str) -> Result<(), Failure> {
    let manifest = choose::read_manifest(store, name)
        .map_err(|reason| Failure::new(Exit::Bad, Rejected { name: name.to_owned(), reason }))?;
    let Manifest { job, generation, configuration, through, input, resume, idle_advances, objects, topic_id } =
        &manifest;
    println!("{name}");
    println!("  job            {job}");
    println!("  run            {generation}");
    println!("  through        {} ({} ms)", time(*through), through.0);
    println!("  topic id       {}", topic_id.as_deref().unwrap_or("-"));
    println!("  configuration  {configuration}");
    println!();
    let head = [
        "partition",
        "began",
        "committed to",
        "replay from",
        "read on from",
        "after",
        "past needed from",
        "idle advances",
    ];
    let rows = input.iter().map(|cut| {
        let of_partition = resume.iter().filter(|point| point.partition == cut.partition);
        let last = of_partition.max_by_key(|point| point.after);
        let advances = idle_advances.iter().filter(|advance| advance.partition == cut.partition).count();
        [
            cut.partition.to_string(),
            cut.began.to_string(),
            cut.position.to_string(),
            cut.replay_from.to_string(),
            last.map_or_else(|| "-".to_owned(), |point| point.offset.to_string()),
            last.map_or_else(|| "-".to_owned(), |point| time(point.after)),
            last.and_then(|point| point.history_from).map_or_else(|| "-".to_owned(), |from| from.to_string()),
            advances.to_string(),
        ]
    });
    println!("{}", table(std::iter::once(head.map(str::to_owned)).chain(rows)));
    let head = ["object", "events", "bytes", "checksum", "needed until"];
    let rows = objects.iter().map(|object| {
        [
            object.name.clone(),
            object.events.to_string(),
            object.bytes.to_string(),
            object.checksum.clone(),
            time(object.needed_until),
        ]
    });
    print!("{}", table(std::iter::once(head.map(str::to_owned)).chain(rows)));
    Ok(())
}

fn verify(store: &dyn Store, config: &Config, name: Option<&str>) -> Result<(), Failure> {
    let which = match name {
        Some(name) => vec![full_name(name)?],
        None => manifests(store).map_err(failed)?,
    };
    let (mut bad, all) = (0, which.len());
    for name in which {
        let whole = choose::read_manifest(store, &name).and_then(|manifest| {
            choose::check_objects(store, &manifest)?;
            Ok(manifest)
        });
        let of_whole = |manifest| Judgement::of_whole(&manifest, &config.job.name, &config.meaning().to_json());
        let Judgement { verdict, reason } = whole.map_or_else(Judgement::bad, of_whole);
        let reason = reason.unwrap_or_default();
        match verdict {
            Verdict::Good => println!("good  {name}"),
            Verdict::Unfit => println!("good  {name}, but {reason}"),
            Verdict::Bad => {
                bad += 1;
                println!("BAD   {name}: {reason}");
            }
        }
    }
    match bad {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Bad, format!("{bad} of {all} can't be used"))),
    }
}

/// Deletes by the rules of [`prune`], all at once, which its two phases would make safe while the job is running. So what
/// belongs to the latest run stays, unless it is said to be stopped, and so does everything while that run has not written
/// a checkpoint: it may be restoring one.
fn prune(store: &dyn Store, keep: usize, stopped: bool, dry_run: bool) -> Result<(), Failure> {
    let latest = choose::latest_generation(store).map_err(failed)?;
    let run = latest.unwrap_or(0);
    let newest = choose::newest_first(store).map_err(failed)?;
    let wrote = newest.iter().any(|name| names::checkpoint_of(name).is_some_and(|(_, generation)| generation == run));
    if !stopped && !wrote {
        println!(
            "nothing deleted: the latest run ({run}) has not written a checkpoint yet, and may be restoring one; \
             if no process of the job is running, say --stopped"
        );
        return Ok(());
    }
    let panes = store.list(names::PANES).map_err(failed)?.into_iter().map(|(name, _)| name);
    let of_run = panes.filter(|name| !stopped && names::pane_generation(name) == Some(run)).collect();
    // Of a run whose marker is gone nothing is left to tell it from a later one.
    let through = if stopped { latest.unwrap_or(i64::MAX) } else { run };
    let condemned = prune::condemned(store, through, keep, &of_run).map_err(failed)?;
    for name in &condemned {
        if dry_run {
            println!("would delete {name}");
        } else {
            store.delete(name).map_err(failed)?;
            println!("deleted {name}");
        }
    }
    println!("{} {}", condemned.len(), if dry_run { "would be deleted" } else { "deleted" });
    if !stopped {
        println!("the pane objects of the latest run ({run}) stay, as it may be running (--stopped if it is not)");
    }
    Ok(())
}

fn delete(store: &dyn Store, name: &str) -> Result<(), Failure> {
    store.get(name).map_err(failed)?;
    store.delete(name).map_err(failed)?;
    println!(
        "deleted {name}; its pane objects go when no other refers to them, by the job or `clicktide checkpoint prune`"
    );
    Ok(())
}

/// A window end in UTC, or its number if the calendar does not have it.
fn time(tick: Tick) -> String {
    // To the year 9999.
    match u64::try_from(tick.0) {
        Ok(ms @ 0..=253_402_300_799_999) => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => format!("{} ms", tick.0),
    }
}

/// Lines of cells, the columns below each other.
fn table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
