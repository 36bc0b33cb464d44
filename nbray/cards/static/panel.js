// Clusters of a machine: found, looked into, started, scaled and stopped. JupyterLab's panel and the page at /nbray are this.
// createPanel(el, host): host.socket() -> URL, host.request(verb, path, body) -> Promise of JSON; see watch.js. host.notebook?.() is
// the file of the notebook in front.

import { createCluster } from "./cluster.js";
import { createPast } from "./past.js";
import { createWatch } from "./watch.js";
import { count, element } from "./format.js";

const VIEWS = { overview: "Overview", tasks: "Tasks", timeline: "Timeline", lineage: "Lineage", plan: "Plan", actors: "Actors", objects: "Objects", jobs: "Jobs", logs: "Logs" };
const PAST = new Set(["timeline", "lineage", "plan"]);
const NOTHING = { tasks: "No tasks yet.", actors: "No actors.", objects: "No object is known.", jobs: "No jobs.", logs: "No logs." };
const LONG = new Set(["task", "class", "name", "error", "why", "job", "runs", "message", "log", "object", "held by", "from"]); // columns of what people name and write
let panels = 0;

export function createPanel(el, host) {
  const id = `nbray-panel-${++panels}`;
  let chosen = "", picked = false, open = "overview", log = "", latest = null, busy = false;

  const list = element("div", { class: "nbray-list", role: "group", "aria-label": "Clusters" });
  const cpus = amount("CPUs of the new cluster"), nodeCpus = amount("CPUs of the new node");
  const begin = button("Start a cluster", () => act("clusters", "POST", asked(cpus), (made) => { chosen = made.id; picked = true; look(); }), "It outlives the kernel: nbray.init() attaches to it");
  const starting = element("div", { class: "nbray-row" }, begin, element("label", {}, cpus, " CPUs"));
  const grow = button("Add a node", () => act(`clusters/${chosen}/nodes`, "POST", asked(nodeCpus)), "One more node of this cluster on this machine");
  const growing = element("div", { class: "nbray-row" }, grow, element("label", {}, nodeCpus, " CPUs"));
  const stop = button("Stop this cluster", stopping);
  const steering = element("div", { class: "nbray-row nbray-steering", hidden: true }, growing, stop);
  const problem = element("p", { class: "nbray-problem", role: "alert", hidden: true });
  const silent = element("p", { class: "nbray-problem", role: "status", hidden: true }); // of the last look
  const working = element("p", { class: "nbray-muted", role: "status", hidden: true });
  const empty = element("p", { class: "nbray-muted", hidden: true }, "No cluster runs here. A notebook that uses nbray starts one of its own.");
  const names = Object.keys(VIEWS);
  const tabs = names.map((name) => element("button", {
    type: "button", role: "tab", id: `${id}-${name}`, class: "nbray-tab", "aria-controls": `${id}-body`,
    onclick: () => choose(name), onkeydown: (event) => walk(event, name),
  }, VIEWS[name]));
  const body = element("div", { role: "tabpanel", id: `${id}-body`, class: "nbray-body", tabindex: "0" });
  const views = element("div", { class: "nbray-views", hidden: true }, element("div", { role: "tablist", class: "nbray-tabs", "aria-label": "Views of the cluster" }, ...tabs), body);
  const root = element("div", { class: "nbray-panel" }, element("div", { class: "nbray-inside" },
    element("h2", {}, "Clusters"), list, empty, starting, problem, working, silent, steering, views));
  el.append(root);

  const overview = createOverview((cluster) => ({
    can: ["scale", "end"],
    command: (name, args) => name === "scale" ? host.request("PATCH", `clusters/${cluster}`, { node: args.node, num_cpus: args.cpus })
      : host.request("DELETE", `clusters/${cluster}/nodes/${args.node}`),
  }));
  const past = createPast({ request: host.request, chosen: look });
  const table = createTable((key) => { log = key; look(); });
  const reading = createLog(() => { log = ""; look(); });
  const watch = createWatch(host, show, (why) => say(silent, why));
  choose(open);

  // ---- what is wanted

  function look() {
    const wanted = !chosen ? [] : open === "logs" && log ? ["logs", `log/${log}`] : [PAST.has(open) ? past.view : open];
    watch.choose(chosen, wanted);
    draw();
  }

  function choose(name) {
    open = name;
    log = "";
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(names[i] === name));
      tab.tabIndex = names[i] === name ? 0 : -1;
    });
    body.setAttribute("aria-labelledby", `${id}-${name}`);
    look();
  }

  function walk(event, name) {
    const last = names.length - 1, at = names.indexOf(name);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    choose(names[(next + names.length) % names.length]);
    tabs[names.indexOf(open)].focus();
  }

  // ---- what is done

  async function act(path, verb, data, then = () => {}) {
    if (busy) return;
    busy = true;
    steer();
    say(problem, "");
    say(working, verb === "POST" ? "Starting…" : "Stopping…");
    try {
      then(await host.request(verb, path, data));
    } catch (error) {
      say(problem, error.message);
    } finally {
      busy = false;
      say(working, "");
      steer();
    }
  }

  function stopping() {
    const each = current();
    if (each && !busy && window.confirm(`Stop ${each.name}? Everything on it ends.`)) act(`clusters/${each.id}`, "DELETE");
  }

  // ---- what is shown

  function show(snapshot) {
    latest = snapshot;
    if (!snapshot.clusters.some((each) => each.id === chosen)) picked = false;
    if (!picked) { // the cluster of the notebook in front, until somebody chooses another
      const file = host.notebook?.(), own = snapshot.clusters.find((each) => file && each.notebook === file);
      const kept = own ?? snapshot.clusters.find((each) => each.id === chosen) ?? snapshot.clusters[0];
      if ((kept?.id ?? "") !== chosen) { chosen = kept?.id ?? ""; log = ""; look(); }
    }
    say(silent, snapshot.cluster === chosen ? snapshot.problem : "");
    drawClusters(snapshot);
    draw();
  }

  function current() {
    return latest?.clusters.find((each) => each.id === chosen);
  }

  // The list is redrawn only when it changed: a button must not vanish under the pointer or lose the keyboard.
  let drawn = "";
  function drawClusters(snapshot) {
    const now = JSON.stringify([snapshot.clusters, chosen]);
    if (now === drawn) return;
    drawn = now;
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.cluster : null;
    list.replaceChildren(...snapshot.clusters.map((each) => {
      const made = button(each.name, () => { chosen = each.id; picked = true; log = ""; look(); if (latest) drawClusters(latest); }, `${each.address} (pid ${each.pid})`);
      made.setAttribute("aria-pressed", String(each.id === chosen));
      made.dataset.cluster = each.id;
      return made;
    }));
    list.querySelector(`[data-cluster="${focused}"]`)?.focus();
    empty.hidden = snapshot.clusters.length > 0;
    starting.hidden = snapshot.scope === "one";
    views.hidden = !chosen;
    steer();
  }

  function steer() {
    const each = current();
    steering.hidden = !each?.mine;
    for (const control of [begin, grow, stop]) control.setAttribute("aria-disabled", String(busy)); // `disabled` would take the keyboard away
  }

  function draw() {
    const mine = latest !== null && latest.cluster === chosen ? latest.views : {};
    const page = log ? mine[`log/${log}`] : mine[PAST.has(open) ? past.view : open];
    const view = open === "overview" ? overview : PAST.has(open) ? past : log ? reading : table;
    if (page === undefined) {
      if (body.firstChild !== view.root) body.replaceChildren(element("p", { class: "nbray-muted" }, chosen ? "…" : ""));
      return;
    }
    if (body.firstChild !== view.root) body.replaceChildren(view.root);
    if (view === past) past.update(page, open, chosen);
    else view.update(page, open === "overview" ? chosen : open);
  }

  return {
    show: () => watch.start(),
    hide: () => watch.stop(),
    remove: () => { watch.remove(); past.remove(); root.remove(); },
    get live() { return watch.live; },
  };
}

