//! Whether a process is alive and whether it is ready, with a reason for each check.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::status::Status;
use crate::report::Phase;

/// What still counts as well.
#[derive(Clone, Copy, Debug)]
pub struct HealthLimits {
    /// How long a worker may take over one step before the process no longer counts as alive.
    pub step_age_max: Duration,
    /// How long another process may give no sign of life.
    pub heartbeat_age_max: Duration,
    /// How many unread records, in all partitions together, a job that is ready may have.
    pub lag_records_max: i64,
    /// How long a closed window may wait for its commit.
    pub commit_age_max: Duration,
}

impl Default for HealthLimits {
    /// 60 s for a step, 10 s for a sign of life, 100,000 records and 60 s for a commit.
    fn default() -> Self {
        HealthLimits {
            step_age_max: Duration::from_secs(60),
            heartbeat_age_max: Duration::from_secs(10),
            lag_records_max: 100_000,
            commit_age_max: Duration::from_secs(60),
        }
    }
}

/// One thing that is well or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// Why, in one line.
    pub reason: String,
}

/// The answer of `/healthz`, `/readyz` and the generator's `/metrics/health`: 200 when every check is well, 503 if not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Health {
    /// What was looked at.
    pub checks: Vec<Check>,
    /// Figures to go with it, such as the generator's rate; the names carry their units.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<&'static str, f64>,
}

impl Health {
    /// Adds a check.
    pub fn check(mut self, name: &'static str, ok: bool, reason: impl Into<String>) -> Health {
        self.checks.push(Check { name, ok, reason: reason.into() });
        self
    }

    /// Adds a figure.
    pub fn figure(mut self, name: &'static str, value: f64) -> Health {
        self.figures.insert(name, value);
        self
    }

