// The form, one molecule, a table of many. The model is in worker.js.
import { byId, count, el, say, show } from "./elements.js";
import { listenToForm } from "./form.js";
import { emptyAnswers, percentile, place } from "./scores.js";
import { csvPieces, MOST_BYTES, OK, readTable, statusOf } from "./table.js";

const PAGE = 50, FIRST_TASKS = 6;
const NAMES = /^(name|id|title)$/i; // of the column that is shown beside the SMILES
let site = null, worker = null, isReady = false;
let job = null; // what is shown or computed
let shown = null; // how its table is shown: start, sort, descending, tasks
let questions = 0;

function reveal(id) {
  for (const part of ["molecule", "table", "start"]) byId(part).hidden = part !== id;
}

/** Predict a table that was read; its answers come window by window. */
function predict(table, name) {
  if (!table.rows.length) return say("there is no molecule in it", true);
  const n = table.rows.length;
  job = { id: ++questions, table, name, answers: emptyAnswers(n, site.tasks.length), nDone: 0, isDone: false };
  shown = { start: 0, sort: null, descending: false, tasks: shown ? shown.tasks : site.tasks.slice(0, FIRST_TASKS).map((task) => task.name) };
  worker.postMessage({ kind: "predict", id: job.id, texts: table.smiles });
  say(isReady ? (n === 1 ? "predicting …" : "") : "loading the model …");
  if (n > 1) showProgress();
}

function stop() {
  worker.postMessage({ kind: "stop", id: ++questions });
  job = null;
  say("stopped");
  reveal("start");
}

const heard = {
  loading({ share }) {
    byId("loading").hidden = false;
    byId("loading").value = share;
  },
  ready() {
    isReady = true;
    byId("loading").hidden = true;
    document.body.dataset.ready = "true";
    if (!job || job.table.rows.length > 1) say("");
  },
  progress({ n }) { advance(n); },
  window({ first, out }) {
    for (const [part, numbers] of Object.entries(out)) {
      const width = job.answers[part].length / job.table.rows.length;
      job.answers[part].set(numbers, first * width);
    }
    advance(first + out.state.length);
  },
  done() {
    job.isDone = true;
    say("");
    if (job.table.rows.length === 1) showMolecule(0);
    else showTable();
  },
  failed({ id, words }) {
    byId("loading").hidden = true;
    say(words, true);
    if (id !== undefined) reveal("start");
  },
};

function listenToWorker() {
  worker.addEventListener("message", ({ data }) => {
    if (data.id !== undefined && (!job || data.id !== job.id)) return; // of an earlier question
    heard[data.kind](data);
  });
  worker.addEventListener("error", (event) => say(`the model cannot be started: ${event.message || "worker.js or runtime/ort.js cannot be loaded; copy the whole folder again"}`, true));
}

// --- one molecule

function showMolecule(row) {
  const { table, answers } = job, smiles = table.rows[row][table.smilesIndex];
  const [status, error] = statusOf(table, answers.state[row], row);
  if (status !== OK) {
    say(`${status}: ${error}`, true);
    if (table.rows.length === 1) reveal("start");
    return;
  }
  const back = table.rows.length > 1 ? el("p", { class: "back" }, el("button", { type: "button", id: "back", onclick: () => { reveal("table"); byId("result").focus(); } }, "Back to the table")) : null;
  byId("molecule").replaceChildren(el("h2", { id: "molecule-title", class: "skip" }, "Molecule"),
    el("div", { class: "card answered" }, back, el("p", { class: "given" }, smiles), verdict(row), finder(), answerTable(row)));
  reveal("molecule");
}

function verdict(row) {
  if (!site.calibrated) return null;
  const n = site.tasks.length, far = site.tasks.filter((_, i) => !job.answers.inside[row * n + i]).length;
  const words = far === 0 ? `in the domain of ${n === 1 ? "its task" : `all ${n} tasks`}`
    : far === n ? "unlike what any task was trained on" : `unlike what ${far} of ${n} tasks were trained on`;
  return el("p", { class: "verdict" }, el("span", { class: far ? "badge" : "badge good" }, far === 0 ? "inside" : far === n ? "outside" : "partly outside"), ` ${words}`);
}

