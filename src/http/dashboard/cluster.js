// The state of the cluster: the run, the last checkpoint, partitions, processes and workers.
import { byId, fillTable, setAttribute, setText } from "./dom.js";
import { slowest } from "./event-time.js";
import { NONE, ZONE, behind, bytes, dayAndTime, integer, roughly, span } from "./format.js";

export function drawCluster(cluster) {
  const { now_ms: now, processes, workers, partitions } = cluster;
  setText(byId("job"), cluster.job);
  document.title = `${cluster.job} · Clicktide`;
  byId("notice").hidden = !cluster.notice;
  setText(byId("notice"), cluster.notice ?? "");
  setText(byId("zone"), `Times are in ${ZONE}. Counts are of the whole cluster since this run began.`);

  setText(byId("run"), cluster.run ?? NONE);
  setText(byId("run-say"), `${cluster.phase}, up ${roughly(now - cluster.started_at_ms)}`);
  setText(byId("events"), integer(cluster.events));
  const rate = cluster.events_per_second;
  setText(byId("events-rate"), `${rate === null ? NONE : integer(Math.round(rate))} per second, ${integer(cluster.lag_records)} unread`);
  setText(byId("results"), integer(cluster.results));
  setText(byId("results-say"), `and ${integer(cluster.dead_letters)} dead letters, up to ${dayAndTime(cluster.committed_window_end_ms, now)}`);
  drawCheckpoint(cluster);

  const slow = slowest(cluster);
  const idle = (partition) => (partition.idle ? "idle" : partition === slow ? "active, slowest" : "active");
  const state = (partition) =>
    partition.awaited_schema === null ? idle(partition) : `waits for schema ${partition.awaited_schema}`;
  const process = new Map(workers.map((worker) => [worker.worker, worker.process]));
  const reader = ({ worker }) => `worker ${worker}${process.has(worker) ? ` of process ${process.get(worker)}` : ""}`;
  if (partitions.length > 0) {
    const rows = fillTable(byId("partitions"), partitions.map((partition) => [
      String(partition.partition),
      state(partition),
      reader(partition),
      integer(partition.lag_records),
      behind(partition.watermark_lag_ms),
      dayAndTime(partition.watermark_ms, now),
      integer(partition.position),
    ]));
    partitions.forEach((partition, i) => setAttribute(rows[i], "data-state", idle(partition)));
  }
  if (processes.length > 0) {
    fillTable(byId("processes"), processes.map((one) => [
      String(one.process),
      one.phase,
      one.heard_ms_ago === null ? "answers here" : `${span(one.heard_ms_ago)} ago`,
      roughly(one.uptime_ms),
      bytes(one.resident_memory_bytes),
      integer(one.events),
      one.events_per_second === null ? NONE : integer(Math.round(one.events_per_second)),
    ]));
  }
  if (workers.length > 0) {
    fillTable(byId("workers"), workers.map((one) => [
      String(one.worker),
      String(one.process),
      one.partitions.join(", ") || "none",
      one.stepped_ms_ago === null ? "not yet" : `${span(one.stepped_ms_ago)} ago`,
      integer(one.events),
      integer(one.late),
      integer(one.rejected),
    ]));
  }
}

function drawCheckpoint({ checkpoints, now_ms: now }) {
  const { last, failure } = checkpoints ?? {};
  setText(byId("checkpoint"), checkpoints ? (last ? `${roughly(last.age_ms)} ago` : "none yet") : "off");
  const size = last && `${bytes(last.bytes)}, ${bytes(last.bytes_written)} of it new, in ${span(last.took_ms)}; through ${dayAndTime(last.through_ms, now)}`;
  const every = checkpoints ? `one every ${span(checkpoints.interval_ms)}` : "a start reads the open windows again from Kafka";
  setText(byId("checkpoint-say"), size ?? every);
  const box = byId("checkpoint-failure");
  box.hidden = !failure;
  if (failure) setText(box, `The last checkpoint failed at ${dayAndTime(failure.at_ms, now)}: ${failure.reason}`);
}
