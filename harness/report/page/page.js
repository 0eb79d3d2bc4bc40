"use strict";
/* The page of a report. Texts of runs enter the page by textContent alone; Plotly, which reads markup, gets them escaped. */

const data = JSON.parse(document.getElementById("data").textContent);

// Okabe and Ito's, which people with each kind of color blindness tell apart; lighter ones of these hues on dark ground.
const PALETTES = {
  light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C8C00"],
  dark: ["#4AA8E8", "#F58A3C", "#22C596", "#E59CC8", "#A3DAF7", "#F7BE4A", "#CFCF45"],
};
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "pentagon", "hexagram"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const PAGE_OF_ANSWERS = 10;

/* Elements */

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function choice(label, options, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(make("option", { value, text }));
  return { select, element: make("label", {}, `${label} `, select) };
}

/* Packed parts */

const unpacked = new Map();

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function part(id) {
  if (!unpacked.has(id)) {
    const element = document.getElementById(id);
    const content = element === null ? Promise.resolve(null)
      : element.dataset.packed ? unpack(id).then(JSON.parse) : Promise.resolve(JSON.parse(element.textContent));
    unpacked.set(id, content);
  }
  return unpacked.get(id);
}

let plotly = null;

function library() {
  plotly ??= unpack("plotly").then((source) => {
    document.head.append(make("script", { text: source }));
    return window.Plotly;
  });
  return plotly;
}

/* Numbers and texts */

