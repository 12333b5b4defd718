// The text pack: what can be asked of it, and its answers, drawn, with their probabilities and checks.
import { byId, el, say, show } from "./elements.js";
import { ask, begin, drawing, info, isLatest, predictOne, request, reveal } from "./page.js";

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
  askText(byId("text-task").value, Number(byId("text-top").value), smiles, info.text.wants_words ? byId("text-words").value : "");
}

/** The question that the address has in it. */
export function askAgain(address) {
  const [task, top, smiles, words] = address.split(",").map(decodeURIComponent);
  byId("smiles").value = smiles || "";
  byId("text-task").value = task;
  byId("text-top").value = top;
  byId("text-words").value = words || "";
  hint();
  return askText(task, Number(top), smiles || "", words || "", false);
}

async function askText(task, top, smiles, question, keep = true) {
  const number = begin(), button = byId("text-ask");
  if (keep) history.pushState(null, "", `#ask=${[task, top, smiles, question].map(encodeURIComponent).join(",")}`);
  say(info.text.mib ? "answering …" : "loading the language model, then answering …");
  button.disabled = true;
  try {
    const answer = await ask("/api/text", { task, top, smiles, question });
    if (isLatest(number)) showAnswers(task, answer);
    if (!info.text.mib) info.text = (await request("/api/info")).text;
    hint();
  } catch (error) {
    if (isLatest(number)) say(error.message, true);
  } finally {
    button.disabled = false;
  }
}

function showAnswers(task, answer) {
  if (answer.status !== "ok") return say(`${answer.status}: ${answer.error}`, true);
  const { answers } = answer, isReaction = answer.of_molecules;
  byId("reaction").replaceChildren(
    el("h2", { id: "reaction-title" }, answer.question || QUESTIONS[task] || task),
    el("div", { class: "card" }, side(answer.molecules)),
    el("ol", { class: "texts" }, answers.map((one) => el("li", { class: "card" },
      isReaction ? el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[task] || "→") : null,
      isReaction ? side(one.molecules) : el("p", { class: "words" }, one.text),
      el("p", { class: "odds" }, el("strong", {}, `${show(100 * one.probability, 1)} %`), ...checks(one)),
      isReaction ? el("p", { class: "given" }, one.text) : null))),
    el("p", { class: "soft" }, "Probability: that the model writes this text; those of several need not add up to 100 %.",
      answers.some((one) => "balanced" in one) ? " Balanced: every atom of the product can come from the other side." : "",
      answers.some((one) => "round_trip" in one) ? " Gives it back: asked for the product of these reactants, the model names the molecule again." : ""));
  reveal("reaction");
  const first = isReaction ? answers[0].text : "";
  say(`${answers.length} ${answers.length === 1 ? "answer" : "answers"} in ${show(answer.seconds, 1)} s${first ? `, the likeliest: ${first}` : ""}`);
}

/** Molecules side by side, each a button that predicts it. */
const side = (molecules) => el("div", { class: "side" }, molecules.flatMap(({ smiles, svg }, i) => [
  i ? el("span", { "aria-hidden": "true" }, "+") : null,
  el("button", { type: "button", title: smiles, "aria-label": `Predict ${smiles}`, onclick: () => { byId("smiles").value = smiles; predictOne(smiles); scrollTo(0, 0); } }, drawing(svg, smiles)),
]));

const checks = (one) => Object.entries(CHECKS).filter(([name]) => name in one).flatMap(([name, words]) =>
  [" ", el("span", { class: one[name] ? "badge good" : "badge" }, words[one[name] ? 0 : 1])]);
