//! `clicktide run`: one process of a job on Kafka.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clicktide_dataflows::time::{Tick, Windows};

use crate::checkpoint::choose::{find_probe, put_probe};
use crate::checkpoint::coordinator::{Committed, CoordinatorSettings, SavepointRequests};
use crate::checkpoint::names;
use crate::checkpoint::restore::Restore;
use crate::checkpoint::store::Store;
use crate::checkpoint::worker::Checkpoints;
use crate::checkpoint::writer::{Writer, WriterSettings};
use crate::cluster::{Cluster, ClusterError, Heartbeats, assemble};
use crate::commands::input_watch::InputWatch;
use crate::commands::signals::{stop_at_end_of_input, stop_on_signal};
use crate::committer::CommitEpoch;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::http::{self, ClosedWindow, JobSite, JobStore, ProcessIdentity, Server, Site, Status, View, ViewLimits};
use crate::kafka::committer::OutputSchemas;
use crate::kafka::history::{HistorySettings, PastWindow, read_history};
use crate::kafka::probe::reach;
use crate::kafka::source::KafkaPartitions;
use crate::kafka::start::{From, Savepoint, StartError, StartSettings, start_job};
use crate::observe::Observer;
use crate::pipeline::{self, Ended, Job, ObserveJob, Unpaced};
use crate::progress::JobStart;
use crate::registry::{Schemas, Subject};
use crate::report::Phase;
use crate::{logging, metrics};

/// How a job is run, beside its configuration.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Where a new job begins.
    pub from: From,
    /// Whether it ends where the input ends at its first start.
    pub until_end: bool,
    /// Whether the end of standard input asks for an orderly stop.
    pub supervised: bool,
    /// Whether the state of the job goes to standard output, once a second.
    pub status: bool,
    /// Whether to go on where records that are needed are gone.
    pub accept_gap: bool,
    /// What a new job begins with: `NAME`, or `JOB/NAME` for a savepoint of another job; or a checkpoint's name from the list.
    pub from_savepoint: Option<String>,
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
            Early::Start(error) => Failure::new(error.exit(), error),
        }
    }
}

