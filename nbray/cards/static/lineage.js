// Lineage: cells, tasks and variables, and what was made from what, as a layered graph. Groups come from the kernel; a click lights
// up ancestors and descendants and says how many they are. What has not ended says so in words and by its mark. `host.change(view)`: another view is wanted (whole, opened, shut).
// `host.notebook()`: the file that the cells are in, for a graph outside of it; "" where there is none.

import { STALE, colour, count, element, plural, vector } from "./format.js";
import { jumpTo } from "./jump.js";

const BOX = { width: 158, height: 36, dx: 44, dy: 12 };
const KINDS = { cell: "cell", task: "tasks", object: "variable" };

// Longest-path layers, left to right, then a few sweeps that pull each node towards its neighbours. What stands in a circle (tasks
// of two functions that feed each other) is cut open at the node that began first.
export function layers(size, edges) {
  const layer = new Array(size).fill(0), out = Array.from({ length: size }, () => []), into = Array.from({ length: size }, () => []);
  for (const [a, b] of edges) { out[a].push(b); into[b].push(a); }
  const left = into.map((list) => list.length), done = new Array(size).fill(false), ready = [...left.keys()].filter((i) => !left[i]);
  for (let k = 0; k < size; k++) {
    if (k === ready.length) ready.push(done.findIndex((placed, i) => !placed && !ready.includes(i)));
    const a = ready[k];
    done[a] = true;
    for (const b of out[a]) {
      if (done[b]) continue;
      layer[b] = Math.max(layer[b], layer[a] + 1);
      if (!--left[b] && !ready.includes(b)) ready.push(b);
    }
  }
  const columns = [];
  layer.forEach((l, i) => (columns[l] ??= []).push(i));
  const place = new Array(size).fill(0);
  columns.forEach((column) => column.forEach((i, at) => (place[i] = at)));
  for (let sweep = 0; sweep < 4; sweep++) {
    const neighbours = sweep % 2 ? out : into;
    for (const column of sweep % 2 ? [...columns].reverse() : columns) {
      const pull = (i) => neighbours[i].length ? neighbours[i].reduce((sum, j) => sum + place[j], 0) / neighbours[i].length : place[i];
      column?.sort((a, b) => pull(a) - pull(b)).forEach((i, at) => (place[i] = at));
    }
  }
  return { layer, place, out, into };
}

function reach(start, next) {
  const seen = new Set([start]), todo = [start];
  while (todo.length) for (const j of next[todo.pop()]) if (!seen.has(j)) { seen.add(j); todo.push(j); }
  return seen;
}

