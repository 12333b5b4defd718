// The text pack: what can be asked of it, and its answers, drawn, with their probabilities and checks.
import { byId, el, say, show } from "./elements.js";
import { predictOne } from "./molecule.js";
import { begin, fail, isLatest, reveal, revealAgain } from "./result.js";
import { ask, drawing, info, request } from "./server.js";

const QUESTIONS = {
  forward: "What is the product?", retro: "What are the reactants?", reagents: "Which reagents does it need?",
  describe: "What is it?", ask: "In words",
};
const NEEDS = {
  forward: "Above: reactants and reagents joined by dots, or a whole reaction A.B>C>D.",
  retro: "Above: a product, or a whole reaction A.B>C>D.",
  reagents: "Above: a reaction A.B>>C.",
};
const SIGNS = { forward: "→", retro: "⇐", reagents: "+" };
let answered = ""; // the question whose answers are on the page, as an address has it
const CHECKS = { balanced: ["balanced", "not balanced"], round_trip: ["gives it back", "does not give it back"] };

/** Show what can be asked, where the server has a text pack. */
export function offerText() {
  const { text } = info;
  if (!text) return;
  byId("text").hidden = false;
  if (!text.tasks.some(({ name }) => SIGNS[name])) byId("text-title").textContent = `Ask the pack ${text.pack}`;
  byId("text-task").replaceChildren(...text.tasks.map(({ name }) => el("option", { value: name }, QUESTIONS[name] || name)));
  byId("text-top").replaceChildren(...Array.from({ length: text.max_answers }, (_, i) => el("option", { value: i + 1, selected: i === 2 }, String(i + 1))));
  byId("text-words-label").hidden = !text.wants_words;
  byId("text-words").value = text.asked[0] || "";
  byId("text-asked").replaceChildren(...text.asked.map((value) => el("option", { value })));
  byId("text-orders-label").hidden = !text.max_spellings;
  byId("text-orders-label").title = `The molecules in ${text.max_spellings} other orders, whose answers vote: more often right, and slower.`;
  byId("text-orders").checked = text.max_spellings > 0;
  byId("text-example").hidden = !text.tasks.some(({ name }) => name === "retro");
  byId("text-try").addEventListener("click", () => {
    byId("smiles").value = "CC(=O)Nc1ccc(O)cc1";
    byId("text-task").value = "retro";
    hint();
    submit();
  });
  byId("text-task").addEventListener("change", hint);
  byId("text-ask").addEventListener("click", submit);
  byId("text-words").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  hint();
}

const sentence = (line) => line && `${line[0].toUpperCase()}${line.slice(1)}.`;

/** What the question needs, and what it costs. */
function hint() {
  const { text } = info, memory = text.memory ? `, ${text.memory} of memory` : "";
  const cost = sentence(text.missing) || (text.mib ? "" : `The first question loads the language model ${text.base}: some seconds${memory}.`);
  const place = byId("text-hint");
  place.replaceChildren(...[NEEDS[byId("text-task").value] || "Above: a molecule.", cost].filter(Boolean).flatMap((line) => [`${line} `]));
}

function submit() {
  const smiles = byId("smiles").value.trim();
  if (!smiles) return say("type a SMILES first", true);
  if (/[\r\n]/.test(smiles)) return say("ask about one line; for a table there is mora-lite generate", true);
  const words = info.text.wants_words ? byId("text-words").value : "";
  askText(byId("text-task").value, Number(byId("text-top").value), smiles, words, byId("text-orders").checked ? info.text.max_spellings : 0);
}

/** The question that the address has in it; its answer may be on the page still. */
export function askAgain(address) {
  const [task, top, smiles, words, spellings] = address.split(",").map(decodeURIComponent);
  byId("smiles").value = smiles || "";
  byId("text-task").value = task;
  byId("text-top").value = top;
  byId("text-words").value = words || "";
  byId("text-orders").checked = Number(spellings) > 0;
  hint();
  if (address === answered) {
    begin();
    return revealAgain("reaction");
  }
  return askText(task, Number(top), smiles || "", words || "", Number(spellings) || 0, false);
}

async function askText(task, top, smiles, question, spellings, keep = true) {
  const number = begin(), button = byId("text-ask"), address = [task, top, smiles, question, spellings].map(encodeURIComponent).join(",");
  if (keep) history.pushState(null, "", `#ask=${address}`);
  say(info.text.mib ? "answering …" : "loading the language model, then answering …");
  button.disabled = true;
  try {
    const answer = await ask("api/text", { task, top, smiles, question, spellings });
    if (isLatest(number)) showAnswers(task, answer, spellings, address);
    if (!info.text.mib) info.text = (await request("api/info")).text;
    hint();
  } catch (error) {
    if (isLatest(number)) fail(error.message);
  } finally {
    button.disabled = false;
  }
}

function showAnswers(task, answer, spellings, address) {
  if (answer.status !== "ok") return fail(`${answer.status}: ${answer.error}`);
  const { answers, agreement } = answer, isReaction = answer.of_molecules;
  byId("reaction").replaceChildren(
    el("h2", { id: "reaction-title" }, answer.question || QUESTIONS[task] || task),
    el("div", { class: "card" }, side(answer.molecules)),
    el("ol", { class: "texts" }, answers.map((one, i) => el("li", { class: "card" },
      isReaction ? el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[task] || "→") : null,
      isReaction ? side(one.molecules) : el("p", { class: "words" }, one.text),
      el("p", { class: "odds" }, el("strong", {}, `${show(100 * one.probability, 1)} %`), ...checks(one), ...(i || agreement === null ? [] : vote(agreement, spellings))),
      isReaction ? el("p", { class: "given" }, one.text) : null))),
    el("p", { class: "soft" }, "Probability: that the model writes this text; those of several need not add up to 100 %.",
      agreement === null ? "" : ` It is the mean over the question and ${spellings} other orders of its molecules and atoms.`,
      answers.some((one) => "balanced" in one) ? " Balanced: every atom of the product can come from the other side." : "",
      answers.some((one) => "round_trip" in one) ? " Gives it back: asked for the product of these reactants, the model names the molecule again." : ""));
  reveal("reaction", byId("reaction-title").textContent);
  answered = address;
  const first = isReaction ? answers[0].text : "";
  say(`${answers.length} ${answers.length === 1 ? "answer" : "answers"} in ${show(answer.seconds, 1)} s${first ? `, the likeliest: ${first}` : ""}`);
}

/** Molecules side by side, each a button that predicts it. */
const side = (molecules) => el("div", { class: "side" }, molecules.flatMap(({ smiles, svg }, i) => [
  i ? el("span", { "aria-hidden": "true" }, "+") : null,
  el("button", { type: "button", title: smiles, "aria-label": `Predict ${smiles}`, onclick: () => { byId("smiles").value = smiles; predictOne(smiles); scrollTo(0, 0); } }, drawing(svg, smiles)),
]));

const vote = (agreement, spellings) =>
  [" ", el("span", { class: agreement > 0.8 ? "badge good" : "badge" }, `${Math.round(agreement * spellings)} of ${spellings} orders agree`)];

const checks = (one) => Object.entries(CHECKS).filter(([name]) => name in one).flatMap(([name, words]) =>
  [" ", el("span", { class: one[name] ? "badge good" : "badge" }, words[one[name] ? 0 : 1])]);
