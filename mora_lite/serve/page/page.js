// The page as a whole: its start, its address, the form and the sketcher.
import { byId, el, say } from "./elements.js";
import { listenToForm } from "./form.js";
import { predictOne } from "./molecule.js";
import { begin, fail, forget, isLatest, reveal, revealAgain } from "./result.js";
import { info, request } from "./server.js";
import { isShown, predictTable, showTable } from "./table.js";
import { askAgain, offerText } from "./text.js";

/** Show what the address names. */
async function followAddress() {
  try {
    await showAddressed();
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    forget();
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
      const job = await request(`api/jobs/${encodeURIComponent(value)}`);
      if (!isLatest(number)) return;
      reveal("table", job.name);
      showTable(job);
    } catch (error) {
      if (isLatest(number)) fail(error.message);
    }
  } else {
    forget();
    reveal("start");
  }
}

function submit() {
  const text = byId("smiles").value.trim();
  if (!text) return say("type a SMILES first, or open a file", true);
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  if (lines.length === 1) predictOne(text);
  else predictTable(new Blob([`\ufeff${text}\n`]), "pasted.txt"); // with a mark of UTF-8, which a download keeps for Excel
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
  if (!place.firstChild) place.append(el("iframe", { src: "sketch", title: "Sketcher: draw a molecule" }));
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
    Object.assign(info, await request("api/info"));
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
    try { info.ready = (await request("api/info")).ready; } catch { return; }
  }
}

start();
