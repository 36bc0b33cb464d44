// A cluster at work: its nodes with the last minute of each figure, who runs what, and why what waits does. It draws snapshots of
// nbray/cards/cluster.py and computes nothing. `createCluster(el, host)`: host.command(name, arguments) -> Promise where there is
// somebody to ask; host.can lists what may be asked: "scale", "stop", and "end" for the nodes that a snapshot calls removable.

import { bytes, element, plural, seconds, twice, vector } from "./format.js";

const NODE_SIGNS = { alive: "●", late: "◐", dead: "✗" };
const WORKER_SIGNS = { busy: "▸", waiting: "…", actor: "◆", idle: "○", starting: "+", ending: "■" };
const SPARK = { width: 120, height: 26, seconds: 60 };
const SHOWN = 12; // workers of a node, until somebody asks for all

let clusters = 0;

export function createCluster(el, host) {
  const id = `nbray-cluster-${++clusters}`, can = host.can ?? [];
  const nodes = new Map(); // id -> what is drawn of it
  let stopped = false;

  const facts = element("span", { class: "nbray-facts" });
  const stop = can.includes("stop") ? twice("Stop", "Stop: everything on it ends", () => act("stop", {})) : null;
  const problem = element("div", { class: "nbray-problem", role: "alert", hidden: true });
  const stale = element("div", { class: "nbray-notice", role: "status", hidden: true });
  const body = element("div", { class: "nbray-nodes" });
  const notes = element("div", {});
  const root = element("section", { class: "nbray-card nbray-cluster", "aria-label": "nbray cluster" },
    element("div", { class: "nbray-head" }, facts, stop), stale, problem, body, notes);
  el.append(root);

  async function act(name, args) {
    problem.hidden = true;
    try {
      await host.command(name, args);
    } catch (error) {
      if (stopped) return;
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  // ---- drawing

  function update(snapshot) {
    if (stopped || !snapshot) return;
    stale.hidden = !snapshot.gone;
    stale.textContent = snapshot.gone ?? "";
    root.classList.toggle("nbray-stale", Boolean(snapshot.gone));
    facts.textContent = snapshot.sentence ?? "";
    if (stop) stop.hidden = !snapshot.nodes?.length || Boolean(snapshot.gone);
    const there = new Set();
    (snapshot.nodes ?? []).forEach((node, i) => {
      there.add(node.id);
      if (!nodes.has(node.id)) nodes.set(node.id, createNode(node));
      const drawn = nodes.get(node.id);
      drawn.update(node, Boolean(snapshot.gone), Boolean(snapshot.removable?.includes(node.id)));
      if (body.children[i] !== drawn.root) body.insertBefore(drawn.root, body.children[i] ?? null); // what moves loses the keyboard
    });
    for (const [name, drawn] of nodes) if (!there.has(name)) { drawn.root.remove(); nodes.delete(name); }
    const said = (snapshot.actors ?? []).filter((actor) => actor.state !== "alive").map((actor) => `actor ${actor.name} is ${actor.state}${actor.why ? `: ${actor.why}` : ""}`);
    if (snapshot.more_nodes) said.unshift(`and ${plural(snapshot.more_nodes, "more node")}`);
    said.push(...(snapshot.silent ?? []).map((who) => `not told: ${who}`));
    notes.replaceChildren(...said.map((text) => element("p", { class: "nbray-muted" }, text)));
  }

  function createNode(first) {
    const title = element("h3", { id: `${id}-${first.id}` });
    const meters = element("div", { class: "nbray-meters" });
    const waiting = element("ul", { class: "nbray-waiting" });
    const summary = element("summary", {});
    const table = element("div", { class: "nbray-workerlist", role: "region", "aria-label": `Workers of node ${first.id.slice(0, 4)}` });
    const runs = element("p", { class: "nbray-muted" });
    const more = element("button", { type: "button", class: "nbray-button", hidden: true, onclick: () => { all = !all; draw(); } });
    const details = element("details", { open: true }, summary, runs, table, more);
    let all = false, node = first, offered = null;
    const input = element("input", {
      type: "number", min: "1", step: "1", "aria-label": `CPUs of node ${first.id.slice(0, 4)}`, "data-lm-suppress-shortcuts": "true",
      onkeydown: (event) => { event.stopPropagation(); if (event.key === "Enter") set(); },
    });
    const scale = can.includes("scale") && first.cpus ? element("span", { class: "nbray-scale" }, input,
      element("button", { type: "button", class: "nbray-button", onclick: set, title: "How many CPUs the node offers. Nothing that runs is ended" }, "Set CPUs")) : null;
    const end = can.includes("end") ? twice("End this node", "End it: what runs there runs elsewhere, if it may", () => act("end", { node: first.id })) : null;
    const root = element("section", { class: "nbray-clusternode", "aria-labelledby": title.id },
      element("div", { class: "nbray-head" }, title, scale, end), meters, waiting, details);

    function set() {
      const cpus = Number(input.value);
      if (cpus >= 1) act("scale", { node: first.id, cpus });
    }

    function update(next, gone, removable) {
      node = next;
      if (end) end.hidden = gone || !removable;
      const which = `${NODE_SIGNS[node.state]} ${node.head ? "Head" : "Node"} ${node.id.slice(0, 4)} on ${node.host}`;
      title.textContent = which + (node.state === "dead" ? `: dead${node.cause ? `, ${node.cause}` : ""}` : node.state === "late" ? ": its heartbeats are late" : "");
      root.dataset.state = node.state;
      if (scale) {
        scale.hidden = gone || node.state === "dead";
        if (node.cpus !== offered) input.value = Math.round(offered = node.cpus); // what is typed stays until it is set
      }
      meters.replaceChildren(...node.meters.map(drawMeter));
      waiting.replaceChildren(...node.waiting.map((text) => element("li", {}, text)));
      draw();
    }

    function draw() {
      const total = node.workers.length + node.more_workers;
      details.hidden = !node.meters.length;
      summary.textContent = plural(total, "worker") + (node.states ? `: ${Object.entries(node.states).map(([state, count]) => `${count} ${state}`).join(", ")}` : "");
      const shown = all ? node.workers : node.workers.slice(0, SHOWN);
      table.replaceChildren(...(shown.length ? [drawWorkers(shown)] : []));
      runs.textContent = node.workers.length > SHOWN ? (node.runs ?? []).join(", ") : "";
      runs.hidden = !runs.textContent;
      table.classList.toggle("nbray-tall", all);
      if (all) table.tabIndex = 0;
      else table.removeAttribute("tabindex");
      more.hidden = node.workers.length <= SHOWN;
      more.textContent = all ? "Show fewer" : `Show all ${node.workers.length}`;
    }

    return { root, update };
  }

  return { update, remove() { stopped = true; root.remove(); } };
}

function drawMeter(figure) {
  const label = `${figure.label}: ${figure.text}, ${Math.round(figure.share * 100)} %; the last ${figure.past.length} s`;
  return element("div", { class: "nbray-meter" },
    element("div", { class: "nbray-meterline" }, element("span", {}, figure.label), element("span", { class: "nbray-muted" }, figure.text)),
    sparkline(figure.past, label));
}

// The last minute, the latest at the right; a gap where nobody looked.
function sparkline(past, label) {
  const { width, height } = SPARK, parts = [[]];
  past.forEach((value, i) => {
    if (value === null) { parts.push([]); return; }
    const x = (width * (i + SPARK.seconds - past.length)) / (SPARK.seconds - 1);
    parts.at(-1).push([x, height - 1 - ((height - 2) * value) / 100]);
  });
  const lines = parts.filter((part) => part.length).map((part) => {
    const points = part.length > 1 ? part : [[part[0][0] - 2, part[0][1]], part[0]];
    const line = points.map((point) => point.map((n) => n.toFixed(1)).join(",")).join(" ");
    const floor = `${points.at(-1)[0].toFixed(1)},${height} ${points[0][0].toFixed(1)},${height}`;
    return [vector("polygon", { points: `${line} ${floor}` }), vector("polyline", { points: line })];
  });
  return vector("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "nbray-spark", role: "img", "aria-label": label }, ...lines.flat());
}

function drawWorkers(rows) {
  const names = [["pid", ""], ["runs", ""], ["for", ""], ["CPU", "nbray-wide"], ["memory", "nbray-wide"]];
  return element("table", { class: "nbray-workers" }, element("caption", { class: "nbray-hidden" }, "Workers"),
    element("thead", {}, element("tr", {}, ...names.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
    element("tbody", {}, ...rows.map(drawWorker)));
}

function drawWorker(row) {
  const who = row.actor ? `actor ${row.actor}` : "", what = row.task && (row.state === "waiting" ? `${row.task}, waits for others` : row.task);
  const said = [who, what].filter(Boolean).join(": ") || row.state;
  return element("tr", { "data-state": row.state },
    element("td", {}, String(row.pid)),
    element("td", { class: "nbray-runs" }, element("span", { "aria-hidden": "true" }, `${WORKER_SIGNS[row.state] ?? "·"} `), said),
    element("td", {}, seconds(row.since_s)),
    element("td", { class: "nbray-wide" }, row.cpu == null ? "" : `${Math.round(row.cpu * 100)} %`),
    element("td", { class: "nbray-wide" }, row.memory == null ? "" : bytes(row.memory)));
}
