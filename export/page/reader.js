// The native reader as WebAssembly: from SMILES to graph codes, and how near a molecule is to those trained on.

const CODES = 10; // columns of atoms
const FINGERPRINT = 128, BITS = 8 * FINGERPRINT; // bytes and bits
const MEMORY_PAGE = 65536;

export class Reader {
  /** bytes: of reader.wasm. parent: whether the parent of a molecule is taken in its place. */
  static async load(bytes, parent) {
    const { instance } = await WebAssembly.instantiate(bytes, {});
    return new Reader(instance.exports, parent);
  }

  constructor(wasm, parent) {
    this.wasm = wasm;
    this.parent = parent ? 1 : 0;
    wasm.start();
    this.maxText = wasm.max_text();
    this.domain = null;
  }

  bytes(place, n) {
    return new Uint8Array(this.wasm.memory.buffer, place, n); // anew each time: a memory that grows leaves its buffer
  }

  /** The graph of a SMILES, or null where the reader is not certain: atoms [A, 10], bonds [B], ends [B, 2]. */
  read(text) {
    const { wasm } = this;
    if (text.length > this.maxText) return null;
    const place = this.bytes(wasm.text_place(), text.length);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code > 127) return null;
      place[i] = code;
    }
    if (!wasm.read_smiles(text.length, this.parent)) return null;
    const nAtoms = wasm.n_atoms(), nBonds = wasm.n_bonds();
    return {
      nAtoms,
      atoms: this.bytes(wasm.atoms_place(), nAtoms * CODES).slice(),
      bonds: this.bytes(wasm.bonds_place(), nBonds).slice(),
      ends: new Uint16Array(this.bytes(wasm.ends_place(), 4 * nBonds).slice().buffer),
      fingerprint: this.bytes(wasm.fingerprint_place(), FINGERPRINT).slice(),
    };
  }

  /** Keep a domain, made by `unpackDomain`, for `nearest`. */
  setDomain(domain, nTasks) {
    const { wasm } = this, { memory } = wasm;
    const parts = [domain.packed, domain.counts, domain.sizes, domain.patterns, new Float32Array(nTasks)];
    let end = wasm.__heap_base.value;
    const places = parts.map((part) => {
      const place = Math.ceil(end / 8) * 8;
      end = place + part.byteLength;
      return place;
    });
    const missing = Math.ceil((end - memory.buffer.byteLength) / MEMORY_PAGE);
    if (missing > 0) memory.grow(missing);
    parts.forEach((part, i) => this.bytes(places[i], part.byteLength).set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength)));
    this.domain = { places, nTasks, nPatterns: domain.sizes.length };
  }

  /** Similarity of the molecule that was read last to the nearest training molecule of each task: Float32Array. */
  nearest() {
    const { places: [rows, counts, sizes, patterns, nearest], nTasks, nPatterns } = this.domain;
    this.wasm.compare(rows, counts, sizes, nPatterns, patterns, nTasks, nearest);
    return new Float32Array(this.bytes(nearest, 4 * nTasks).slice().buffer);
  }
}

/** The domain in the bytes of domain.bin; described: its sizes. Its form is that of `Domain.tensors`, in Python. */
export async function unpackDomain(bytes, described, nTasks) {
  const { n_rows: nRows, n_patterns: nPatterns } = described;
  let at = 0;
  const take = (n) => bytes.slice(at, (at += n));
  const sizes = new Uint32Array(take(4 * nPatterns).buffer);
  const counts = new Uint16Array(take(2 * nRows).buffer);
  const patterns = take(nPatterns * Math.ceil(nTasks / 8));
  const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  const most = total(counts) + nRows * Math.floor(BITS / 255);
  const gaps = await inflate(bytes.slice(at), most);
  if (total(sizes) !== nRows) throw new Error(DAMAGED);
  const packed = new Uint8Array(nRows * FINGERPRINT);
  let next = 0;
  for (let row = 0; row < nRows; row++) {
    for (let i = 0, position = 0; i < counts[row]; i++) {
      while (gaps[next] === 255) position += gaps[next++];
      position += gaps[next++];
      if (!(position < BITS)) throw new Error(DAMAGED);
      packed[row * FINGERPRINT + (position >> 3)] |= 128 >> (position & 7);
    }
  }
  if (next !== gaps.length) throw new Error(DAMAGED);
  return { packed, counts, sizes, patterns };
}

const DAMAGED = "domain.bin is damaged: export the page again";

/** What zlib packed, if it is not longer than `most`. */
async function inflate(bytes, most) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const whole = new Uint8Array(most);
  let n = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => { throw new Error(DAMAGED); });
    if (done) return whole.subarray(0, n);
    if (n + value.length > most) throw new Error(DAMAGED);
    whole.set(value, n);
    n += value.length;
  }
}
