// One molecule: its drawing, its values with intervals and domain, and the nearest molecules that were measured.
import { byId, el, say, show } from "./elements.js";
import { begin, fail, isLatest, reveal } from "./result.js";
import { ask, drawing, info } from "./server.js";

const FEW = 6; // measured values beside a neighbour; of a chosen task that one alone
let current = null;

/** Show one molecule. keep: whether the address changes. */
export async function predictOne(smiles, keep = true) {
  const number = begin();
  if (keep) history.pushState(null, "", `#smiles=${encodeURIComponent(smiles)}`);
  say(info.ready ? "predicting …" : "loading the model …");
  try {
    const answer = await ask("api/molecule", { smiles });
    if (!isLatest(number)) return;
    info.ready = true;
    if (answer.status !== "ok") return fail(`${answer.status}: ${answer.error}`);
    say(answer.tasks.length === 1 ? "1 value" : `${answer.tasks.length} values`); // for screen readers
    showMolecule(answer);
    reveal("molecule", answer.smiles);
  } catch (error) {
    if (isLatest(number)) fail(error.message);
  }
}

function showMolecule(answer) {
  current = { answer, task: "" };
  const near = answer.neighbours.length ? el("section", { class: "card", "aria-labelledby": "near-title" },
    el("h2", { id: "near-title" }, "Most similar training molecules"),
    el("p", { class: "soft" }, "With what was measured for them. Choose a task for those that were measured for it."),
    neighbours(answer.neighbours, "")) : null;
  byId("molecule").replaceChildren(
    el("h2", { id: "molecule-title", class: "skip" }, "Molecule"),
    el("div", { class: "one" }, picture(answer), el("div", { class: "card told" }, finder(), answers(answer)), el("div", { id: "near" }, near)));
}

function picture(answer) {
  const n = answer.tasks.length, far = answer.tasks.filter((task) => task.inside === false).length;
  let verdict = null;
  if (answer.similarity !== null) {
    const words = far === 0 ? `in the domain of ${n === 1 ? "its task" : `all ${n} tasks`}`
      : far === n ? "unlike what any task was trained on" : `unlike what ${far} of ${n} tasks were trained on`;
    verdict = el("p", { class: "verdict" }, el("span", { class: far ? "badge" : "badge good" }, far === 0 ? "inside" : far === n ? "outside" : "partly outside"), ` ${words}`);
  }
  return el("div", { class: "card picture" }, drawing(answer.svg, answer.smiles), el("p", { class: "given" }, answer.smiles), verdict);
}

function finder() {
  if (info.tasks.length < 8) return null;
  const field = el("input", { type: "search", id: "find", placeholder: "solubility, CYP, hERG …", autocomplete: "off", oninput: () => {
    const words = field.value.toLowerCase().trim();
    for (const row of document.querySelectorAll(".answers tbody tr[data-task]")) {
      const task = info.byName.get(row.dataset.task);
      row.hidden = !`${task.name} ${task.unit} ${task.description}`.toLowerCase().includes(words);
    }
  } });
  return el("div", { class: "tools" }, el("label", { class: "grow" }, "Find a task", field));
}

function answers(answer) {
  const head = el("tr", {}, ["Task", "Value", "Scale"].map((text, i) =>
    el("th", { scope: "col", class: i === 1 ? "num" : null }, text)));
  return [el("table", { class: "answers" },
    el("caption", { class: "skip" }, "Predicted values"),
    el("thead", {}, head), el("tbody", {}, answer.tasks.map(answerRow))),
  el("p", { class: "soft" }, "Scale: a probability from 0 to 1, or a value with its interval, within three deviations of the training molecules’ mean.",
    answer.tasks.some((one) => one.percentile !== null) ? " Drugs: those that the FDA has approved, as the model predicts them." : "")];
}