// One drawing per cluster, which keeps what is typed and unfolded in it from look to look.
function createOverview(hostOf) {
  const root = element("div", {});
  let drawn = null, of = "";

  function update(snapshot, cluster) {
    if (of !== cluster) {
      drawn?.remove();
      drawn = createCluster(root, hostOf(cluster));
      of = cluster;
    }
    drawn.update(snapshot);
  }

  return { root, update };
}

// A list of things, as the server words it. Rows that can be opened have a key.
function createTable(openRow) {
  const notes = element("p", { class: "nbray-muted" });
  const head = element("tr", {}), rows = element("tbody", {});
  const caption = element("caption", { class: "nbray-hidden" });
  const scroll = element("div", { class: "nbray-scroll", tabindex: "0", role: "region" }, element("table", {}, caption, element("thead", {}, head), rows));
  const root = element("div", {}, notes, scroll);
  let drawn = "";

  function update(table, name) {
    const now = JSON.stringify([name, table]);
    if (now === drawn) return;
    drawn = now;
    caption.textContent = VIEWS[name];
    scroll.setAttribute("aria-label", VIEWS[name]);
    scroll.hidden = !table.rows.length;
    const said = [];
    if (!table.rows.length) said.push(NOTHING[name]);
    else if (table.total > table.rows.length) said.push(`The first ${count(table.rows.length)} of ${count(table.total)}.`);
    notes.textContent = [...said, ...table.problems].join(" ");
    notes.hidden = !notes.textContent;
    head.replaceChildren(...table.columns.map((column) => element("th", { scope: "col", class: kind(column) }, column)));
    const focused = rows.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    rows.replaceChildren(...table.rows.map((row, at) => element("tr", {}, ...row.map((cell, i) => {
      const key = i === 0 ? table.ids?.[at] : undefined;
      if (key === undefined) return element("td", { class: kind(table.columns[i]) }, cell);
      const made = button(cell, () => openRow(key));
      made.dataset.key = key;
      return element("td", {}, made);
    }))));
    if (focused) rows.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  return { root, update };
}

// The end of a log, which goes on at the bottom while it is looked at there.
function createLog(back) {
  const title = element("h3", {});
  const said = element("pre", { class: "nbray-log", tabindex: "0", role: "log", "aria-live": "off" });
  const root = element("div", {}, element("div", { class: "nbray-row" }, button("All logs", back), title), said);

  function update(log) {
    title.textContent = log.whole ? log.name : `The end of ${log.name}`;
    said.setAttribute("aria-label", log.name);
    const wanted = log.text || "(nothing was written to it)";
    if (said.textContent === wanted) return;
    const atEnd = said.scrollTop + said.clientHeight >= said.scrollHeight - 4;
    said.textContent = wanted;
    if (atEnd) said.scrollTop = said.scrollHeight;
  }

  return { root, update };
}

function kind(column) {
  return column === "id" ? "nbray-id nbray-wide" : LONG.has(column) ? "nbray-long" : null;
}

function button(text, click, title) {
  return element("button", { type: "button", class: "nbray-button", title, onclick: click }, text);
}

function amount(label) {
  return element("input", { type: "number", min: "1", step: "1", placeholder: "all", "aria-label": label });
}

function asked(input) {
  return input.value ? { num_cpus: Number(input.value) } : {};
}

function say(made, text) {
  if (made.textContent !== text) made.textContent = text;
  made.hidden = !text;
}
