/**
 * The lines of a task's log, each with the instance of the job that printed it.
 */

import { list, record, text } from "./untrusted.js";

/** @typedef {{text: string, instance: number | null, isJobs: boolean, isProblem: boolean}} LogLine */

/** How many lines are shown. */
export const MAX_LINES = 500;

const HEADER = /^Log of job [^\n]*:\n/;
const LABEL = /^\[instance (\d+)(?:, [^\]]*)?\] /;
const PROBLEMS = ["warning", "error", "critical"];
const GROUP = /^::(end)?group::/;

/**
 * @param {unknown} content of an answer of Airflow's log route: records, or texts that could not be parsed
 * @returns {LogLine[]} without Airflow's own lines about the log's location
 */
export function logLines(content) {
  const lines = [];
  let isInSources = false;
  for (const entry of list(content)) {
    const event = typeof entry === "string" ? entry : text(record(entry).event);
    if (GROUP.test(event)) {
      isInSources = event.startsWith("::group::Log message source");
    } else if (!isInSources) {
      lines.push(...linesOf([event, ...errorsOf(entry)].join("\n"), PROBLEMS.includes(record(entry).level)));
    }
  }
  return lines;
}

/** The errors that Airflow attaches to an event. */
function errorsOf(entry) {
  const errors = list(record(entry).error_detail).map(record);
  return errors.map((error) => `${text(error.exc_type)}: ${text(error.exc_value)}`);
}

/**
 * @param {string} event
 * @param {boolean} isProblem
 * @returns {LogLine[]}
 */
function linesOf(event, isProblem) {
  const isJobs = HEADER.test(event);
  return event
    .replace(HEADER, "")
    .split("\n")
    .map((line) => ({ text: line, instance: isJobs ? instanceOf(line) : null, isJobs, isProblem }));
}

/**
 * @param {string} line
 * @returns {number | null} the instance that printed it; null if there is only one
 */
export function instanceOf(line) {
  const label = LABEL.exec(line);
  return label === null ? null : Number(label[1]);
}

/**
 * @param {LogLine[]} lines
 * @returns {number[]} the instances with output
 */
export function instancesOf(lines) {
  const seen = new Set(lines.map((line) => line.instance).filter((instance) => instance !== null));
  return [...seen].sort((a, b) => a - b);
}

/**
 * @param {LogLine[]} lines
 * @param {string} choice "job", "all", or the number of an instance
 * @returns {LogLine[]} the last lines of that choice; of one instance without its label
 */
export function chosenLines(lines, choice) {
  const chosen = lines.filter(
    (line) => choice === "all" || (choice === "job" ? line.isJobs : String(line.instance) === choice),
  );
  const last = chosen.slice(-MAX_LINES);
  return /^\d+$/.test(choice) ? last.map((line) => ({ ...line, text: line.text.replace(LABEL, "") })) : last;
}