function answerRow(one) {
  const task = info.byName.get(one.task), isFar = one.inside === false;
  const unit = task.kind === "class" ? "probability" : task.unit;
  const interval = one.low === null ? null : `${show(one.low, task.decimals)} to ${show(one.high, task.decimals)}`;
  return el("tr", { "data-task": one.task, class: isFar ? "far" : null },
    el("th", { scope: "row" },
      el("button", { type: "button", title: task.description, "aria-expanded": "false", onclick: () => choose(one.task) }, one.task),
      el("small", {}, unit ? ` ${unit}` : "", isFar ? el("span", {}, unit ? ", far from its training data" : " far from its training data") : null)),
    el("td", { class: "value" }, show(one.value, task.decimals), interval && el("span", { class: "interval" }, interval)),
    el("td", { class: "scaled" }, scale(one, task), one.percentile === null ? null
      : el("small", { class: "share" }, `above ${show(one.percentile, 0)} % of drugs`)));
}

/** Where the value lies: a probability from 0 to 1, else within three deviations of the training molecules' mean. */
function scale(one, task) {
  const percent = (share) => `${100 * share}%`;
  const bar = el("div", { class: "scale", "aria-hidden": "true" });
  if (task.kind === "class") {
    const fill = el("div", { class: "fill" });
    fill.style.width = percent(one.at || 0);
    bar.append(fill);
    return bar;
  }
  if (one.at_low !== null) {
    const band = el("div", { class: "band" });
    band.style.left = percent(one.at_low);
    band.style.width = percent(Math.max(0.01, one.at_high - one.at_low));
    bar.append(band);
  }
  const dot = el("div", { class: "dot" });
  dot.style.left = percent(one.at);
  bar.append(dot);
  return bar;
}

/** Open what is known of one task's answer below it, or close it again. */
async function choose(name) {
  const shown = current;
  shown.task = shown.task === name ? "" : name;
  for (const row of document.querySelectorAll(".answers tr.detail")) row.remove();
  for (const row of document.querySelectorAll(".answers tbody tr")) {
    const isChosen = row.dataset.task === shown.task;
    row.classList.toggle("chosen", isChosen);
    row.querySelector("button").setAttribute("aria-expanded", String(isChosen));
    if (isChosen) row.after(el("tr", { class: "detail" }, el("td", { colspan: 3 }, el("p", { class: "soft" }, info.byName.get(name).description), el("div", { id: "detail", role: "status" }))));
  }
  if (!shown.task) return;
  try {
    const question = { smiles: shown.answer.smiles, task: name };
    const [why, found] = await Promise.all([
      ask("api/explain", question),
      info.has_training ? ask("api/neighbours", question) : []]);
    if (shown !== current || shown.task !== name) return;
    byId("detail").replaceChildren(...[why && coloured(why), found.length ? [el("h3", {}, `Most similar molecules measured for ${name}`), neighbours(found, name)] : []].flat().filter(Boolean));
  } catch (error) {
    say(error.message, true);
  }
}

/** The molecule with its atoms coloured by what they add to the value. */
function coloured(why) {
  return el("div", { class: "coloured" },
    drawing(why.svg, current.answer.smiles),
    el("p", { class: "soft" }, why.legend));
}

const neighbours = (found, task) => el("ul", { class: "near" }, found.map((one) => neighbour(one, task)));

function neighbour(one, chosen) {
  const names = Object.keys(one.values);
  const shown = chosen ? [chosen, ...names.filter((name) => name !== chosen)] : names;
  const rows = shown.slice(0, chosen ? 1 : FEW).map((name) => {
    const task = info.byName.get(name);
    const value = task.kind === "class" ? (one.values[name] ? "yes" : "no") : `${show(one.values[name], task.decimals)} ${task.unit}`;
    return el("div", { class: name === chosen ? "chosen" : null }, el("dt", {}, name), el("dd", {}, value));
  });
  const rest = shown.length - rows.length;
  return el("li", {}, drawing(one.svg, one.smiles),
    el("p", { class: "soft" }, `similarity ${show(one.similarity, 2)}`),
    el("dl", {}, rows), rest > 0 ? el("small", {}, `and ${rest} more`) : null,
    el("p", { class: "given", title: one.smiles }, one.smiles));
}
