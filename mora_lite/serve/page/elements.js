// What every page is made of: elements, numbers, the line of words. Also of the page that `export --web` writes.

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

/** A number as people read it, infinite ones also as the server writes them; decimals null: four significant digits. */
export function show(value, decimals = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === "inf" || value === Infinity) return "∞";
  if (value === "-inf" || value === -Infinity) return "−∞";
  if (typeof value !== "number") return String(value);
  let text = decimals === null ? String(Number(value.toPrecision(4))) : value.toFixed(decimals);
  if (Number(text) === 0) text = text.replace("-", "");
  return text.replace("-", "−");
}

export const count = (n) => n.toLocaleString("en");

export function say(text, isError = false) {
  const message = byId("message");
  message.textContent = text;
  message.classList.toggle("error", isError);
}
