// Sorting by a click on a heading, filtering by words and by facets, reading points and batches by pointing at them.
// Without it the page shows everything, unsorted.
"use strict";

const counted = (number) => number.toLocaleString("en");
const collator = new Intl.Collator("en", { numeric: true });

function valueOf(row, index) {
  const cell = row.cells[index];
  return cell.dataset.order ?? cell.textContent.trim();
}

function compare(left, right) {
  const a = Number(left), b = Number(right);
  return Number.isNaN(a) || Number.isNaN(b) ? collator.compare(left, right) : a - b || 0;
}

function sortBy(table, header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  const index = header.cellIndex;
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((left, right) => compare(valueOf(left, index), valueOf(right, index)));
  if (descending) rows.reverse();
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows);
}

function makeSortable(table) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(table, header));
    header.replaceChildren(button);
  }
}

function makeFacet(table, header, apply) {
  const select = document.createElement("select");
  const name = header.dataset.facet;
  const values = new Set([...table.tBodies[0].rows].map((row) => row.cells[header.cellIndex].textContent.trim()));
  select.setAttribute("aria-label", "Filter by " + name);
  select.dataset.column = String(header.cellIndex);
  select.append(new Option("every " + name, ""));
  for (const value of [...values].filter(Boolean).sort(collator.compare)) {
    select.append(new Option(name === "cluster" ? "cluster " + value : value, value));
  }
  select.addEventListener("change", apply);
  return select;
}

function textOf(row) {
  const cells = [...row.cells].filter((cell) => !cell.classList.contains("number"));
  return cells.map((cell) => cell.textContent).join(" ").toLowerCase();
}

function makeFilters(bar) {
  const table = bar.parentElement.querySelector("table");
  const rows = [...table.tBodies[0].rows];
  const words = bar.querySelector("input");
  const said = bar.querySelector("output");
  const texts = new Map(rows.map((row) => [row, textOf(row)]));
  const facets = [];
  const only = document.createElement("button");
  only.hidden = true;
  only.addEventListener("click", () => {
    only.hidden = true;
    apply();
  });
  bar.showOnly = (ids, name) => {
    only.ids = new Set(ids);
    only.textContent = name + " ✕";
    only.title = "Show the others, too";
    only.hidden = false;
    for (const facet of facets) facet.value = "";
    words.value = "";
    apply();
  };
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = (only.hidden || only.ids.has(row.cells[0].textContent.trim())) && wanted.every((word) => texts.get(row).includes(word)) &&
        facets.every((facet) => !facet.value || row.cells[facet.dataset.column].textContent.trim() === facet.value);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    said.textContent = (shown === rows.length ? "" : counted(shown) + " of ") + counted(rows.length) + " rows";
  };
  for (const header of table.tHead.rows[0].cells) {
    if (header.dataset.facet) facets.push(makeFacet(table, header, apply));
  }
  said.before(...facets, only);
  words.addEventListener("input", apply);
  bar.hidden = false;
  apply();
}

function linkClusters() {
  const filter = document.querySelector('#prompts-table [aria-label="Filter by cluster"]');
  const clusters = document.querySelector("#clusters-table table");
  if (!filter || !clusters) return;
  for (const row of clusters.tBodies[0].rows) {
    const cell = row.cells[0];
    const link = document.createElement("a");
    link.href = "#prompts-table";
    link.textContent = cell.textContent;
    link.addEventListener("click", () => {
      filter.value = link.textContent.trim();
      filter.dispatchEvent(new Event("change"));
    });
    cell.replaceChildren(link);
  }
}

const promptTexts = new Map();
for (const row of document.querySelector("#prompts-table tbody")?.rows ?? []) {
  promptTexts.set(row.cells[0].textContent.trim(), row.cells[1].textContent.trim());
}

function promptOf(mark) {
  return mark.dataset.text ?? promptTexts.get(mark.dataset.id) ?? "";
}

function saidOf(mark) {
  return mark.dataset.said ?? mark.closest("[data-group]:not(circle)").dataset.group + " " + mark.dataset.group;
}

const told = document.querySelector("#told");

function tell(mark, event) {
  const [title, text] = told.children;
  title.textContent = saidOf(mark);
  text.textContent = promptOf(mark);
  text.hidden = !text.textContent;
  told.hidden = false;
  const wide = told.offsetWidth, high = told.offsetHeight;
  told.style.left = Math.max(8, Math.min(event.clientX + 16, innerWidth - wide - 8)) + "px";
  told.style.top = (event.clientY + 20 + high > innerHeight ? Math.max(8, event.clientY - high - 12) : event.clientY + 20) + "px";
}

function makePointable(svg, selector, choose) {
  let current = null;
  const leave = () => {
    current?.classList.remove("told");
    current = null;
    told.hidden = true;
  };
  svg.addEventListener("pointermove", (event) => {
    const mark = event.target.closest(selector);
    if (mark !== current) leave();
    if (!mark) return;
    current = mark;
    mark.classList.add("told");
    tell(mark, event);
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("click", (event) => {
    const mark = event.target.closest(selector);
    if (mark) choose(mark);
  });
}

function showPrompts() {
  document.querySelector("#prompts-table").scrollIntoView();
}

function chooseCluster(mark) {
  const filter = document.querySelector('#prompts-table [aria-label="Filter by cluster"]');
  if (!filter || mark.dataset.group === undefined) return;
  filter.value = mark.dataset.group;
  filter.dispatchEvent(new Event("change"));
  showPrompts();
}

function chooseBatch(mark) {
  const bar = document.querySelector("#prompts-table .filters");
  if (!bar?.showOnly) return;
  bar.showOnly(mark.dataset.prompts.split(" "), mark.dataset.name);
  showPrompts();
}

function makeScatter(block) {
  const svg = block.querySelector("svg");
  const circles = [...svg.querySelectorAll("circle")];
  const words = block.querySelector("input");
  const scale = block.querySelector("select");
  const said = block.querySelector("output");
  const texts = new Map(circles.map((circle) => [circle, (saidOf(circle) + " " + promptOf(circle)).toLowerCase()]));
  words.addEventListener("input", () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let marked = 0;
    for (const circle of circles) {
      const fits = wanted.every((word) => texts.get(circle).includes(word));
      circle.classList.toggle("marked", fits);
      marked += fits ? 1 : 0;
    }
    svg.classList.toggle("marking", wanted.length > 0);
    said.textContent = wanted.length ? counted(marked) + " of " + counted(circles.length) + " points" : "";
  });
  scale?.addEventListener("change", () => {
    for (const circle of circles) {
      const value = scale.value === "" ? null : circle.dataset.scales?.split(",")[scale.value];
      circle.style.fill = value === null ? "" :
        value ? "color-mix(in oklab, var(--high) " + value + "%, var(--low))" : "var(--line)";
    }
    said.textContent = scale.value === "" ? "" : "darker, or lighter on dark, is more";
  });
  block.querySelector(".filters").hidden = false;
  makePointable(svg, "circle", chooseCluster);
}

for (const bar of document.querySelectorAll(".table > .filters")) makeFilters(bar);
for (const block of document.querySelectorAll(".pointed")) makeScatter(block);
for (const svg of document.querySelectorAll(".strip svg")) makePointable(svg, "g", chooseBatch);
for (const table of document.querySelectorAll("table")) makeSortable(table);
linkClusters();
document.addEventListener("click", (event) => {
  const cell = event.target.closest("td.long");
  if (cell && !event.target.closest("details") && !String(getSelection())) cell.parentElement.classList.toggle("open");
});
