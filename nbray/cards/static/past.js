// What has run on a cluster, job by job: its timeline, its lineage and its plan, drawn as cards draw them. A snapshot says in short
// how much there is (nbray/dashboard/past.py); what is long is asked for when it is looked at, and only what is new of it.
// createPast(host): host.request(verb, path, body) -> Promise of JSON, host.chosen(): another view is wanted.

import { createLineage } from "./lineage.js";
import { saveTrace } from "./perfetto.js";
import { createPlan } from "./plan.js";
import { Spans, createTimeline } from "./timeline.js";
import { count, element, plural } from "./format.js";

const LEAST_MS = 2000; // between two questions for a graph that has only grown
const MOST_KEYS = 40; // of opened and shut nodes, the latest
const LIMITS = {
  lineage: "Tasks, and the notebook's names for their results. What else its cells read and made only the notebook knows: %nbray lineage.",
  plan: "What has ended, rehearsed on other clusters.",
};

export function createPast(host) {
  let cluster = "", job = "", cell = "", open = "", told = null, edition = 0;
  let fetching = false, asking = false, graphed = "", graphedAt = 0, planned = "", keys = { opened: [], shut: [] };
  const jobs = choice("Job", (value) => { turn(value); host.chosen(); });
  const cells = choice("Cell", (value) => { cell = value; zoom(); draw(); });
  const note = element("p", { class: "nbray-muted" });
  const problem = element("p", { class: "nbray-problem", role: "status", hidden: true });
  const body = element("div", {});
  const root = element("div", {}, element("div", { class: "nbray-row" }, jobs.label, cells.label), note, problem, body);

  const spans = new Spans(), timeline = createTimeline(spans, { exportTrace: save });
  const lineage = createLineage({ scope: false, notebook: () => mine()?.notebook ?? "", change: (view) => { keys = view; graphed = ""; draw(); } });
  let plan = createPlan();

  const mine = () => told?.jobs.find((each) => each.id === job);
  const path = (what) => `clusters/${cluster}/jobs/${job}/${what}`;

  function turn(to) {
    job = to;
    cell = graphed = planned = "";
    edition = 0;
    told = null;
    say("");
    spans.put(0, new Uint8Array(0));
    timeline.show(0, null);
  }

  // ---- facts in

  function update(page, name, of) {
    if (cluster !== of) { turn(""); cluster = of; }
    const moved = job !== page.job; // the first look, or the job is forgotten
    if (moved) turn(page.job);
    told = page;
    if (open !== name) {
      open = name;
      planned = "";
      say("");
    }
    jobs.offer(page.jobs.map((each) => [each.id, `${each.name}${each.state === "running" ? "" : `, ${each.state}`}`]), job);
    const every = (page.cells ?? []).map((each) => [each.tag, `${each.title} · ${plural(each.tasks, "task")}`]);
    if (open !== "plan") every.unshift(["", "all"]);
    cells.offer(page.cells?.length > 1 ? every : [], open === "plan" ? planOf()?.tag : cell);
    draw();
    if (moved) host.chosen();
  }

  function draw() {
    const nothing = !told?.counts;
    note.textContent = nothing ? "No task has ended yet." : [ended(told.counts), LIMITS[open], told.lost ? "What was longer ago is forgotten." : ""].filter(Boolean).join(" · ");
    body.hidden = nothing;
    if (nothing) return;
    const shown = { timeline, lineage, plan }[open].root;
    if (body.firstChild !== shown) body.replaceChildren(shown);
    if (open === "timeline") { timeline.update(told); fetchSpans(); }
    if (open === "lineage") askGraph();
    if (open === "plan") askPlan();
  }

  // ---- what is long

  async function fetchSpans() {
    if (fetching) return;
    fetching = true;
    try {
      while (told && open === "timeline" && (edition !== told.edition || spans.size < told.spans)) {
        const asked = job, first = edition === told.edition ? spans.size : 0;
        const part = await host.request("GET", path(`spans?edition=${told.edition}&first=${first}`));
        if (asked !== job) continue;
        spans.put(part.first, Uint8Array.from(atob(part.data), (c) => c.charCodeAt(0)));
        edition = part.edition;
        timeline.update(told);
        if (part.edition !== told.edition || !part.data) break; // the next snapshot says how many there are now
      }
      say("");
    } catch (error) {
      say(error.message);
    } finally {
      fetching = false;
    }
  }

  async function askGraph() {
    const wanted = JSON.stringify([cluster, job, cell, keys]), now = `${wanted} ${told.counts.submitted}`;
    const same = now === graphed && mine()?.state !== "running"; // of a job that goes on tasks begin, and none may have ended
    if (asking || same || (graphed.startsWith(`${wanted} `) && performance.now() - graphedAt < LEAST_MS)) return;
    asking = true;
    graphed = now;
    graphedAt = performance.now();
    try {
      const graph = await host.request("POST", path("lineage"), { cell, opened: keys.opened.slice(-MOST_KEYS), shut: keys.shut.slice(-MOST_KEYS) });
      if (open === "lineage" && now.startsWith(`${JSON.stringify([cluster, job, cell, keys])} `)) {
        lineage.draw(graph);
        say(graph.silent.length ? `Not told: ${graph.silent.join(", ")}` : "");
      }
    } catch (error) {
      say(error.message);
    } finally {
      asking = false;
    }
    if (told && open === "lineage" && !now.startsWith(JSON.stringify([cluster, job, cell, keys]))) draw();
  }

  // One cell, the latest unless one is chosen: what lay between two cells was a person's time.
  function planOf() {
    return told.cells?.find((each) => each.tag === cell) ?? told.cells?.[0];
  }

  async function askPlan() {
    const tag = planOf()?.tag ?? "", wanted = JSON.stringify([cluster, job, tag]);
    if (wanted === planned) return;
    planned = wanted;
    plan = createPlan();
    body.replaceChildren(plan.root);
    try {
      const grid = await host.request("GET", path(`plan?cell=${encodeURIComponent(tag)}`));
      if (wanted === planned) plan.draw(grid);
    } catch (error) {
      if (wanted === planned) { plan.draw(null); say(error.message); }
    }
  }

  function zoom() {
    const chosen = told?.cells?.find((each) => each.tag === cell);
    timeline.show(chosen?.from_ms ?? 0, chosen?.to_ms ?? null);
  }

  async function save() {
    try {
      saveTrace(await host.request("GET", path("trace")));
    } catch (error) {
      say(error.message);
    }
  }

  function say(text) {
    if (problem.textContent !== text) problem.textContent = text;
    problem.hidden = !text;
  }

  return { root, update, get view() { return job ? `past/${job}` : "past"; }, remove() { timeline.remove(); } };
}

function ended(counts) {
  const wrong = ["failed", "cancelled"].filter((what) => counts[what]).map((what) => `${count(counts[what])} of them ${what}`);
  return [`${plural(counts.submitted, "task")} ${counts.submitted === 1 ? "has" : "have"} ended`, ...wrong].join(", ");
}

// A list to choose from. It is made anew only when it says something else: it may be open under the pointer.
function choice(name, choose) {
  const select = element("select", { onchange: () => choose(select.value) });
  const label = element("label", { hidden: true }, `${name} `, select);
  let drawn = "";

  function offer(options, value) {
    const now = JSON.stringify(options);
    label.hidden = !options.length;
    if (now !== drawn) select.replaceChildren(...options.map(([key, text]) => element("option", { value: key }, text)));
    drawn = now;
    if (select.value !== value) select.value = value;
  }

  return { label, offer };
}
