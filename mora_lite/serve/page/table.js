// Many molecules: progress while the server works, then rows to sort, filter, page through and download.
import { byId, count, el, say, show } from "./elements.js";
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
  const { job } = state, failed = job.n_rows - job.n_ok;
  const counts = `${count(job.n_rows)} rows, ${failed ? `${count(failed)} without values` : "all with values"}`;
  const lines = [...job.notes, ...Object.entries(job.failures).map(([status, one]) =>
    `${count(one.n_rows)} ${status}; the first is row ${count(one.first_row)}: ${one.error}`)];
  byId("table").replaceChildren(
    el("div", { class: "head" }, el("h2", { id: "table-title" }, job.name), el("p", { class: "soft" }, counts),
      el("button", { type: "button", onclick: () => remove(state, "deleted") }, "Delete")),
    lines.length ? el("ul", { class: "notes" }, lines.map((line) => el("li", {}, line))) : "",
    tools(), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows", id: "rows" }, el("p", { class: "wait", role: "status" }, "drawing …")),
    el("div", { class: "pager", id: "pager" }));
  load();
}

function tools() {
  const first = info.tasks.find((task) => task.kind === "value") || info.tasks[0];
  const inDomain = info.calibrated && info.tasks.length <= FIRST_TASKS ? " and in_domain" : ""; // hardly a molecule is in that of many
  const example = `${first.name} ${first.kind === "value" ? "> -4" : "> 0.5"}${inDomain}`;
  const field = el("input", { type: "text", id: "where", value: state.where, placeholder: example, autocomplete: "off", spellcheck: "false", "aria-describedby": "where-error",
    onchange: () => { state.where = field.value; state.start = 0; load(); } });
  const choices = info.tasks.map((task) => el("label", {}, el("input", { type: "checkbox", checked: state.tasks.includes(task.name), onchange: (event) => {
    state.tasks = info.tasks.map((one) => one.name).filter((name) => (name === task.name ? event.target.checked : state.tasks.includes(name)));
    load();
  } }), task.name));
  return el("div", { class: "tools" },
    el("label", { class: "grow" }, "Filter", field),
    info.tasks.length > 1 ? el("details", { class: "columns" }, el("summary", {}, "Tasks"), el("div", {}, choices)) : null,
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
  const head = el("tr", {}, el("th", { scope: "col", class: "structure" }, el("div", { class: "plain" }, "Structure")),
    names.map(({ name }) => header(name, name, "", false)),
    tasks.map((task) => header(task.column, task.name, task.kind === "class" ? "probability" : task.unit, true)),
    job.values.includes("similarity") ? [header("similarity", "Similarity", "to training", true), header("in_domain", "Domain", info.tasks.length > 1 ? "tasks inside" : "", false)] : [],
    header("status", "Status", "", false), others.map(({ name }) => header(name, name, "", false)));
  byId("rows").replaceChildren(el("table", { class: "rows" }, el("caption", { class: "skip" }, "Predictions"),
    el("thead", {}, head), el("tbody", {}, page.rows.map((row) => tableRow(row, names, others, tasks)))));
  byId("rows").scrollTop = 0;
  const last = page.start + page.rows.length;
  const move = (by) => { state.start += by; load(); };
  byId("pager").replaceChildren(
    el("button", { type: "button", disabled: page.start === 0, onclick: () => move(-PAGE) }, "Back"),
    el("span", { role: "status", id: "count" }, page.n_rows ? `${count(page.start + 1)} to ${count(last)} of ${count(page.n_rows)}` : "no row fits",
      page.n_rows < page.n_all ? `, filtered from ${count(page.n_all)}` : ""),
    el("button", { type: "button", disabled: last >= page.n_rows, onclick: () => move(PAGE) }, "Next"));
}

function header(column, name, unit, isNumber) {
  const isSorted = state.sort === column, sort = !isSorted ? "none" : state.descending ? "descending" : "ascending";
  const onclick = () => {
    state.descending = isSorted && !state.descending;
    Object.assign(state, { sort: column, start: 0 });
    load();
  };
  return el("th", { scope: "col", "aria-sort": sort, class: isNumber ? "num" : null, "data-column": column },
    el("button", { type: "button", onclick }, name, el("span", { class: "sign", "aria-hidden": "true" }, isSorted ? (state.descending ? "↓" : "↑") : ""),
      unit ? el("small", {}, unit) : null));
}

function tableRow(row, names, others, tasks) {
  const { values } = row, outside = ` ${values.outside || ""} `;
  const structure = row.status === "ok"
    ? el("button", { type: "button", title: row.smiles, "aria-label": `Show ${row.name || row.smiles}`, onclick: () => { byId("smiles").value = row.smiles; predictOne(row.smiles); scrollTo(0, 0); } }, drawing(row.svg, row.smiles))
    : el("code", {}, row.smiles.slice(0, 24));
  const cells = tasks.map((task) => {
    const low = values[`${task.name}_lo`], high = values[`${task.name}_hi`], isFar = outside.includes(` ${task.name} `);
    const hasInterval = low !== null && low !== undefined;
    return el("td", { class: isFar ? "num far" : "num", title: isFar ? "far from what the task was trained on" : null },
      show(values[task.column], task.decimals),
      hasInterval ? el("small", {}, `${show(low, task.decimals)} to ${show(high, task.decimals)}`) : null);
  });
  const n = info.tasks.length, nFar = values.outside ? values.outside.split(" ").length : 0;
  const domain = values.in_domain === null || values.in_domain === undefined ? "–" : nFar === 0 ? "inside" : nFar === n ? el("span", { class: "badge" }, "outside") : `${n - nFar} of ${n}`;
  return el("tr", {}, el("td", { class: "structure" }, structure),
    names.map(({ i }) => textCell(row.cells[i])), cells,
    state.job.values.includes("similarity") ? [el("td", { class: "num" }, show(values.similarity, 2)), el("td", {}, domain)] : [],
    el("td", { class: "text", title: row.error || null }, row.status, row.error ? el("small", {}, row.error) : null),
    others.map(({ i }) => textCell(row.cells[i])));
}

const textCell = (text) => el("td", { class: "text", title: text }, text);
