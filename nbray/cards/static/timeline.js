// The timeline: what ran where and when, on a canvas. 100,000 spans redraw in a frame or two; columns come as bytes.

import { FAILED, PALETTE, colour, count, element, plural, seconds } from "./format.js";

const SPAN_BYTES = 23, OLD_SPAN_BYTES = 19; // cards kept by version 1 say nothing of transfers
const ROW = 14, GAP = 2, AXIS = 16, FLAW = 4, MOST_ROWS = 64;

// Spans as growing columns, in the layout that nbray/cards/spans.py writes.
export class Spans {
  constructor() {
    this.size = 0;
    this.end = 0; // the latest end, ms
    this.rows = 0;
    this.hasTransfers = false;
    this.reserve(1024);
  }

  reserve(capacity) {
    const grown = {
      queued: new Float32Array(capacity), start: new Float32Array(capacity), stop: new Float32Array(capacity),
      row: new Uint16Array(capacity), name: new Uint16Array(capacity), attempt: new Uint16Array(capacity), state: new Uint8Array(capacity),
      fetch: new Float32Array(capacity),
    };
    for (const [name, column] of Object.entries(grown)) {
      if (this[name]) column.set(this[name].subarray(0, this.size));
      this[name] = column;
    }
    this.capacity = capacity;
  }

  // Put `bytes` (a DataView or Uint8Array) at position `first`. False when spans before it are missing.
  put(first, bytes, version = 2) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = view.byteLength / (version < 2 ? OLD_SPAN_BYTES : SPAN_BYTES);
    if (first > this.size) return false;
    if (first === 0) { this.size = 0; this.end = 0; this.rows = 0; this.hasTransfers = false; }
    if (first + size > this.capacity) this.reserve(Math.max(first + size, 2 * this.capacity));
    for (let i = 0; i < size; i++) {
      const at = first + i;
      this.queued[at] = view.getFloat32(4 * i, true);
      this.start[at] = view.getFloat32(4 * (size + i), true);
      this.stop[at] = view.getFloat32(4 * (2 * size + i), true);
      this.row[at] = view.getUint16(12 * size + 2 * i, true);
      this.name[at] = view.getUint16(14 * size + 2 * i, true);
      this.attempt[at] = view.getUint16(16 * size + 2 * i, true);
      this.state[at] = view.getUint8(18 * size + i);
      this.fetch[at] = version < 2 ? 0 : view.getFloat32(19 * size + 4 * i, true);
      if (this.fetch[at] > 0) this.hasTransfers = true;
      if (this.stop[at] > this.end) this.end = this.stop[at];
      if (this.row[at] >= this.rows) this.rows = this.row[at] + 1;
    }
    this.size = first + size;
    return true;
  }
}

