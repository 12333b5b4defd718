// What the server says: answers, what it knows of itself, drawings.
import { el } from "./elements.js";

export const info = { tasks: [], byName: new Map() };

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

/** A drawing that the server made, or the SMILES where there is none. */
export function drawing(svg, smiles) {
  if (!svg) return el("code", { class: "undrawn" }, smiles || "no structure");
  const parsed = new DOMParser().parseFromString(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'), "image/svg+xml");
  const picture = document.importNode(parsed.documentElement, true);
  picture.setAttribute("aria-label", `structure of ${smiles}`);
  return picture;
}
