// What the tasks printed, each line with its task; those of one function, or of one task, can be looked at alone.

import { count, element } from "./format.js";

export function createOutput() {
  let drawn = "", told = { pieces: [], forgotten: 0 };
  const choice = element("select", { class: "nbray-button", "aria-label": "Whose output", "data-lm-suppress-shortcuts": "true", onchange: () => show() });
  const note = element("span", { class: "nbray-muted" });
  const text = element("div", { class: "nbray-scroll nbray-output", tabindex: "0", role: "log", "aria-label": "Output of tasks", "aria-live": "off" });
  const root = element("div", {}, element("div", { class: "nbray-tools" }, choice, note), text);

  function draw(next) {
    const now = JSON.stringify(next);
    if (now === drawn) return;
    drawn = now;
    told = next;
    const was = choice.value, names = [...new Set(told.pieces.map((piece) => piece.who))].sort();
    const tasks = [...new Set(told.pieces.map((piece) => `${piece.who} ${piece.task}`))].sort();
    const options = [["", "all tasks"], ...names.map((name) => [`n${name}`, name]), ...(tasks.length > names.length && tasks.length <= 200 ? tasks.map((task) => [`t${task}`, `${task}`]) : [])];
    choice.replaceChildren(...options.map(([value, label]) => element("option", { value, selected: value === was }, label)));
    show();
  }

  function show() {
    const wanted = choice.value, mine = told.pieces.filter((piece) => !wanted || (wanted[0] === "n" ? piece.who === wanted.slice(1) : `${piece.who} ${piece.task}` === wanted.slice(1)));
    const end = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
    choice.hidden = !told.pieces.length;
    note.textContent = !told.pieces.length ? "Its tasks have printed nothing." :
      told.forgotten ? `${count(told.forgotten)} characters before this are not shown; %nbray logs has them` : "";
    text.hidden = !mine.length;
    text.replaceChildren(...mine.map((piece) => {
      const lines = piece.text.replace(/\n$/, "").split("\n");
      return element("div", { class: piece.stream === "stdout" ? "nbray-out" : "nbray-out nbray-err" },
        element("span", { class: "nbray-muted nbray-who" }, `${piece.who} ${piece.task}${piece.stream === "stderr" ? " ! stderr" : piece.stream === "display" ? " display" : ""}`),
        element("pre", {}, lines.join("\n")));
    }));
    if (end) text.scrollTop = text.scrollHeight;
  }

  return { root, draw };
}
