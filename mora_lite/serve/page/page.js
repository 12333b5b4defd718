// The form, and what the parts of the page share: requests, drawings.
import { byId, el, say } from "./elements.js";
import { listenToForm } from "./form.js";
import { showMolecule } from "./molecule.js";
import { isShown, showTable } from "./table.js";
import { askAgain, offerText } from "./text.js";

/** A drawing that the server made, or the SMILES where there is none. */
export function drawing(svg, smiles) {
  if (!svg) return el("code", { class: "undrawn" }, smiles || "no structure");
  const parsed = new DOMParser().parseFromString(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'), "image/svg+xml");
  const picture = document.importNode(parsed.documentElement, true);
  picture.setAttribute("aria-label", `structure of ${smiles}`);
  return picture;
}

export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: is mora-lite serve still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.error || `the server answered ${answer.status}`), { status: answer.status });
  return body;
}

export const ask = (path, question) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) });

export const info = { tasks: [], byName: new Map() };
let asked = 0; // answers to earlier questions come too late
export const isLatest = (number) => number === asked;

/** The number of a question, which ends in `reveal` or `fail`; what is shown until then is the answer to another. */
export function begin() {
  byId("result").classList.add("stale");
  return ++asked;
}

export function reveal(id) {
  for (const part of ["molecule", "table", "reaction", "start"]) byId(part).hidden = part !== id;
  byId("result").classList.remove("stale");
}

/** What is on the page still need not be asked for again. */
export function revealAgain(id) {
  say("");
  reveal(id);
}

/** Show one molecule. keep: whether the address changes. */
export async function predictOne(smiles, keep = true) {
  const number = begin();
  if (keep) history.pushState(null, "", `#smiles=${encodeURIComponent(smiles)}`);
  say(info.ready ? "predicting …" : "loading the model …");
  try {
    const answer = await ask("/api/molecule", { smiles });
    if (number !== asked) return;
    info.ready = true;
    if (answer.status !== "ok") return fail(`${answer.status}: ${answer.error}`);
    say("");
    showMolecule(answer);
    reveal("molecule");
  } catch (error) {
    if (number === asked) fail(error.message);
  }
}

/** Say why there is no answer; what stood there was the answer to something else. */
export function fail(why) {
  say(why, true);
  reveal("start");
}

export async function predictTable(body, name) {
  const number = begin();
  const most = info.limits ? info.limits.upload_bytes : Infinity;
  if (body.size > most) {
    return fail(`${name} has ${Math.ceil(body.size / 2 ** 20)} MiB, and at most ${most >> 20} are taken: give it in parts, or use mora-lite predict`);
  }
  say(`sending ${name} …`);
  try {
    const job = await request(`/api/jobs?name=${encodeURIComponent(name)}`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body,
    });
    if (number !== asked) return;
    history.pushState(null, "", `#table=${job.id}`);
    say("");
    reveal("table");
    showTable(job); // which may have failed already
  } catch (error) {
    if (number === asked) fail(error.message);
  }
}

/** Show what the address names. */
async function followAddress() {
  try {
    await showAddressed();
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    asked++;
    fail("the address of this page is damaged: enter the molecule again");
  }
}

async function showAddressed() {
  const [kind, value] = location.hash.slice(1).split(/=(.*)/s);
  if (kind === "smiles" && value) {
    byId("smiles").value = decodeURIComponent(value);
    await predictOne(byId("smiles").value, false);
  } else if (kind === "ask" && value && info.text) {
    await askAgain(value);
  } else if (kind === "table" && value) {
    const number = begin();
    if (isShown(value)) return revealAgain("table");
    try {
      const job = await request(`/api/jobs/${encodeURIComponent(value)}`);
      if (number !== asked) return;
      reveal("table");
      showTable(job);
    } catch (error) {
      if (number === asked) fail(error.message);
    }
  } else {
    asked++;
    reveal("start");
  }
}

function submit() {
  const text = byId("smiles").value.trim();
  if (!text) return say("type a SMILES first, or open a file", true);
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  if (lines.length === 1) predictOne(text);
  else predictTable(new Blob([`${text}\n`]), "pasted.txt");
}

function listen() {
  listenToForm(submit, (file) => predictTable(file, file.name));
  byId("draw").addEventListener("click", toggleSketch);
  window.addEventListener("popstate", followAddress);
  window.addEventListener("message", (event) => {
    const frame = document.querySelector("#sketch iframe");
    if (!frame || event.source !== frame.contentWindow || event.origin !== location.origin) return;
    if (!event.data) return;
    if (event.data.ready) sendToSketch();
    else if (typeof event.data.smiles === "string") byId("smiles").value = byId("smiles").value.replace(DRAWN, () => event.data.smiles);
  });
}

// What the sketcher gets, and an extension that would be of other atoms after a change; other lines and names are kept.
const DRAWN = /^(\S*)( +\|[^|\n]*\|)?/;

/** The sketcher is half a megabyte: it is loaded when it is first wanted. */
function toggleSketch() {
  const place = byId("sketch");
  if (!place.firstChild) place.append(el("iframe", { src: "/sketch", title: "Sketcher: draw a molecule" }));
  place.hidden = !place.hidden;
  byId("draw").setAttribute("aria-expanded", String(!place.hidden));
  if (!place.hidden) sendToSketch();
}

function sendToSketch() {
  const field = byId("smiles");
  field.value = field.value.trimStart();
  byId("sketch").firstChild.contentWindow.postMessage({ draw: DRAWN.exec(field.value)[1] }, location.origin);
}

async function start() {
  listen();
  try {
    Object.assign(info, await request("/api/info"));
  } catch (error) {
    say(error.message, true);
    return;
  }
  info.byName = new Map(info.tasks.map((task) => [task.name, task]));
  byId("pack").textContent = `pack ${info.pack}, ${info.tasks.length} ${info.tasks.length === 1 ? "task" : "tasks"}`;
  offerText();
  await followAddress();
  while (!info.ready) { // so that nobody wonders why the first answer takes a little
    await new Promise((done) => setTimeout(done, 400));
    try { info.ready = (await request("/api/info")).ready; } catch { return; }
  }
}

start();
