// What a run would take elsewhere: seconds by cores and nodes, chosen with two sliders, and all of them as a table.

import { element, plural, seconds } from "./format.js";

let plans = 0;

export function createPlan() {
  const id = `nbray-plan-${++plans}`;
  let grid = null, cores = 0, nodes = 0;
  const coresSlider = slider("cores of each node", (at) => { cores = at; });
  const nodesSlider = slider("nodes", (at) => { nodes = at; });
  const answer = element("output", { class: "nbray-answer", for: `${coresSlider.input.id} ${nodesSlider.input.id}` });
  const notes = element("div", { class: "nbray-muted" });
  const table = element("table", { class: "nbray-plan" });
  const tools = element("div", { class: "nbray-tools", hidden: true }, coresSlider.label, nodesSlider.label, answer);
  const root = element("div", {}, tools, table, notes);
  notes.textContent = "The scheduler rehearses what has run…";

  // JupyterLab takes the arrow keys of a cell that is not being edited for its own, unless it is told that they are somebody's.
  function slider(name, choose) {
    const input = element("input", {
      type: "range", min: 0, max: 0, step: 1, id: `${id}-${name[0]}`, "data-lm-suppress-shortcuts": "true",
      oninput: () => { choose(Number(input.value)); draw(); },
      onkeydown: (event) => { if (event.key !== "Tab") event.stopPropagation(); },
    });
    const shown = element("span", { class: "nbray-value" });
    return { input, shown, label: element("label", { for: input.id }, `${name} `, input, shown) };
  }

  function set(slider, values, at) {
    slider.input.max = values.length - 1;
    slider.input.value = at;
    slider.shown.textContent = String(values[at]);
    slider.input.setAttribute("aria-valuetext", String(values[at]));
  }

  function draw() {
    set(coresSlider, grid.cores, cores);
    set(nodesSlider, grid.nodes, nodes);
    const longest = Math.max(...grid.seconds[nodes].map((s) => s ?? 0), 1e-9), chosen = grid.seconds[nodes][cores];
    const where = nodes ? `${plural(grid.nodes[nodes], "node")} of ${plural(grid.cores[cores], "core")}` : plural(grid.cores[cores], "core");
    answer.textContent = `${where}: ${chosen == null ? "a task asks for more than a node has" : seconds(chosen)}`;
    table.replaceChildren(
      element("caption", { class: "nbray-hidden" }, `Time on ${plural(grid.nodes[nodes], "node")}`),
      element("thead", {}, element("tr", {}, ...["cores", "time", ""].map((name) => (name ? element("th", { scope: "col" }, name) : element("td", {}))))),
      element("tbody", {}, ...grid.cores.map((count, i) => {
        const value = grid.seconds[nodes][i], bar = element("div", { class: "nbray-length", "aria-hidden": "true" });
        bar.style.width = `${((value ?? 0) / longest) * 100}%`;
        return element("tr", { class: i === cores ? "nbray-chosen" : null }, element("td", {}, String(count)), element("td", {}, value == null ? "–" : seconds(value)), element("td", {}, bar));
      })));
    notes.replaceChildren(...grid.notes.map((note) => element("div", {}, note)));
  }

  return {
    root,
    draw(next) {
      if (!next) {
        notes.textContent = "There is a plan once tasks have ended.";
        return;
      }
      if (!grid) cores = Math.min(2, next.cores.length - 1);
      grid = next;
      tools.hidden = false;
      draw();
    },
  };
}
