//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands::audit::{self, Audit};
use crate::commands::checkpoint::{Checkpoint, checkpoint};
use crate::commands::dead_letters::{DeadLetters, Place, dead_letters};
use crate::commands::demo::{self, Demo};
use crate::commands::generate::Generate;
use crate::commands::health::{self, Ask};
use crate::commands::launch::Launch;
use crate::commands::replay::Replay;
use crate::commands::run::Run;
use crate::commands::savepoint::savepoint;
use crate::commands::status_line::Voice;
use crate::commands::{generate, launch, replay, run, topics};
use crate::config::{Config, Override};
use crate::exit::{Exit, Failure};
use crate::generator::Scenario;
use crate::kafka::start::From;
use crate::logging;

/// Real-time clickstream analytics: click events in from Kafka, sliding-window page statistics out, exactly once.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
struct Common {
    /// The configuration file (TOML). Environment variables CLICKTIDE_SECTION__KEY stand above it, and flags above those.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets any key of the configuration: `--set windows.idle_timeout=1m`. May be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The brokers to begin with, in place of kafka.brokers.
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// What is logged: a level, or levels by module, as in `info,clicktide::kafka=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// No status line and no progress: only what comes of it, the log and errors.
    #[arg(long, global = true)]
    quiet: bool,
}