/// How long a broker may take to answer at the start.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

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
    logging::begin_process(cluster.process);
    let site = JobSiteParts::new(config, cluster.processes, cluster.process, cluster.workers)?;
    let store = config.checkpoint_store(&config.job.name).map_err(checkpoints)?;
    say_start("run", config);
    let server = site.serve(config, store.as_ref())?;
    if run.status {
        write_status(Arc::clone(&site.status))?;
    }

    let source = config.source_settings();
    let schemas = source.ingest.format.schemas().cloned();
    if let Some(schemas) = &schemas {
        let waits = Arc::clone(schemas);
        site.status.set_registry_waits(move || waits.waits());
    }
    let meaning = config.meaning();
    let savepoint = run.from_savepoint.as_deref().map(|savepoint| find_savepoint(config, savepoint)).transpose()?;
    let settings = StartSettings {
        checkpoints: store.clone(),
        savepoint,
        accept_gap: run.accept_gap,
        // Before the processes come together: a start that waits for the registry fences nobody.
        schemas: output_schemas(config, schemas.as_deref().filter(|_| cluster.process == 0))?,
        ..start_settings(config, run.from, run.until_end)
    };
    if cluster.process > 0 {
        // Process 0 does so when it starts the job. The others may be on other machines, with other files.
        reach(&settings.kafka, REACH_TIMEOUT).map_err(|e| Failure::new(e.exit(), e))?;
    }
    let identity = format!("{} {}", settings.job, settings.configuration);
    let mut committer = None;
    let (allocators, start) = assemble(&cluster, &identity, || {
        let (started, mut start) =
            start_job(&settings, &|committed| meaning.differences(committed)).map_err(Early::Start)?;
        if let Some(store) = store.as_deref().filter(|_| cluster.processes > 1) {
            start.probe = Some(put_probe(store, start.generation).map_err(StartError::from).map_err(Early::Start)?);
        }
        committer = Some(Box::new(started) as Box<dyn CommitEpoch>);
        Ok::<_, Early>(start)
    })?;
    site.begin(start.generation, start.input.len(), &allocators.heartbeats);
    tracing::info!(
        through_ms = start.committed_through.map(|tick| tick.0),
        partitions = start.input.len(),
        "the processes are together"
    );
    if let Some((store, probe)) = store.as_deref().zip(start.probe.as_ref()) {
        or_end(find_probe(store, probe).map_err(checkpoints));
    }
    let restore_from = match &start.restore {
        Some(restore) => {
            let Restore { checkpoint, through, objects, .. } = restore;
            tracing::info!(
                checkpoint,
                through_ms = through.0,
                objects = objects.len(),
                events = restore.events(),
                "restoring"
            );
            or_end(config.checkpoint_store(&restore.job).map_err(checkpoints))
        }
        None => None,
    };
    site.read_history(config, start.committed_through);
    site.status.set_phase(if start.committed_through.is_some() { Phase::Replaying } else { Phase::Running });
    running.store(true, Ordering::Relaxed);

    let now_ms = pipeline::monotonic_clock();
    let partitions = KafkaPartitions::new(settings.kafka.clone(), settings.topics.events.clone(), Arc::clone(&now_ms))
        .map_err(|reason| Failure::new(Exit::Kafka, reason));
    let partitions = or_end(partitions).waiting_for(schemas);
    let input = or_end(InputWatch::start(config, start.input.len(), run.until_end, &stop, Arc::clone(&site.status)));
    let status = Arc::clone(&site.status);
    let observer =
        Observer::new(Arc::clone(&site.status), site.view.clone(), config.windows(), start.committed_through);
    let observer: Arc<dyn ObserveJob> = Arc::new(observer);
    let checkpoints =
        store.map(|store| start_writer(config, &settings, &cluster, &start, site.savepoints.clone(), store));
    let checkpoints = or_end(checkpoints.transpose());
    let job = Job {
        workers: cluster.workers,
        source,
        start,
        partitions: Box::new(partitions),
        committer: committer
            .map_or_else(Mutex::default, |sink| pipeline::committer(sink, &observer, checkpoints.as_ref())),
        restore_from,
        checkpoints,
        observer,
        now_ms,
        pace: Arc::new(Unpaced),
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
        Ended::Failed | Ended::Killed => return Err(Failure::new(Exit::Failure, "the job has failed")),
    }
    if let Some(server) = server {
        server.stop();
    }
    Ok(())
}

/// Says what is started, and what is configured, without secrets.
pub fn say_start(command: &str, config: &Config) {
    let Config { job, kafka, windows, cluster, checkpoints, logging, http, .. } = config;
    let off = || "off".to_owned();
    let properties: Vec<&str> = kafka.properties.iter().map(|(name, _)| name).collect();
    tracing::info!(
        command,
        version = env!("CARGO_PKG_VERSION"),
        job = job.name,
        processes = cluster.processes,
        workers = cluster.workers,
        brokers = kafka.brokers,
        kafka_properties = properties.join(","),
        events_topic = kafka.events_topic,
        results_topic = kafka.results_topic,
        windows = format!("{} every {}", windows.size, windows.slide),
        disorder_bound = %windows.disorder_bound,
        idle_timeout = windows.idle_timeout.map_or_else(off, |timeout| timeout.to_string()),
        checkpoints = checkpoints.store.as_ref().map_or_else(off, ToString::to_string),
        http = http.listen.map_or_else(off, |address| address.to_string()),
        filter = logging.filter,
        "clicktide starts"
    );
}

/// Writes the state of the job to standard output once a second, on a thread that may wait there for ever: nobody waits for it.
/// It ends when nobody reads any more.
fn write_status(status: Arc<Status>) -> Result<(), Failure> {
    let write = move || {
        loop {
            let Ok(mut line) = serde_json::to_vec(&status.snapshot()) else { return };
            line.push(b'\n');
            let mut output = std::io::stdout().lock();
            if output.write_all(&line).and_then(|()| output.flush()).is_err() {
                return;
            }
            drop(output);
            std::thread::sleep(STATUS_EVERY);
        }
    };
    std::thread::Builder::new()
        .name("status".to_owned())
        .spawn(write)
        .map(drop)
        .map_err(|e| Failure::new(Exit::Failure, e))
}

