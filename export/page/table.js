// Tables and lists of molecules as text: read, and written with what was predicted for them.
import { NOT_FINITE, UNREAD } from "./scores.js";

const DELIMITERS = [",", "\t", ";"];
// Names of SMILES columns, letters and digits only, in order of preference: those of tables/columns.py.
const NAMES = ["smiles", "canonicalsmiles", "isosmiles", "isomericsmiles", "cansmiles", "standardsmiles", "rdkitsmiles", "smilesstring", "smi", "smile"];
const DIGITS = 6; // significant, of numbers in the download

export const OK = "ok";
export const MOST_ROWS = 100000, MOST_BYTES = 50 * 2 ** 20;

/**
 * The table in a text: columns, rows of cells, smilesIndex, and of each row the SMILES and its fault ("": none).
 * name: of the file; empty for what was pasted. Throws an error with words for the user.
 */
export function readTable(text, name) {
  let bare = text.replace(/^\uFEFF/, "");
  const said = bare.match(/^"?sep=(.)"?\r?\n/i); // as spreadsheets write it
  if (said) bare = bare.slice(said[0].length);
  const start = bare.slice(0, bare.search(/[\r\n]|$/));
  const isList = /\.(smi|ism|smiles|cxsmiles)$/i.test(name);
  const delimiter = isList ? null : said ? said[1] : delimiterOf(start, /\.(csv|tsv|tab)$/i.test(name));
  const table = delimiter ? readCells(bare, delimiter, name) : readList(bare);
  if (table.rows.length > MOST_ROWS) {
    throw new Error(`${table.rows.length.toLocaleString("en")} rows, and at most ${MOST_ROWS.toLocaleString("en")} are taken here: give them in parts, or use mora-lite predict`);
  }
  return table;
}

const plain = (name) => name.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");

/** What parts the cells of a table, by its first line; null for a list. isTable: whether it says so itself. */
function delimiterOf(line, isTable) {
  const named = DELIMITERS.find((mark) => line.includes(mark) && line.split(mark).some((cell) => plain(cell).includes("smiles") || NAMES.includes(plain(cell))));
  if (named || !isTable) return named || null;
  const counts = DELIMITERS.map((mark) => line.split(mark).length - 1), most = Math.max(...counts);
  return most ? DELIMITERS[counts.indexOf(most)] : null;
}

/** A SMILES, perhaps the extension of a CXSMILES, and a name on each line. */
function readList(text) {
  const lines = text.split(/\r\n|\n|\r/);
  while (lines.length && !lines[0].trim()) lines.shift();
  while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
  if (lines.length && lines[0].trim().split(/\s+/)[0].toLowerCase().includes("smiles")) lines.shift();
  const rows = lines.map((line) => {
    const [, smiles, rest] = line.trim().match(/^(\S*)\s*([^]*)$/);
    const extension = rest.match(/^\|[^|]*\|/);
    return extension ? [`${smiles} ${extension[0]}`, rest.slice(extension[0].length).trim()] : [smiles, rest];
  });
  return { columns: ["smiles", "name"], rows, smilesIndex: 0, delimiter: ",", smiles: rows.map(([smiles]) => smiles), faults: rows.map(() => "") };
}

function readCells(text, delimiter, name) {
  const records = parseDelimited(text, delimiter).filter((cells) => cells.length > 1 || cells[0].trim());
  const columns = records.shift() || [];
  const smilesIndex = smilesColumn(columns, name);
  const faults = records.map((cells) => (cells.length > columns.length ? "the record has too many cells" : ""));
  const rows = records.map((cells) => columns.map((_, i) => cells[i] ?? ""));
  return { columns, rows, smilesIndex, delimiter, smiles: rows.map((cells, i) => (faults[i] ? "" : cells[smilesIndex].trim())), faults };
}

function smilesColumn(columns, name) {
  const names = columns.map(plain);
  const known = NAMES.map((one) => names.indexOf(one)).find((i) => i >= 0);
  if (known !== undefined) return known;
  const some = names.flatMap((one, i) => (one.includes("smiles") ? [i] : []));
  if (some.length === 1) return some[0];
  const shown = columns.slice(0, 8).map((column) => `“${column.slice(0, 40)}”`).join(", ");
  throw new Error(`${name || "the table"}: ${some.length ? "several columns are called SMILES" : "no column is called SMILES"} among ${shown}; rename the one to read to smiles`);
}

