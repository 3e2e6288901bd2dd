//! `clicktide demo`: broker, topics, generator, job and dashboard in one process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, ClusterError, assemble};
use crate::commands::generate::produce;
use crate::commands::repeating::Repeating;
use crate::commands::run::{JobSiteParts, STATUS_EVERY, say_start, start_settings};
use crate::commands::signals::stop_on_signal;
use crate::commands::status_line::{JobLine, Voice, say, time_of_day};
use crate::committer::{ClosedTick, Epoch};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::http::Status;
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::source::KafkaPartitions;
use crate::kafka::start::{From, StartError, StartSettings, start_job};
use crate::logging;
use crate::observe::Observer;
use crate::pipeline::{self, Job, ObserveJob, Unpaced};
use crate::report::Phase;

/// How long the demo lasts, and what it says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demo {
    /// After this it stops by itself; none: at a signal.
    pub duration: Option<Duration>,
    /// How it is told what is going on.
    pub voice: Voice,
}

/// The windows of the demo, small so that there is something to see at once.
pub const SIZE: &str = "10s";
/// See [`SIZE`].
pub const SLIDE: &str = "1s";
/// See [`SIZE`].
pub const DISORDER_BOUND: &str = "1s";

/// Runs the demo until its time is over or a signal comes.
///
/// # Errors
/// When a part of it can't be started.
pub fn demo(demo: Demo, mut config: Config) -> Result<(), Failure> {
    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop), Arc::clone(&running))?;
    let kafka = |reason| Failure::new(Exit::Kafka, reason);
    let topics = config.job_topics();
    let mut made = vec![
        (topics.events.as_str(), config.topics.events_partitions),
        (topics.results.as_str(), config.topics.results_partitions),
        (topics.dead_letters.as_str(), 1),
        (topics.progress.as_str(), 1),
    ];
    let sanitised = topics.sanitised_events.as_deref();
    made.extend(sanitised.map(|topic| (topic, config.topics.sanitised_events_partitions)));
    let broker = EmbeddedBroker::start(&made).map_err(kafka)?;
    config.kafka.brokers = broker.address();
    // Everything is in this process.
    config.schema_registry.url = None;
    config.generator.schema_change.enabled = false;

    logging::begin_process(0);
    let workers = config.cluster.workers;
    let site = JobSiteParts::new(&config, 1, 0, workers)?;
    say_start("demo", &config);
    site.status.set_notice(format!(
        "This is the demo: windows of {SIZE} every {SLIDE} instead of 5 min every 10 s, synthetic traffic, and a broker \
         that lives in this process and forgets everything when it ends."
    ));
    let server = site.serve(&config, None)?;
    if let Some(server) = server.as_ref().filter(|_| !demo.voice.quiet && !demo.voice.json) {
        say(&format!("dashboard: http://{}/", server.address()));
    }

    let meaning = config.meaning();
    let settings = StartSettings { can_describe: false, ..start_settings(&config, From::Earliest, false) };
    let (committer, start) = start_job(&settings, &|committed| meaning.differences(committed))
        .map_err(|e: StartError| Failure::new(e.exit(), e))?;
    let (allocators, start) = assemble::<ClusterError>(&Cluster::single(workers), "demo", || Ok(start))
        .map_err(|e| Failure::new(e.exit(), e))?;
    site.begin(start.generation, start.input.len(), &allocators.heartbeats);
    site.status.set_phase(Phase::Running);
    running.store(true, Ordering::Relaxed);

    let now_ms = pipeline::monotonic_clock();
    let partitions = KafkaPartitions::new(settings.kafka, topics.events, Arc::clone(&now_ms)).map_err(kafka)?;
    let windows = Arc::new(Windows { voice: demo.voice, began, last: Mutex::default() });
    let news = Arc::clone(&windows);
    let observer = Observer::new(Arc::clone(&site.status), site.view.clone(), config.windows(), None)
        .telling(move |epoch| news.tell(epoch));
    let observer: Arc<dyn ObserveJob> = Arc::new(observer);
    let job = Job {
        workers,
        source: config.source_settings(),
        start,
        partitions: Box::new(partitions),
        committer: pipeline::committer(Box::new(committer), &observer, None),
        restore_from: None,
        checkpoints: None,
        observer,
        now_ms,
        pace: Arc::new(Unpaced),
        stop: Arc::clone(&stop),
    };
    let generating = {
        let stop = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || {
                if let Err(failure) = produce(&config, &stop, None, |_| {}) {
                    failure.exit.now(failure.why);
                }
            })
            .map_err(|e| Failure::new(Exit::Failure, e))?
    };
    if let Some(duration) = demo.duration {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            std::thread::sleep(duration);
            stop.store(true, Ordering::Relaxed);
        });
    }
    let showing = show(demo.voice, Arc::clone(&site.status), windows)?;
    let ended = pipeline::run(allocators, Arc::new(job)).map_err(|e| Failure::new(Exit::Failure, e));
    drop(showing);
    ended?;
    generating.join().ok();
    if let Some(server) = server {
        server.stop();
    }
    drop(broker);
    Ok(())
}

/// The windows that have been closed: told line by line, or the last of them kept to be drawn.
struct Windows {
    voice: Voice,
    began: Instant,
    last: Mutex<String>,
}

impl Windows {
    fn tell(&self, epoch: &Epoch) {
        for window in &epoch.windows {
            let text = text(window);
            if self.voice.draws() {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = text;
            } else if !self.voice.quiet && !self.voice.json {
                say(&format!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64()));
            }
        }
    }
}

/// A closed window in one line.
fn text(window: &ClosedTick) -> String {
    let views: i64 = window.results.iter().map(|page| page.view_count).sum();
    let purchases: i64 = window.results.iter().map(|page| page.conversion_count).sum();
    let top = window.results.iter().max_by_key(|page| (page.view_count, std::cmp::Reverse(&page.page_url)));
    let top = top.map_or_else(String::new, |page| {
        format!(
            ", top {} ({} views, {} users, {:.0} % engaged)",
            page.page_url,
            page.view_count,
            page.unique_users,
            page.engagement_rate * 100.0
        )
    });
    let (end, pages) = (time_of_day(window.end.0), window.results.len());
    format!("window to {end}: {pages} pages, {views} views, {purchases} purchases{top}")
}

/// Shows the job's state, where it is drawn or asked for in JSON, until what is returned is dropped.
fn show(voice: Voice, status: Arc<Status>, windows: Arc<Windows>) -> Result<Option<Repeating>, Failure> {
    if voice.quiet || !(voice.json || voice.draws()) {
        return Ok(None);
    }
    let mut line = JobLine::new(voice);
    let show = move || {
        let last = windows.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        line.show(&json!(status.snapshot()).to_string(), &[last]);
    };
    Repeating::start("status", STATUS_EVERY, show).map(Some).map_err(|e| Failure::new(Exit::Failure, e))
}
