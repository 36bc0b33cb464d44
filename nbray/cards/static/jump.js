// To the cell that made something. JupyterLab's extension knows cells by their ids and scrolls to those that are not on the page
// yet; without it the cell is found by its prompt. Nothing happens where there are no cells on the page, and the caller says so. `place.notebook`: the file, for who is outside of it.

const HERE_MS = 2500;

export function jumpTo(from, place) {
  const event = new CustomEvent("nbray:go-to-cell", { bubbles: true, cancelable: true, composed: true, detail: { cell: place.cell ?? "", title: place.title ?? "", notebook: place.notebook ?? "" } });
  if (!from.dispatchEvent(event)) return true; // somebody took it
  const number = /^In\[(\d+)\]$/.exec(place.title ?? "")?.[1];
  if (number === undefined || place.notebook) return false; // nobody says which of the notebooks on this page it is
  const inside = from.closest(".jp-Notebook") ?? document;
  const prompt = [...inside.querySelectorAll(".jp-InputPrompt")].find((each) => each.textContent.trim() === `[${number}]:`);
  const cell = prompt?.closest(".jp-Cell");
  if (!cell) return false;
  cell.scrollIntoView({ block: "center" });
  cell.classList.add("nbray-here");
  setTimeout(() => cell.classList.remove("nbray-here"), HERE_MS);
  return true;
}
