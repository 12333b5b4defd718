// Many molecules: progress while the server works, then rows to sort, filter, page through and download.
import { failureLine, fillRows, frameTable, header, statusCell, taskChoices, textCell, trustCells, unitOf, valueCell } from "./answers.js";
import { byId, count, el, say } from "./elements.js";
import { predictOne } from "./molecule.js";
import { begin, fail, isLatest, reveal } from "./result.js";
import { drawing, info, request } from "./server.js";

const PAGE = 50, FIRST_TASKS = 6;
let state = null;
let loads = 0; // rows that were asked for earlier come too late

/** Send a file, and show what becomes of it. */
export async function predictTable(body, name) {
  const number = begin();
  const most = info.limits ? info.limits.upload_bytes : Infinity;
  if (body.size > most) {
    return fail(`${name} has ${Math.ceil(body.size / 2 ** 20)} MiB, and at most ${most >> 20} are taken: give it in parts, or use mora-lite predict`);
  }
  say(`sending ${name} …`);
  try {
    const job = await request(`api/jobs?name=${encodeURIComponent(name)}`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body,
    });
    if (!isLatest(number)) return;
    history.pushState(null, "", `#table=${job.id}`);
    say("");
    reveal("table", job.name);
    showTable(job); // which may have failed already
  } catch (error) {
    if (isLatest(number)) fail(error.message);
  }
}

export const isShown = (id) => state !== null && state.job.id === id;

/** Show a table, as it was when this entry of the browser's history was left. */
export function showTable(job) {
  const tasks = info.tasks.slice(0, FIRST_TASKS).map((task) => task.name);
  state = { job, start: 0, where: "", sort: "", descending: false, tasks, ...history.state };
  if (job.state === "done") showDone();
  else watch(state);
}

async function watch(mine) {
  const place = byId("table");
  const bar = el("progress", { max: 1, value: 0, "aria-label": "progress" });
  const words = el("p", { class: "soft", role: "status" });
  const stop = el("button", { type: "button", onclick: () => remove(mine, "stopped") }, "Stop");
  place.replaceChildren(el("div", { class: "head" }, el("h2", { id: "table-title" }, mine.job.name), stop), bar, words);
  while (mine === state) {
    const { job } = mine;
    bar.value = job.share;
    words.textContent = job.state === "waiting" ? "waits for the model …" : `${count(job.n_rows)} rows`;
    if (job.state === "failed") {
      state = null;
      return fail(job.error || "stopped");
    }
    if (job.state === "done") return showDone();
    await new Promise((done) => setTimeout(done, 300));
    try {
      mine.job = await request(`api/jobs/${job.id}`);
    } catch (error) {
      if (mine !== state) return;
      state = null;
      return fail(error.message);
    }
  }
}

async function remove(mine, words) {
  state = null;
  byId("table").hidden = true;
  byId("start").hidden = false;
  history.replaceState(null, "", "./");
  try {
    await request(`api/jobs/${mine.job.id}`, { method: "DELETE" });
    say(words);
  } catch (error) {
    say(error.message, true);
  }
}

function showDone() {
  const { job } = state;
  const lines = [...job.notes, ...Object.entries(job.failures).map(([status, one]) => failureLine(status, one.n_rows, one.first_row, one.error))];
  frameTable(job.name, job.n_rows, job.n_rows - job.n_ok, lines, tools(), el("button", { type: "button", onclick: () => remove(state, "deleted") }, "Delete"));
  byId("rows").append(el("p", { class: "wait", role: "status" }, "drawing …"));
  load();
}

function tools() {
  const first = info.tasks.find((task) => task.kind === "value") || info.tasks[0];
  const inDomain = info.calibrated && info.tasks.length <= FIRST_TASKS ? " and in_domain" : ""; // hardly a molecule is in that of many
  const example = `${first.name} ${first.kind === "value" ? "> -4" : "> 0.5"}${inDomain}`;
  const field = el("input", { type: "text", id: "where", value: state.where, placeholder: example, autocomplete: "off", spellcheck: "false", "aria-describedby": "where-error",
    onchange: () => { state.where = field.value; state.start = 0; load(); } });
  return el("div", { class: "tools" },
    el("label", { class: "grow" }, "Filter", field),
    taskChoices(info.tasks, state, load),
    el("div", { class: "downloads", role: "group", "aria-label": "Download what is shown" },
      ["csv", "xlsx", "sdf"].map((form) => el("a", { class: "button", download: true, "data-form": form }, form.toUpperCase()))),
    el("p", { id: "where-error", role: "alert" }));
}