function digits(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toPrecision(4)}B`;
  if (size >= 1e6) return `${(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${(value / 1e3).toPrecision(4)}k`;
  return String(Number(value.toPrecision(4)));
}

function scoreText(score, value) {
  if (!value) return "-";
  const [mean, low, high, n] = value;
  const spread = low === null ? "" : ` [${low.toFixed(score.digits)}, ${high.toFixed(score.digits)}]`;
  return `${mean.toFixed(score.digits)}${spread}, n = ${n}`;
}

// Plotly reads <b>, <a>, entities and $math$ in its texts.
function forPlotly(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");
}

// A legend has little room; hovering shows the whole.
function legendText(text) {
  return forPlotly(text.length > 36 ? `${text.slice(0, 35)}…` : text);
}

/* Theme */

const themes = ["auto", "light", "dark"];
const root = document.documentElement;
const themeButton = document.getElementById("theme");

function setTheme(theme) {
  root.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
  redrawAll();
}

themeButton.addEventListener("click", () => setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redrawAll());

function color(name) {
  return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}

/* Plots: drawn when they come near the screen, and all of them for a printer */

const plots = new Set();

class Plot {
  constructor(figure, title, caption, draw) {
    this.draw = draw;
    this.shown = false;
    this.boxes = [];
    this.box = make("div", { class: "plot", role: "img", "aria-label": `${title}. ${caption}` });
    this.controls = make("div", { class: "controls" });
    figure.append(make("h3", { text: title }), this.controls, this.box, make("figcaption", { text: caption }));
    plots.add(this);
    watcher.observe(this.box);
    this.box.plot = this;
  }

  async show() {
    this.shown = true;
    for (const update of this.boxes) update();
    const Plotly = await library();
    const { traces, layout } = await this.draw();
    await Plotly.react(this.box, traces, this.layout(layout), {
      displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"],
    });
    // A printed page is narrower: with a view box, its style sheet can scale the drawing.
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    for (const svg of this.box.querySelectorAll("svg.main-svg")) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.box.style.setProperty("--ratio", `${width} / ${height}`);
    this.box.dataset.drawn = String(traces.length);
  }

  layout(own) {
    const axis = { gridcolor: color("line"), zerolinecolor: color("line"), linecolor: color("line"), automargin: true, exponentformat: "power" };
    return {
      paper_bgcolor: color("bg"), plot_bgcolor: color("bg"),
      font: { color: color("fg"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      margin: { l: 10, r: 10, t: 10, b: 10 },
      hoverlabel: { bgcolor: color("panel"), bordercolor: color("line"), font: { color: color("fg") }, align: "left", namelength: 0 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 11 } },
      hovermode: "closest", showlegend: true,
      ...own,
      xaxis: { ...axis, ...own.xaxis },
      yaxis: { ...axis, ...own.yaxis },
    };
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !entry.target.plot.shown) entry.target.plot.show();
  }
}, { rootMargin: "400px" });

function redrawAll() {
  for (const plot of plots) if (plot.shown) plot.show();
}

// A printer gets light ground.
let themeOnScreen = null;
window.addEventListener("beforeprint", () => {
  themeOnScreen = root.dataset.theme;
  root.dataset.theme = "light";
  for (const plot of plots) plot.show();
});
window.addEventListener("afterprint", () => setTheme(themeOnScreen));

/* Plots that stay ready for a printer: the rest are drawn while the browser has nothing else to do. */
function drawTheRest() {
  const next = [...plots].find((plot) => !plot.shown);
  if (!next) return;
  next.show().then(() => later(drawTheRest));
}

function later(action) {
  if (window.requestIdleCallback) requestIdleCallback(action, { timeout: 4000 });
  else setTimeout(action, 200);
}

// Ticks of a logarithmic axis: powers of ten, and more of them if the values span little.
function logAxis(values) {
  const known = values.filter((value) => value > 0);
  const span = known.length ? Math.log10(Math.max(...known) / Math.min(...known)) : 0;
  return { type: "log", dtick: span > 1.5 ? 1 : "D2", tickformat: span > 1.5 ? "~s" : "~g" };
}

// A few swept values are the ticks themselves.
function sweptTicks(values) {
  const swept = [...new Set(values)].sort((one, other) => one - other);
  return swept.length > 8 ? {} : { tickmode: "array", tickvals: swept, ticktext: swept.map(digits) };
}

function valuesOf(traces, axis) { return traces.flatMap((trace) => trace[axis] || []); }

function title(text) { return { text: forPlotly(text), standoff: 8 }; }

/* One look for each method, in all plots of a group */

function looks(group) {
  const methods = [...new Set(group.rows.map((row) => row.method))];
  return new Map(methods.map((method, number) => [method, lookOf(number)]));
}

function lookOf(number) {
  const hues = PALETTES.light.length;
  return {
    get color() { return PALETTES[isDark() ? "dark" : "light"][number % hues]; },
    symbol: SYMBOLS[number % SYMBOLS.length], dash: DASHES[Math.floor(number / hues) % DASHES.length],
  };
}

function isDark() {
  return root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
}

function rowHover(group, row, extra = []) {
  const lines = [`<b>${forPlotly(row.label)}</b>`, `row ${row.number}, rate ${digits(row.rate)}`];
  for (const score of group.scores) {
    if (row.scores[score.name]) lines.push(`${forPlotly(score.label)}: ${scoreText(score, row.scores[score.name])}`);
  }
  for (const cost of group.costs) lines.push(`${forPlotly(cost.label)}: ${digits(scaled(row, cost))}`);
  if (row.remarks) lines.push(forPlotly(row.remarks));
  return [...lines, ...extra].join("<br>");
}

function scaled(row, cost) {
  const value = row.costs[cost.name];
  return value === null || value === undefined ? null : value / cost.scale;
}

function errors(score, rows) {
  const values = rows.map((row) => row.scores[score]);
  if (values.every((value) => !value || value[1] === null)) return undefined;
  return {
    type: "data", symmetric: false, thickness: 1, width: 3,
    array: values.map((value) => (value && value[2] !== null ? value[2] - value[0] : 0)),
    arrayminus: values.map((value) => (value && value[1] !== null ? value[0] - value[1] : 0)),
  };
}

function scoreChoice(group, plot, state) {
  const found = choice("score", group.scores.map((score) => [score.name, score.label]), (value) => { state.score = value; state.y = spansMuch(group, value); plot().show(); });
  found.select.value = state.score;
  state.y = spansMuch(group, state.score);
  return found.element;
}

// Losses that span much are shown on a logarithmic axis until the box says otherwise.
function spansMuch(group, name) {
  const score = named(group.scores, name);
  const values = group.rows.filter((row) => row.scores[name]).map((row) => row.scores[name][0]);
  return score.better === "minimize" && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 3;
}

function logBox(plot, state, axis) {
  const box = make("input", { type: "checkbox", onchange: () => { state[axis] = box.checked; plot.show(); } });
  plot.boxes.push(() => { box.checked = state[axis]; });
  plot.controls.append(make("label", { class: "check" }, box, ` log ${axis}`));
}

function named(items, name) { return items.find((item) => item.name === name); }

function noiseBand(group, score, rows) {
  const known = rows.filter((row) => row.scores[score.name] && row.floors[score.name] !== undefined);
  if (!known.length || !score.better) return [];
  const sign = score.better === "maximize" ? 1 : -1;
  const best = known.reduce((one, other) => (sign * other.scores[score.name][0] > sign * one.scores[score.name][0] ? other : one));
  const [mean] = best.scores[score.name];
  return [{
    type: "rect", xref: "paper", x0: 0, x1: 1, yref: "y", y0: mean - sign * best.floors[score.name], y1: mean,
    fillcolor: color("muted"), opacity: 0.15, line: { width: 0 }, layer: "below",
  }];
}

/* Scores against costs */

function paretoPlot(group, figures, look) {
  const costs = group.costs.filter((cost) => cost.name !== "tokens_per_s");
  if (!group.scores.length || !costs.length) return;
  const state = { score: group.scores[0].name, cost: costs[0].name, x: true, y: false };
  const figure = make("figure", { "data-plot": "pareto" });
  const plot = new Plot(figure, "Score against cost",
    "Points on the line are Pareto-optimal: none is better at a lower or equal cost. The others are grey. Shaded: no order is claimed below the best, because an A/A comparison differs as much.",
    async () => {
      const score = named(group.scores, state.score);
      const cost = named(costs, state.cost);
      const rows = group.rows.filter((row) => row.scores[score.name] && scaled(row, cost) !== null);
      const front = new Set((group.fronts[score.name] || {})[cost.name] || []);
      const dominated = rows.filter((row) => !front.has(row.key));
      const best = rows.filter((row) => front.has(row.key)).sort((one, other) => scaled(one, cost) - scaled(other, cost));
      const traces = [{
        x: dominated.map((row) => scaled(row, cost)), y: dominated.map((row) => row.scores[score.name][0]),
        text: dominated.map((row) => rowHover(group, row)), hoverinfo: "text", name: "dominated", mode: "markers", type: "scatter",
        marker: { color: "#999999", size: 9, symbol: dominated.map((row) => look.get(row.method).symbol), opacity: 0.75 },
        error_y: errors(score.name, dominated),
      }, {
        x: best.map((row) => scaled(row, cost)), y: best.map((row) => row.scores[score.name][0]), mode: "lines", type: "scatter",
        line: { shape: "hv", color: color("muted"), width: 1.5, dash: "dot" }, hoverinfo: "skip", showlegend: false,
      }];
      for (const method of new Set(best.map((row) => row.method))) {
        const own = best.filter((row) => row.method === method);
        traces.push({
          x: own.map((row) => scaled(row, cost)), y: own.map((row) => row.scores[score.name][0]),
          text: own.map((row) => rowHover(group, row)), hoverinfo: "text", name: legendText(method), mode: "markers", type: "scatter",
          marker: { color: look.get(method).color, symbol: look.get(method).symbol, size: 12, line: { color: color("fg"), width: 1 } },
          error_y: errors(score.name, own),
        });
      }
      return {
        traces,
        layout: {
          shapes: noiseBand(group, score, rows),
          xaxis: { title: title(cost.label), ...(state.x ? logAxis(valuesOf(traces, "x")) : { type: "linear" }) },
          yaxis: { title: title(score.label), ...(state.y ? { ...logAxis(valuesOf(traces, "y")), tickformat: "~g" } : { type: "linear" }) },
        },
      };
    });
  const costChoice = choice("cost", costs.map((cost) => [cost.name, cost.label]), (value) => { state.cost = value; plot.show(); });
  plot.controls.append(scoreChoice(group, () => plot, state), costChoice.element);
  for (const axis of ["x", "y"]) logBox(plot, state, axis);
  figures.append(figure);
}

/* Scores along an axis */

function axisPlot(group, figures, look, axes, heading, caption, name) {
  if (!axes.length || !group.scores.length) return;
  const state = { score: name === "rate" && named(group.scores, "validation_loss") ? "validation_loss" : group.scores[0].name, axis: axes[0].name };
  const byKey = new Map(group.rows.map((row) => [row.key, row]));
  const figure = make("figure", { "data-plot": name, class: axes.some((axis) => axis.lines.length > 8) ? "wide" : null });
  const plot = new Plot(figure, heading, caption, async () => {
    const score = named(group.scores, state.score);
    const axis = named(axes, state.axis);
    const seen = new Map();
    const traces = axis.lines.map((line) => {
      const points = line.points.filter(([, key]) => byKey.get(key).scores[score.name]);
      const rows = points.map(([, key]) => byKey.get(key));
      const style = look.get(line.method);
      const count = seen.get(line.method) || 0;
      seen.set(line.method, count + 1);
      return {
        x: points.map(([value]) => value), y: rows.map((row) => row.scores[score.name][0]),
        text: rows.map((row) => rowHover(group, row)), hoverinfo: "text", mode: "lines+markers", type: "scatter",
        name: legendText(`${line.method} ${line.label}`.trim()),
        line: { color: style.color, dash: count ? DASHES[count % DASHES.length] : style.dash, width: 1.5 },
        marker: { color: style.color, symbol: style.symbol, size: 8 }, error_y: errors(score.name, rows),
      };
    });
    return {
      traces,
      layout: {
        xaxis: { title: title(axis.name), ...(axis.log ? { ...logAxis(valuesOf(traces, "x")), tickformat: "~g" } : { type: "linear" }), ...sweptTicks(valuesOf(traces, "x")) },
        yaxis: { title: title(score.label), ...(state.y ? { ...logAxis(valuesOf(traces, "y")), tickformat: "~g" } : { type: "linear" }) },
      },
    };
  });
  plot.controls.append(scoreChoice(group, () => plot, state));
  logBox(plot, state, "y");
  if (axes.length > 1) {
    plot.controls.append(choice("setting", axes.map((axis) => [axis.name, axis.name]), (value) => { state.axis = value; plot.show(); }).element);
  }
  figures.append(figure);
}

/* Losses over training */

function bestRows(group) {
  const score = named(group.scores, "validation_loss") || group.scores[0];
  const sign = score && score.better === "maximize" ? -1 : 1;
  const value = (row) => (score && row.scores[score.name] ? sign * row.scores[score.name][0] : Infinity);
  const best = new Map();
  for (const row of group.rows) {
    if (!best.has(row.method) || value(row) < value(best.get(row.method))) best.set(row.method, row);
  }
  return [...best.values()];
}

function curvePlot(group, figures, look, index) {
  const state = { which: "", kind: "both" };
  const figure = make("figure", { "data-plot": "curves" });
  const plot = new Plot(figure, "Losses in training",
    "Lines: training loss, thinned out to means of equal spans. Markers: validation loss. Nats per token.",
    async () => {
      const curves = await part(`curves-${index}`);
      const rows = state.which === "" ? bestRows(group) : state.which === "*" ? group.rows : group.rows.filter((row) => row.method === state.which);
      const traces = [];
      for (const row of rows) {
        const style = look.get(row.method);
        const runs = state.which === "" ? row.runs.slice(0, 1) : row.runs;
        runs.forEach((run, place) => traces.push(...curveTraces(curves[run], `${row.label}`, style, state, place, run)));
      }
      return { traces, layout: { xaxis: { title: title("optimizer step") }, yaxis: { title: title("loss"), ...logAxis(valuesOf(traces, "y")), tickformat: "~g" } } };
    });
  const methods = [...new Set(group.rows.map((row) => row.method))];
  plot.controls.append(
    choice("runs", [["", "best of each method, first seed"], ...methods.map((name) => [name, `all of ${name}`]), ["*", "all"]], (value) => { state.which = value; plot.show(); }).element,
    choice("loss", [["both", "both"], ["training", "training"], ["validation", "validation"]], (value) => { state.kind = value; plot.show(); }).element,
  );
  figures.append(figure);
}

function curveTraces(curve, name, style, state, place, run) {
  const traces = [];
  if (!curve) return traces;
  const [training, validation] = curve;
  const hover = (kind) => (step, number) => `<b>${forPlotly(name)}</b><br>${forPlotly(run)}<br>${kind} loss ${digits((kind === "training" ? training : validation)[1][number])} at step ${digits(step)}`;
  if (state.kind !== "validation" && training[0].length) {
    traces.push({
      x: training[0], y: training[1], text: training[0].map(hover("training")), hoverinfo: "text", mode: "lines", type: "scatter",
      name: legendText(name), legendgroup: name, showlegend: place === 0, line: { color: style.color, width: 1.2, dash: DASHES[(DASHES.indexOf(style.dash) + place) % DASHES.length] },
    });
  }
  if (state.kind !== "training" && validation[0].length) {
    traces.push({
      x: validation[0], y: validation[1], text: validation[0].map(hover("validation")), hoverinfo: "text",
      mode: state.kind === "validation" ? "lines+markers" : "markers", type: "scatter", name: legendText(name), legendgroup: name,
      showlegend: place === 0 && (state.kind === "validation" || !training[0].length),
      line: { color: style.color, width: 1, dash: style.dash }, marker: { color: style.color, symbol: style.symbol, size: 8 },
    });
  }
  return traces;
}

/* Gain against forgetting */

function forgettingPlot(group, figures, look) {
  const known = group.rows.filter((row) => row.changes.forgetting_loss !== undefined);
  const scores = group.scores.filter((score) => score.name !== "forgetting_loss" && known.some((row) => row.changes[score.name] !== undefined));
  if (!known.length || !scores.length) return;
  const state = { score: scores[0].name };
  const figure = make("figure", { "data-plot": "forgetting" });
  const plot = new Plot(figure, "Gain against forgetting",
    "Right: the loss on general text has risen, so that the model has forgotten more. Changes are from the untouched model.",
    async () => {
      const score = named(scores, state.score);
      const traces = [...look].map(([method, style]) => {
        const rows = known.filter((row) => row.method === method && row.changes[score.name] !== undefined);
        return {
          x: rows.map((row) => row.changes.forgetting_loss), y: rows.map((row) => row.changes[score.name]),
          text: rows.map((row) => rowHover(group, row)), hoverinfo: "text", name: legendText(method), mode: "markers", type: "scatter",
          marker: { color: style.color, symbol: style.symbol, size: 10 },
        };
      }).filter((trace) => trace.x.length);
      return {
        traces,
        layout: { xaxis: { title: title("change of forgetting_loss ↓") }, yaxis: { title: title(`change of ${score.label}`) } },
      };
    });
  const found = choice("score", scores.map((score) => [score.name, score.label]), (value) => { state.score = value; plot.show(); });
  plot.controls.append(found.element);
  figures.append(figure);
}

/* The table: sorted by a heading, filtered by words and by method */

function setUpTable(section) {
  const table = section.querySelector("table.runs");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const methods = rows.map((row) => row.cells[1].textContent);
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.firstChild.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const numeric = head.classList.contains("n");
    const value = (row) => (numeric ? parseFloat(row.cells[place].dataset.v ?? "NaN") : row.cells[place].textContent);
    const sorted = [...rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (!numeric) return a.localeCompare(b, undefined, { numeric: true }) * (descending ? -1 : 1);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // unknown ones last
      return (a - b) * (descending ? -1 : 1);
    });
    body.append(...sorted);
  }));
  const filter = section.querySelector("input.filter");
  const method = section.querySelector("select.method");
  const shown = section.querySelector("output");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, number) => {
      const keep = words.every((word) => texts[number].includes(word)) && (!method.value || methods[number] === method.value);
      row.hidden = !keep;
      count += keep;
    });
    shown.textContent = count === rows.length ? `${count} rows` : `${count} of ${rows.length} rows`;
  };
  filter.addEventListener("input", apply);
  method.addEventListener("change", apply);
}

/* Answers before and after */

// Letters of scripts without spaces and punctuation one by one, other text by words.
function tokens(text) {
  return text.match(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{N}_]+|\s+|[^]/gu) || [];
}

function differenceOf(before, after) {
  const [a, b] = [tokens(before), tokens(after)];
  if (a.length * b.length > 400000) return [before === after ? [["same", before]] : [["del", before]], before === after ? [["same", after]] : [["ins", after]]];
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  }
  const [left, right] = [[], []];
  const push = (list, kind, text) => { if (list.length && list[list.length - 1][0] === kind) list[list.length - 1][1] += text; else list.push([kind, text]); };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { push(left, "same", a[i++]); push(right, "same", b[j++]); }
    else if (j >= b.length || (i < a.length && table[i + 1][j] >= table[i][j + 1])) push(left, "del", a[i++]);
    else push(right, "ins", b[j++]);
  }
  return [left, right];
}

function marked(pieces) {
  const line = make("p", { dir: "auto" });
  for (const [kind, text] of pieces) line.append(kind === "same" ? text : make(kind, { text }));
  return line;
}

function verdict(right) {
  return make("span", { class: right ? "right" : "wrong", text: right ? "✓ right" : "✗ wrong" });
}

const FILTERS = {
  all: () => true, "right after": (b, a) => a, "wrong after": (b, a) => !a, "became right": (b, a) => !b && a, "became wrong": (b, a) => b && !a,
};

function setUpAnswers(group, box) {
  const runs = group.runs.filter((run) => document.getElementById(`answers-${run.run}`));
  if (!runs.length) return;
  const state = { run: runs[0].run, filter: "all", words: "", shown: PAGE_OF_ANSWERS };
  const list = make("div", { class: "list" });
  const count = make("output", { class: "muted" });
  const more = make("button", { type: "button", text: "Show more", onclick: () => { state.shown += PAGE_OF_ANSWERS; show(); } });
  const run = choice("run", runs.map((each) => [each.run, `${each.label} (${each.run})`]), (value) => { state.run = value; restart(); });
  const filter = choice("show", Object.keys(FILTERS).map((name) => [name, name]), (value) => { state.filter = value; restart(); });
  const search = make("input", { type: "search", oninput: () => { state.words = search.value.toLowerCase(); restart(); } });
  const restart = () => { state.shown = PAGE_OF_ANSWERS; show(); };
  async function show() {
    const own = await part(`answers-${state.run}`);
    const [rows, before] = await Promise.all([part(own.rows), part(own.before)]);
    if (own !== await part(`answers-${state.run}`)) return; // another run was chosen meanwhile
    const kept = [];
    own.answers.forEach((after, number) => {
      if (!FILTERS[state.filter](before.right[number] === "1", own.right[number] === "1")) return;
      const text = [rows.prompts[number], ...rows.references[number], before.answers[number], after].join("\n").toLowerCase();
      if (!state.words || text.includes(state.words)) kept.push(number);
    });
    count.textContent = `${kept.length} of ${own.answers.length} rows; right: as ${own.judge}`;
    list.replaceChildren(...kept.slice(0, state.shown).map((number) => card(rows, before, own, number)));
    more.hidden = kept.length <= state.shown;
  }
  box.showRun = (fingerprint) => { state.run = run.select.value = fingerprint; restart(); };
  box.append(make("h3", { text: "Answers before and after training" }),
    make("div", { class: "controls" }, run.element, filter.element, make("label", {}, "find ", search), count), list, more);
  new IntersectionObserver((entries, self) => {
    if (entries.some((entry) => entry.isIntersecting)) { self.disconnect(); show(); }
  }, { rootMargin: "300px" }).observe(box);
}

function card(rows, before, own, number) {
  const [old, fresh] = differenceOf(before.answers[number], own.answers[number]);
  return make("article", { class: "answer", "data-row": number },
    make("p", { class: "prompt", text: rows.prompts[number], dir: "auto" }),
    make("h4", { text: `Reference of row ${number + 1}` }), make("p", { text: rows.references[number].join("\n"), dir: "auto" }),
    make("div", { class: "texts" },
      make("div", {}, make("h4", {}, "Before ", verdict(before.right[number] === "1")), marked(old)),
      make("div", {}, make("h4", {}, "After ", verdict(own.right[number] === "1")), marked(fresh))));
}

/* The difference between two runs */

function setUpComparison() {
  const [first, second, equal] = ["first", "second", "equal"].map((id) => document.getElementById(id));
  const groupOf = new Map();
  data.groups.forEach((group, index) => {
    for (const select of [first, second]) {
      const options = make("optgroup", { label: group.title });
      for (const run of group.runs) options.append(make("option", { value: run.run, text: `${run.label} (${run.run}${run.state === "finished" ? "" : `, ${run.state}`})` }));
      select.append(options);
    }
    for (const run of group.runs) groupOf.set(run.run, [index, run]);
  });
  if (groupOf.size < 2) { document.getElementById("compare").hidden = true; return; }
  const other = data.groups[0].runs.find((run) => run.key !== data.groups[0].runs[0].key);
  if (other) second.value = other.run;
  else second.selectedIndex = 1;
  const body = document.querySelector("#difference tbody");
  const figure = document.getElementById("two-curves");
  const plot = new Plot(figure, "Their losses", "Lines: training loss. Markers: validation loss.", async () => {
    const traces = [];
    for (const [place, select] of [first, second].entries()) {
      const [index, run] = groupOf.get(select.value);
      const curves = await part(`curves-${index}`);
      const style = lookOf(place);
      traces.push(...curveTraces(curves[run.run], run.label, style, { kind: "both" }, 0, run.run));
    }
    return { traces, layout: { xaxis: { title: title("optimizer step") }, yaxis: { title: title("loss"), ...logAxis(valuesOf(traces, "y")), tickformat: "~g" } } };
  });
  async function show() {
    const { names, values } = await part("details");
    const [one, other] = [values[first.value], values[second.value]];
    const text = (value) => (value === null || value === undefined ? "" : Number.isInteger(value) || typeof value !== "number" ? String(value) : digits(value));
    const found = names.map((name, place) => [name, text(one[place]), text(other[place])]).filter(([, a, b]) => equal.checked || a !== b);
    body.replaceChildren(...found.map(([name, a, b]) => make("tr", {}, make("td", { text: name }), make("td", { class: "wrap", text: a }), make("td", { class: "wrap", text: b }))));
    if (!found.length) body.append(make("tr", {}, make("td", { colspan: 3, text: "They differ in nothing that is kept." })));
    if (plot.shown) plot.show();
  }
  for (const control of [first, second, equal]) control.addEventListener("change", show);
  new IntersectionObserver((entries, self) => {
    if (entries.some((entry) => entry.isIntersecting)) { self.disconnect(); show(); }
  }, { rootMargin: "300px" }).observe(document.getElementById("compare"));
}

/* Start */

for (const section of document.querySelectorAll("section.group")) {
  const index = Number(section.dataset.group);
  const group = data.groups[index];
  setUpTable(section);
  const figures = section.querySelector("[data-figures]");
  if (!figures) continue;
  const look = looks(group);
  const rates = group.axes.filter((axis) => axis.name === "learning_rate");
  paretoPlot(group, figures, look);
  axisPlot(group, figures, look, group.axes.filter((axis) => axis.name !== "learning_rate"), "Score along a setting",
    "Bars: 95 % intervals over seeds. One line for each method and combination of other settings.", "axis");
  axisPlot(group, figures, look, rates, "Learning rates", "A method at its best lies between its points, not at their edge. Bars: 95 % intervals over seeds.", "rate");
  curvePlot(group, figures, look, index);
  forgettingPlot(group, figures, look);
  const answers = section.querySelector("[data-answers]");
  setUpAnswers(group, answers);
  section.addEventListener("click", (event) => {
    const fingerprint = event.target.dataset?.run;
    if (!fingerprint) return;
    if (document.getElementById(`answers-${fingerprint}`)) {
      answers.showRun(fingerprint);
      answers.scrollIntoView();
    } else {
      document.getElementById("first").value = fingerprint;
      document.getElementById("first").dispatchEvent(new Event("change"));
      document.getElementById("compare").scrollIntoView();
    }
  });
}
setUpComparison();
root.dataset.ready = "true";
later(drawTheRest);