// "2 cells, 103 tasks and 1 variable": tasks, not boxes, are counted.
export function amounts(nodes) {
  const total = { cell: 0, task: 0, object: 0 };
  for (const node of nodes) {
    total[node.kind] += node.kind === "task" ? node.tasks ?? 1 : 1;
    if (node.kind === "cell" && node.open === false) total.task += node.tasks ?? 0;
  }
  const parts = [["cell", "cell"], ["task", "task"], ["object", "variable"]].filter(([kind]) => total[kind]).map(([kind, noun]) => plural(total[kind], noun));
  return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}` : parts[0] ?? "nothing";
}

export function createLineage(host) {
  const view = { whole: false, opened: new Set(), shut: new Set() };
  let drawn = "", chosen = null, graph = { nodes: [], edges: [] }, boxes = [], light = () => {};
  const scope = element("button", { type: "button", class: "nbray-button", onclick: () => { view.whole = !view.whole; changed(); } });
  const note = element("span", { class: "nbray-muted" });
  const tools = element("div", { class: "nbray-tools" }, host?.change && host.scope !== false ? scope : null, note);
  const scroll = element("div", { class: "nbray-scroll", tabindex: "0", role: "region", "aria-label": "Lineage graph", "data-lm-suppress-shortcuts": "true" });
  const said = element("p", { class: "nbray-said", role: "status" });
  const actions = element("div", { class: "nbray-tools" });
  const root = element("div", { class: "nbray-lineage" }, tools, scroll, said, actions);
  title();

  function title() { scope.textContent = view.whole ? host?.scope || "Only this cell" : "Whole notebook"; }

  function changed() {
    title();
    host.change({ whole: view.whole, opened: [...view.opened], shut: [...view.shut] });
  }

  function toggle(node) {
    const key = node.open && node.group ? node.group : node.key, wanted = !node.open;
    view.opened.delete(key);
    view.shut.delete(key);
    (wanted ? view.opened : view.shut).add(key);
    chosen = key;
    changed();
  }

  function draw(next) {
    const shape = JSON.stringify([next.edges, next.nodes.map((node) => [node.key, node.open, node.expands])]);
    graph = next;
    const { nodes, edges } = graph;
    if (shape === drawn) { // only words have changed: nothing moves under the pointer
      boxes.forEach((each, i) => each.say(nodes[i]));
      describe();
      if (at() >= 0) light(at());
      return;
    }
    const first = drawn === ""; // then what runs comes into view, where the graph is wider than the page
    drawn = shape;
    if (!nodes.length) {
      note.textContent = "";
      said.textContent = "No task has been submitted yet.";
      scroll.hidden = true;
      return;
    }
    scroll.hidden = false;
    const { layer, place, out, into } = layers(nodes.length, edges);
    const x = (i) => layer[i] * (BOX.width + BOX.dx) + 4, y = (i) => place[i] * (BOX.height + BOX.dy) + 4;
    const width = Math.max(...nodes.map((_, i) => x(i))) + BOX.width + 8, height = Math.max(...nodes.map((_, i) => y(i))) + BOX.height + 8;
    const lines = edges.map(([a, b, kind]) => {
      const x1 = x(a) + BOX.width, y1 = y(a) + BOX.height / 2, x2 = x(b), y2 = y(b) + BOX.height / 2, bend = (x1 + x2) / 2;
      return vector("path", { d: `M${x1},${y1} C${bend},${y1} ${bend},${y2} ${x2},${y2}`, class: kind === "submits" ? "nbray-edge nbray-submits" : "nbray-edge" });
    });
    boxes = nodes.map((node, i) => box(node, i, x(i), y(i)));
    describe();
    const picture = vector("svg", { width, height, role: "group", "aria-label": `${plural(nodes.length, "node")} and ${plural(edges.length, "edge")}` }, ...lines, ...boxes.map((each) => each.root));
    const runs = first ? nodes.findIndex((node) => node.kind === "task" && node.running) : -1;
    const was = [runs < 0 ? scroll.scrollLeft : Math.max(0, x(runs) - BOX.width - BOX.dx), scroll.scrollTop], had = scroll.contains(document.activeElement);
    scroll.replaceChildren(picture);
    [scroll.scrollLeft, scroll.scrollTop] = was;
    light = (i) => {
      const above = i < 0 ? null : reach(i, into), below = i < 0 ? null : reach(i, out), lit = (j) => i < 0 || above.has(j) || below.has(j);
      boxes.forEach((each, j) => { each.root.classList.toggle("nbray-dim", !lit(j)); each.root.setAttribute("aria-pressed", String(i === j)); });
      lines.forEach((each, e) => each.classList.toggle("nbray-dim", !(lit(edges[e][0]) && lit(edges[e][1]))));
      if (i >= 0) tell(i, [...above].filter((j) => j !== i), [...below].filter((j) => j !== i), besides(i, into, out).filter((j) => !above.has(j) && !below.has(j)));
    };
    if (at() >= 0) {
      light(at());
      if (had) boxes[at()].root.focus();
    } else {
      chosen = null;
      said.textContent = "Choose one to see what it came from and what uses it.";
      actions.replaceChildren();
    }
  }

  function at() {
    return chosen === null ? -1 : graph.nodes.findIndex((node, i) => (node.key ?? i) === chosen || node.group === chosen);
  }

  function choose(i) {
    chosen = graph.nodes[i].key ?? i;
    light(i);
  }

  function describe() {
    const stale = graph.nodes.filter((node) => node.stale).length;
    note.textContent = [amounts(graph.nodes), stale ? `${stale} ${STALE}` : "", graph.hidden ? `${count(graph.hidden)} more are not shown` : "",
      "lines: data; dotted: submitted"].filter(Boolean).join(" · ");
  }

  // Of a variable: the tasks that took results of the tasks whose results it holds, and what came of them.
  function besides(i, into, out) {
    const isTask = (j) => graph.nodes[j].kind === "task";
    if (graph.nodes[i].kind !== "object") return [];
    const first = into[i].filter(isTask).flatMap((j) => out[j].filter(isTask));
    return [...new Set(first.flatMap((j) => [...reach(j, out)]))];
  }

  function tell(i, above, below, beside) {
    const node = graph.nodes[i], of = (set) => {
      const some = set.slice(0, 4).map((j) => graph.nodes[j].label).join(", "), more = set.length > 4 ? ", …" : "";
      return set.length ? `${amounts(set.map((j) => graph.nodes[j]))} (${some}${more})` : "nothing";
    };
    said.replaceChildren(element("strong", {}, node.label), ` (${KINDS[node.kind]}) comes from ${of(above)}; ${[below.length || !beside.length ? `used by ${of(below)}` : "", beside.length ? `the same results went to ${of(beside)}` : ""].filter(Boolean).join("; ")}.`,
      node.stale ? element("span", { class: "nbray-stale" }, ` ${STALE}: ${node.stale}.`) : "");
    actions.replaceChildren(...[
      node.title && host?.notebook?.() !== "" ? element("button", { type: "button", class: "nbray-button", onclick: () => go(node) }, `Go to ${node.title}`) : null,
      host?.change && node.expands ? element("button", { type: "button", class: "nbray-button", onclick: () => toggle(node) }, node.open ? "Close" : "Open") : null,
    ].filter(Boolean));
  }

  function go(node) {
    if (!jumpTo(root, { ...node, notebook: host?.notebook?.() })) said.append(` ${node.title} is not on this page.`);
  }

  // How far its tasks are, as a bar that fills from below: full where all have ended, striped above where some run, hollow where the
  // rest is queued. The words say the same.
  function mark(x, y, fill) {
    const ended = vector("rect", { x, width: 5, fill }), runs = vector("path", { stroke: fill, "stroke-width": 5, "stroke-dasharray": "2 2" });
    const outline = vector("rect", { x: x + 0.5, y: y + 0.5, width: 4, height: BOX.height - 1, fill: "none", stroke: fill });
    return {
      root: vector("g", { "aria-hidden": "true" }, outline, ended, runs),
      say(now) {
        const all = Math.max(1, now.tasks ?? 1), running = now.running ?? 0, done = all - running - (now.queued ?? 0);
        const high = BOX.height * Math.max(0, done) / all, middle = running ? Math.max(8, BOX.height * running / all) : 0;
        const top = Math.min(high, BOX.height - middle);
        ended.setAttribute("y", y + BOX.height - top);
        ended.setAttribute("height", top);
        runs.setAttribute("d", middle ? `M${x + 2.5},${y + BOX.height - top} v${-middle}` : "");
      },
    };
  }

  function box(node, i, x, y) {
    const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
    const first = vector("text", { x: x + 10, y: y + 15, class: node.kind === "cell" ? "nbray-label nbray-strong" : "nbray-label" });
    const second = vector("text", { x: x + 10, y: y + 29 });
    const told = vector("title");
    const shape = { cell: "nbray-cell", task: "nbray-task", object: "nbray-object" }[node.kind];
    const side = node.kind === "task" ? mark(x, y, colour(node.colour ?? 7)) : null;
    const more = host?.change && node.expands ? vector("text", { x: x + BOX.width - 16, y: y + 15, class: "nbray-label nbray-strong", onclick: (event) => { event.stopPropagation(); toggle(graph.nodes[i]); } }) : null;
    if (more) more.textContent = node.open ? "−" : "+";
    const root = vector("g", {
      class: "nbray-node", tabindex: "0", role: "button", "aria-pressed": "false", onclick: () => choose(i),
      onkeydown: (event) => {
        const opens = event.key === "+" ? !node.open : event.key === "-" ? node.open : false;
        if (event.key !== "Enter" && event.key !== " " && !opens) return;
        event.preventDefault();
        event.stopPropagation();
        if (!opens) choose(i);
        else if (host?.change && node.expands) toggle(graph.nodes[i]);
      },
    }, ...[told, vector("rect", { x, y, width: BOX.width, height: BOX.height, rx: node.kind === "cell" ? 9 : 3, class: shape }), side?.root, first, second, more].filter(Boolean));

    function say(now) {
      first.textContent = cut(now.label, now.expands ? 18 : 22);
      second.textContent = cut(now.stale ? `${STALE} · ${now.detail}` : now.detail, 27);
      second.setAttribute("class", now.stale ? "nbray-sublabel nbray-stale" : "nbray-sublabel");
      side?.say(now);
      root.dataset.state = now.running ? "running" : now.queued ? "queued" : "ended";
      told.textContent = [now.label, now.detail, now.stale ? `${STALE}: ${now.stale}` : ""].filter(Boolean).join(" · ");
      root.setAttribute("aria-label", [`${now.label}, ${KINDS[now.kind]}`, now.detail, now.stale ? `stale: ${now.stale}` : ""].filter(Boolean).join(", "));
    }

    say(node);
    return { root, say };
  }

  return { root, draw };
}
