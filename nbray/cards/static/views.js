// Single views, as nbray.widgets shows them. Each draws snapshots: `create...(el, host) -> { update(snapshot, buffers), remove() }`.

import { SIGNS, bytes, countsText, element, plural, seconds, twice } from "./format.js";
import { createLineage } from "./lineage.js";
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

  async function save() {
    try {
      const trace = await host.command("perfetto");
      const link = element("a", { href: URL.createObjectURL(new Blob([JSON.stringify(trace)], { type: "application/json" })), download: "nbray-trace.json" });
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) { shown.complain(error); }
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
    shown.head("", snapshot.told?.[0] ?? "", snapshot.graph ? snapshot.gone : null);
    lineage.root.hidden = !snapshot.graph;
    if (snapshot.graph) lineage.draw(snapshot.graph);
  }

  return { update, remove() { shown.root.remove(); } };
}

export function createObjects(el, host) {
  const shown = frame(el, "Objects"), rows = new Map();
  const body = element("tbody", {}), more = element("p", { class: "nbray-muted" });
  const names = ["held by", "type", "size", "state", "node", ""];
  const table = element("table", {}, element("caption", { class: "nbray-hidden" }, "Objects"),
    element("thead", {}, element("tr", {}, ...names.map((name) => (name ? element("th", { scope: "col" }, name) : element("td", {}))))), body);
  shown.body.append(element("div", { class: "nbray-scroll" }, table), more);

  // A row stays while its names do: a button must not vanish under the pointer.
  function update(snapshot) {
    const found = snapshot.rows ?? [], sizes = found.reduce((sum, row) => sum + (row.size ?? 0), 0);
    shown.head("", found.length ? `${bytes(sizes)} held by names of this notebook` : snapshot.gone ?? "No name holds a reference.", found.length ? snapshot.gone : null);
    table.hidden = !found.length;
    const drawn = found.map((row) => {
      const made = rows.get(row.names) ?? createRow(row);
      made.draw(row);
      return [row.names, made];
    });
    rows.clear();
    drawn.forEach(([name, made], i) => {
      rows.set(name, made);
      if (body.children[i] !== made.root) body.insertBefore(made.root, body.children[i] ?? null);
    });
    while (body.children.length > drawn.length) body.lastChild.remove();
    more.textContent = snapshot.more ? `and ${plural(snapshot.more, "more row")}` : "";
  }

  function createRow(first) {
    let row = first;
    const cells = names.slice(0, 5).map(() => element("td", {}));
    const release = twice("Release", "Forget these names?", () => host.command("release", { names: row.release }).catch(shown.complain));
    release.setAttribute("aria-label", `Release ${first.names}`);
    return {
      root: element("tr", {}, ...cells, element("td", {}, release)),
      draw(next) {
        row = next;
        [row.names, row.type, row.size == null ? "" : bytes(row.size), row.state, row.where].forEach((text, i) => { cells[i].textContent = text; });
      },
    };
  }

  return { update, remove() { shown.root.remove(); } };
}