/// A process's place in the job: timely's own flags. `-h` is the hosts file, as in timely; help is `--help`.
#[derive(Args, Clone, Default)]
struct ClusterFlags {
    /// Number of processes.
    #[arg(short = 'n', long, value_name = "NUM")]
    processes: Option<usize>,
    /// Index of this process, from 0.
    #[arg(short = 'p', long, value_name = "IDX")]
    process: Option<usize>,
    /// Worker threads per process.
    #[arg(short = 'w', long, value_name = "NUM")]
    workers: Option<usize>,
    /// File with the HOST:PORT of one process per line; without it, ports from 2101 on of this machine.
    #[arg(short = 'h', long, value_name = "FILE")]
    hostfile: Option<PathBuf>,
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// Windows, in place of the configuration's.
#[derive(Args, Clone, Default)]
struct WindowFlags {
    /// Window size: "5m", "90s".
    #[arg(long, value_name = "DURATION")]
    size: Option<String>,
    /// Distance between windows: "10s", "250ms".
    #[arg(long, value_name = "DURATION")]
    slide: Option<String>,
    /// Added to the multiples of the slide where windows start.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    offset: Option<String>,
    /// How far an event may be behind the greatest of its partition.
    #[arg(long, value_name = "DURATION")]
    bound: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in one process, nothing to install: broker, topics, generator, job and dashboard.
    Demo {
        /// Events per second.
        #[arg(long, value_name = "NUM", default_value_t = 500.0)]
        rate: f64,
        /// Where the dashboard is served.
        #[arg(long, value_name = "HOST:PORT|off", default_value = "127.0.0.1:8080")]
        http: String,
        /// Worker threads.
        #[arg(short = 'w', long, value_name = "NUM", default_value_t = 2)]
        workers: usize,
        /// Stop after this time.
        #[arg(long, value_name = "DURATION")]
        duration: Option<humantime::Duration>,
        /// Print the state of the job as JSON instead, as /v1/cluster has it: a line every 10 s and when its phase changes.
        #[arg(long)]
        json: bool,
    },
    /// One process of a job on Kafka.
    #[command(disable_help_flag = true)]
    Run {
        #[command(flatten)]
        cluster: ClusterFlags,
        #[command(flatten)]
        windows: WindowFlags,
        #[command(flatten)]
        job: JobFlags,
        /// Stop in good order when standard input ends.
        #[arg(long, hide = true)]
        supervised: bool,
        /// Print the state of the job as JSON, as /v1/cluster has it, once a second.
        #[arg(long, hide = true)]
        status: bool,
    },
    /// All processes of a job on this machine, started again together when one fails.
    #[command(disable_help_flag = true)]
    Launch {
        #[command(flatten)]
        cluster: ClusterFlags,
        #[command(flatten)]
        windows: WindowFlags,
        #[command(flatten)]
        job: JobFlags,
        /// How often the job is started again before giving up; a run of a minute starts the count anew.
        #[arg(long, value_name = "NUM", default_value_t = 10)]
        restarts: u32,
        /// Print the state of the job as JSON, as /v1/cluster has it: a line every 10 s and when its phase changes.
        #[arg(long)]
        json: bool,
    },
    /// The generator of synthetic traffic.
    Generate {
        /// A kind of traffic: it sets keys of [generator] that neither flags nor --set name. docs/generator.md lists them.
        #[arg(long, value_enum, value_name = "NAME")]
        scenario: Option<Scenario>,
        /// Events per second.
        #[arg(long, value_name = "NUM")]
        rate: Option<f64>,
        /// For how long; without it, until a signal.
        #[arg(long, value_name = "DURATION")]
        duration: Option<String>,
        /// The seed: the same seed and start give the same events.
        #[arg(long, value_name = "NUM")]
        seed: Option<u64>,
        /// Number of users.
        #[arg(long, value_name = "NUM")]
        users: Option<u32>,
        /// Number of pages.
        #[arg(long, value_name = "NUM")]
        pages: Option<u32>,
        /// What the records' key is: `user_id` or `page_url`.
        #[arg(long, value_name = "FIELD")]
        key: Option<String>,
        /// 5,000 events/s for 5 minutes, or what generator.burst says.
        #[arg(long)]
        burst: bool,
        /// Write the exact results that the traffic has to give, as JSON Lines. The windows are those of the configuration or of
        /// --size, --slide, --offset and --bound.
        #[arg(long, value_name = "FILE")]
        truth: Option<PathBuf>,
        /// Write the events to this file as JSON Lines instead of sending them, as fast as can be; several of them are as many
        /// partitions. `clicktide replay` reads them.
        #[arg(long, value_name = "FILE")]
        output: Vec<PathBuf>,
        /// When the traffic in the files begins, such as 2026-01-31T12:00:00Z; without it, now. The same seed, settings and start
        /// give the same events.
        #[arg(long, value_name = "TIME", requires = "output", value_parser = parse_time)]
        start: Option<i64>,
        #[command(flatten)]
        windows: WindowFlags,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The topics of a job.
    Topics {
        #[command(subcommand)]
        command: TopicsCommand,
    },
    /// The checkpoints of a job, and its savepoints.
    Checkpoint {
        /// The job's name, in place of job.name.
        #[arg(long = "name", alias = "job", global = true, value_name = "NAME")]
        job: Option<String>,
        #[command(subcommand)]
        command: CheckpointCommand,
    },
    /// The records that did not count: look at them, and send them back after a fix.
    DeadLetters {
        /// The job's name, in place of job.name.
        #[arg(long, global = true, value_name = "NAME")]
        name: Option<String>,
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// What is wrong, before a job is started: configuration, brokers, topics, transactions, checkpoint store.
    Check {
        /// The job's name, in place of job.name.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Whether a running process is well, for supervisors that can only run a command: exit code 0 or 1. Reads no
    /// configuration.
    Health {
        /// What is asked: /healthz (alive), /readyz (does its work), or the generator's /metrics/health.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/readyz")]
        url: String,
        /// How long the answer may take.
        #[arg(long, value_name = "DURATION", default_value = "5s")]
        timeout: humantime::Duration,
    },
    /// Recompute from the input topic, and compare with the results topic: missing, twice, different.
    Audit {
        #[command(flatten)]
        windows: WindowFlags,
        /// The job's name, in place of job.name.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Leave out windows that end before this time (ms since the epoch).
        #[arg(long, value_name = "MS")]
        from: Option<i64>,
        /// Leave out windows that end after this time (ms since the epoch).
        #[arg(long, value_name = "MS")]
        through: Option<i64>,
        /// Compare with the results in this file, which `clicktide generate --truth` has written, instead of recomputing.
        #[arg(long, value_name = "FILE")]
        truth: Option<PathBuf>,
        /// How many examples of each kind of finding are shown.
        #[arg(long, value_name = "NUM", default_value_t = 5)]
        examples: usize,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The same dataflow over files (JSON Lines, plain or gzip, or Avro containers), each a partition in order.
    #[command(disable_help_flag = true)]
    Replay {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where the results go as JSON Lines; without it, standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Where every valid event goes, as JSON Lines too, without its personal data.
        #[arg(long, value_name = "FILE")]
        sanitised: Option<PathBuf>,
        /// Print the summary as JSON, on standard output, which is free for it if the results go to a file.
        #[arg(long, requires = "output")]
        json: bool,
        #[command(flatten)]
        cluster: ClusterFlags,
        #[command(flatten)]
        windows: WindowFlags,
    },
}

#[derive(Subcommand)]
enum TopicsCommand {
    /// Make the topics that are not there, with their configuration; the others are compared and left as they are.
    Create,
    /// Show partitions, offsets and configuration.
    Describe,
}

#[derive(Subcommand)]
enum CheckpointCommand {
    /// All checkpoints, the newest first, and savepoints, with a cheap check.
    List {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What one consists of.
    Show {
        /// A name from the list.
        name: String,
    },
    /// Read all of one, or of every one, and check it. Exit code 21 if something is bad.
    Verify {
        /// A name from the list.
        name: Option<String>,
    },
    /// Delete what is not needed. A running job does so by itself.
    Prune {
        /// How many checkpoints stay, in place of checkpoints.keep.
        #[arg(long, value_name = "NUM", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
        /// No process of the job is running: what its last run has written may go too.
        #[arg(long)]
        stopped: bool,
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a checkpoint or a savepoint.
    Delete {
        /// A name from the list.
        name: String,
    },
    /// Have the running job write one that is kept until it is deleted.
    Savepoint {
        /// What it is called: letters, digits, dots, underscores and hyphens.
        name: String,
        /// Where process 0 of the job is asked, in place of http.listen.
        #[arg(long, value_name = "URL")]
        http: Option<String>,
    },
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// The last ones, and how many there are of each reason.
    List {
        /// Only those of this reason, such as `undecodable`.
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// List so many at most.
        #[arg(long, value_name = "NUM", default_value_t = 100)]
        limit: usize,
        /// Print them as JSON, one a line.
        #[arg(long)]
        json: bool,
    },
    /// One of them, with its bytes: they may hold personal data.
    Show {
        /// Where it stands, as in the list: `0/17`.
        #[arg(value_name = "PARTITION/OFFSET")]
        place: Place,
        /// Only write its bytes to standard output.
        #[arg(long)]
        raw: bool,
    },
    /// Send those of a reason back to the events topic, each to the partition it came from, and each once: asking again sends
    /// only what has come since.
    Replay {
        /// The reason whose cause has been put right.
        #[arg(long, value_name = "REASON")]
        reason: String,
        /// Only say how many would be sent.
        #[arg(long)]
        dry_run: bool,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How a job starts.
#[derive(Args, Clone, Default)]
struct JobFlags {
    /// The job's name, in place of job.name. Each job needs a progress topic of its own.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where a new job begins; afterwards it resumes: `earliest`, `latest`, or a time such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "WHERE", default_value = "earliest", value_parser = parse_from)]
    from: From,
    /// What a new job begins with, in place of --from: the savepoint of this name (of this job, or JOB/NAME of another), or a
    /// checkpoint (`[JOB/]checkpoints/…`). Its configuration may be another one; afterwards it resumes.
    #[arg(long, value_name = "[JOB/]NAME", conflicts_with = "from")]
    from_savepoint: Option<String>,
    /// Go on although records that are needed are gone from Kafka, and no checkpoint holds them: windows will lack them.
    #[arg(long)]
    accept_gap: bool,
    /// End where the input ends at the job's first start, with all windows closed.
    #[arg(long)]
    until_end: bool,
    /// Where HTTP is served; with `launch`, by process 0, and by the others on the ports after it.
    #[arg(long, value_name = "HOST:PORT|off")]
    http: Option<String>,
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        time => parse_time(time).map(From::Timestamp).map_err(|error| format!("neither earliest, latest nor {error}")),
    }
}

/// A time as ms since the epoch.
fn parse_time(text: &str) -> Result<i64, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| "a time such as 2026-01-31T12:00:00Z".to_owned())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "a time after 1970".to_owned())?;
    i64::try_from(since.as_millis()).map_err(|e| e.to_string())
}

/// The flags that stand above keys of the configuration.
#[derive(Default)]
struct Overrides(Vec<Override>);

impl Overrides {
    fn add(&mut self, flag: &str, key: &str, value: Option<impl std::fmt::Display>) -> &mut Self {
        self.0.extend(value.map(|value| Override::new(flag, key, value)));
        self
    }

    fn cluster(&mut self, flags: &ClusterFlags) -> &mut Self {
        let hostfile = flags.hostfile.as_ref().map(|path| path.display());
        self.add("-n", "cluster.processes", flags.processes)
            .add("-p", "cluster.process", flags.process)
            .add("-w", "cluster.workers", flags.workers)
            .add("-h", "cluster.hosts", hostfile)
    }

    fn windows(&mut self, flags: &WindowFlags) -> &mut Self {
        self.add("--size", "windows.size", flags.size.as_ref())
            .add("--slide", "windows.slide", flags.slide.as_ref())
            .add("--offset", "windows.offset", flags.offset.as_ref())
            .add("--bound", "windows.disorder_bound", flags.bound.as_ref())
    }

    fn common(&mut self, common: &Common) -> Result<&mut Self, Failure> {
        self.add("--brokers", "kafka.brokers", common.brokers.as_ref()).add(
            "--log",
            "logging.filter",
            common.log.as_ref(),
        );
        for set in &common.set {
            let Some(set) = Override::of_text("--set", set) else {
                return Err(Failure::new(Exit::Configuration, format!("--set {set}: must be KEY=VALUE")));
            };
            self.0.push(set);
        }
        Ok(self)
    }
}

/// Runs what the command line says.
///
/// # Errors
/// Why the command failed, and with which code the program ends.
pub fn run_command(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    let mut overrides = Overrides::default();
    match &command {
        Command::Demo { rate, http, workers, .. } => {
            overrides
                .add("demo", "windows.size", Some(demo::SIZE))
                .add("demo", "windows.slide", Some(demo::SLIDE))
                .add("demo", "windows.disorder_bound", Some(demo::DISORDER_BOUND))
                .add("demo", "windows.idle_timeout", Some("3s"))
                .add("demo", "topics.events_partitions", Some(3))
                .add("demo", "http.history_windows", Some(120))
                // The embedded broker's own clients complain when it ends.
                .add("demo", "logging.filter", Some("error,librdkafka=off,rdkafka=off"))
                .add("demo", "checkpoints.store", Some("off"))
                .add("--rate", "generator.events_per_second", Some(rate))
                .add("--http", "http.listen", Some(http))
                .add("-w", "cluster.workers", Some(workers));
        }
        Command::Run { cluster, windows, job, .. } | Command::Launch { cluster, windows, job, .. } => {
            overrides.cluster(cluster).windows(windows);
            overrides.add("--name", "job.name", job.name.as_ref()).add("--http", "http.listen", job.http.as_ref());
        }
        Command::Generate { scenario, rate, duration, seed, users, pages, key, burst, windows, .. } => {
            overrides
                .windows(windows)
                .add("--scenario", "generator.scenario", scenario.map(Scenario::name))
                .add("--rate", "generator.events_per_second", rate.as_ref())
                .add("--duration", "generator.duration", duration.as_ref())
                .add("--seed", "generator.seed", seed.as_ref())
                .add("--users", "generator.users", users.as_ref())
                .add("--pages", "generator.pages", pages.as_ref())
                .add("--key", "generator.key", key.as_ref())
                .add("--burst", "generator.burst.enabled", burst.then_some(true));
        }
        Command::Health { .. } | Command::Topics { .. } => {}
        Command::Check { name } | Command::DeadLetters { name, .. } => {
            overrides.add("--name", "job.name", name.as_ref());
        }
        Command::Checkpoint { job, .. } => {
            overrides.add("--name", "job.name", job.as_ref());
        }
        Command::Audit { windows, name, .. } => {
            overrides.windows(windows).add("--name", "job.name", name.as_ref());
        }
        Command::Replay { cluster, windows, .. } => {
            overrides.cluster(cluster).windows(windows);
        }
    }
    overrides.common(&common)?;
    let configuration = |e: &dyn std::fmt::Display| Failure::new(Exit::Configuration, e);
    let config = match command {
        // What is around it is meant for the process that it asks.
        Command::Health { .. } => Config::default(),
        _ => Config::load(common.config.as_deref(), &overrides.0).map_err(|e| configuration(&e))?,
    };
    let name = log_name(&command, &config);
    logging::init(config.log_settings(&name)).map_err(|e| configuration(&e))?;
    let voice = |json| Voice { quiet: common.quiet, json };

    match command {
        Command::Demo { duration, json, .. } => {
            let duration = duration.map(|duration| *duration as Duration);
            demo::demo(Demo { duration, voice: voice(json) }, config)
        }
        Command::Run { job, supervised, status, .. } => {
            let JobFlags { from, until_end, accept_gap, from_savepoint, .. } = job;
            run::run(Run { from, until_end, supervised, status, accept_gap, from_savepoint }, &config)
        }
        Command::Launch { windows, job, restarts, json, .. } => {
            let arguments = forwarded(&common, &windows, &job);
            launch::launch(&Launch { arguments, restarts, voice: voice(json) }, &config)
        }
        Command::Generate { json, truth, output, start, .. } => {
            generate::generate(Generate { truth, output, start_ms: start, voice: voice(json) }, &config)
        }
        Command::Topics { command: TopicsCommand::Create } => topics::create(&config),
        Command::Topics { command: TopicsCommand::Describe } => topics::describe(&config),
        Command::DeadLetters { command, .. } => {
            let what = match command {
                DeadLettersCommand::List { reason, limit, json } => DeadLetters::List { reason, limit, json },
                DeadLettersCommand::Show { place, raw } => DeadLetters::Show { place, raw },
                DeadLettersCommand::Replay { reason, dry_run, json } => DeadLetters::Replay { reason, dry_run, json },
            };
            dead_letters(what, &config)
        }
        Command::Checkpoint { command, .. } => match command {
            CheckpointCommand::List { json } => checkpoint(Checkpoint::List { json }, &config),
            CheckpointCommand::Show { name } => checkpoint(Checkpoint::Show { name }, &config),
            CheckpointCommand::Verify { name } => checkpoint(Checkpoint::Verify { name }, &config),
            CheckpointCommand::Prune { keep, stopped, dry_run } => {
                checkpoint(Checkpoint::Prune { keep: keep.map(|keep| keep as usize), stopped, dry_run }, &config)
            }
            CheckpointCommand::Delete { name } => checkpoint(Checkpoint::Delete { name }, &config),
            CheckpointCommand::Savepoint { name, http } => savepoint(&name, http.as_deref(), &config),
        },
        Command::Check { .. } => topics::check(&config),
        Command::Health { url, timeout } => health::health(&Ask { url, timeout: *timeout }),
        Command::Audit { from, through, truth, examples, json, .. } => {
            audit::audit(Audit { from_ms: from, through_ms: through, truth, examples, voice: voice(json) }, &config)
        }
        Command::Replay { files, output, sanitised, json, .. } => {
            replay::replay(Replay { files, output, sanitised, voice: voice(json) }, &config)
        }
    }
}

/// Of whose log lines the log file's name tells: a process's, or another command's.
fn log_name(command: &Command, config: &Config) -> String {
    let name = match command {
        Command::Run { .. } => return config.cluster.process.to_string(),
        Command::Demo { .. } => "demo",
        Command::Launch { .. } => "launch",
        Command::Generate { .. } => "generate",
        Command::Topics { .. } => "topics",
        Command::Checkpoint { .. } => "checkpoint",
        Command::DeadLetters { .. } => "dead-letters",
        Command::Check { .. } => "check",
        Command::Health { .. } => "health",
        Command::Audit { .. } => "audit",
        Command::Replay { .. } => "replay",
    };
    name.to_owned()
}

/// The flags of `launch` that each of its processes is given as well.
fn forwarded(common: &Common, windows: &WindowFlags, job: &JobFlags) -> Vec<String> {
    let config = common.config.as_ref().map(|path| path.display().to_string());
    let from = match job.from {
        From::Earliest => "earliest".to_owned(),
        From::Latest => "latest".to_owned(),
        From::Timestamp(ms) => {
            humantime::format_rfc3339(std::time::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())).to_string()
        }
    };
    let flags = [
        ("--config", config.as_ref()),
        ("--brokers", common.brokers.as_ref()),
        ("--log", common.log.as_ref()),
        ("--size", windows.size.as_ref()),
        ("--slide", windows.slide.as_ref()),
        ("--offset", windows.offset.as_ref()),
        ("--bound", windows.bound.as_ref()),
        ("--name", job.name.as_ref()),
        // Either of the two.
        ("--from", job.from_savepoint.is_none().then_some(&from)),
        ("--from-savepoint", job.from_savepoint.as_ref()),
    ];
    let mut arguments: Vec<String> =
        flags.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value?))).collect();
    arguments.extend(common.set.iter().map(|set| format!("--set={set}")));
    arguments.extend(job.until_end.then(|| "--until-end".to_owned()));
    arguments.extend(job.accept_gap.then(|| "--accept-gap".to_owned()));
    arguments
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_job_begins_where_it_is_told() {
        let check = |text: &str, expected: Option<From>| assert_eq!(parse_from(text).ok(), expected, "{text}");
        check("earliest", Some(From::Earliest));
        check("latest", Some(From::Latest));
        check("1970-01-01T00:01:00Z", Some(From::Timestamp(60_000)));
        check("1970-01-01 00:01:00", Some(From::Timestamp(60_000)));
        check("yesterday", None);
    }

    #[test]
    fn what_is_set_has_a_key() {
        let check = |set: &str, expected: Option<Override>| {
            let cli = Cli::try_parse_from(["clicktide", "demo", "--set", set]).unwrap();
            let mut overrides = Overrides::default();
            let refused = overrides.common(&cli.common).err().map(|failure| failure.why);
            assert_eq!(
                (overrides.0.pop(), refused.is_none()),
                (expected.clone(), expected.is_some()),
                "{set}: {refused:?}"
            );
        };
        check("windows.size = 5m", Some(Override::new("--set", "windows.size", "5m")));
        check("windows.size=", Some(Override::new("--set", "windows.size", "")));
        check("windows.size", None);
        check("=5m", None);
        check(" =", None);
        check(".=5m", None);
        check("windows. .size=5m", None);
    }
}
