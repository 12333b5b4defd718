// What the model says, in the tasks' units and with what is known of its errors: as scoring/predictor.py does.

export const UNREAD = 0, READ = 1, NOT_FINITE = 2; // states of a row

/** A value on the task's scale -> in its unit. */
export function inUnit(value, scale) {
  if (scale === "log") return 10 ** value;
  if (scale === "logit") return 100 / (1 + Math.exp(-value));
  return value;
}

// The log-odds of 99.7 %, as which more is learnt: an interval that reaches it reaches 100 %, as Task.open_ends has it.
const MOST = Math.log(99.7 / 0.3);

/** Linear between the points, constant beyond them, as NumPy's `interp`. x ascends. */
export function interpolate(at, x, y) {
  const i = upper(at, x);
  if (i === 0) return Number.isNaN(at) ? NaN : y[0];
  if (i === x.length) return y[i - 1];
  return y[i - 1] + ((at - x[i - 1]) * (y[i] - y[i - 1])) / (x[i] - x[i - 1]);
}

/** How many of `x` are at most `at`. */
function upper(at, x) {
  let low = 0, high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Half the width of a task's interval, on its scale; interval.score null: too few molecules to tell. */
export function halfWidth(interval, similarity) {
  const sigma = Math.exp(interpolate(similarity, interval.similarity, interval.log_sigma));
  return Math.max(interval.score === null ? Infinity : sigma * interval.score, interval.floor);
}

export const probability = ([slope, intercept], logit) => 1 / (1 + Math.exp(-(slope * logit + intercept)));

/**
 * Answers to one molecule, written at `row` of the arrays `out` (values, low, high: float32, inside: uint8, [N, P];
 * similarity: float32 [N]; state: uint8 [N]).
 * raw: the model's numbers [P]. nearest: similarity for each task, or null for a pack that was not calibrated.
 */
export function answer(raw, nearest, tasks, out, row) {
  let similarity = nearest ? 1 : NaN;
  tasks.forEach((task, i) => {
    const at = row * tasks.length + i, value = raw[i];
    const isClass = task.kind === "class";
    out.values[at] = isClass ? probability(task.platt || [1, 0], value) : inUnit(value, task.scale);
    out.low[at] = out.high[at] = NaN;
    if (!nearest) return;
    similarity = Math.min(similarity, nearest[i]);
    out.inside[at] = nearest[i] >= Math.fround(task.threshold) ? 1 : 0;
    if (isClass) return;
    const half = Math.fround(halfWidth(task.interval, nearest[i])), open = task.scale === "logit";
    const low = Math.fround(value - half), high = Math.fround(value + half);
    out.low[at] = inUnit(open && low <= -MOST ? -Infinity : low, task.scale);
    out.high[at] = inUnit(open && high >= MOST ? Infinity : high, task.scale);
  });
  out.similarity[row] = similarity;
  const first = row * tasks.length;
  if (out.values.subarray(first, first + tasks.length).every(Number.isFinite)) return;
  out.state[row] = NOT_FINITE;
  for (const numbers of [out.values, out.low, out.high]) numbers.fill(NaN, first, first + tasks.length);
}

export const emptyAnswers = (n, nTasks) => ({
  values: new Float32Array(n * nTasks).fill(NaN), low: new Float32Array(n * nTasks).fill(NaN), high: new Float32Array(n * nTasks).fill(NaN),
  inside: new Uint8Array(n * nTasks), similarity: new Float32Array(n).fill(NaN), state: new Uint8Array(n),
});

/** The share of approved drugs with a lower value, in percent. known: 0th to 100th percentile of their values. */
export const percentile = (value, known) => interpolate(value, known, PERCENTS);

const PERCENTS = Array.from({ length: 101 }, (_, i) => i);

/** Where a value lies within three deviations of the training molecules' mean: 0 to 1. */
export function place(value, task) {
  if (task.kind === "class") return value;
  let at = value;
  if (task.scale === "log") at = Math.log10(value);
  if (task.scale === "logit") at = Math.log(value / (100 - value));
  if (Number.isNaN(at)) return 0;
  return Math.min(1, Math.max(0, (at - task.mean) / task.deviation / 6 + 0.5));
}