/// How often the state of a job is written and shown.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Ends the process on a failure once it is connected to the others: timely's threads, which would find their workers gone
/// when this one returns, would end it for that instead.
fn or_end<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|Failure { exit, why }| exit.now(why))
}

/// A failure of the checkpoint store.
fn checkpoints(why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Checkpoints, why)
}

/// The savepoint that is called `NAME` or `JOB/NAME`, or the checkpoint `checkpoints/…` or `JOB/checkpoints/…`.
fn find_savepoint(config: &Config, called: &str) -> Result<Savepoint, Failure> {
    let (job, name) = match called.split_once('/') {
        Some(of_job) if names::checkpoint_of(called).is_none() => of_job,
        _ => (config.job.name.as_str(), called),
    };
    let Some(store) = config.checkpoint_store(job).map_err(checkpoints)? else {
        let why = format!("--from-savepoint {called}: checkpoints.store is \"off\"; it must be where the savepoint is");
        return Err(Failure::new(Exit::Configuration, why));
    };
    Ok(Savepoint { job: job.to_owned(), name: name.to_owned(), store })
}

/// Starts the thread that writes this process's part of the checkpoints.
fn start_writer(
    config: &Config,
    settings: &StartSettings,
    cluster: &Cluster,
    start: &JobStart,
    requests: SavepointRequests,
    store: Arc<dyn Store>,
) -> Result<Checkpoints, Failure> {
    let Cluster { processes, process, workers, .. } = *cluster;
    let keep = config.checkpoints.keep;
    let (writer, (commands, outcomes)) =
        Writer::new(WriterSettings { store, generation: start.generation, process, workers, keep });
    let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || writer.run());
    thread.map_err(|e| checkpoints(format!("can't start the writing thread: {e}")))?;
    let StartSettings { job, configuration, windows, .. } = settings.clone();
    Ok(Checkpoints {
        settings: CoordinatorSettings {
            job,
            configuration,
            topic_id: start.topic_id.clone(),
            interval_ms: config.checkpoints.interval.0,
            processes,
        },
        committed: Arc::new(Mutex::new(Committed::at(start, windows.size_ms()))),
        requests,
        process,
        commands: Mutex::new(commands),
        outcomes: Mutex::new(Some(outcomes)),
    })
}

/// The ids of the schemas of what is published, where there is a registry.
///
/// # Errors
/// When the registry refuses, or the files of its TLS can't be used. While it does not answer, this waits.
fn output_schemas(config: &Config, schemas: Option<&Schemas>) -> Result<OutputSchemas, Failure> {
    let Some(schemas) = schemas else { return Ok(OutputSchemas::default()) };
    let publication = config.schema_registry.publication();
    let id = |subject: Subject| {
        let id = schemas.id_of(publication, &subject);
        id.map(Some).map_err(|error| Failure::new(Exit::Registry, error))
    };
    let sanitised_events = config.kafka.sanitised_events_topic.as_deref();
    Ok(OutputSchemas {
        results: id(publication.results(&config.kafka.results_topic))?,
        sanitised_events: sanitised_events.map_or(Ok(None), |topic| id(publication.sanitised_events(topic)))?,
    })
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
        windows: config.windows(),
        bound_ms: config.source_settings().ingest.bound_ms,
        keeps_history: config.history().any(),
        can_describe: true,
        accept_gap: false,
        checkpoints: None,
        savepoint: None,
        schemas: OutputSchemas::default(),
    }
}

/// What a job's process shows over HTTP.
pub struct JobSiteParts {
    /// What the process says about itself.
    pub status: Arc<Status>,
    /// The closed windows, in process 0.
    pub view: Option<Arc<View>>,
    /// The savepoints asked for.
    pub savepoints: SavepointRequests,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
}

