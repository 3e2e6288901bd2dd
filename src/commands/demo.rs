//! `clicktide demo`: broker, topics, generator, job and dashboard in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, ClusterError, assemble};
use crate::commands::generate::produce;
use crate::commands::run::{JobSiteParts, start_settings};
use crate::commands::signals::stop_on_signal;
use crate::committer::Epoch;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::source::KafkaPartitions;
use crate::kafka::start::{From, StartError, StartSettings, start_job};
use crate::observe::Observer;
use crate::pipeline::{self, Job, ObserveJob, Unpaced};
use crate::report::Phase;

/// How long the demo lasts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demo {
    /// After this it stops by itself; none: at a signal.
    pub duration: Option<Duration>,
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
    let broker = EmbeddedBroker::start(&[
        (topics.events.as_str(), config.topics.events_partitions),
        (topics.results.as_str(), config.topics.results_partitions),
        (topics.dead_letters.as_str(), 1),
        (topics.progress.as_str(), 1),
    ])
    .map_err(kafka)?;
    config.kafka.brokers = broker.address();

    let workers = config.cluster.workers;
    let site = JobSiteParts::new(&config, 1, 0, workers)?;
    site.status.set_notice(format!(
        "This is the demo: windows of {SIZE} every {SLIDE} instead of 5 min every 10 s, synthetic traffic, and a broker \
         that lives in this process and forgets everything when it ends."
    ));
    let server = site.serve(&config, None)?;
    if let Some(server) = &server {
        println!("dashboard: http://{}/", server.address());
    }

    let meaning = config.meaning();
    let settings = StartSettings { topic_ids: false, ..start_settings(&config, From::Earliest, false) };
    let (committer, start) = start_job(&settings, &|committed| meaning.differences(committed))
        .map_err(|e: StartError| kafka(e.to_string()))?;
    let (allocators, start) = assemble::<ClusterError>(&Cluster::single(workers), "demo", || Ok(start))
        .map_err(|e| Failure::new(e.exit(), e))?;
    site.begin(start.generation, start.input.len(), &allocators.heartbeats);
    site.status.set_phase(Phase::Running);
    running.store(true, Ordering::Relaxed);

    let now_ms = pipeline::monotonic_clock();
    let partitions = KafkaPartitions::new(settings.kafka, topics.events, Arc::clone(&now_ms)).map_err(kafka)?;
    let observer = Observer::new(Arc::clone(&site.status), site.view.clone(), config.windows(), None)
        .telling(move |epoch| tell(epoch, began));
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
                if let Err(failure) = produce(&config, &stop, |_| {}) {
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
    pipeline::run(allocators, Arc::new(job)).map_err(|e| Failure::new(Exit::Failure, e))?;
    generating.join().ok();
    if let Some(server) = server {
        server.stop();
    }
    drop(broker);
    Ok(())
}

/// One line per closed window.
fn tell(epoch: &Epoch, began: Instant) {
    for window in &epoch.windows {
        let views: i64 = window.results.iter().map(|page| page.view_count).sum();
        let purchases: i64 = window.results.iter().map(|page| page.conversion_count).sum();
        let top = window.results.iter().max_by_key(|page| (page.view_count, std::cmp::Reverse(&page.page_url)));
        let top = top.map_or_else(String::new, |page| {
            format!(
                "top {} ({} views, {} users, {:.0} % engaged)",
                page.page_url,
                page.view_count,
                page.unique_users,
                page.engagement_rate * 100.0
            )
        });
        println!(
            "{:>6.1} s  window to {}: {} pages, {views} views, {purchases} purchases, {top}",
            began.elapsed().as_secs_f64(),
            clock_time(window.end.0),
            window.results.len(),
        );
    }
}

/// A time of day in UTC.
fn clock_time(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
