"use strict";
// Tables: a click on a title sorts, and long ones can be filtered. Rows that belong together move together.
const number = (cell) => { const data = cell && cell.querySelector("data"); return data ? Number(data.value) : null; };
for (const table of document.querySelectorAll("table.sorted")) {
  const bodies = [...table.tBodies];
  const units = bodies.length > 1 ? bodies : [...bodies[0].rows];
  const parent = bodies.length > 1 ? table : bodies[0];
  if (units.length < 2) continue;
  const heads = [...table.tHead.querySelectorAll("th[data-c]")];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    const arrow = document.createElement("span");
    arrow.className = "arrow";
    arrow.ariaHidden = "true";
    button.firstChild.after(arrow);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "descending";
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = down ? "ascending" : "descending";
      const cell = (unit) => unit.querySelector(`tbody [data-c="${CSS.escape(head.dataset.c)}"]`);
      const key = (unit) => number(cell(unit)) ?? (cell(unit)?.querySelector("data, .none") ? -Infinity : cell(unit)?.textContent.trim() ?? "");
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      units.sort((a, b) => (down ? 1 : -1) * order(key(a), key(b)));
      parent.append(...units);
    });
  }
  if (units.length < 10) continue;
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "filter rows";
  field.ariaLabel = `filter the rows of: ${table.ariaLabel}`;
  const count = document.createElement("output");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const unit of units) {
      const text = unit.textContent.toLowerCase();
      unit.hidden = !words.every((word) => text.includes(word));
      shown += !unit.hidden;
    }
    count.textContent = words.length ? `${shown} of ${units.length}` : "";
  });
  const bar = document.createElement("p");
  bar.className = "filter";
  bar.append(field, count);
  table.parentElement.before(bar);
}
// What is wider than the page scrolls by itself, and says so.
const scrolled = document.querySelectorAll(".scroll");
const watch = new ResizeObserver(() => {
  for (const box of scrolled) {
    const over = box.scrollWidth > box.clientWidth + 1;
    box.parentElement.classList.toggle("over", over);
    box.tabIndex = over || box.scrollHeight > box.clientHeight + 1 ? 0 : -1;
  }
});
for (const box of scrolled) watch.observe(box);
// Paper has nothing to click on.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
