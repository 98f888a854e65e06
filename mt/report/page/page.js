"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  const config = () => {
    const [ink, soft, line] = dark.matches ? ["#e8ebee", "#a3adb8", "#363d45"] : ["#1b1f24", "#57606a", "#d5dae0"];
    const words = { labelColor: soft, titleColor: ink, labelFontSize: 12, titleFontSize: 13, titleFontWeight: 600 };
    return {
      background: null, font: "system-ui, sans-serif", view: { stroke: null }, mark: { invalid: "break-paths-filter-domains" },
      axis: { ...words, gridColor: line, domainColor: line, tickColor: line }, legend: words, header: words,
      text: { color: ink }, rule: { color: soft },
    };
  };

  // A chart is drawn when it comes near the screen; its place is kept from the start, so nothing moves.
  async function draw(id) {
    const { spec, columns, renderer } = charts[id];
    const copy = structuredClone(spec);
    if (columns) copy.datasets = Object.fromEntries(Object.entries(columns).map(([name, table]) => [name, rows(table)]));
    views.get(id)?.view.finalize();
    const drawn = await vegaEmbed(document.getElementById(id), copy, { renderer, config: config(), actions: false, mode: "vega-lite" });
    views.set(id, drawn);
    applyTo(id);
    document.documentElement.dataset.drawn = views.size;
  }

  function rows(table) {
    const names = Object.keys(table);
    return Array.from({ length: table[names[0]].length }, (_, i) => Object.fromEntries(names.map((name) => [name, table[name][i]])));
  }

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target.id);
    }
  }, { rootMargin: "300px" });

  // Filters: one state for tables and charts.
  const form = document.getElementById("filters");
  const boxes = [...form.querySelectorAll("input")];
  const chosen = (name) => new Set(boxes.filter((box) => box.name === name && box.checked).map((box) => box.value));

  function applyTo(id) {
    const { view } = views.get(id);
    const { methods, most } = charts[id];
    let changed = false;
    if (methods) {
      const wanted = chosen("method");
      view.signal("shown", methods.filter((name) => wanted.has(name)).slice(0, most));
      changed = true;
    }
    for (const select of document.querySelectorAll(`select[data-chart="${id}"]`)) {
      view.signal(select.dataset.signal, select.value);
      changed = true;
    }
    if (changed) view.runAsync();
  }

  function filter() {
    const state = Object.fromEntries(["dataset", "task", "method", "metric"].map((name) => [name, chosen(name)]));
    const hides = (element) => Object.entries(state).some(([name, values]) => element.dataset[name] !== undefined && !values.has(element.dataset[name]));
    for (const element of document.querySelectorAll("#scores tbody tr, section.panel, .needed [data-method], nav [data-dataset]")) element.hidden = hides(element);
    for (const details of form.querySelectorAll("details")) {
      const mine = boxes.filter((box) => box.name === details.dataset.filter);
      details.querySelector(".count").textContent = `${mine.filter((box) => box.checked).length} of ${mine.length}`;
    }
    const lines = document.querySelectorAll("#scores tbody tr");
    const visible = [...lines].filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = `${visible} of ${lines.length} rows shown.`;
    for (const id of views.keys()) applyTo(id);
  }

  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("click", ({ target }) => {
    if (!target.dataset.set) return;
    for (const box of target.closest("details").querySelectorAll("input")) box.checked = target.dataset.set === "all";
    filter();
  });
  for (const select of document.querySelectorAll("select[data-chart]"))
    select.addEventListener("change", () => views.has(select.dataset.chart) && applyTo(select.dataset.chart));

  // Sorting: numbers by value, words by language; what is not defined comes last either way.
  const table = document.getElementById("scores");
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
    const numeric = table.tBodies[0].rows[0]?.cells[column].dataset.value !== undefined;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (numeric && (x === "" || y === "")) return (x === "") - (y === "");
      return (down ? -1 : 1) * (numeric ? x - y : x.localeCompare(y));
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));

  filter();
  dark.addEventListener("change", () => { for (const id of views.keys()) draw(id); });
  for (const chart of document.querySelectorAll(".chart")) near.observe(chart);
})();
