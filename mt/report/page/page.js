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

  // A chart is drawn when it comes near the screen; its space is reserved from the start, so nothing moves.
  async function draw(id) {
    const { spec, tables, renderer } = charts[id];
    const copy = structuredClone(spec);
    copy.datasets = { ...copy.datasets, ...Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, rows(table)])) };
    Object.assign(copy, { params: copy.params?.map((param) => ({ ...param, value: value(id, param) })) });
    views.get(id)?.view.finalize();
    const drawn = await vegaEmbed(document.getElementById(id), copy, { renderer, config: config(), actions: false, mode: "vega-lite" });
    views.set(id, drawn);
    document.documentElement.dataset.drawn = views.size;
  }

  // The value of a chart's parameter: from the filter or a menu, else the one that it was made with.
  function value(id, { name, value: first }) {
    const { methods, most, menus } = charts[id];
    if (name === "shown") { const wanted = chosen("method"); return methods.filter((one) => wanted.has(one)).slice(0, most); }
    if (!menus.includes(name)) return first;
    const { group } = document.getElementById(id).dataset;
    return document.querySelector(`select[data-group="${group}"][data-menu="${name}"]`).value;
  }

  function rows(table) {
    const names = Object.keys(table);
    return Array.from({ length: table[names[0]]?.length ?? 0 }, (_, i) => Object.fromEntries(names.map((name) => [name, table[name][i]])));
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
    for (const param of charts[id].spec.params ?? []) view.signal(param.name, value(id, param));
    view.runAsync();
  }

  function filter() {
    const state = Object.fromEntries(["dataset", "task", "method", "metric"].map((name) => [name, chosen(name)]));
    const hides = (element) => Object.entries(state).some(([name, values]) => element.dataset[name] !== undefined && !values.has(element.dataset[name]));
    for (const element of document.querySelectorAll("#scores tbody tr, section.panel, .needed [data-method], .legend [data-method], nav [data-dataset]")) element.hidden = hides(element);
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
  for (const select of document.querySelectorAll("select[data-menu]"))
    select.addEventListener("change", () => {
      for (const chart of document.querySelectorAll(`.chart[data-group="${select.dataset.group}"]`)) if (views.has(chart.id)) applyTo(chart.id);
    });

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
