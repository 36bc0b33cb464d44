// A run card: a cell at work, live or kept. `createCard(el, host)`: host.live, host.command(name, arguments) -> Promise.

import { SIGNS, bytes, colour, count, countsText, element, plural, seconds } from "./format.js";
import { Spans, createTimeline } from "./timeline.js";
import { createLineage } from "./lineage.js";
import { createObjectsTab } from "./objects.js";
import { createOutput } from "./output.js";
import { saveTrace, traceOf } from "./perfetto.js";
import { createPlan } from "./plan.js";
import { createFlame } from "./flame.js";

const LEAST_LEFT_S = 0.1; // a lower bound that is worth telling
let cards = 0;

export function createCard(el, host) {
  const id = `nbray-card-${++cards}`;
  const spans = new Spans();
  const answers = new Map(), wanted = {}; // what the kernel said last, and which view of it was asked for
  let snapshot = null, number = 0, asking = false, insist = false, open = host.live ? null : "timeline", stopped = false, received = performance.now();
  let pictured = 0; // how many tasks the flame graph shows
  let planned = false; // whether the Plan tab shows what there is to show

  // ---- the head
  const sign = element("span", { class: "nbray-sign" });
  const facts = element("span", { class: "nbray-facts" });
  const said = element("span", { class: "nbray-hidden", role: "status" });
  const cancel = button("Cancel", () => act("cancel", cancel, insist ? "Killing…" : "Cancelling…", { force: insist }).then(offerKill));
  const background = button("Background", () => act("background", background, "In the background"));
  const actions = element("span", { class: "nbray-actions" }, cancel, background);
  const problem = element("div", { class: "nbray-problem", role: "alert", hidden: true });
  const bar = element("div", { class: "nbray-bar", role: "progressbar", "aria-valuemin": "0", "aria-label": "Tasks finished" });
  const notice = element("div", { class: "nbray-notice", hidden: true });

  // ---- the tabs
  const timeline = createTimeline(spans, { exportTrace: () => save().catch(complain) });
  const lineage = createLineage({ change: host.live ? (view) => { wanted.lineage = view; answers.delete("lineage"); drawLineage(); } : null });
  const plan = createPlan();
  const output = createOutput();
  const objects = createObjectsTab(host.live ? {
    release: (names) => host.command("release", { names }), changed: () => { answers.delete("objects"); drawObjects(); },
  } : null);
  const flame = createFlame();
  const panels = {
    tasks: { title: "Tasks", body: element("div", { class: "nbray-tasks" }), draw: drawTasks },
    timeline: { title: "Timeline", body: timeline.root, draw: () => timeline.update(snapshot) },
    plan: { title: "Plan", body: plan.root, draw: drawPlan },
    profile: { title: "Profile", body: flame.root, draw: drawProfile },
    lineage: { title: "Lineage", body: lineage.root, draw: drawLineage },
    objects: { title: "Objects", body: objects.root, draw: drawObjects },
    output: { title: "Output", body: output.root, draw: drawOutput },
    errors: { title: "Errors", body: element("div", {}), draw: drawErrors },
  };
  const shown = Object.keys(panels);
  const tabs = shown.map((name) => element("button", {
    type: "button", role: "tab", id: `${id}-${name}`, class: "nbray-tab", "aria-controls": `${id}-panel`, "aria-selected": "false",
    onclick: () => choose(open === name && host.live ? null : name), onkeydown: (event) => walk(event, name),
  }, panels[name].title));
  const panel = element("div", { role: "tabpanel", id: `${id}-panel`, class: "nbray-tabpanel", hidden: true });
  const root = element("section", { class: "nbray-card" },
    element("div", { class: "nbray-head" }, sign, facts, actions), said, bar, notice, problem,
    element("div", { role: "tablist", class: "nbray-tabs", "aria-label": "Views of this run" }, ...tabs), panel);
  el.append(root);
  const clock = host.live ? setInterval(tick, 500) : null;
  if (open) choose(open);

  function button(text, click) {
    return element("button", { type: "button", class: "nbray-button", onclick: click }, text);
  }

  // ---- facts in

  function update(message, buffers) {
    if (message.number !== undefined) {
      const bytesIn = buffers?.[0];
      const whole = message.first === 0;
      const missed = number && message.number !== number + 1 && !whole;
      if (missed || (bytesIn && !spans.put(message.first, bytesIn))) resync(); // counts are whole in every message, spans are not
      number = message.number;
    }
    snapshot = message.snapshot;
    received = performance.now();
    draw();
  }

  // A kept card: everything at once.
  function load(saved) {
    snapshot = saved;
    const raw = atob(saved.span_data ?? "");
    spans.put(0, Uint8Array.from(raw, (c) => c.charCodeAt(0)), saved.v);
    if (saved.errors?.length) choose("errors"); // what one looks for first
    else if (saved.profile) choose("profile"); // what was asked for
    draw();
  }

  function resync() {
    if (asking || !host.live) return;
    asking = true;
    host.command("resync").catch(complain).finally(() => { asking = false; });
  }

  // A task may take its time to end, or never do: then the workers can be killed.
  function offerKill() {
    setTimeout(() => {
      if (stopped || snapshot?.state !== "running") return;
      insist = true;
      cancel.disabled = false;
      cancel.textContent = "Kill workers";
    }, 2000);
  }

  async function act(command, pressed, meanwhile, args) {
    pressed.disabled = true;
    pressed.textContent = meanwhile;
    problem.hidden = true;
    try {
      await host.command(command, args);
    } catch (error) {
      complain(error);
      pressed.disabled = false;
      pressed.textContent = command === "cancel" ? "Cancel" : "Background";
    }
  }

  function complain(error) {
    if (stopped) return;
    problem.textContent = `${error.message}. Is the kernel there? The stop button in the toolbar always works.`;
    problem.hidden = false;
  }

  // ---- drawing

  function draw() {
    if (!snapshot || stopped) return;
    root.setAttribute("aria-label", `nbray run ${snapshot.title}`);
    root.dataset.state = snapshot.state;
    sign.textContent = `${SIGNS[snapshot.state] ?? "·"} ${snapshot.state}`;
    head();
    drawBar();
    const later = snapshot.leaves_later ? "The cell's code waits for no task just now: at its next wait it goes to the background." : "";
    notice.textContent = [later, snapshot.notice].filter(Boolean).join(" ");
    notice.hidden = !notice.textContent;
    actions.hidden = !host.live || snapshot.state !== "running";
    background.hidden = !snapshot.can_background;
    const errors = snapshot.errors.reduce((sum, error) => sum + error.count, 0);
    const at = shown.indexOf("errors");
    tabs[at].textContent = errors ? `Errors (${count(errors)})` : "Errors";
    tabs[shown.indexOf("output")].textContent = snapshot.printed ? `Output (${plural(snapshot.printed, "line")})` : "Output";
    tabs[shown.indexOf("profile")].hidden = !profiled();
    if (open) panels[open].draw();
  }

  function head() {
    const ago = snapshot.state === "running" ? (performance.now() - received) / 1000 : 0;
    const left = snapshot.left_s == null ? null : Math.max(0, snapshot.left_s - ago);
    const nested = snapshot.nested ? ` (${count(snapshot.nested)} submitted by tasks)` : "";
    const parts = [snapshot.title, (snapshot.items ? `${plural(snapshot.items, "item")} in ` : "") + countsText(snapshot.counts) + nested, seconds(snapshot.elapsed_s + ago) + leftText(left)];
    if (snapshot.state === "running" && snapshot.speed_up >= 1.05) parts.push(`${snapshot.speed_up.toFixed(1)}x one core`);
    const workers = snapshot.worker_count ?? snapshot.workers.length; // a kept card lists the first
    if (workers) parts.push(plural(workers, "worker"));
    if (snapshot.sent || snapshot.received) parts.push(`in ${bytes(snapshot.sent)}, out ${bytes(snapshot.received)}`);
    if (snapshot.verdict) parts.push(snapshot.verdict);
    facts.textContent = parts.join(" · ");
    const spoken = `${snapshot.title} ${snapshot.state}${snapshot.state === "running" ? "" : `: ${countsText(snapshot.counts)}. ${snapshot.verdict}`}`;
    if (said.textContent !== spoken) said.textContent = spoken;
  }

  function leftText(left) {
    if (left == null) return "";
    if (snapshot.left_note && left < LEAST_LEFT_S) return `, ${snapshot.left_note}`; // "at least 0 s" says nothing
    return snapshot.left_note ? `, at least ${seconds(left)} left (${snapshot.left_note})` : `, about ${seconds(left)} left`;
  }

  function tick() {
    if (snapshot && snapshot.state === "running" && !document.hidden) head();
  }

  // Finished tasks by function, then what failed, then what runs; the rest of the bar is queued.
  function drawBar() {
    const total = Math.max(1, snapshot.counts.submitted), parts = [];
    snapshot.names.forEach((row) => {
      const index = snapshot.span_names.indexOf(row.name);
      parts.push(piece(row.done, index < 0 ? "" : colour(index), `${row.name}: ${count(row.done)} done`, "nbray-done"));
    });
    parts.push(piece(snapshot.counts.failed, "", `${count(snapshot.counts.failed)} failed`, "nbray-failed"));
    parts.push(piece(snapshot.counts.cancelled, "", `${count(snapshot.counts.cancelled)} cancelled`, "nbray-cancelled"));
    parts.push(piece(snapshot.counts.running, "", `${count(snapshot.counts.running)} running`, "nbray-running"));
    bar.replaceChildren(...parts.filter(Boolean));
    bar.setAttribute("aria-valuemax", total);
    bar.setAttribute("aria-valuenow", snapshot.counts.done + snapshot.counts.failed + snapshot.counts.cancelled);

    function piece(amount, fill, title, kind) {
      if (!amount) return null;
      const made = element("span", { class: kind, title });
      made.style.width = `${(amount / total) * 100}%`;
      if (fill) made.style.background = fill;
      return made;
    }
  }

  function table(columns, rows, caption) {
    return element("table", {}, element("caption", { class: "nbray-hidden" }, caption),
      element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => cell instanceof Node ? element("td", {}, cell) : element("td", {}, String(cell)))))));
  }

  function drawTasks() {
    const functions = table(["function", "tasks", "each", "in all"],
      snapshot.names.map((row) => [named(row.name), countsText(row), seconds(row.mean_s), row.total_s ? seconds(row.total_s) : ""]), "Functions");
    const latest = element("div", {});
    panels.tasks.body.replaceChildren(functions, latest);
    ask("tasks", snapshot.tasks).then((tasks) => {
      if (!tasks?.length) return;
      const rows = tasks.slice(0, 50).map((task) => [`${SIGNS[{ FINISHED: "done", FAILED: "failed", CANCELLED: "cancelled" }[task.state]]} ${named(task.name).textContent}`,
        task.ran_ms == null ? "" : seconds(task.ran_ms / 1000), task.waited_ms == null ? "" : seconds(task.waited_ms / 1000), task.worker, task.detail || ""]);
      latest.replaceChildren(element("h4", {}, `The last ${plural(rows.length, "task")}`), table(["task", "ran", "waited", "worker", ""], rows, "Latest tasks"));
    });
  }

  function named(name) {
    const index = snapshot.span_names.indexOf(name), mark = element("span", { class: "nbray-mark", "aria-hidden": "true" });
    mark.style.background = index < 0 ? "transparent" : colour(index);
    return element("span", {}, mark, name);
  }

  function drawLineage() {
    ask("lineage", snapshot.lineage, wanted.lineage).then((graph) => { if (graph && open === "lineage") lineage.draw(graph); });
  }

  // A plan is made of what has ended; while the run goes on it is made again only when the tab is opened.
  function drawPlan() {
    if (planned) return;
    planned = host.live;
    if (!host.live) plan.draw(snapshot.plan);
    else if (!snapshot.counts.done) { planned = false; plan.draw(null); }
    else ask("plan", null).then((grid) => { if (grid && !stopped) plan.draw(grid); });
  }

  // How many tasks' pictures there are; a live card asks again when there are more.
  function profiled() {
    return snapshot.profile?.tasks ?? snapshot.profiled ?? 0;
  }

  function drawProfile() {
    const tasks = profiled();
    if (pictured === tasks) return;
    pictured = tasks;
    ask("profile", snapshot.profile ?? null).then((data) => { if (data && !stopped) flame.draw(data); else pictured = 0; });
  }

  function drawObjects() {
    ask("objects", snapshot.objects ?? { rows: [], missing: true }).then((found) => { if (found && open === "objects") objects.draw(found); });
  }

  function drawOutput() {
    ask("output", snapshot.output ?? { pieces: [], forgotten: 0 }).then((told) => { if (told && open === "output") output.draw(told); });
  }

  function drawErrors() {
    const items = snapshot.errors.map((error) => element("li", {}, error.count > 1 ? `${error.text} ×${count(error.count)}` : error.text));
    panels.errors.body.replaceChildren(items.length ? element("ul", { class: "nbray-errors" }, ...items) : element("p", { class: "nbray-muted" }, "No task has failed."));
  }

  // What the kernel knows, at most once a second for a live card; what was kept otherwise.
  function ask(what, kept, args) {
    if (!host.live || snapshot.state !== "running") if (kept !== undefined && !host.live) return Promise.resolve(kept);
    const last = answers.get(what);
    if (last && performance.now() - last.at < 1000) return last.answer;
    const answer = host.command(what, args).catch((error) => { complain(error); return null; });
    answers.set(what, { at: performance.now(), answer });
    return answer;
  }

  // The kernel knows every task; without one it is those that were kept.
  async function save() {
    saveTrace(host.live ? await host.command("perfetto") : traceOf(spans, snapshot));
  }

  // ---- tabs, as the ARIA pattern has them

  function choose(name) {
    if (open !== name) planned = false;
    open = name;
    tabs.forEach((tab, i) => {
      const selected = shown[i] === name;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected || (name === null && i === 0) ? 0 : -1;
    });
    panel.hidden = name === null;
    if (name === null) return;
    panel.setAttribute("aria-labelledby", `${id}-${name}`);
    panel.replaceChildren(panels[name].body);
    if (snapshot) panels[name].draw();
  }

  function walk(event, name) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    let next = shown.indexOf(name);
    do next = (next + step + shown.length) % shown.length; while (tabs[next].hidden);
    choose(shown[next]);
    tabs[next].focus();
  }

  function remove() {
    stopped = true;
    clearInterval(clock);
    timeline.remove();
    root.remove();
  }

  choose(open);
  return { update, load, resync, remove };
}
