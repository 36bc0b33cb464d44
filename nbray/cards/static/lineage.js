// Lineage: what was made from what, as a layered graph. Groups come from the kernel; a click lights up ancestors and descendants.

import { colour, element, plural, vector } from "./format.js";

const BOX = { width: 150, height: 34, dx: 40, dy: 14 };

// Longest-path layers, left to right, then a few sweeps that pull each node towards its neighbours.
export function layers(size, edges) {
  const layer = new Array(size).fill(0), out = Array.from({ length: size }, () => []), into = Array.from({ length: size }, () => []);
  for (const [a, b] of edges) { out[a].push(b); into[b].push(a); }
  const left = into.map((list) => list.length), ready = [...left.keys()].filter((i) => !left[i]);
  for (let k = 0; k < ready.length; k++) {
    for (const b of out[ready[k]]) {
      layer[b] = Math.max(layer[b], layer[ready[k]] + 1);
      if (!--left[b]) ready.push(b);
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
      column.sort((a, b) => pull(a) - pull(b)).forEach((i, at) => (place[i] = at));
    }
  }
  return { layer, place, out, into };
}

function reach(start, next) {
  const seen = new Set([start]), todo = [start];
  while (todo.length) for (const j of next[todo.pop()]) if (!seen.has(j)) { seen.add(j); todo.push(j); }
  return seen;
}

export function createLineage() {
  const root = element("div", { class: "nbray-lineage" });

  function draw(graph) {
    const { nodes, edges } = graph;
    if (!nodes.length) {
      root.replaceChildren(element("p", { class: "nbray-muted" }, "Nothing has finished yet."));
      return;
    }
    const { layer, place, out, into } = layers(nodes.length, edges);
    const x = (i) => layer[i] * (BOX.width + BOX.dx) + 4, y = (i) => place[i] * (BOX.height + BOX.dy) + 4;
    const width = Math.max(...nodes.map((_, i) => x(i))) + BOX.width + 8, height = Math.max(...nodes.map((_, i) => y(i))) + BOX.height + 8;
    const lines = edges.map(([a, b]) => {
      const x1 = x(a) + BOX.width, y1 = y(a) + BOX.height / 2, x2 = x(b), y2 = y(b) + BOX.height / 2, bend = (x1 + x2) / 2;
      return vector("path", { d: `M${x1},${y1} C${bend},${y1} ${bend},${y2} ${x2},${y2}`, class: "nbray-edge" });
    });
    const boxes = nodes.map((node, i) => box(node, i, x(i), y(i), () => light(i)));
    const said = element("p", { class: "nbray-muted", role: "status" });

    function light(chosen) {
      const above = reach(chosen, into), below = reach(chosen, out), lit = new Set([...above, ...below]);
      boxes.forEach((each, i) => each.classList.toggle("nbray-dim", !lit.has(i)));
      lines.forEach((each, e) => each.classList.toggle("nbray-dim", !(lit.has(edges[e][0]) && lit.has(edges[e][1]))));
      const words = (set) => [...set].filter((i) => i !== chosen).map((i) => nodes[i].label).join(", ") || "nothing";
      said.textContent = `${nodes[chosen].label}: made from ${words(above)}; used by ${words(below)}.`;
    }

    const title = `${plural(nodes.length, "node")} and ${plural(edges.length, "edge")}; choose one to see what it came from and what uses it`;
    const picture = vector("svg", { width, height, role: "group", "aria-label": title }, ...lines, ...boxes);
    root.replaceChildren(element("div", { class: "nbray-scroll", tabindex: "0", role: "region", "aria-label": "Lineage graph" }, picture), said);
    said.textContent = title;
  }

  function box(node, i, x, y, chosen) {
    const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
    const first = vector("text", { x: x + 10, y: y + 14, class: "nbray-label" });
    first.textContent = cut(node.label, 22);
    const second = vector("text", { x: x + 10, y: y + 27, class: "nbray-sublabel" });
    second.textContent = cut(node.detail, 26);
    const title = vector("title");
    title.textContent = `${node.label} · ${node.detail}`;
    const side = vector("rect", { x, y, width: 4, height: BOX.height, fill: node.kind === "object" ? "currentColor" : colour(node.colour ?? 7) });
    return vector("g", {
      class: "nbray-node", tabindex: "0", role: "button", "aria-label": `${node.label}, ${node.detail}`, onclick: chosen,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); event.stopPropagation(); chosen(); } },
    }, title, vector("rect", { x, y, width: BOX.width, height: BOX.height, rx: 3, class: node.kind === "object" ? "nbray-object" : "nbray-task" }),
    side, first, second);
  }

  return { root, draw };
}
