// Sorting by a click on a heading, filtering by words and by facets. Without it the page shows everything, unsorted.
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
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = wanted.every((word) => texts.get(row).includes(word)) &&
        facets.every((facet) => !facet.value || row.cells[facet.dataset.column].textContent.trim() === facet.value);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    said.textContent = (shown === rows.length ? "" : counted(shown) + " of ") + counted(rows.length) + " rows";
  };
  for (const header of table.tHead.rows[0].cells) {
    if (header.dataset.facet) facets.push(makeFacet(table, header, apply));
  }
  said.before(...facets);
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

for (const bar of document.querySelectorAll(".filters")) makeFilters(bar);
for (const table of document.querySelectorAll("table")) makeSortable(table);
linkClusters();
document.addEventListener("click", (event) => {
  const cell = event.target.closest("td.long");
  if (cell && !event.target.closest("details") && !String(getSelection())) cell.parentElement.classList.toggle("open");
});