function finder() {
  if (site.tasks.length < 8) return null;
  const field = el("input", { type: "search", id: "find", placeholder: "solubility, CYP, hERG …", autocomplete: "off", oninput: () => {
    const words = field.value.toLowerCase().trim();
    for (const row of document.querySelectorAll(".answers tbody tr")) {
      const task = site.tasks[row.dataset.task];
      row.hidden = !`${task.name} ${task.unit} ${task.description}`.toLowerCase().includes(words);
    }
  } });
  return el("div", { class: "tools" }, el("label", { class: "grow" }, "Find a task", field));
}

function answerTable(row) {
  const head = ["Task", "Value", "Scale"].map((text, i) => el("th", { scope: "col", class: i === 1 ? "num" : null }, text));
  return [el("table", { class: "answers" }, el("caption", { class: "skip" }, "Predicted values"), el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, site.tasks.map((task, i) => answerRow(task, i, row)))),
  el("p", { class: "soft" }, "Scale: a probability from 0 to 1, or a value with its interval, within three deviations of the training molecules’ mean. ",
    site.calibrated ? `Intervals hold the measured value of ${site.confidence * 100} % of molecules like those held out in training. ` : "",
    "Drugs: those that the FDA has approved, as the model predicts them.")];
}

function answerRow(task, i, row) {
  const { answers } = job, at = row * site.tasks.length + i;
  const value = answers.values[at], low = answers.low[at], high = answers.high[at];
  const isFar = site.calibrated && !answers.inside[at], unit = task.kind === "class" ? "probability" : task.unit;
  const far = isFar ? el("span", {}, `${unit ? ", " : " "}far from its training data`) : null;
  return el("tr", { "data-task": String(i), class: isFar ? "far" : null },
    el("th", { scope: "row", title: task.description }, task.name, el("small", {}, unit ? ` ${unit}` : "", far)),
    el("td", { class: "value" }, show(value, task.decimals), Number.isNaN(low) ? null : el("span", { class: "interval" }, `${show(low, task.decimals)} to ${show(high, task.decimals)}`)),
    el("td", { class: "scaled" }, scale(task, value, low, high), el("small", { class: "share" }, `above ${show(percentile(value, task.percentiles), 0)} % of drugs`)));
}

/** Where the value lies: a probability from 0 to 1, else within three deviations of the training molecules' mean. */
function scale(task, value, low, high) {
  const percent = (share) => `${100 * share}%`;
  const bar = el("div", { class: "scale", "aria-hidden": "true" });
  const add = (kind, left, width) => {
    const mark = el("div", { class: kind });
    if (left !== null) mark.style.left = percent(left);
    if (width !== null) mark.style.width = percent(width);
    bar.append(mark);
  };
  if (task.kind === "class") {
    add("fill", null, value);
    return bar;
  }
  if (!Number.isNaN(low)) add("band", place(low, task), Math.max(0.01, place(high, task) - place(low, task)));
  add("dot", place(value, task), null);
  return bar;
}

// --- many molecules

function showProgress() {
  byId("table").replaceChildren(
    el("div", { class: "head" }, el("h2", { id: "table-title" }, job.name), el("button", { type: "button", onclick: stop }, "Stop")),
    el("progress", { id: "bar", max: job.table.rows.length, value: 0, "aria-label": "progress" }), el("p", { class: "soft", id: "share" }));
  advance(0);
  reveal("table");
}

function advance(n) {
  job.nDone = n;
  const bar = byId("bar");
  if (!bar) return;
  bar.value = n;
  byId("share").textContent = `${count(n)} of ${count(job.table.rows.length)} rows`;
}