export function createTimeline(spans, host) {
  let from = 0, to = null, byName = false, snapshot = null, hovered = -1, drag = null, wanted = false, named = "";
  const canvas = element("canvas", {
    tabindex: "0", role: "img",
    onwheel: wheel, onpointerdown: press, onpointermove: move, onpointerup: release, onpointerleave: leave, ondblclick: all, onkeydown: key,
  });
  const tip = element("div", { class: "nbray-tip", hidden: true });
  const note = element("span", { class: "nbray-muted" });
  const modes = element("button", { type: "button", class: "nbray-button", onclick: () => { byName = !byName; draw(); } }, "By function");
  const legend = element("div", { class: "nbray-legend" });
  const tools = element("div", { class: "nbray-tools" },
    modes,
    element("button", { type: "button", class: "nbray-button", "aria-label": "Zoom in", onclick: () => zoom(0.5, 0.6) }, "+"),
    element("button", { type: "button", class: "nbray-button", "aria-label": "Zoom out", onclick: () => zoom(0.5, 1 / 0.6) }, "−"),
    element("button", { type: "button", class: "nbray-button", onclick: all }, "All"),
    host.exportTrace ? element("button", { type: "button", class: "nbray-button", onclick: host.exportTrace }, "Save for Perfetto") : null,
    note);
  const root = element("div", { class: "nbray-timeline" }, tools, element("div", { class: "nbray-canvas" }, canvas, tip), legend);
  const resized = new ResizeObserver(() => later());
  resized.observe(root);

  const until = () => to ?? Math.max(spans.end, 1e-3);
  const lanes = () => Math.max(1, Math.min(MOST_ROWS, byName ? snapshot?.span_names.length ?? 1 : spans.rows));
  const laneOf = (i) => Math.min(byName ? spans.name[i] : spans.row[i], MOST_ROWS - 1);

  function later() {
    if (!wanted) { wanted = true; requestAnimationFrame(() => { wanted = false; draw(); }); }
  }

  function draw() {
    const width = root.clientWidth, height = lanes() * (ROW + GAP) + AXIS;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(root);
    axis(pen, width, height, style.color);
    const k = width / (until() - from);
    bars(pen, width, k, "waits", style.color);
    bars(pen, width, k, "transfers", style.color);
    bars(pen, width, k, "runs", style.color);
    modes.textContent = byName ? "By worker" : "By function";
    describe();
  }

  // One colour after the other; what falls into a pixel that has been painted is left out. `kind`: "waits", from submission to
  // start; "transfers", the last part of that, while arguments were on their way; "runs".
  function bars(pen, width, k, kind, ink) {
    const painted = new Float32Array(MOST_ROWS), runs = kind === "runs";
    if (kind === "transfers" && !spans.hasTransfers) return;
    const colours = Math.min(PALETTE.length, Math.max(1, snapshot?.span_names.length ?? 1));
    for (const pass of runs ? [...Array(colours).keys(), "failed"] : [-1]) {
      painted.fill(-1);
      pen.globalAlpha = kind === "waits" ? 0.13 : kind === "transfers" ? 0.6 : 1;
      pen.fillStyle = !runs ? ink : pass === "failed" ? FAILED : colour(pass);
      for (let i = 0; i < spans.size; i++) {
        if (runs && (pass === "failed" ? spans.state[i] !== 1 : Math.min(spans.name[i], PALETTE.length - 1) !== pass)) continue;
        const begin = runs ? spans.start[i] : kind === "waits" ? spans.queued[i] : spans.start[i] - spans.fetch[i];
        const x = (begin - from) * k, w = ((runs ? spans.stop[i] : spans.start[i]) - begin) * k;
        if (x > width || x + w < 0 || (!runs && w < 1)) continue;
        const lane = laneOf(i);
        if (x + Math.max(w, 1) <= painted[lane]) continue;
        const left = Math.max(x, painted[lane], 0), right = Math.min(Math.max(x + w, x + 1), width);
        if (right <= left) continue;
        painted[lane] = !runs || w < 1 ? right : -1;
        const flaw = pass === "failed" && w < 3; // many short ones: a line below, or nothing else would be seen
        const thin = flaw || kind === "transfers", y = lane * (ROW + GAP) + (thin ? ROW - FLAW : 0);
        pen.fillRect(left, y, right - left > 3 && runs ? right - left - 0.5 : right - left, thin ? FLAW : ROW);
      }
    }
    pen.globalAlpha = 1;
    if (runs && hovered >= 0) {
      pen.strokeStyle = ink;
      pen.lineWidth = 1.5;
      const x = (spans.start[hovered] - from) * k;
      pen.strokeRect(x, laneOf(hovered) * (ROW + GAP) + 0.5, Math.max(2, (spans.stop[hovered] - spans.start[hovered]) * k), ROW - 1);
    }
  }

  function axis(pen, width, height, ink) {
    const span = until() - from, rough = (span / width) * 90, ten = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * ten).find((s) => s >= rough);
    pen.fillStyle = pen.strokeStyle = ink;
    pen.font = "10px sans-serif";
    for (let t = Math.ceil(from / step) * step; t < until(); t += step) {
      const x = ((t - from) / span) * width;
      pen.globalAlpha = 0.15;
      pen.fillRect(x, 0, 1, height - AXIS);
      pen.globalAlpha = 0.8;
      pen.fillText(t === 0 ? "0" : seconds(t / 1000), Math.min(x + 2, width - 34), height - 4);
    }
    pen.globalAlpha = 1;
  }

  function describe() {
    const names = snapshot?.span_names ?? [];
    canvas.setAttribute("aria-label", `Timeline: ${plural(spans.size, "task")} on ${plural(spans.rows, "worker")}, ${seconds(spans.end / 1000)}. ` +
      "Arrow keys move, plus and minus zoom, Home shows all; the Tasks tab has the same as a table.");
    const hidden = (byName ? names.length : spans.rows) - MOST_ROWS;
    note.textContent = [kept(), hidden > 0 ? `${hidden} more rows share the last one` : "", spans.hasTransfers ? "pale: waiting to start; line below: arguments on their way" : "pale: waiting to start"].filter(Boolean).join(" · ");
    const last = PALETTE.length - 1, more = names.length - last; // the last colour is that of all that are left
    const shown = more > 1 ? [...names.slice(0, last), `${more} others`] : names;
    if (JSON.stringify(shown) === named) return;
    named = JSON.stringify(shown);
    legend.replaceChildren(...shown.map((name, i) => {
      const mark = element("span", { class: "nbray-mark", "aria-hidden": "true" });
      mark.style.background = colour(i);
      return element("span", {}, mark, name);
    }));
  }

  // A saved notebook has so many of the spans.
  function kept() {
    if (snapshot?.ran === undefined) return "";
    return spans.size < snapshot.ran ? `${count(spans.size)} of ${plural(snapshot.ran, "task")} are saved here: the longest, and those that failed` : `${plural(spans.size, "task")} saved`;
  }

  function zoom(at, factor) {
    const width = until() - from, centre = from + at * width, total = Math.max(spans.end, 1e-3);
    const next = Math.min(total, Math.max(width * factor, 1e-3));
    from = Math.max(0, Math.min(centre - at * next, total - next));
    to = next >= total ? null : from + next;
    later();
  }

  function pan(share) {
    if (to === null) return;
    const width = to - from;
    from = Math.max(0, Math.min(from + share * width, spans.end - width));
    to = from + width;
    later();
  }

  function all() { from = 0; to = null; later(); }

  function wheel(event) {
    if (!event.ctrlKey && !event.shiftKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoom(event.offsetX / canvas.clientWidth, event.deltaY > 0 || event.deltaX > 0 ? 1.25 : 0.8);
  }

  function press(event) { drag = { x: event.offsetX }; canvas.setPointerCapture(event.pointerId); }
  function release() { drag = null; }
  function leave() { hovered = -1; tip.hidden = true; later(); }

  function move(event) {
    if (drag) {
      pan((drag.x - event.offsetX) / canvas.clientWidth);
      drag.x = event.offsetX;
      return;
    }
    const found = at(event.offsetX, event.offsetY);
    if (found !== hovered) { hovered = found; later(); }
    tip.hidden = found < 0;
    if (found >= 0) {
      tip.textContent = say(found);
      tip.style.left = `${Math.min(event.offsetX + 12, canvas.clientWidth - 240)}px`;
      tip.style.top = `${event.offsetY + 14}px`;
    }
  }

  function at(x, y) {
    const t = from + (x / canvas.clientWidth) * (until() - from), lane = Math.floor(y / (ROW + GAP));
    const slack = ((until() - from) / canvas.clientWidth) * 2;
    let best = -1, near = Infinity;
    for (let i = 0; i < spans.size; i++) {
      if (laneOf(i) !== lane) continue;
      const away = Math.max(spans.start[i] - t, t - spans.stop[i], 0);
      if (away <= slack && away < near) { near = away; best = i; if (!away) break; }
    }
    return best;
  }

  function say(i) {
    const name = snapshot?.span_names[spans.name[i]] ?? "task", state = ["", "failed", "cancelled"][spans.state[i]];
    const waited = (spans.start[i] - spans.queued[i]) / 1000;
    return [`${name} #${i}`, state, `ran ${seconds((spans.stop[i] - spans.start[i]) / 1000)}`, `waited ${seconds(Math.max(0, waited))}` + (spans.fetch[i] > 0 ? `, ${seconds(spans.fetch[i] / 1000)} of it for its arguments to arrive` : ""),
      `worker ${snapshot?.workers[spans.row[i]] ?? ""}`, spans.attempt[i] ? `attempt ${spans.attempt[i] + 1}` : ""].filter(Boolean).join(" · ");
  }

  function key(event) {
    const moves = { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.5, 0.6), "=": () => zoom(0.5, 0.6),
      "-": () => zoom(0.5, 1 / 0.6), Home: all };
    if (moves[event.key]) { event.preventDefault(); event.stopPropagation(); moves[event.key](); }
  }

  // Only what lies between two times; to the end where `end` is null.
  function show(begin, end) { from = Math.max(0, begin); to = end === null ? null : Math.max(end, from + 1e-3); later(); }

  return { root, show, update(next) { snapshot = next; later(); }, remove() { resized.disconnect(); } };
}
