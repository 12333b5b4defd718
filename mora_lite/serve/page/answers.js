// What was predicted, of one molecule and of many. Also of the page that `export --web` writes.
// An answer to a task has value, low, high, inside, percentile, and at, at_low, at_high: where the first three lie on the
// task's scale, 0 to 1. null: not known. A view of many: start, sort, descending, tasks (names of those that are shown).
import { byId, count, el, show } from "./elements.js";

const FAR = "far from what the task was trained on";

/** Which of the tasks know molecules like this one. */
export function verdict(answers) {
  const n = answers.length, far = answers.filter(({ inside }) => inside === false).length;
  const words = far === 0 ? `in the domain of ${n === 1 ? "its task" : `all ${n} tasks`}`
    : far === n ? "unlike what any task was trained on" : `unlike what ${far} of ${n} tasks were trained on`;
  return el("p", { class: "verdict" }, el("span", { class: far ? "badge" : "badge good" }, far === 0 ? "inside" : far === n ? "outside" : "partly outside"), ` ${words}`);
}

/** A field that leaves the rows of `answerTable` whose task has these words. */
export function finder(tasks) {
  if (tasks.length < 8) return null;
  const texts = new Map(tasks.map((task) => [task.name, `${task.name} ${task.unit} ${task.description}`.toLowerCase()]));
  const field = el("input", { type: "search", id: "find", placeholder: "solubility, CYP, hERG …", autocomplete: "off", oninput: () => {
    const words = field.value.toLowerCase().trim();
    for (const row of document.querySelectorAll(".answers tbody tr[data-task]")) row.hidden = !texts.get(row.dataset.task).includes(words);
  } });
  return el("div", { class: "tools" }, el("label", { class: "grow" }, "Find a task", field));
}

/** A row for each task. naming: makes what a task is called by; note: more words below. */
export function answerTable(tasks, answers, naming, note = "") {
  const head = ["Task", "Value", "Scale"].map((text, i) => el("th", { scope: "col", class: i === 1 ? "num" : null }, text));
  return [el("table", { class: "answers" }, el("caption", { class: "skip" }, "Predicted values"), el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, tasks.map((task, i) => answerRow(task, answers[i], naming)))),
  el("p", { class: "soft" }, "Scale: a probability from 0 to 1, or a value with its interval, within three deviations of the training molecules’ mean.", note,
    answers.some(({ percentile }) => percentile !== null) ? " Drugs: those that the FDA has approved, as the model predicts them." : "")];
}

function answerRow(task, one, naming) {
  const isFar = one.inside === false, unit = unitOf(task);
  return el("tr", { "data-task": task.name, class: isFar ? "far" : null },
    el("th", { scope: "row" }, naming(task),
      el("small", {}, unit ? ` ${unit}` : "", isFar ? el("span", {}, `${unit ? ", " : " "}far from its training data`) : null)),
    el("td", { class: "value" }, show(one.value, task.decimals), interval(task, one, "span", { class: "interval" })),
    el("td", { class: "scaled" }, scale(task, one),
      one.percentile === null ? null : el("small", { class: "share" }, `above ${show(one.percentile, 0)} % of drugs`)));
}

export const unitOf = (task) => (task.kind === "class" ? "probability" : task.unit);

const interval = (task, { low, high }, tag, attributes) =>
  low === null ? null : el(tag, attributes, `${show(low, task.decimals)} to ${show(high, task.decimals)}`);

/** Where the value lies: a probability from 0 to 1, else within three deviations of the training molecules' mean. */
function scale(task, one) {
  const bar = el("div", { class: "scale", "aria-hidden": "true" });
  const add = (kind, places) => {
    const mark = el("div", { class: kind });
    for (const [name, share] of Object.entries(places)) mark.style[name] = `${100 * share}%`;
    bar.append(mark);
  };
  if (task.kind === "class") add("fill", { width: one.at || 0 });
  else {
    if (one.at_low !== null) add("band", { left: one.at_low, width: Math.max(0.01, one.at_high - one.at_low) });
    add("dot", { left: one.at });
  }
  return bar;
}

// --- many molecules

/** The table's place on the page, for `fillRows`. lines: about its rows. tools: above them. button: in its head. */
export function frameTable(name, nRows, nFailed, lines, tools, button = null) {
  byId("table").replaceChildren(
    el("div", { class: "head" }, el("h2", { id: "table-title" }, name),
      el("p", { class: "soft" }, `${count(nRows)} rows, ${nFailed ? `${count(nFailed)} without values` : "all with values"}`), button),
    lines.length ? el("ul", { class: "notes" }, lines.map((line) => el("li", {}, line))) : "",
    tools, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows", id: "rows" }), el("div", { class: "pager", id: "pager" }));
}

export const failureLine = (status, n, row, error) => `${count(n)} ${status}; the first is row ${count(row)}: ${error}`;

/** Which tasks are shown. change: called when the view is another. */
export function taskChoices(tasks, view, change) {
  if (tasks.length < 2) return null;
  const choices = tasks.map((task) => el("label", {}, el("input", { type: "checkbox", checked: view.tasks.includes(task.name), onchange: (event) => {
    view.tasks = tasks.map((one) => one.name).filter((name) => (name === task.name ? event.target.checked : view.tasks.includes(name)));
    change();
  } }), task.name));
  return el("details", { class: "columns" }, el("summary", {}, "Tasks"), el("div", {}, choices));
}

/** A header that sorts, the other way at the second click. */
export function header(view, change, column, name, unit = "", isNumber = true) {
  const isSorted = view.sort === column, sort = !isSorted ? "none" : view.descending ? "descending" : "ascending";
  const onclick = () => {
    Object.assign(view, { descending: isSorted && !view.descending, sort: column, start: 0 });
    change();
  };
  return el("th", { scope: "col", "aria-sort": sort, class: isNumber ? "num" : null, "data-column": String(column) },
    el("button", { type: "button", onclick }, name, el("span", { class: "sign", "aria-hidden": "true" }, isSorted ? (view.descending ? "↓" : "↑") : ""),
      unit ? el("small", {}, unit) : null));
}

/** Show these rows, some of `nRows`. size: of a page. words: behind their numbers. */
export function fillRows(view, change, head, rows, nRows, size, words = "") {
  byId("rows").replaceChildren(el("table", { class: "rows" }, el("caption", { class: "skip" }, "Predictions"),
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
  byId("rows").scrollTop = 0;
  const last = view.start + rows.length;
  const move = (text, by, disabled) => el("button", { type: "button", disabled, onclick: () => { view.start += by; change(); } }, text);
  byId("pager").replaceChildren(move("Back", -size, view.start === 0),
    el("span", { role: "status", id: "count" }, nRows ? `${count(view.start + 1)} to ${count(last)} of ${count(nRows)}` : "no row fits", words),
    move("Next", size, last >= nRows));
}

export const valueCell = (task, one) =>
  el("td", one.inside === false ? { class: "num far", title: FAR } : { class: "num" }, show(one.value, task.decimals), interval(task, one, "small", {}));

/** Similarity to the training molecules, and how many of n tasks know such molecules. nFar: null where it is not known. */
export const trustCells = (similarity, n, nFar) => [el("td", { class: "num" }, show(similarity, 2)),
  el("td", {}, nFar === null ? "–" : nFar === 0 ? "inside" : nFar === n ? el("span", { class: "badge" }, "outside") : `${n - nFar} of ${n}`)];

export const textCell = (text) => el("td", { class: "text", title: text }, text);

export const statusCell = (status, error) => el("td", { class: "text", title: error || null }, status, error ? el("small", {}, error) : null);