/** Records of cells; a quote that is never closed stands as it is, in its line. */
export function parseDelimited(text, delimiter) {
  const records = [];
  let at = 0;
  while (at < text.length) {
    const record = [];
    const end = oneRecord(text, at, delimiter, record);
    records.push(record);
    at = end;
  }
  return records;
}

function oneRecord(text, start, delimiter, record) {
  let at = start;
  for (;;) {
    let cell = "";
    if (text[at] === '"') {
      const closed = quoted(text, at);
      const follows = closed ? text[closed.end] : "";
      if (!closed || !(follows === undefined || follows === delimiter || follows === "\n" || follows === "\r")) return plainLine(text, start, delimiter, record);
      cell = closed.cell;
      at = closed.end;
    } else {
      const from = at;
      while (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at++;
      cell = text.slice(from, at);
    }
    record.push(cell);
    if (text[at] === delimiter) at++;
    else return lineEnd(text, at);
  }
}

const lineEnd = (text, at) => at + (text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1);

/** The cell that begins with the quote at `at`, and where it ends; null where it does not, in 1 MiB. */
function quoted(text, at) {
  let cell = "", from = at + 1;
  for (;;) {
    const end = text.indexOf('"', from);
    if (end < 0 || end - at > 2 ** 20) return null;
    cell += text.slice(from, end);
    if (text[end + 1] !== '"') return { cell, end: end + 1 };
    cell += '"';
    from = end + 2;
  }
}

function plainLine(text, start, delimiter, record) {
  const breaks = /[\r\n]/g;
  breaks.lastIndex = start;
  const end = breaks.exec(text)?.index ?? text.length;
  record.length = 0;
  record.push(...text.slice(start, end).split(delimiter));
  return lineEnd(text, end);
}

/** Status and error of a row, in the words of mora-lite predict but for what the page cannot read. */
export function statusOf(table, state, row) {
  if (table.faults[row]) return ["malformed", table.faults[row]];
  if (!table.smiles[row]) return ["empty", "no SMILES in this row"];
  if (state === UNREAD) return ["not_read", "not read here: needs the installed program, or is no valid SMILES"];
  if (state === NOT_FINITE) return ["not_finite", "the model's value is not a finite number"];
  return [OK, ""];
}

/** The input's columns and those of `mora-lite predict`, as pieces of a CSV. */
export function* csvPieces(table, answers, tasks, isCalibrated) {
  const delimiter = table.delimiter.replace("\t", ","); // spreadsheets look for no tabs in a .csv, and want a mark of UTF-8
  if ([table.columns, ...table.rows].some((cells) => cells.some((cell) => /[^\0-\x7f]/.test(cell)))) yield "\ufeff";
  const line = (cells) => `${cells.map((cell) => quote(cell, delimiter)).join(delimiter)}\r\n`;
  const added = tasks.flatMap((task) => [task.column, ...(isCalibrated && task.kind !== "class" ? [`${task.name}_lo`, `${task.name}_hi`] : [])]);
  yield line(withNames(table.columns, [...added, ...(isCalibrated ? ["similarity", "in_domain", "outside"] : []), "status", "error"]));
  const width = added.length + (isCalibrated ? 3 : 0);
  for (let row = 0; row < table.rows.length; row++) {
    const [status, error] = statusOf(table, answers.state[row], row);
    const cells = status === OK ? answered(answers, row, tasks, isCalibrated) : new Array(width).fill("");
    yield line([...table.rows[row], ...cells, status, error]);
  }
}

function answered(answers, row, tasks, isCalibrated) {
  const outside = [];
  const cells = tasks.flatMap((task, i) => {
    const at = row * tasks.length + i;
    if (!answers.inside[at]) outside.push(task.name);
    return [digits(answers.values[at]), ...(isCalibrated && task.kind !== "class" ? [digits(answers.low[at]), digits(answers.high[at])] : [])];
  });
  return isCalibrated ? [...cells, digits(answers.similarity[row]), String(!outside.length), outside.join(" ")] : cells;
}

function digits(value) {
  if (Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  return String(Number(value.toPrecision(DIGITS)));
}

const quote = (cell, delimiter) => (/["\r\n]/.test(cell) || cell.includes(delimiter) ? `"${cell.replaceAll('"', '""')}"` : cell);

/** `added` behind `columns`; a name that is taken gets "(mora-lite)", then "(mora-lite 2)". */
function withNames(columns, added) {
  const all = [...columns];
  for (const name of added) {
    let free = name;
    for (let n = 1; all.includes(free); n++) free = `${name} (mora-lite${n > 1 ? ` ${n}` : ""})`;
    all.push(free);
  }
  return all;
}
