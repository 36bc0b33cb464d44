// A run as a file for Perfetto, in Chrome's trace format: as the kernel gives it, or made of the spans that a saved notebook has kept.

const STATES = ["FINISHED", "FAILED", "CANCELLED"];

// What nbray/trace.py:chrome_events makes of records, less what spans do not know.
export function traceOf(spans, snapshot) {
  const begun = snapshot.begun_ms * 1000, some = spans.size < snapshot.ran ? `, ${spans.size} of ${snapshot.ran} tasks` : "";
  const events = [{ ph: "M", name: "process_name", pid: 1, args: { name: `${snapshot.title}${some}` } }];
  for (let row = 0; row < spans.rows; row++) {
    const [node, worker] = (snapshot.workers[row] ?? "").split("/");
    events.push({ ph: "M", name: "thread_name", pid: 1, tid: row + 1, args: { name: node ? `worker ${worker} on node ${node}` : `worker ${row + 1}` } });
  }
  for (let i = 0; i < spans.size; i++) {
    events.push({
      ph: "X", cat: "task", name: snapshot.span_names[spans.name[i]] ?? "task", pid: 1, tid: spans.row[i] + 1,
      ts: begun + spans.start[i] * 1000, dur: Math.max(0, spans.stop[i] - spans.start[i]) * 1000,
      args: { state: STATES[spans.state[i]], attempt: spans.attempt[i], waited_ms: Math.max(0, spans.start[i] - spans.queued[i]), transfer_ms: spans.fetch[i] },
    });
  }
  return events;
}

export function saveTrace(events) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(events)], { type: "application/json" }));
  link.download = "nbray-trace.json";
  link.click();
  URL.revokeObjectURL(link.href);
}
