// Single views, as nbray.widgets shows them. Each draws snapshots: `create...(el, host) -> { update(snapshot, buffers), remove() }`.

import { SIGNS, countsText, element, plural, seconds } from "./format.js";
import { createLineage } from "./lineage.js";
import { createObjectsTab } from "./objects.js";
import { saveTrace } from "./perfetto.js";
import { Spans, createTimeline } from "./timeline.js";

function frame(el, label) {
  const sign = element("span", { class: "nbray-sign" }), facts = element("span", { class: "nbray-facts" });
  const notice = element("div", { class: "nbray-notice", role: "status", hidden: true });
  const problem = element("div", { class: "nbray-problem", role: "alert", hidden: true });
  const body = element("div", {});
  const root = element("section", { class: "nbray-card", "aria-label": label }, element("div", { class: "nbray-head" }, sign, facts), notice, problem, body);
  el.append(root);
  return {
    root, body,
    head(state, words, gone) {
      root.dataset.state = state ?? "";
      sign.textContent = state ? `${SIGNS[state] ?? "·"} ${state}` : "";
      facts.textContent = words;
      notice.hidden = !gone;
      notice.textContent = gone ?? "";
      root.classList.toggle("nbray-stale", Boolean(gone));
    },
    complain(error) {
      problem.hidden = !error;
      problem.textContent = error ? error.message : "";
    },
  };
}

export function createTimelineView(el, host) {
  const spans = new Spans(), shown = frame(el, "Timeline");
  const timeline = createTimeline(spans, { exportTrace: (host.can ?? []).includes("perfetto") ? save : null });
  let asking = false;
  shown.body.append(timeline.root);

  function update(snapshot, buffers) {
    if (!snapshot?.counts) { shown.head("", "", snapshot?.gone ?? "Nothing has run yet."); return; }
    const missed = buffers?.[0] && !spans.put(snapshot.first, buffers[0], snapshot.v);
    if ((missed || (!buffers?.length && spans.size < snapshot.spans)) && !asking) {
      asking = true;
      host.command("resync").catch(shown.complain).finally(() => { asking = false; });
    }
    const parts = [snapshot.title, countsText(snapshot.counts), seconds(snapshot.elapsed_s), plural(snapshot.workers.length, "worker"), snapshot.verdict];
    shown.head(snapshot.state, parts.filter(Boolean).join(" · "), snapshot.gone);
    timeline.update(snapshot);
  }

  function save() {
    host.command("perfetto").then(saveTrace).catch(shown.complain);
  }

  return { update, remove() { timeline.remove(); shown.root.remove(); } };
}

export function createProgress(el) {
  const shown = frame(el, "Progress");
  const bar = element("div", { class: "nbray-bar", role: "progressbar", "aria-valuemin": "0" });
  shown.body.append(bar);

  function update(snapshot) {
    if (!snapshot) return;
    shown.head(snapshot.state, snapshot.words, snapshot.gone);
    const total = Math.max(1, snapshot.total);
    bar.setAttribute("aria-valuemax", snapshot.total);
    bar.setAttribute("aria-valuenow", snapshot.done + snapshot.failed);
    bar.setAttribute("aria-label", snapshot.words);
    bar.replaceChildren(...["done", "failed", "running"].filter((what) => snapshot[what]).map((what) => {
      const made = element("span", { class: `nbray-${what}`, title: `${snapshot[what].toLocaleString("en-US")} ${what}` });
      made.style.width = `${(100 * snapshot[what]) / total}%`;
      return made;
    }));
  }

  return { update, remove() { shown.root.remove(); } };
}

export function createLineageView(el, host) {
  const shown = frame(el, "Lineage");
  const change = (view) => host.command("change", view).then(update).catch(shown.complain);
  const lineage = createLineage({ change, scope: (host.can ?? []).includes("scope") ? "Only what belongs to it" : false });
  shown.body.append(lineage.root);

  function update(snapshot) {
    shown.complain(null);
    shown.head("", snapshot.graph && !snapshot.focus ? "" : snapshot.told?.[0] ?? "", snapshot.graph ? snapshot.gone : null);
    lineage.root.hidden = !snapshot.graph;
    if (snapshot.graph) lineage.draw(snapshot.graph);
  }

  return { update, remove() { shown.root.remove(); } };
}

export function createObjectsView(el, host) {
  const shown = frame(el, "Objects");
  const objects = createObjectsTab({ release: (names) => host.command("release", { names }), changed: () => host.command("resync").catch(shown.complain) });
  shown.body.append(objects.root);

  function update(snapshot) {
    shown.head("", "", snapshot.gone);
    objects.draw(snapshot.gone && !snapshot.rows ? { rows: [] } : snapshot);
  }

  return { update, remove() { shown.root.remove(); } };
}
