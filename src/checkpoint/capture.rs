//! What enters, on its way into the dataflow, is handed to the checkpoint writer too.

use std::cell::RefCell;
use std::rc::Rc;

use clicktide_dataflows::event::{Activity, PageName};
use clicktide_dataflows::time::Tick;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::writer::{Command, ToWriter};

/// What the operator shares with the loop that steps its worker.
#[derive(Debug, Default)]
pub struct CaptureShared {
    /// The checkpoint that is asked for, and the window end through which it goes.
    pub wanted: Option<(u64, Tick)>,
}

/// Hands over activities and names as they come, and says when everything that a checkpoint needs was among them: that is
/// told by the frontier.
///
/// In: activities and names of this worker's sources. Keeps nothing. Costs moving a pointer per batch. The operator, whose
/// address is told to `address`, must be activated when a checkpoint is asked for.
pub fn capture<'scope>(
    activities: Stream<'scope, Tick, Vec<Activity>>,
    names: Stream<'scope, Tick, Vec<PageName>>,
    writer: ToWriter,
    shared: Rc<RefCell<CaptureShared>>,
    address: &mut dyn FnMut(Rc<[usize]>),
) {
    let mut builder = OperatorBuilder::new("capture".to_owned(), activities.scope());
    address(builder.operator_info().address);
    let mut activities = builder.new_input(activities, Pipeline);
    let mut names = builder.new_input(names, Pipeline);
    builder.build(move |_capabilities| {
        move |frontiers| {
            names.for_each(|_, names| writer.send(Command::Names(std::mem::take(names))));
            activities.for_each(|_, activities| writer.send(Command::Events(std::mem::take(activities))));
            let mut shared = shared.borrow_mut();
            if let Some((number, through)) = shared.wanted
                && frontiers.iter().all(|frontier| !frontier.less_equal(&through))
            {
                shared.wanted = None;
                writer.send(Command::Write { number });
            }
        }
    });
}
