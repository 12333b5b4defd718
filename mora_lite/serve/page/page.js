// The form, and what the parts of the page share: requests, elements, numbers.
import { showMolecule } from "./molecule.js";
import { showTable } from "./table.js";
import { askAgain, offerText } from "./text.js";

export const byId = (id) => document.getElementById(id);

/** An element: attributes, "on..." listeners, then children; texts are text, never HTML. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A drawing that the server made, or the SMILES where there is none. */
export function drawing(svg, smiles) {
  if (!svg) return el("code", { class: "undrawn" }, smiles || "no structure");
  const parsed = new DOMParser().parseFromString(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'), "image/svg+xml");
  const picture = document.importNode(parsed.documentElement, true);
  picture.setAttribute("aria-label", `structure of ${smiles}`);
  return picture;
}

/** A number as people read it; decimals null: four significant digits. */
export function show(value, decimals = null) {
  if (value === null || value === undefined) return "–";
  if (value === "inf") return "∞";
  if (value === "-inf") return "−∞";
  if (typeof value !== "number") return String(value);
  let text = decimals === null ? String(Number(value.toPrecision(4))) : value.toFixed(decimals);
  if (Number(text) === 0) text = text.replace("-", "");
  return text.replace("-", "−");
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

export function say(text, isError = false) {
  const message = byId("message");
  message.textContent = text;
  message.classList.toggle("error", isError);
}

export const info = { tasks: [], byName: new Map() };
let asked = 0; // answers to earlier questions come too late
export const begin = () => ++asked;
export const isLatest = (number) => number === asked;

export function reveal(id) {
  for (const part of ["molecule", "table", "reaction", "start"]) byId(part).hidden = part !== id;
}

/** Show one molecule. keep: whether the address changes. */
export async function predictOne(smiles, keep = true) {
  const number = ++asked;
  if (keep) history.pushState(null, "", `#smiles=${encodeURIComponent(smiles)}`);
  say(info.ready ? "predicting …" : "loading the model …");
  try {
    const answer = await ask("/api/molecule", { smiles });
    if (number !== asked) return;
    info.ready = true;
    if (answer.status !== "ok") {
      say(`${answer.status}: ${answer.error}`, true);
      return;
    }
    say("");
    showMolecule(answer);
    reveal("molecule");
  } catch (error) {
    if (number === asked) say(error.message, true);
  }
}

export async function predictTable(body, name) {
  const number = ++asked;
  const most = info.limits ? info.limits.upload_bytes : Infinity;
  if (body.size > most) {
    say(`${name} has ${Math.ceil(body.size / 2 ** 20)} MiB, and at most ${most >> 20} are taken: give it in parts, or use mora-lite predict`, true);
    return;
  }
  say(`sending ${name} …`);
  try {
    const job = await request(`/api/jobs?name=${encodeURIComponent(name)}`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body,
    });
    if (number !== asked) return;
    history.pushState(null, "", `#table=${job.id}`);
    say("");
    showTable(job);
    reveal("table");
  } catch (error) {
    if (number === asked) say(error.message, true);
  }
}

async function followAddress() {
  const [kind, value] = location.hash.slice(1).split(/=(.*)/s);
  if (kind === "smiles" && value) {
    byId("smiles").value = decodeURIComponent(value);
    await predictOne(byId("smiles").value, false);
  } else if (kind === "ask" && value && info.text) {
    await askAgain(value);
  } else if (kind === "table" && value) {
    const number = ++asked;
    try {
      const job = await request(`/api/jobs/${encodeURIComponent(value)}`);
      if (number !== asked) return;
      showTable(job);
      reveal("table");
    } catch (error) {
      say(error.message, true);
      reveal("start");
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
  byId("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  byId("smiles").addEventListener("keydown", (event) => {
    const isMany = byId("smiles").value.includes("\n");
    if (event.key === "Enter" && !event.isComposing && (event.ctrlKey || event.metaKey || (!event.shiftKey && !isMany))) {
      event.preventDefault();
      submit();
    }
  });
  byId("open").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) predictTable(file, file.name);
    event.target.value = "";
  });
  byId("draw").addEventListener("click", toggleSketch);
  for (const button of document.querySelectorAll("[data-smiles]")) {
    button.addEventListener("click", () => { byId("smiles").value = button.dataset.smiles; submit(); });
  }
  window.addEventListener("popstate", followAddress);
  let depth = 0;
  const hasFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragenter", (event) => { if (hasFile(event)) { depth++; byId("drop").hidden = false; } });
  document.addEventListener("dragleave", (event) => { if (hasFile(event) && --depth <= 0) byId("drop").hidden = true; });
  document.addEventListener("dragover", (event) => { if (hasFile(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    depth = 0;
    byId("drop").hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) predictTable(file, file.name);
  });
  window.addEventListener("message", (event) => {
    const frame = document.querySelector("#sketch iframe");
    if (!frame || event.source !== frame.contentWindow || event.origin !== location.origin) return;
    if (!event.data) return;
    if (event.data.ready) sendToSketch();
    else if (typeof event.data.smiles === "string") byId("smiles").value = event.data.smiles;
  });
}

/** The sketcher is half a megabyte: it is loaded when it is first wanted. */
function toggleSketch() {
  const place = byId("sketch");
  if (!place.firstChild) place.append(el("iframe", { src: "/sketch", title: "Sketcher: draw a molecule" }));
  place.hidden = !place.hidden;
  byId("draw").setAttribute("aria-expanded", String(!place.hidden));
  if (!place.hidden) sendToSketch();
}

function sendToSketch() {
  byId("sketch").firstChild.contentWindow.postMessage({ draw: byId("smiles").value.trim().split(/\s/)[0] || "" }, location.origin);
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