impl JobSiteParts {
    /// Installs the metrics, for the whole process.
    ///
    /// # Errors
    /// When they are installed already.
    pub fn new(config: &Config, processes: usize, process: usize, workers: usize) -> Result<Self, Failure> {
        let metrics = metrics::install().map_err(|e| Failure::new(Exit::Failure, e))?;
        let identity = ProcessIdentity {
            job: config.job.name.clone(),
            process,
            processes,
            workers,
            windows: config.windows(),
            disorder_bound_ms: config.windows.disorder_bound.0,
        };
        let status = Arc::new(Status::new(identity));
        if config.checkpoints.store.is_some() {
            status.set_checkpoint_interval(config.checkpoints.interval.0);
        }
        let view = (process == 0).then(|| Arc::new(View::new(config.view_limits())));
        let savepoints = SavepointRequests::default();
        Ok(JobSiteParts { status, view, savepoints, metrics })
    }

    /// Says that the processes are together: which run this is, over how many partitions, and who hears whom.
    pub fn begin(&self, generation: i64, partitions: usize, heartbeats: &Heartbeats) {
        logging::begin_run(self.status.set_run(generation, partitions));
        let heartbeats = heartbeats.clone();
        self.status.set_heard_from(move || heartbeats.ages().collect());
    }

    /// Reads the last windows of earlier runs again, on a thread of its own, for those who look at the view. That it can't be
    /// done is said and holds nothing up.
    fn read_history(&self, config: &Config, committed_through: Option<Tick>) {
        let Some((view, through)) = self.view.clone().zip(committed_through) else { return };
        if config.http.listen.is_none() {
            return;
        }
        let ViewLimits { windows_max, page_rows_max } = view.limits();
        let connection = config.connection();
        let settings = HistorySettings {
            brokers: connection.brokers,
            properties: connection.properties.to_map(),
            topic: config.job_topics().results,
            windows: config.windows(),
            through,
            windows_max,
            records_max: page_rows_max,
        };
        let read = move || match read_history(&settings) {
            Ok(windows) => {
                tracing::info!(windows = windows.len(), "the last windows are read again, for the dashboard");
                view.restore(windows.into_iter().map(|window| past_window(window, &settings.windows)).collect());
            }
            Err(error) => tracing::warn!(%error, "the dashboard has no history: the results can't be read again"),
        };
        if let Err(error) = std::thread::Builder::new().name("history".to_owned()).spawn(read) {
            tracing::warn!(%error, "the dashboard has no history: no thread can be started");
        }
    }

    /// Serves, unless the configuration says `off`. The store is there if the job takes checkpoints.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn serve(&self, config: &Config, store: Option<&Arc<dyn Store>>) -> Result<Option<Server>, Failure> {
        let Some(address) = config.http.listen else { return Ok(None) };
        if let Some(why) = config.open_to_others() {
            tracing::warn!(%address, "{why}");
        }
        let failure = |e| Failure::new(Exit::Configuration, format!("http.listen = {address}: {e}"));
        let listener = TcpListener::bind(address).map_err(failure)?;
        let site = JobSite {
            status: Arc::clone(&self.status),
            view: self.view.clone(),
            savepoints: store.map(|_| self.savepoints.clone()),
            store: store.map(|store| JobStore {
                store: Arc::clone(store),
                job: config.job.name.clone(),
                configuration: config.meaning().to_json(),
            }),
            limits: config.health_limits(),
            metrics: self.metrics.clone(),
            access: config.access(),
        };
        let server = http::serve(listener, Site::Job(site)).map_err(failure)?;
        tracing::info!(address = %server.address(), "HTTP");
        Ok(Some(server))
    }
}

/// A window of an earlier run, for the view.
fn past_window(window: PastWindow, windows: &Windows) -> ClosedWindow {
    let PastWindow { end, pages } = window;
    let window_start = end.0.saturating_sub(windows.size_ms());
    ClosedWindow { window_start, window_end: end.0, close_to_commit_ms: None, pages }
}
