// What this notebook's names hold, or held when a run had ended: what it is, how large, where, and who else holds it; and a way to let
// go, after a question.

import { STALE, bytes, element, plural } from "./format.js";

const COLUMNS = ["held by", "what", "size", "state", "node", "also held by", "made at"];

// `host.release(names)` resolves to what still holds it, in words; `host.changed()` asks for the rows again. Without `release` there is
// nobody to take names away: what was kept is only shown.
export function createObjectsTab(host) {
  let drawn = "", asked = null, found = { rows: [] };
  const columns = host?.release ? [...COLUMNS, ""] : COLUMNS;
  const note = element("div", { class: "nbray-muted" });
  const said = element("p", { class: "nbray-said", role: "status" });
  const scroll = element("div", { class: "nbray-scroll", tabindex: "0", role: "region", "aria-label": "Objects" });
  const root = element("div", { class: "nbray-objects" }, note, scroll, said);

  function draw(next) {
    const now = JSON.stringify(next);
    if (now === drawn) return;
    drawn = now;
    found = next;
    show();
  }

  // Sizes come added up: names may share an object, which counts once.
  function show() {
    const { rows, more, at_ms: at } = found, values = rows.length + (more ?? 0);
    note.textContent = [at ? `as it was when the run had ended, ${new Date(at).toLocaleString()}` : "",
      values ? `${plural(values, "value")}, ${plural(found.objects, "object")}, ${found.partly ? "at least " : ""}${bytes(found.size)}` : at ? "no variable held an object" : found.missing ? "This card was kept without its objects." : "No variable of this notebook holds an object.",
      found.only_shown ? `${bytes(found.only_shown)} of it kept only because Out[] or _ shows it` : "", more ? `the largest ${rows.length} are shown` : ""].filter(Boolean).join(" · ");
    scroll.hidden = !rows.length;
    scroll.replaceChildren(element("table", {}, element("caption", { class: "nbray-hidden" }, "Objects"),
      element("thead", {}, element("tr", {}, ...columns.map((name) => (name ? element("th", { scope: "col" }, name) : element("td", {}))))),
      element("tbody", {}, ...rows.flatMap(line))));
  }

  function line(row) {
    const state = element("td", {}, row.state, row.stale ? element("div", { class: "nbray-stale", title: row.stale }, `${STALE}: ${row.stale}`) : "");
    const made = element("tr", {}, element("td", {}, row.names), element("td", {}, row.type), element("td", {}, row.size == null ? "" : bytes(row.size)), state,
      element("td", {}, row.where), element("td", {}, row.holders), element("td", {}, row.line),
      host?.release ? element("td", {}, asked !== row.names ? button("Release", () => ask(row)) : "") : null);
    if (asked !== row.names) return [made];
    const keep = row.holders ? ` It stays, because it is held by ${row.holders} too.` : " Nothing else is known to hold it.";
    return [made, element("tr", {}, element("td", { colspan: columns.length }, element("div", { class: "nbray-tools", role: "group", "aria-label": `Release ${row.names}` },
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