function showTable() {
  const { table, answers } = job, n = table.rows.length;
  const failures = new Map();
  for (let row = 0; row < n; row++) {
    const [status, error] = statusOf(table, answers.state[row], row);
    if (status === OK) continue;
    const one = failures.get(status) || { n: 0, row, error };
    one.n++;
    failures.set(status, one);
  }
  const nFailed = [...failures.values()].reduce((sum, one) => sum + one.n, 0);
  const lines = [...failures].map(([status, one]) => `${count(one.n)} ${status}; the first is row ${count(one.row + 1)}: ${one.error}`);
  byId("table").replaceChildren(
    el("div", { class: "head" }, el("h2", { id: "table-title" }, job.name),
      el("p", { class: "soft" }, `${count(n)} rows, ${nFailed ? `${count(nFailed)} without values` : "all with values"}`)),
    lines.length ? el("ul", { class: "notes" }, lines.map((line) => el("li", {}, line))) : "",
    tools(), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows", id: "rows" }), el("div", { class: "pager", id: "pager" }));
  fill();
  reveal("table");
}

function tools() {
  const choices = site.tasks.map((task) => el("label", {}, el("input", { type: "checkbox", checked: shown.tasks.includes(task.name), onchange: (event) => {
    shown.tasks = site.tasks.map((one) => one.name).filter((name) => (name === task.name ? event.target.checked : shown.tasks.includes(name)));
    fill();
  } }), task.name));
  return el("div", { class: "tools" },
    site.tasks.length > 1 ? el("details", { class: "columns" }, el("summary", {}, "Tasks"), el("div", {}, choices)) : null,
    el("div", { class: "downloads" }, el("button", { type: "button", id: "download", onclick: download }, "Download CSV")));
}

/** Rows in the order that is shown: those without a value last. */
function order() {
  const rows = job.table.rows.map((_, row) => row);
  if (shown.sort === null) return rows;
  const n = site.tasks.length, sign = shown.descending ? -1 : 1;
  const key = shown.sort === "similarity" ? (row) => job.answers.similarity[row] : (row) => job.answers.values[row * n + shown.sort];
  return rows.sort((a, b) => {
    const one = key(a), other = key(b);
    return Number.isNaN(one) || Number.isNaN(other) ? Number.isNaN(one) - Number.isNaN(other) : sign * (one - other);
  });
}

function fill() {
  const { table } = job, tasks = site.tasks.map((task, i) => ({ task, i })).filter(({ task }) => shown.tasks.includes(task.name));
  const columns = table.columns.map((name, i) => ({ name, i })).filter(({ i }) => i !== table.smilesIndex && table.rows.some((cells) => cells[i]));
  const names = columns.filter(({ name }) => NAMES.test(name.trim())).slice(0, 1), others = columns.filter((column) => !names.includes(column));
  const head = el("tr", {}, el("th", { scope: "col", class: "molecule-text" }, el("div", { class: "plain" }, "SMILES")),
    names.map(({ name }) => plainHeader(name)), tasks.map(({ task, i }) => header(i, task.name, task.kind === "class" ? "probability" : task.unit)),
    site.calibrated ? [header("similarity", "Similarity", "to training"), plainHeader("Domain")] : [],
    [{ name: "Status" }, ...others].map(({ name }) => plainHeader(name)));
  const rows = order().slice(shown.start, shown.start + PAGE);
  byId("rows").replaceChildren(el("table", { class: "rows" }, el("caption", { class: "skip" }, "Predictions"),
    el("thead", {}, head), el("tbody", {}, rows.map((row) => tableRow(row, tasks, names, others)))));
  byId("rows").scrollTop = 0;
  const last = shown.start + rows.length, n = table.rows.length;
  const move = (by) => { shown.start += by; fill(); };
  byId("pager").replaceChildren(
    el("button", { type: "button", disabled: shown.start === 0, onclick: () => move(-PAGE) }, "Back"),
    el("span", { role: "status", id: "count" }, `${count(shown.start + 1)} to ${count(last)} of ${count(n)}`),
    el("button", { type: "button", disabled: last >= n, onclick: () => move(PAGE) }, "Next"));
}

const plainHeader = (name) => el("th", { scope: "col" }, el("div", { class: "plain" }, name));

function header(column, name, unit) {
  const isSorted = shown.sort === column, sort = !isSorted ? "none" : shown.descending ? "descending" : "ascending";
  const onclick = () => {
    Object.assign(shown, { descending: isSorted && !shown.descending, sort: column, start: 0 });
    fill();
  };
  return el("th", { scope: "col", "aria-sort": sort, class: "num", "data-column": String(column) },
    el("button", { type: "button", onclick }, name, el("span", { class: "sign", "aria-hidden": "true" }, isSorted ? (shown.descending ? "↓" : "↑") : ""),
      unit ? el("small", {}, unit) : null));
}

function tableRow(row, tasks, names, others) {
  const { table, answers } = job, n = site.tasks.length, smiles = table.rows[row][table.smilesIndex];
  const [status, error] = statusOf(table, answers.state[row], row), isOk = status === OK;
  const cells = tasks.map(({ task, i }) => {
    const at = row * n + i, isFar = isOk && site.calibrated && !answers.inside[at], low = answers.low[at];
    return el("td", { class: isFar ? "num far" : "num", title: isFar ? "far from what the task was trained on" : null }, show(answers.values[at], task.decimals),
      Number.isNaN(low) ? null : el("small", {}, `${show(low, task.decimals)} to ${show(answers.high[at], task.decimals)}`));
  });
  const given = ({ i }) => el("td", { class: "text", title: table.rows[row][i] }, table.rows[row][i]);
  const nFar = site.tasks.filter((_, i) => !answers.inside[row * n + i]).length;
  const domain = !isOk ? "–" : nFar === 0 ? "inside" : nFar === n ? el("span", { class: "badge" }, "outside") : `${n - nFar} of ${n}`;
  return el("tr", {},
    el("td", { class: "molecule-text", title: smiles }, isOk ? el("button", { type: "button", "aria-label": `Show ${smiles}`, onclick: () => { showMolecule(row); scrollTo(0, 0); } }, smiles) : el("code", {}, smiles)),
    names.map(given), cells, site.calibrated ? [el("td", { class: "num" }, show(answers.similarity[row], 2)), el("td", {}, domain)] : [],
    el("td", { class: "text", title: error || null }, status, error ? el("small", {}, error) : null),
    others.map(given));
}

function download() {
  const pieces = [...csvPieces(job.table, job.answers, site.tasks, site.calibrated)];
  const address = URL.createObjectURL(new Blob(pieces, { type: "text/csv" }));
  el("a", { href: address, download: `${job.name.replace(/\.[^.]*$/, "")}.predictions.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

// --- what is given

function give(text, name) {
  let table;
  try {
    table = readTable(text, name);
  } catch (error) {
    return say(error.message, true);
  }
  return predict(table, name || "pasted.csv");
}

async function giveFile(file) {
  if (file.size > MOST_BYTES) {
    return say(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MiB, and at most ${MOST_BYTES / 2 ** 20} are taken here: give it in parts, or use mora-lite predict`, true);
  }
  if (/\.(sdf|sd|mol|xlsx|xlsm|parquet|gz|bz2|zst|zip)$/i.test(file.name)) {
    return say(`${file.name}: this page reads CSV and lists of SMILES; mora-lite predict reads SDF, Excel, Parquet and packed files too`, true);
  }
  const bytes = await file.arrayBuffer();
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    text = new TextDecoder("windows-1252").decode(bytes); // what spreadsheets write
  }
  return text.includes("\0") ? say(`${file.name} is no text`, true) : give(text, file.name);
}

function submit() {
  const text = byId("smiles").value;
  if (!text.trim()) return say("type a SMILES first, or open a file", true);
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  if (lines.length === 1) { // a blank within may be a mistake: the reader decides
    const smiles = lines[0].trim();
    return predict({ columns: ["smiles"], rows: [[smiles]], smilesIndex: 0, delimiter: ",", smiles: [smiles], faults: [""] }, "pasted.csv");
  }
  return give(text, "");
}

async function start() {
  byId("unstarted").remove();
  byId("ask").hidden = byId("start").hidden = false;
  try {
    const response = await fetch("site.json", { cache: "no-cache" });
    if (!response.ok) throw new Error(`site.json: the web server answered ${response.status}; copy the whole folder again`);
    site = await response.json();
    if (site.format !== 1) throw new Error("site.json is of another format: copy the whole folder again, then reload");
  } catch (error) {
    return say(error.message, true);
  }
  byId("pack").textContent = `pack ${site.pack}, ${site.tasks.length} ${site.tasks.length === 1 ? "task" : "tasks"}`;
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  listenToWorker();
  worker.postMessage({ kind: "start", site });
  return listenToForm(submit, giveFile);
}

start();
