// One molecule: its drawing, its values with intervals and domain, and the nearest molecules that were measured.
import { answerTable, finder, verdict } from "./answers.js";
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
    el("div", { class: "one" }, picture(answer), el("div", { class: "card told" }, finder(info.tasks), answers(answer)), el("div", { id: "near" }, near)));
}

const picture = (answer) => el("div", { class: "card picture" }, drawing(answer.svg, answer.smiles), el("p", { class: "given" }, answer.smiles),
  answer.similarity === null ? null : verdict(answer.tasks));

function answers(answer) {
  const naming = ({ name, description }) => el("button", { type: "button", title: description, "aria-expanded": "false", onclick: () => choose(name) }, name);
  return answerTable(answer.tasks.map(({ task }) => info.byName.get(task)), answer.tasks, naming);
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
