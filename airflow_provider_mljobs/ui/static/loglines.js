/**
 * A task's log as lines, each with the instance of the job that it comes from.
 */

import { list, record, text } from "./facts.js";

/** @typedef {{text: string, instance: number | null, isJobs: boolean, isProblem: boolean}} LogLine */

/** How many of the last lines are kept. */
export const KEPT_LINES = 500;

const HEADER = /^Log of job [^\n]*:\n/;
const LABEL = /^\[instance (\d+)(?:, [^\]]*)?\] /;
const PROBLEMS = ["warning", "error", "critical"];
const GROUP = /^::(end)?group::/;

/**
 * @param {unknown} content of an answer of Airflow's log route: records, or texts that could not be parsed
 * @returns {LogLine[]} without Airflow's own lines on where the log is
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

/** The errors that Airflow has put beside an event. */
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
 * @returns {number | null} the instance that has printed it; null if there is only one
 */
export function instanceOf(line) {
  const label = LABEL.exec(line);
  return label === null ? null : Number(label[1]);
}

/**
 * @param {LogLine[]} lines
 * @returns {number[]} the instances that have printed something
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
  const last = chosen.slice(-KEPT_LINES);
  return /^\d+$/.test(choice) ? last.map((line) => ({ ...line, text: line.text.replace(LABEL, "") })) : last;
}
