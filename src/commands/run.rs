//! `clicktide run`: one process of a job on Kafka.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::cluster::{ClusterError, assemble};
use crate::commands::input_watch::InputWatch;
use crate::commands::signals::{stop_at_end_of_input, stop_on_signal};
use crate::committer::{CommitEpoch, CommitError};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::http::{self, HealthLimits, JobSite, Phase, ProcessIdentity, Server, Site, Status, View};
use crate::kafka::source::KafkaPartitions;
use crate::kafka::start::{From, StartError, StartSettings, start_job};
use crate::observe::Observer;
use crate::pipeline::{self, Ended, Job};
use crate::{logging, metrics};

/// How a job is run, beside its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Where a new job begins.
    pub from: From,
    /// Whether it ends where the input ends at its first start.
    pub until_end: bool,
    /// Whether the end of standard input asks for an orderly stop.
    pub supervised: bool,
}

/// Why a process does not get as far as its workers.
enum Early {
    Cluster(ClusterError),
    Start(StartError),
}

impl std::convert::From<ClusterError> for Early {
    fn from(error: ClusterError) -> Self {
        Early::Cluster(error)
    }
}

impl std::convert::From<Early> for Failure {
    fn from(early: Early) -> Self {
        match early {
            Early::Cluster(error) => Failure::new(error.exit(), error),
            Early::Start(error @ StartError::Refused { .. }) => Failure::new(Exit::Refused, error),
            Early::Start(StartError::Commit(error @ CommitError::Fenced(_))) => Failure::new(Exit::Fenced, error),
            Early::Start(error) => Failure::new(Exit::Kafka, error),
        }
    }
}

/// Runs one process of the job until it is stopped, fails, or a bounded job is finished.
///
/// # Errors
/// When the job can't be started or ends before its time.
pub fn run(run: Run, config: &Config) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop), Arc::clone(&running))?;
    if run.supervised {
        stop_at_end_of_input(Arc::clone(&stop), Arc::clone(&running))?;
    }
    let cluster = config.cluster();
    let _process = logging::process_span(cluster.process).entered();
    let site = JobSiteParts::new(config, cluster.processes, cluster.process, cluster.workers)?;
    let server = site.serve(config)?;

    let meaning = config.meaning();
    let settings = start_settings(config, run.from, run.until_end);
    let identity = format!("{} {}", settings.job, settings.configuration);
    let mut committer = None;
    let (allocators, start) = assemble(&cluster, &identity, || {
        let (started, start) =
            start_job(&settings, &|committed| meaning.differences(committed)).map_err(Early::Start)?;
        committer = Some(Box::new(started) as Box<dyn CommitEpoch>);
        Ok::<_, Early>(start)
    })?;
    tracing::info!(
        job = settings.job,
        generation = start.generation,
        committed_through_ms = start.committed_through.map(|tick| tick.0),
        partitions = start.input.len(),
        "the processes are together"
    );
    site.status.set_phase(if start.committed_through.is_some() { Phase::Replaying } else { Phase::Running });
    running.store(true, Ordering::Relaxed);

    let now_ms = pipeline::monotonic_clock();
    let partitions = KafkaPartitions::new(settings.kafka.clone(), settings.topics.events.clone(), Arc::clone(&now_ms))
        .map_err(|reason| Failure::new(Exit::Kafka, reason))?;
    let input = InputWatch::start(config, start.input.len(), run.until_end, &stop)?;
    let status = Arc::clone(&site.status);
    let observer = Observer::new(Arc::clone(&site.status), site.view.clone(), config.windows().size_ms());
    let job = Job {
        workers: cluster.workers,
        source: config.source_settings(),
        start,
        partitions: Box::new(partitions),
        sink: Mutex::new(committer),
        observer: Arc::new(observer),
        now_ms,
        stop: Arc::clone(&stop),
    };
    let ended = pipeline::run(allocators, Arc::new(job)).map_err(|e| Failure::new(Exit::Failure, e))?;
    status.set_phase(Phase::Stopping);
    match ended {
        Ended::Finished => tracing::info!("finished: all of the input is read and all windows are committed"),
        Ended::Stopped => {
            tracing::info!("stopped: what was complete is committed");
            if input.grown(stop.load(Ordering::Relaxed)) {
                return Err(Failure::new(Exit::Again, "the job has to be started again: its input has grown"));
            }
        }
        Ended::Failed => return Err(Failure::new(Exit::Failure, "the job has failed")),
    }
    if let Some(server) = server {
        server.stop();
    }
    Ok(())
}

/// What a run of the configured job is started with.
pub fn start_settings(config: &Config, from: From, until_end: bool) -> StartSettings {
    StartSettings {
        kafka: config.connection(),
        job: config.job.name.clone(),
        topics: config.job_topics(),
        transaction_timeout: config.kafka.transaction_timeout.duration(),
        from,
        until_end,
        configuration: config.meaning().to_json(),
    }
}

/// What a job's process shows over HTTP.
pub struct JobSiteParts {
    /// What the process says about itself.
    pub status: Arc<Status>,
    /// The closed windows, in process 0.
    pub view: Option<Arc<View>>,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
}

impl JobSiteParts {
    /// Installs the metrics, for the whole process.
    ///
    /// # Errors
    /// When they are installed already.
    pub fn new(config: &Config, processes: usize, process: usize, workers: usize) -> Result<Self, Failure> {
        let metrics = metrics::install().map_err(|e| Failure::new(Exit::Failure, e))?;
        let identity = ProcessIdentity { job: config.job.name.clone(), process, processes, workers };
        let view = (process == 0).then(|| Arc::new(View::new(config.view_limits())));
        Ok(JobSiteParts { status: Arc::new(Status::new(identity)), view, metrics })
    }

    /// Serves, unless the configuration says `off`.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn serve(&self, config: &Config) -> Result<Option<Server>, Failure> {
        let Some(address) = config.http.listen else { return Ok(None) };
        let failure = |e| Failure::new(Exit::Configuration, format!("http.listen = {address}: {e}"));
        let listener = TcpListener::bind(address).map_err(failure)?;
        let limits = HealthLimits {
            slide: std::time::Duration::from_millis(config.windows().slide_ms().unsigned_abs()),
            ..HealthLimits::default()
        };
        let site = JobSite {
            status: Arc::clone(&self.status),
            view: self.view.clone(),
            limits,
            metrics: self.metrics.clone(),
        };
        let server = http::serve(listener, Site::Job(site)).map_err(failure)?;
        tracing::info!(address = %server.address(), "HTTP");
        Ok(Some(server))
    }
}
