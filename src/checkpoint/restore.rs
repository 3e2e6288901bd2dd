//! What a checkpoint holds, back into the dataflow.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageName};
use clicktide_dataflows::time::Tick;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::choose::read_object;
use super::store::Store;
use super::{Manifest, ObjectRef, ResumePoint};
use crate::progress::PartitionCut;

/// What a run takes from a checkpoint, instead of reading it from the input again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The manifest's name, for those who want to know.
    pub checkpoint: String,
    /// The job that has written it: another one, where a new job begins with a savepoint.
    pub job: String,
    /// Every event that entered at or before this tick, and had not left by then, is in the objects.
    pub through: Tick,
    /// The objects.
    pub objects: Vec<ObjectRef>,
    /// Where each partition is read on: of each, all points of the last window, the latest last.
    pub resume: Vec<ResumePoint>,
}

impl Restore {
    /// All that the manifest of this name refers to.
    pub fn of(checkpoint: String, manifest: Manifest) -> Self {
        let Manifest { job, through, objects, resume, .. } = manifest;
        Restore { checkpoint, job, through, objects, resume }
    }

    /// The same for a run that goes on from `cuts`: it need not read what is before them, which may be gone.
    pub fn no_earlier_than(mut self, cuts: &[PartitionCut]) -> Self {
        for point in &mut self.resume {
            let cut = cuts.iter().find(|cut| cut.partition == point.partition);
            if let Some(cut) = cut.filter(|cut| point.offset < cut.replay_from) {
                *point = cut.place().resume_point(point.partition, point.after);
            }
        }
        self
    }

    /// Where a partition is read on, if it had been read.
    pub fn resume_point(&self, partition: i32) -> Option<ResumePoint> {
        self.resume.iter().rfind(|point| point.partition == partition && point.after <= self.through).copied()
    }

    /// The objects, for a later checkpoint to refer to: what they hold beyond this one is read, and written, again.
    pub fn objects_to_keep(&self) -> Vec<ObjectRef> {
        let kept = |object: &ObjectRef| {
            let counts_through = object.counts_through.min(self.through);
            ObjectRef { counts_through, ..object.clone() }
        };
        self.objects.iter().map(kept).collect()
    }

    /// How many events the objects hold, those that no longer count included.
    pub fn events(&self) -> u64 {
        self.objects.iter().map(|object| object.events).sum()
    }
}

/// Reads pane objects into the dataflow of `scope`: every event that counts enters at `through`, as nothing before is emitted.
///
/// Out: activities, and the names of their pages. Reads one object per activation, on the worker's thread: nothing else can
/// be done before all is there. Holds its capability until then, so that no window closes early. `error` is set when an
/// object can't be read; the windows then stay open.
pub fn restore<'scope>(
    scope: Scope<'scope, Tick>,
    store: Option<Arc<dyn Store>>,
    through: Tick,
    objects: Vec<ObjectRef>,
    error: Rc<RefCell<Option<String>>>,
) -> (Stream<'scope, Tick, Vec<Activity>>, Stream<'scope, Tick, Vec<PageName>>) {
    let mut builder = OperatorBuilder::new("restore".to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let (activities_output, activities) = builder.new_output();
    let (names_output, names) = builder.new_output();
    let mut activities_output = OutputBuilder::from(activities_output);
    let mut names_output = OutputBuilder::from(names_output);
    builder.build(move |capabilities| {
        let mut objects = VecDeque::from(objects);
        let mut held = Some(capabilities);
        move |_frontiers| {
            let Some(capabilities) = held.as_ref().filter(|_| error.borrow().is_none()) else { return };
            let Some((store, object)) = store.as_ref().zip(objects.pop_front()) else {
                held = None;
                return;
            };
            activator.activate();
            match read_object(&**store, &object) {
                Ok(mut read) => {
                    let entered_through = through.min(object.counts_through);
                    read.activities.retain_mut(|activity| {
                        let counts = activity.enter <= entered_through && through < activity.leave;
                        activity.enter = through;
                        counts
                    });
                    names_output.activate().session(&capabilities[1]).give_container(&mut read.names);
                    activities_output.activate().session(&capabilities[0]).give_container(&mut read.activities);
                }
                Err(reason) => *error.borrow_mut() = Some(format!("{}: {reason}", object.name)),
            }
        }
    });
    (activities, names)
}
