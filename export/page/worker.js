// The model, in a thread of its own: SMILES in, arrays of answers out.
import * as ort from "./runtime/ort.js";
import { Reader, unpackDomain } from "./reader.js";
import { answer, emptyAnswers, READ } from "./scores.js";

const WINDOW = 1024; // rows that are read before they are scored, so that a batch has molecules of one size
const MAX_BATCH = 64, MAX_PAIRS = 4096; // molecules, and molecules times tasks
const CODES = 10;

let site = null, reader = null, session = null;
let current = 0; // the last question; earlier ones stop
let fault = ""; // why there is no model

/** A file of the folder, of the size and the SHA-256 that site.json says. */
async function get(name, onBytes) {
  const entry = site.files[name];
  let response;
  try {
    response = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
  } catch {
    throw new Error(`${name} cannot be fetched: is the web server still there?`);
  }
  if (!response.ok) throw new Error(`${name}: the web server answered ${response.status}; copy the whole folder again`);
  const bytes = new Uint8Array(entry.bytes), damaged = new Error(`${name} is not the one of this page: copy the whole folder again, then reload`);
  let n = 0;
  for (const stream = response.body.getReader(); ;) {
    const { done, value } = await stream.read();
    if (done) break;
    if (n + value.length > bytes.length) throw damaged;
    bytes.set(value, n);
    n += value.length;
    onBytes(value.length);
  }
  if (n !== bytes.length) throw damaged;
  if (self.crypto.subtle) { // not for pages that come by http from another computer
    const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", bytes));
    if ([...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== entry.sha256) throw damaged;
  }
  return bytes;
}

async function start(described) {
  site = described;
  const names = ["runtime/ort.wasm", site.model, "reader.wasm", ...(site.domain ? [site.domain.file] : [])];
  const total = names.reduce((sum, name) => sum + site.files[name].bytes, 0);
  let loaded = 0;
  const onBytes = (n) => postMessage({ kind: "loading", share: (loaded += n) / total });
  const [runtime, model, wasm, domain] = await Promise.all(names.map((name) => get(name, onBytes)));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: runtime.buffer });
  reader = await Reader.load(wasm, site.standardize === "parent");
  if (domain) reader.setDomain(await unpackDomain(domain, site.domain, site.tasks.length), site.tasks.length);
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], enableMemPattern: false });
  postMessage({ kind: "ready" });
}

/** int64 tensor of small numbers that are not negative. */
function int64(numbers, dims) {
  const data = new BigInt64Array(numbers.length), halves = new Int32Array(data.buffer);
  for (let i = 0; i < numbers.length; i++) halves[2 * i] = numbers[i]; // the lower half comes first on every processor that has WebAssembly
  return new ort.Tensor("int64", data, dims);
}

/** Graphs as one batch: the inputs that docs/onnx.md describes. */
function inputs(graphs) {
  const nAtoms = graphs.reduce((sum, graph) => sum + graph.nAtoms, 0);
  const nBonds = graphs.reduce((sum, graph) => sum + graph.bonds.length, 0);
  const atoms = new Uint8Array(nAtoms * CODES), owner = new Int32Array(nAtoms), bonds = new Uint8Array(2 * nBonds), ends = new Int32Array(4 * nBonds);
  let atom = 0, edge = 0;
  graphs.forEach((graph, g) => {
    atoms.set(graph.atoms, atom * CODES);
    owner.fill(g, atom, atom + graph.nAtoms);
    graph.bonds.forEach((code, k) => {
      const a = graph.ends[2 * k] + atom, b = graph.ends[2 * k + 1] + atom;
      for (const [from, to] of [[a, b], [b, a]]) {
        ends[edge] = from;
        ends[2 * nBonds + edge] = to;
        bonds[edge++] = code;
      }
    });
    atom += graph.nAtoms;
  });
  return {
    atom_codes: int64(atoms, [nAtoms, CODES]), edge_index: int64(ends, [2, 2 * nBonds]), bond_codes: int64(bonds, [2 * nBonds]),
    graph_index: int64(owner, [nAtoms]), task_index: int64(site.tasks.map((_, i) => i), [site.tasks.length]),
  };
}

const others = () => new Promise((done) => setTimeout(done)); // let a message come in

/** Answer texts window by window; each is posted when it is finished. */
async function predict(id, texts) {
  if (!session) throw new Error(fault);
  const nTasks = site.tasks.length, size = Math.max(1, Math.min(MAX_BATCH, Math.floor(MAX_PAIRS / nTasks)));
  for (let first = 0; first < texts.length; first += WINDOW) {
    const window = texts.slice(first, first + WINDOW), out = emptyAnswers(window.length, nTasks);
    const read = [];
    window.forEach((text, row) => {
      const graph = text ? reader.read(text) : null;
      if (!graph) return;
      out.state[row] = READ;
      read.push({ row, graph, nearest: site.domain ? reader.nearest() : null });
    });
    read.sort((one, other) => one.graph.nAtoms - other.graph.nAtoms);
    for (let i = 0; i < read.length; i += size) {
      const batch = read.slice(i, i + size);
      const { values } = await session.run(inputs(batch.map(({ graph }) => graph)));
      batch.forEach(({ row, nearest }, k) => answer(values.data.subarray(k * nTasks, (k + 1) * nTasks), nearest, site.tasks, out, row));
      await others();
      if (current !== id) return;
      if (i + size < read.length) postMessage({ kind: "progress", id, n: first + Math.floor(window.length * (i + size) / read.length) });
    }
    postMessage({ kind: "window", id, first, out }, Object.values(out).map((array) => array.buffer));
    await others();
    if (current !== id) return;
  }
  postMessage({ kind: "done", id });
}

let work = Promise.resolve(); // one after the other: the session takes one batch at a time

onmessage = ({ data }) => {
  if (data.kind === "predict" || data.kind === "stop") current = data.id;
  if (data.kind === "stop") return;
  const todo = data.kind === "start" ? () => start(data.site).catch((error) => { fault = error.message || String(error); throw error; }) : () => (current === data.id ? predict(data.id, data.texts) : null);
  work = work.then(todo).catch((error) => postMessage({ kind: "failed", id: data.id, words: error.message || String(error) }));
};
