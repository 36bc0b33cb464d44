// What this notebook's names hold: what it is, how large, where, and who else holds it; and a way to let go, after a question.

import { STALE, bytes, element, plural } from "./format.js";

const COLUMNS = ["held by", "what", "size", "state", "node", "also held by", "made at", ""];

// `host.release(names)` resolves to what still holds it, in words; `host.changed()` asks for the rows again.
export function createObjectsTab(host) {
  let drawn = "", asked = null, rows = [];
  const note = element("div", { class: "nbray-muted" });
  const said = element("p", { class: "nbray-said", role: "status" });
  const scroll = element("div", { class: "nbray-scroll", tabindex: "0", role: "region", "aria-label": "Objects" });
  const root = element("div", { class: "nbray-objects" }, note, scroll, said);

  function draw(next) {
    const now = JSON.stringify(next);
    if (now === drawn) return;
    drawn = now;
    rows = next;
    show();
  }

  function show() {
    const shown = rows.filter((row) => row.state.includes("only because it was shown")), total = (some) => some.reduce((sum, row) => sum + (row.size ?? 0), 0);
    note.textContent = rows.length ? [`${plural(rows.length, "value")}, ${bytes(total(rows))}`,
      shown.length ? `${bytes(total(shown))} of it kept only because Out[] or _ shows it` : ""].filter(Boolean).join(" · ") : "No variable of this notebook holds an object.";
    scroll.hidden = !rows.length;
    scroll.replaceChildren(element("table", {}, element("caption", { class: "nbray-hidden" }, "Objects"),
      element("thead", {}, element("tr", {}, ...COLUMNS.map((name) => (name ? element("th", { scope: "col" }, name) : element("td", {}))))),
      element("tbody", {}, ...rows.flatMap(line))));
  }

  function line(row) {
    const state = element("td", {}, row.state, row.stale ? element("div", { class: "nbray-stale", title: row.stale }, `${STALE}: ${row.stale}`) : "");
    const made = element("tr", {}, element("td", {}, row.names), element("td", {}, row.type), element("td", {}, row.size == null ? "" : bytes(row.size)), state,
      element("td", {}, row.where), element("td", {}, row.holders), element("td", {}, row.line), element("td", {}, host?.release && asked !== row.names ? button("Release", () => ask(row)) : ""));
    if (asked !== row.names) return [made];
    const keep = row.holders ? ` It stays, because it is held by ${row.holders} too.` : " Nothing else is known to hold it.";
    return [made, element("tr", {}, element("td", { colspan: COLUMNS.length }, element("div", { class: "nbray-tools", role: "group", "aria-label": `Release ${row.names}` },
      element("span", {}, `Take ${row.release.length === 1 ? "the name" : "the names"} ${row.names} away?${keep}`), button("Release", () => drop(row)), button("Keep", () => ask(null)))))];
  }

  function ask(row) {
    asked = row ? row.names : null;
    said.textContent = "";
    show();
    if (row) scroll.querySelector("[role=group] button").focus();
  }

  async function drop(row) {
    asked = null;
    try {
      said.textContent = await host.release(row.release);
    } catch (error) {
      said.textContent = error.message;
    }
    drawn = "";
    host.changed();
  }

  function button(text, click) {
    return element("button", { type: "button", class: "nbray-button", onclick: click }, text);
  }

  return { root, draw };
}
