// The answer that stands on the page, to the latest question, or why there is none.
import { byId, say } from "./elements.js";

let asked = 0; // answers to earlier questions come too late
export const isLatest = (number) => number === asked;

/** No answer is waited for any more. */
export const forget = () => { asked++; };

/** The number of a question, which ends in `reveal` or `fail`; what is shown until then is the answer to another. */
export function begin() {
  byId("result").classList.add("stale");
  return ++asked;
}

/** Show this part of the page. title: what it is about, for the browser's tab and history. */
export function reveal(id, title = "") {
  document.title = title ? `${title} – mora-lite` : "mora-lite";
  for (const part of ["molecule", "table", "reaction", "start"]) byId(part).hidden = part !== id;
  byId("result").classList.remove("stale");
}

/** What is on the page still need not be asked for again. */
export function revealAgain(id) {
  say("");
  reveal(id, byId(`${id}-title`).textContent);
}

/** Say why there is no answer; what stood there was the answer to something else. */
export function fail(why) {
  say(why, true);
  reveal("start");
}