    /// Whether every check is well.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// Whether the process is alive: its workers step, and the other processes give signs of life.
pub fn liveness(status: &Status, limits: &HealthLimits) -> Health {
    liveness_at(status, limits, status.uptime_ms())
}

/// Whether the job does its work, as this process sees it: it is alive and runs, Kafka answers, every partition is read, the
/// unread records are few, and what is closed is committed.
pub fn readiness(status: &Status, limits: &HealthLimits) -> Health {
    readiness_at(status, limits, status.uptime_ms())
}

fn liveness_at(status: &Status, limits: &HealthLimits, uptime_ms: u64) -> Health {
    if status.phase() == Phase::Starting {
        return Health::default().check("workers", true, "starting, no worker steps yet");
    }
    let age_max_ms = millis(limits.step_age_max);
    let age_ms = |stepped_ms: Option<u64>| uptime_ms.saturating_sub(stepped_ms.unwrap_or(status.phase_began_ms()));
    let oldest = status.stepped_ms().map(age_ms).enumerate().max_by_key(|(_, age_ms)| *age_ms);
    let health = heartbeats(status, limits);
    match oldest {
        None => health.check("workers", true, "this process has no workers"),
        Some((worker, age_ms)) if age_ms > age_max_ms => {
            let reason = format!(
                "worker {worker} has not stepped for {} s, the limit is {} s",
                age_ms / 1000,
                age_max_ms / 1000
            );
            health.check("workers", false, reason)
        }
        Some((_, age_ms)) => health.check("workers", true, format!("all stepped within {} ms", age_ms)),
    }
}

fn heartbeats(status: &Status, limits: &HealthLimits) -> Health {
    let Some((process, age)) = status.heard().into_iter().max_by_key(|(_, age)| *age) else { return Health::default() };
    let (age_ms, age_max) = (millis(age), limits.heartbeat_age_max);
    let reason = format!("process {process} was heard {age_ms} ms ago, the limit is {} ms", millis(age_max));
    Health::default().check("heartbeats", age <= age_max, reason)
}

fn readiness_at(status: &Status, limits: &HealthLimits, uptime_ms: u64) -> Health {
    let phase = status.phase();
    let running = match phase {
        Phase::Starting => "starting",
        Phase::Replaying => "rebuilding windows from what was committed before",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
    };
    let mut health = liveness_at(status, limits, uptime_ms).check("running", phase == Phase::Running, running);
    if let Some(silence) = status.kafka_silence() {
        let (ok, reason) = match silence {
            None => (true, "Kafka answers".to_owned()),
            Some((reason, since_ms)) => {
                (false, format!("Kafka has not answered for {} s: {reason}", uptime_ms.saturating_sub(since_ms) / 1000))
            }
        };
        health = health.check("kafka", ok, reason);
    }
    if let Some(waits) = status.registry_waits() {
        let ok = waits.is_empty();
        health = health.check("schemas", ok, if ok { "every schema is known".into() } else { waits.join("; ") });
    }
    let partitions = status.partitions();
    let expected = status.partitions_expected();
    let reason = format!("{} of {expected} partitions are read", partitions.len());
    health = health.check("assigned", partitions.len() >= expected, reason);
    let lag = partitions.iter().fold(0_i64, |sum, partition| sum.saturating_add(partition.lag_records()));
    let reason =
        format!("{lag} records unread in {} partitions, the limit is {}", partitions.len(), limits.lag_records_max);
    health = health.check("caught_up", lag <= limits.lag_records_max, reason);
    let (ok, reason) = committing(status, limits, uptime_ms);
    health.check("committing", ok, reason)
}

/// Windows close one per slide, so one waits when the watermark is a slide or more past the last commit.
fn committing(status: &Status, limits: &HealthLimits, uptime_ms: u64) -> (bool, String) {
    let slide_ms = status.slide_ms().unsigned_abs();
    let age_max_ms = millis(limits.commit_age_max);
    match (status.committed(), status.watermark_ms()) {
        (Some((window_end_ms, committed_ms)), watermark_ms) => {
            let age_ms = uptime_ms.saturating_sub(committed_ms);
            let next_end_ms = window_end_ms.saturating_add_unsigned(slide_ms);
            let waits = watermark_ms.is_some_and(|watermark_ms| watermark_ms >= next_end_ms);
            let what = if waits { "a closed window waits" } else { "every closed window is committed" };
            (!waits || age_ms <= age_max_ms, format!("{what}, the last commit was {} s ago", age_ms / 1000))
        }
        (None, None) => (true, "no watermark yet, so nothing to commit".into()),
        (None, Some(_)) => {
            let age_ms = uptime_ms.saturating_sub(status.phase_began_ms());
            let reason = format!("nothing committed yet, {} s after the start", age_ms / 1000);
            (age_ms <= slide_ms.saturating_add(age_max_ms), reason)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::status::PartitionStatus;
    use super::super::testing::status;
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn alive() {
        let status = status(2);
        let limits = HealthLimits::default();
        let check = |uptime_ms: u64, ok: bool| {
            let health = liveness_at(&status, &limits, uptime_ms);
            assert_eq!(health.ok(), ok, "{health:?}");
        };
        check(10 * MINUTE_MS, true);
        status.set_phase(Phase::Running);
        check(1_000, true);
        check(2 * MINUTE_MS, false);
        status.worker_stepped(0);
        status.worker_stepped(1);
        status.worker_stepped(2);
        check(1_000, true);
        check(2 * MINUTE_MS, false);
    }

    #[test]
    fn heard() {
        let check = |age_s: u64, ok: bool| {
            let status = status(0);
            status.set_phase(Phase::Running);
            status.set_heard_from(move || vec![(1, Duration::ZERO), (2, Duration::from_secs(age_s))]);
            let health = liveness_at(&status, &HealthLimits::default(), 0);
            assert_eq!(health.ok(), ok, "{health:?}");
            assert!(health.checks[0].reason.starts_with("process 2 was heard"), "{health:?}");
        };
        check(10, true);
        check(11, false);
    }

    #[test]
    fn ready() {
        let limits = HealthLimits { lag_records_max: 100, ..HealthLimits::default() };
        // Which checks fail at an uptime, given what was said at the start.
        let check = |say: &dyn Fn(&Status), uptime_ms: u64, failing: &[&str]| {
            let status = status(0);
            status.set_phase(Phase::Running);
            say(&status);
            let health = readiness_at(&status, &limits, uptime_ms);
            let failed: Vec<&str> = health.checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
            assert_eq!(failed, failing, "{health:?}");
        };
        let partition = |partition, high_watermark| PartitionStatus {
            partition,
            worker: 0,
            position: 0,
            high_watermark,
            watermark_ms: None,
            idle: false,
            awaited: None,
        };
        check(&|_| (), 1_000, &[]);
        check(&|status| status.set_phase(Phase::Starting), 1_000, &["running"]);
        check(&|status| status.set_phase(Phase::Replaying), 1_000, &["running"]);
        check(&|status| status.set_phase(Phase::Stopping), 1_000, &["running"]);
        check(&|status| status.set_partition(partition(0, 100), true), 1_000, &[]);
        let two = |status: &Status| {
            [60, 60].into_iter().zip(0..).for_each(|(unread, n)| status.set_partition(partition(n, unread), true))
        };
        check(&two, 1_000, &["caught_up"]);
        check(&|status| _ = status.set_run(1, 1), 1_000, &["assigned"]);
        let assigned = |status: &Status| {
            status.set_run(1, 1);
            status.set_partition(partition(0, 0), false);
        };
        check(&assigned, 1_000, &[]);
        check(&|status| status.set_kafka_silence(Some("no broker".into())), 1_000, &["kafka"]);
        check(&|status| status.set_kafka_silence(None), 1_000, &[]);

        // Nothing to commit; then something, with time for it; then too long.
        check(&|_| (), 10 * MINUTE_MS, &[]);
        check(&|status| status.set_watermark(50_000), MINUTE_MS, &[]);
        check(&|status| status.set_watermark(50_000), 2 * MINUTE_MS, &["committing"]);
        let committed = |watermark_ms: i64| {
            move |status: &Status| {
                status.set_committed(40_000);
                status.set_watermark(watermark_ms);
            }
        };
        check(&committed(40_009), 10 * MINUTE_MS, &[]);
        check(&committed(40_010), MINUTE_MS, &[]);
        check(&committed(40_010), 2 * MINUTE_MS, &["committing"]);
    }
}
