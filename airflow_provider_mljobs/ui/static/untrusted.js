/**
 * Reads XComs of jobs and logs. They are untrusted: any part may be missing or of another type.
 */

/** @typedef {{phase: string, at: number, message: string}} Step a phase of a job; `at` in seconds since the epoch */
/** @typedef {{fraction: number | null, message: string}} Progress */
/** @typedef {{x: number, step: number | null, value: number}} Point `x` in seconds since the epoch */

/**
 * @param {unknown} value
 * @returns {Record<string, any>} the value if it is an object, else an empty one
 */
export function record(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

/**
 * @param {unknown} value
 * @returns {any[]} the value if it is a list, else an empty one
 */
export function list(value) {
  return Array.isArray(value) ? value : [];
}

/**
 * @param {unknown} value
 * @returns {string} a text, or a number as text; "" for anything else
 */
export function text(value) {
  if (typeof value === "string") return value;
  return typeof value === "number" && Number.isFinite(value) ? String(value) : "";
}

/**
 * @param {unknown} value
 * @returns {number | null} the value if it is a finite number
 */
export function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/**
 * @param {unknown} value an ISO 8601 text
 * @returns {number | null} seconds since the epoch
 */
export function moment(value) {
  const milliseconds = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return Number.isNaN(milliseconds) ? null : milliseconds / 1000;
}

/**
 * @param {unknown} value
 * @returns {string} the address if a browser may follow it (http or https), else ""
 */
export function webAddress(value) {
  if (typeof value !== "string" || !URL.canParse(value)) return "";
  return ["http:", "https:"].includes(new URL(value).protocol) ? value : "";
}

/**
 * @param {unknown} value
 * @returns {Step[]} in order of time; steps without a phase or a time are left out
 */
export function timeline(value) {
  return list(value)
    .map(record)
    .map((step) => ({ phase: text(step.phase), at: moment(step.at), message: text(step.message) }))
    .filter((step) => step.phase !== "" && step.at !== null)
    .sort((a, b) => a.at - b.at);
}

/**
 * @param {unknown} value
 * @returns {Progress | null} with a fraction between 0 and 1
 */
export function progress(value) {
  const { fraction, message } = record(value);
  const share = number(fraction);
  if (share === null && text(message) === "") return null;
  return { fraction: share === null ? null : Math.min(1, Math.max(0, share)), message: text(message) };
}

/**
 * @param {unknown} value
 * @returns {[string, number | null][]} names and numbers, in order of the names; null for a value reported as NaN
 */
export function metrics(value) {
  return Object.entries(record(value))
    .filter(([, measured]) => measured === null || number(measured) !== null)
    .sort(([a], [b]) => a.localeCompare(b));
}

/**
 * @param {unknown} value `{name: [[seconds, step or null, value], …]}`
 * @returns {[string, Point[]][]} names and their points, in order of the names; those without points are left out
 */
export function series(value) {
  return Object.entries(record(value))
    .map(([name, points]) => /** @type {[string, Point[]]} */ ([name, list(points).map(point).filter(Boolean)]))
    .filter(([, points]) => points.length > 0)
    .sort(([a], [b]) => a.localeCompare(b));
}

/**
 * @param {unknown} value
 * @returns {Point | null}
 */
function point(value) {
  const [at, step, measured] = list(value);
  if (number(at) === null || number(measured) === null) return null;
  return { x: at, step: number(step), value: measured };
}

/**
 * @param {unknown} value
 * @returns {string | null} the files that a reference names and their content; null for any other value
 */
export function stageReference(value) {
  const reference = record(value);
  if (!("__mljob_ref__" in reference)) return null;
  const about = [reference.type, reference.repr, reference.protocol].map(text).filter(Boolean).join(", ");
  const paths = list(reference.stage_paths).map(text).filter(Boolean).join(", ");
  return about === "" ? paths : `${paths} (${about})`;
}
