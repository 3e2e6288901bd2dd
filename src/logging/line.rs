//! What a line looks like.

use std::cell::Cell;
use std::fmt::{self, Debug};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

static PROCESS: OnceLock<usize> = OnceLock::new();
static RUN: OnceLock<String> = OnceLock::new();

thread_local! {
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// From now on all lines say that they come from this process of a job. The first call counts.
pub fn begin_process(process: usize) {
    PROCESS.set(process).ok();
}

/// Which process of a job this is, once it is known.
pub(super) fn process() -> Option<usize> {
    PROCESS.get().copied()
}

/// From now on all lines carry the run's id, the same in all processes: the job's name and the run's generation, as in
/// `clicktide-17`. The first call counts: a process takes part in one run.
pub fn begin_run(run: &str) {
    RUN.set(run.to_owned()).ok();
}

/// From now on this thread's lines say that they come from this worker, counted through the whole cluster.
pub fn begin_worker(worker: usize) {
    WORKER.set(Some(worker));
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    Human,
    Json,
}

/// Where a line comes from.
#[derive(Serialize)]
struct Origin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<usize>,
}

impl Origin<'_> {
    fn here() -> Self {
        Origin { run: RUN.get().map(String::as_str), process: process(), worker: WORKER.get() }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        match self {
            Lines::Human => human(ctx, writer, event, &now),
            Lines::Json => json(writer, event, &now),
        }
    }
}

/// `2026-11-25T18:30:01.250Z  INFO clicktide::observe: a checkpoint is taken through_ms=… run=clicktide-17 process=0 worker=1`
fn human<S, N>(ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>, now: &str) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    const DIM: &str = "\x1b[2m";
    const PLAIN: &str = "\x1b[0m";
    let colours = writer.has_ansi_escapes();
    let (dim, plain) = if colours { (DIM, PLAIN) } else { ("", "") };
    let level = *event.metadata().level();
    let colour = match level {
        _ if !colours => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => DIM,
    };
    write!(writer, "{dim}{now}{plain} {colour}{level:>5}{plain} {dim}{}:{plain} ", event.metadata().target())?;
    ctx.format_fields(writer.by_ref(), event)?;
    let Origin { run, process, worker } = Origin::here();
    write!(writer, "{dim}")?;
    if let Some(run) = run {
        write!(writer, " run={run}")?;
    }
    if let Some(process) = process {
        write!(writer, " process={process}")?;
    }
    if let Some(worker) = worker {
        write!(writer, " worker={worker}")?;
    }
    writeln!(writer, "{plain}")
}

/// A line as JSON: what every line has comes first.
#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: &'a str,
    level: &'static str,
    message: String,
    #[serde(flatten)]
    origin: Origin<'a>,
    target: &'a str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Names that a field of an event can't have beside those that every line has.
const TAKEN: [&str; 6] = ["timestamp", "level", "run", "process", "worker", "target"];

fn json(mut writer: Writer<'_>, event: &Event<'_>, now: &str) -> fmt::Result {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let line = JsonLine {
        timestamp: now,
        level: event.metadata().level().as_str(),
        message: fields.message,
        origin: Origin::here(),
        target: event.metadata().target(),
        fields: fields.others,
    };
    let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
    writeln!(writer, "{text}")
}

/// The fields of an event as JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            taken if TAKEN.contains(&taken) => drop(self.others.insert(format!("{taken}_"), value)),
            name => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// What is written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(lines: Lines, colours: bool, say: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_ansi(colours);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, say);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_says_where_it_comes_from_on_every_thread() {
        // The whole test program is process 1 of that run.
        begin_process(1);
        begin_run("clicks-17");
        begin_run("clicks-18");
        let say = || {
            std::thread::scope(|scope| {
                scope.spawn(|| begin_worker(5));
            });
            tracing::warn!(partition = 3, error = %"gone\nfor ever", "no more");
            begin_worker(2);
            tracing::info!(level = "loud", share = 0.5, taken = true, "at work");
        };
        let text = lines(Lines::Json, false, say);
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let check = |line: usize, key: &str, expected: Value| assert_eq!(found[line][key], expected, "{key} in {text}");
        check(0, "message", "no more".into());
        check(0, "level", "WARN".into());
        check(0, "run", "clicks-17".into());
        check(0, "process", 1.into());
        check(0, "worker", Value::Null);
        check(0, "partition", 3.into());
        check(0, "error", "gone\nfor ever".into());
        check(0, "target", "clicktide::logging::line::tests".into());
        check(1, "worker", 2.into());
        check(1, "level", "INFO".into());
        check(1, "level_", "loud".into());
        check(1, "share", 0.5.into());
        check(1, "taken", true.into());
        assert!(text.starts_with(r#"{"timestamp":"2"#), "{text}");
        WORKER.set(None);

        let text = lines(Lines::Human, false, || tracing::error!(partition = 3, "no more"));
        assert!(
            text.ends_with(" ERROR clicktide::logging::line::tests: no more partition=3 run=clicks-17 process=1\n"),
            "{text:?}"
        );
        let text = lines(Lines::Human, true, || tracing::error!("no more"));
        assert!(text.contains("\x1b[31mERROR\x1b[0m") && text.ends_with("\x1b[0m\n"), "{text:?}");
    }
}
