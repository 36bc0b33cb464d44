// How numbers read, and how elements are made. Text is always set as text: what users name their tasks is never markup.

export const SIGNS = { done: "✓", failed: "✗", cancelled: "■", "timed out": "■", running: "▸", detached: "▸" };
export const PALETTE = ["#4c78a8", "#e08214", "#3f9b5c", "#a5669a", "#c9a227", "#4aa3a2", "#9d755d", "#8a8a8a"];
export const STALE = "↻ stale"; // never by colour alone
export const FAILED = "#d1403f";

export function colour(index) {
  return PALETTE[Math.min(index, PALETTE.length - 1)];
}

export function seconds(value) {
  if (value == null) return "";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value), minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(size) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000) return `${unit === "B" || size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} TB`;
}

export function count(number) {
  return number.toLocaleString("en-US");
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function countsText(counts) {
  if (counts.done === counts.submitted) return plural(counts.submitted, "task");
  const rest = ["failed", "cancelled", "running"].filter((what) => counts[what]).map((what) => `${count(counts[what])} ${what}`);
  return [`${count(counts.done)} of ${plural(counts.submitted, "task")} done`, ...rest, ...queuedText(counts)].join(", ");
}

// What waits for what. Cards of older versions do not know.
function queuedText({ queued, inputs = 0 }) {
  if (!queued) return [];
  if (!inputs) return [`${count(queued)} queued`];
  if (inputs >= queued) return [`${count(queued)} queued (waiting for inputs)`];
  return [`${count(queued)} queued (${count(inputs)} ${inputs === 1 ? "waits" : "wait"} for inputs, ${count(queued - inputs)} for a worker)`];
}

export function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function vector(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A button that asks back in its own place; another press within five seconds is the answer.
export function twice(text, question, then) {
  let armed = null;
  const made = element("button", { type: "button", class: "nbray-button", onclick: press, onblur: disarm }, text);
  function disarm() { clearTimeout(armed); armed = null; made.textContent = text; }
  function press() {
    if (armed) { disarm(); then(); return; }
    made.textContent = question;
    armed = setTimeout(disarm, 5000);
  }
  return made;
}
