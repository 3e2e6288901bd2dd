//! How the program ends: a distinct exit code for each kind of end, and one line that says why.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{logging, terminal};

/// The exit codes. 0 is success, and 2 a command line that can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something that none of the others says.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Configuration = 2,
    /// Kafka can't be reached, or does not do what it is asked to.
    Kafka = 10,
    /// Another run of the job has taken over.
    Fenced = 11,
    /// What has been committed and what is asked for do not go together.
    Refused = 12,
    /// Another process of the job is gone.
    PeerLost = 13,
    /// A thread panicked.
    Panic = 14,
    /// It is unknown whether the last commit is visible: a restart finds out.
    CommitUnknown = 15,
    /// The input can't be read on.
    Source = 16,
    /// The processes of the job could not come together.
    Cluster = 17,
    /// The job has to be started again: its input has more partitions than it reads.
    Again = 18,
    /// The checkpoint store can't be used, or what was there is not there any more.
    Checkpoints = 19,
    /// An audit found that the results are not what they must be.
    Different = 20,
    /// A check found something that has to be put right.
    Bad = 21,
    /// Kafka does not let the program in, or not do this: credentials, certificates or permissions are wrong.
    Denied = 22,
    /// The schema registry refuses, or can't be asked.
    Registry = 23,
}

impl Exit {
    /// Ends the process here and now, with a line that says why.
    ///
    /// Nothing of a failed run may be waited for: other threads and processes would wait for this one.
    ///
    /// One end has many causes, and the first is said: whoever comes later waits here for the end.
    pub fn now(self, why: impl Display) -> ! {
        if ENDING.swap(true, Ordering::Relaxed) {
            loop {
                std::thread::park();
            }
        }
        logging::flush();
        terminal::clear();
        // At once, as other processes may write there too; and not by eprintln!, which panics when nobody reads: a panic would
        // come here again.
        std::io::stderr().write_all(format!("clicktide: {why}\n").as_bytes()).ok();
        std::process::exit(self as i32)
    }
}

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// With which code the program ends.
    pub exit: Exit,
    /// Why.
    pub why: String,
}

impl Failure {
    /// A failure with a reason.
    pub fn new(exit: Exit, why: impl Display) -> Self {
        Failure { exit, why: why.to_string() }
    }
}

static ENDING: AtomicBool = AtomicBool::new(false);
static STOPPING: AtomicBool = AtomicBool::new(false);

/// From now on the other processes may go before this one does.
pub fn expect_others_to_go() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// Ends the program because another process of the job is lost, unless a stop in good order is under way.
pub fn end_without_peer(why: impl Display) {
    if !STOPPING.load(Ordering::Relaxed) {
        Exit::PeerLost.now(format!("lost another process of the job: {why}"));
    }
}

/// Timely's own words for a lost connection do not say to whom; the heartbeat, which does, gets so long to speak first.
const HEARTBEAT_FIRST: Duration = Duration::from_millis(500);

/// Makes every panic, on whichever thread, end the process at once: with one worker thread gone, the others and the other
/// processes would wait for ever. Timely panics when a connection to another process breaks.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("");
        if message.contains("timely communication error") {
            if !STOPPING.load(Ordering::Relaxed) {
                std::thread::sleep(HEARTBEAT_FIRST);
            }
            end_without_peer(message);
            // The other one was quicker to stop.
            logging::flush();
            std::process::exit(0);
        }
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        Exit::Panic.now(format!("a thread failed{place}, which is a fault of the program: {message}"));
    }));
}