const query = (more) => {
  const view = { where: state.where, sort: state.sort, descending: state.descending, ...more };
  return new URLSearchParams(Object.entries(view).filter(([, value]) => value !== "" && value !== false)).toString();
};

async function load() {
  const mine = state, { job, ...view } = mine, number = ++loads;
  if (location.hash === `#table=${job.id}`) history.replaceState(view, "");
  byId("rows").classList.add("stale");
  try {
    const page = await request(`api/jobs/${job.id}/rows?${query({ start: mine.start, count: PAGE, drawings: true })}`);
    if (mine !== state || number !== loads) return;
    sayOfFilter("");
    say("");
    fill(page);
    for (const link of document.querySelectorAll("[data-form]")) link.href = `api/jobs/${job.id}/download?${query({ form: link.dataset.form })}`;
  } catch (error) {
    if (mine !== state || number !== loads) return;
    if (error.status === 400) sayOfFilter(error.message.replace(/^expression: /, ""));
    else say(error.message, true);
  }
  byId("rows").classList.remove("stale");
}

/** What is wrong with the filter, beside it; nothing if it is empty. */
function sayOfFilter(error) {
  byId("where-error").textContent = error;
  byId("where").setAttribute("aria-invalid", String(error !== ""));
}

function fill(page) {
  const { job } = state, tasks = state.tasks.map((name) => info.byName.get(name));
  const columns = job.columns.map((name, i) => ({ name, i })).filter(({ i }) => i !== job.smiles_index);
  const names = columns.filter(({ i }) => page.rows.some((row) => row.name) && page.rows.every((row) => row.cells[i].trim() === row.name)).slice(0, 1);
  const others = columns.filter((column) => !names.includes(column));
  const head = (column, name, unit, isNumber) => header(state, load, column, name, unit, isNumber);
  const text = ({ name }) => head(name, name, "", false);
  const heads = [el("th", { scope: "col", class: "structure" }, el("div", { class: "plain" }, "Structure")), names.map(text),
    tasks.map((task) => head(task.column, task.name, unitOf(task))),
    job.values.includes("similarity") ? [head("similarity", "Similarity", "to training"), head("in_domain", "Domain", info.tasks.length > 1 ? "tasks inside" : "", false)] : [],
    head("status", "Status", "", false), others.map(text)];
  fillRows(state, load, heads.flat(), page.rows.map((row) => tableRow(row, names, others, tasks)), page.n_rows, PAGE,
    page.n_rows < page.n_all ? `, filtered from ${count(page.n_all)}` : "");
}

function tableRow(row, names, others, tasks) {
  const { values } = row, far = values.outside ? values.outside.split(" ") : [];
  const structure = row.status === "ok"
    ? el("button", { type: "button", title: row.smiles, "aria-label": `Show ${row.name || row.smiles}`, onclick: () => { byId("smiles").value = row.smiles; predictOne(row.smiles); scrollTo(0, 0); } }, drawing(row.svg, row.smiles))
    : el("code", {}, row.smiles.slice(0, 24));
  const cells = tasks.map((task) => valueCell(task, {
    value: values[task.column], low: values[`${task.name}_lo`] ?? null, high: values[`${task.name}_hi`], inside: !far.includes(task.name),
  }));
  const given = ({ i }) => textCell(row.cells[i]);
  return el("tr", {}, el("td", { class: "structure" }, structure), names.map(given), cells,
    state.job.values.includes("similarity") ? trustCells(values.similarity, info.tasks.length, (values.in_domain ?? null) === null ? null : far.length) : [],
    statusCell(row.status, row.error), others.map(given));
}
