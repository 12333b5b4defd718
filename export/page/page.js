// The form, one molecule, a table of many. The model is in worker.js.
import { answerTable, failureLine, fillRows, finder, frameTable, header, statusCell, taskChoices, textCell, trustCells, unitOf, valueCell, verdict } from "./answers.js";
import { byId, count, el, say } from "./elements.js";
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
  const told = answersOf(row), naming = ({ name, description }) => el("span", { title: description }, name);
  const intervals = site.calibrated ? ` Intervals hold the measured value of ${site.confidence * 100} % of molecules like those held out in training.` : "";
  const back = table.rows.length > 1 ? el("p", { class: "back" }, el("button", { type: "button", id: "back", onclick: () => { reveal("table"); byId("result").focus(); } }, "Back to the table")) : null;
  byId("molecule").replaceChildren(el("h2", { id: "molecule-title", class: "skip" }, "Molecule"),
    el("div", { class: "card answered" }, back, el("p", { class: "given" }, smiles),
      site.calibrated ? verdict(told) : null, finder(site.tasks), answerTable(site.tasks, told, naming, intervals)));
  reveal("molecule");
}

/** The answers to a row, as answers.js has them. */
function answersOf(row) {
  const { answers } = job, known = (number) => (Number.isNaN(number) ? null : number);
  return site.tasks.map((task, i) => {
    const at = row * site.tasks.length + i, [value, low, high] = [answers.values[at], known(answers.low[at]), known(answers.high[at])];
    const places = { at: place(value, task), at_low: low === null ? null : place(low, task), at_high: high === null ? null : place(high, task) };
    return { value, low, high, ...places, inside: site.calibrated && known(value) !== null ? answers.inside[at] === 1 : null, percentile: percentile(value, task.percentiles) };
  });
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
  const lines = [...failures].map(([status, one]) => failureLine(status, one.n, one.row + 1, one.error));
  frameTable(job.name, n, nFailed, lines, el("div", { class: "tools" }, taskChoices(site.tasks, shown, fill),
    el("div", { class: "downloads" }, el("button", { type: "button", id: "download", onclick: download }, "Download CSV"))));
  fill();
  reveal("table");
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
  const head = [el("th", { scope: "col", class: "molecule-text" }, el("div", { class: "plain" }, "SMILES")), names.map(plainHeader),
    tasks.map(({ task, i }) => header(shown, fill, i, task.name, unitOf(task))),
    site.calibrated ? [header(shown, fill, "similarity", "Similarity", "to training"), plainHeader({ name: "Domain" })] : [],
    [{ name: "Status" }, ...others].map(plainHeader)];
  const rows = order().slice(shown.start, shown.start + PAGE);
  fillRows(shown, fill, head.flat(), rows.map((row) => tableRow(row, tasks, names, others)), table.rows.length, PAGE);
}

const plainHeader = ({ name }) => el("th", { scope: "col" }, el("div", { class: "plain" }, name));

function tableRow(row, tasks, names, others) {
  const { table, answers } = job, smiles = table.rows[row][table.smilesIndex], told = answersOf(row);
  const [status, error] = statusOf(table, answers.state[row], row), isOk = status === OK;
  const given = ({ i }) => textCell(table.rows[row][i]);
  const nFar = isOk ? told.filter(({ inside }) => inside === false).length : null;
  return el("tr", {},
    el("td", { class: "molecule-text", title: smiles }, isOk ? el("button", { type: "button", "aria-label": `Show ${smiles}`, onclick: () => { showMolecule(row); scrollTo(0, 0); } }, smiles) : el("code", {}, smiles)),
    names.map(given), tasks.map(({ task, i }) => valueCell(task, told[i])),
    site.calibrated ? trustCells(answers.similarity[row], site.tasks.length, nFar) : [], statusCell(status, error), others.map(given));
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
