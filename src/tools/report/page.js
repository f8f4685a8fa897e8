"use strict";
// Sorting, filtering, hiding columns, and the details of a cell. All text goes through textContent, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const about = document.getElementById("about");
const MOST_RUNS = 30;

for (const section of document.querySelectorAll("section.table")) setUp(section);

function setUp(section) {
  const table = section.querySelector("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows]; // in their original order

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const now = before === null ? first : before === first ? second : null;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    if (now) head.setAttribute("aria-sort", now);
    body.append(...(now ? sorted(rows, column, now === "ascending" ? 1 : -1) : rows));
  }));

  const filter = section.querySelector("input[type=search]");
  const count = section.querySelector(".count");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const names = [...row.cells].filter((cell) => !cell.classList.contains("number")); // figures would match any digit
      const text = names.map((cell) => cell.textContent.toLowerCase()).join(" ");
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });

  section.querySelectorAll("input[data-column]").forEach((box) => box.addEventListener("change", () => {
    const column = Number(box.dataset.column);
    for (const row of table.rows) row.cells[column].hidden = !box.checked;
  }));

  body.rows[0].cells[0].tabIndex = 0; // one Tab stop; the arrow keys move within the table
  body.addEventListener("keydown", (event) => move(event, body));
  body.addEventListener("focusin", (event) => show(cellOf(event), false));
  body.addEventListener("focusout", () => hide(false));
  body.addEventListener("mouseover", (event) => show(cellOf(event), false));
  body.addEventListener("mouseout", () => hide(false));
  body.addEventListener("click", (event) => show(cellOf(event), true));
}

function sorted(rows, column, direction) {
  const key = (row) => row.cells[column].dataset.sort;
  return [...rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // gaps are always last
    const numbers = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
    return direction * (numbers ? a - b : a.localeCompare(b));
  });
}

function move(event, body) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const cell = cellOf(event);
  if (!cell) return;
  if (event.key === "Enter") return show(cell, true);
  if (!(event.key in steps)) return;
  event.preventDefault();
  const [down, right] = steps[event.key];
  const rows = [...body.rows].filter((row) => !row.hidden);
  const row = rows[rows.indexOf(cell.parentElement) + down];
  const cells = row ? [...row.cells].filter((other) => !other.hidden) : [];
  const here = [...cell.parentElement.cells].filter((other) => !other.hidden).indexOf(cell);
  const next = cells[here + right];
  if (!next) return;
  cell.removeAttribute("tabindex");
  next.tabIndex = 0;
  next.focus();
}

function cellOf(event) {
  return event.target.closest("tbody td, tbody th");
}

// --- the details of a cell

document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(true); });
document.addEventListener("click", (event) => {
  if (!event.target.closest("tbody, #about")) hide(true);
});

function hide(kept) {
  if (!kept && about.classList.contains("kept")) return;
  about.classList.remove("kept");
  about.hidden = true;
  document.querySelectorAll("[aria-describedby=about]").forEach((cell) => cell.removeAttribute("aria-describedby"));
}

function show(cell, keep) {
  if (!cell || !keep && about.classList.contains("kept")) return;
  hide(true);
  if (!cell.hasAttribute("data-more")) return;
  about.replaceChildren(...contents(cell));
  about.classList.toggle("kept", keep);
  about.hidden = false;
  cell.setAttribute("aria-describedby", "about");
  const at = cell.getBoundingClientRect();
  const below = at.bottom + about.offsetHeight + 6 < innerHeight;
  about.style.top = `${Math.max(4, below ? at.bottom + 4 : Math.min(at.top - about.offsetHeight - 4, innerHeight))}px`;
  about.style.left = `${Math.max(4, Math.min(at.left, innerWidth - about.offsetWidth - 12))}px`;
}

function contents(cell) {
  const more = data.cells[cell.dataset.more];
  const runs = more.runs.map((i) => data.runs[i]);
  const parts = more.detail.map((line) => element("p", line));
  parts.push(...more.marks.map((line) => element("p", line)));
  if (!runs.length) return parts;
  parts.push(grid(["seed", "task", "accuracy, %", "folder"], runs.slice(0, MOST_RUNS).map(
    (run) => [run.seed, run.task, (100 * run.accuracy).toFixed(3), run.folder])));
  if (runs.length > MOST_RUNS) parts.push(element("p", `and ${runs.length - MOST_RUNS} more runs`));
  const config = facts(runs, "config");
  parts.push(element("h3", "changed config"), config.length ? grid(null, config) : element("p", "none"));
  for (const key of ["pixels", "versions"]) {
    parts.push(element("h3", key), element("p", facts(runs, key).map((pair) => pair.join(" ")).join(", ")));
  }
  return parts;
}

// [name, value] of the runs' properties; if they differ, each value with its number of runs.
function facts(runs, key) {
  const counts = new Map();
  for (const run of runs) {
    for (const [name, value] of Object.entries(data.facts[run[key]])) {
      const values = counts.get(name) ?? counts.set(name, new Map()).get(name);
      values.set(value, (values.get(value) ?? 0) + 1);
    }
  }
  return [...counts].map(([name, values]) => {
    const everywhere = values.size === 1 && [...values.values()][0] === runs.length;
    return [name, [...values].map(([value, n]) => everywhere ? value : `${value} (${n} runs)`).join(", ")];
  });
}

function grid(head, lines) {
  const table = document.createElement("table");
  if (head) table.append(line("th", head));
  table.append(...lines.map((texts) => line("td", texts)));
  return table;
}

function line(tag, texts) {
  const row = document.createElement("tr");
  row.append(...texts.map((text) => element(tag, text)));
  return row;
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
