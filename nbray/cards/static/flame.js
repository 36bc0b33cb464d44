// Where time or memory went: a flame graph, callers above what they called. A click, or Enter, makes a frame as wide as all of it.

import { bytes, count, element, plural, seconds } from "./format.js";

const FRAME_ROW = 18, NARROWEST = 0.12, DEEPEST_FRAME = 60, TOP_FRAMES = 12; // NARROWEST: per cent of the width
const FRAME_FILLS = ["#f2b880", "#e9d585", "#b8d8a0", "#9fd0c8", "#a9c7e8", "#c9b8e4", "#e6b3cc", "#d8c4ae"]; // flame.py has the same

function frameColour(label) {
  const place = (label.endsWith(")") ? label.slice(label.lastIndexOf(" (") + 2, -1) : label).split(" line ")[0];
  let number = 0;
  for (const letter of place) number = (Math.imul(number, 31) + letter.codePointAt(0)) >>> 0;
  return FRAME_FILLS[number % FRAME_FILLS.length];
}

// [depth, label, own] in the order of a walk -> nodes with callers, callees and sums.
function callTree(data) {
  const root = { label: "all", own: 0, total: 0, depth: -1, above: null, below: [] }, path = [root];
  for (const [depth, label, own] of data.nodes) {
    const above = path[depth], node = { label: data.labels[label], own, total: 0, depth, above, below: [] };
    above.below.push(node);
    path.length = depth + 1;
    path.push(node);
    for (let each = node; each; each = each.above) each.total += own;
  }
  return root;
}

export function createFlame() {
  let data = null, root = null, zoomed = null, current = null, shown = new Map();
  const heading = element("span", { class: "nbray-muted" });
  const back = element("button", { type: "button", class: "nbray-button", hidden: true, onclick: () => zoom(root) }, "Show all");
  const area = element("div", { class: "nbray-flame", role: "tree", "data-lm-suppress-shortcuts": "true", onkeydown: walk });
  const told = element("div", { class: "nbray-muted", "aria-live": "polite" });
  const table = element("table", {});
  const whole = element("div", {}, element("div", { class: "nbray-tools" }, heading, back), area, told, table);
  heading.textContent = "The tasks are watched; each shows here when it has ended.";

  const amount = (value) => (data.kind === "mem" ? bytes(value) : seconds(value / data.rate));
  const share = (value) => `${((value / Math.max(1, root.total)) * 100).toFixed(1)} %`;
  const words = (node) => `${node.label}: ${amount(node.total)}, ${share(node.total)}` +
    (node.own && node.own !== node.total ? `; ${amount(node.own)} itself` : "");

  function title() {
    const tasks = plural(data.tasks, "task");
    if (!root.total) return data.kind === "mem" ? "Memory: nothing worth counting." : `No sample in ${tasks}: the code was too short, or it waited.`;
    if (data.kind === "mem") return `Memory at its peak${data.tasks > 1 ? ` of the task that needed most, of ${tasks}` : ""}: ${amount(root.total)}`;
    return `CPU time: ${amount(root.total)} in ${tasks}, ${count(data.rate)} samples a second`;
  }

  function zoom(node) {
    zoomed = current = node;
    drawFrames(true);
  }

  function drawFrames(focus) {
    const frames = [], callers = [];
    shown = new Map();
    for (let each = zoomed; each && each !== root; each = each.above) callers.unshift(each);
    callers.forEach((node) => frames.push(frame(node, 0, 100)));
    let deepest = callers.length;
    const open = [[zoomed, 0, 100]];
    while (open.length) {
      const [node, left, width] = open.pop();
      let x = left;
      for (const each of node.below) {
        const wide = (each.total / node.total) * width;
        if (wide >= NARROWEST && each.depth < DEEPEST_FRAME) {
          frames.push(frame(each, x, wide));
          deepest = Math.max(deepest, each.depth + 1);
          open.push([each, x, wide]);
        }
        x += wide;
      }
    }
    area.style.height = `${Math.max(1, deepest) * FRAME_ROW}px`;
    area.replaceChildren(...frames);
    area.hidden = !root.total;
    back.hidden = zoomed === root;
    const first = shown.get(current) ?? frames[0];
    if (first) first.tabIndex = 0;
    if (focus) (shown.get(current) ?? first)?.focus();
  }

  function frame(node, left, width) {
    const made = element("div", {
      class: "nbray-frame", role: "treeitem", "aria-level": node.depth + 1, tabindex: "-1", title: words(node), "aria-label": words(node),
      onclick: () => zoom(node), onfocus: () => { current = node; told.textContent = words(node); }, onmouseenter: () => { told.textContent = words(node); },
    }, node.label);
    Object.assign(made.style, { left: `${left}%`, width: `${width}%`, top: `${node.depth * FRAME_ROW}px`, background: frameColour(node.label) });
    shown.set(node, made);
    return made;
  }

  // Arrows: to the caller, to the callee that took most, to its neighbours.
  function walk(event) {
    if (event.key === "Tab") return;
    event.stopPropagation();
    if (event.key === "Enter" || event.key === " ") zoom(current);
    else if (event.key === "Escape") zoom(root);
    else {
      const among = (current?.above ?? root).below.filter((node) => shown.has(node)), at = among.indexOf(current);
      const widest = current?.below.filter((node) => shown.has(node)).sort((one, other) => other.total - one.total)[0];
      const next = { ArrowUp: current?.above, ArrowDown: widest, ArrowLeft: among[at - 1], ArrowRight: among[at + 1] }[event.key];
      if (!next || !shown.has(next)) return;
      shown.get(current)?.setAttribute("tabindex", "-1");
      current = next;
      shown.get(next).tabIndex = 0;
      shown.get(next).focus();
    }
    event.preventDefault();
  }

  function drawTable() {
    const own = new Map(), all = new Map();
    (function count(node, above) {
      for (const each of node.below) {
        own.set(each.label, (own.get(each.label) ?? 0) + each.own);
        if (!above.has(each.label)) all.set(each.label, (all.get(each.label) ?? 0) + each.total);
        count(each, new Set(above).add(each.label));
      }
    })(root, new Set());
    const rows = [...own].filter(([, value]) => value >= root.total / 1000 && value).sort((one, other) => other[1] - one[1]).slice(0, TOP_FRAMES);
    table.replaceChildren(...(!rows.length ? [] : [
      element("caption", { class: "nbray-hidden" }, "What took most itself"),
      element("thead", {}, element("tr", {}, ...["what took most itself", "itself", "with what it calls"].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map(([label, value]) => element("tr", {}, element("td", {}, label),
        element("td", {}, `${amount(value)}, ${share(value)}`), element("td", {}, `${amount(all.get(label))}, ${share(all.get(label))}`))))]));
  }

  return {
    root: whole,
    draw(next) {
      if (!next) return;
      data = next;
      root = zoomed = current = callTree(next);
      heading.textContent = title();
      area.setAttribute("aria-label", `Flame graph. ${title()}`);
      told.textContent = root.total ? "Callers are above what they call. A click or Enter widens a frame, Escape shows all." : "";
      drawFrames(false);
      drawTable();
    },
  };
}
