/**
 * The numbers of charts: reported metrics, measurements of containers, and runs of a task.
 */

import { formatDuration, formatMeasure, formatNumber, isBytes } from "./format.js";
import { isWaitedFor } from "./phases.js";
import * as read from "./untrusted.js";

/** @typedef {import("./chart.js").Plot} Plot */

/**
 * @param {string} name of a metric
 * @param {import("./untrusted.js").Point[]} points in the order of the reports
 * @param {number | null} start when the job began, in seconds since the epoch
 * @returns {Plot} over the steps, if all points have one and they ascend; else over time
 */
export function metricPlot(name, points, start) {
  const hasSteps = points.every(({ step }, at) => step !== null && (at === 0 || step > points[at - 1].step));
  const lines = (ordered) => [{ label: name, values: ordered.map(({ value }) => value) }];
  if (hasSteps) {
    return {
      x: points.map(({ step }) => step),
      lines: lines(points),
      xLabel: "step",
      xText: formatNumber,
      isWhole: true,
    };
  }
  const ordered = [...points].sort((a, b) => a.x - b.x);
  return {
    ...overTime(
      ordered.map(({ x }) => x),
      start,
    ),
    lines: lines(ordered),
  };
}

/**
 * @param {unknown} usage an answer's measurements
 * @returns {{title: string, plot: Plot}[]} a chart for each kind of measurement, with a line for each container, and its
 *   limit
 */
export function usagePlots(usage) {
  const measured = read
    .list(usage)
    .map(measurement)
    .filter(({ metric, points }) => metric !== "" && points.size > 0);
  const kinds = new Map();
  for (const one of measured.filter(({ metric }) => !LIMITS.has(metric))) {
    const key = JSON.stringify([one.metric, one.unit]);
    kinds.set(key, [...(kinds.get(key) ?? []), one]);
  }
  return [...kinds.values()].map((containers) => {
    const [{ metric, unit }] = containers;
    const limits = limitsOf(measured.filter((one) => LIMITS.get(one.metric) === metric && one.unit === unit));
    const all = [...containers, ...limits];
    const moments = [...new Set(all.flatMap(({ points }) => [...points.keys()]))].sort((a, b) => a - b);
    const lines = all.map(({ label, points }) => ({ label, values: moments.map((at) => points.get(at) ?? null) }));
    const yText = (value) => formatMeasure(value, unit);
    return {
      title: titleOf(metric),
      plot: { ...overTime(moments, null), lines, yText, yUnit: isBytes(unit) ? "bytes" : undefined },
    };
  });
}

// Limits, by the measurement that they limit.
const LIMITS = new Map([
  ["container.cpu.limit", "container.cpu.usage"],
  ["container.memory.limit", "container.memory.usage"],
  ["container.gpu.memory.capacity", "container.gpu.memory.usage"],
]);

/** One line for limits that are the same in all containers. */
function limitsOf(limits) {
  const values = new Set(limits.flatMap(({ points }) => [...points.values()]));
  if (values.size !== 1) return limits.map((one) => ({ ...one, label: `${one.label}, limit` }));
  return [{ label: "limit", points: new Map(limits.flatMap(({ points }) => [...points])) }];
}

function measurement(value) {
  const { metric, unit, instance, container, points } = read.record(value);
  const pairs = read.list(points).filter((pair) => read.number(pair?.[0]) !== null && read.number(pair[1]) !== null);
  const name = read.text(container);
  const label = `instance ${read.number(instance) ?? 0}${name === "" || name === "main" ? "" : `, ${name}`}`;
  return { metric: read.text(metric), unit: read.text(unit), label, points: new Map(pairs) };
}

const TITLES = new Map([
  ["container.cpu.usage", "CPU"],
  ["container.memory.usage", "Memory"],
  ["container.gpu.utilization", "GPU"],
  ["container.gpu.memory.usage", "GPU memory"],
]);

function titleOf(metric) {
  return TITLES.get(metric) ?? metric.replace(/^container\./, "").replaceAll(/[._]/g, " ");
}

/**
 * @param {number[]} moments in seconds since the epoch
 * @param {number | null} start default: the first of them
 * @returns {Pick<Plot, "x" | "xLabel" | "xText" | "isTime">} the time since the start
 */
function overTime(moments, start) {
  const zero = Math.min(start ?? moments[0], moments[0]);
  return { x: moments.map((at) => at - zero), xLabel: "time", xText: formatDuration, isTime: true };
}

/**
 * @param {string} name of the line
 * @param {import("./jobs.js").Job[]} jobs of one task, oldest first
 * @param {(job: import("./jobs.js").Job) => number | null} pick the number of a job
 * @param {(moment: number | null) => string} timeText
 * @param {"seconds"} [yUnit] of the number; default: plain
 * @returns {Plot} over the task's runs, with a line for each map index
 */
export function runsPlot(name, jobs, pick, timeText, yUnit) {
  const runs = [...new Map(jobs.map((job) => [job.key.runId, job.runAfter])).entries()];
  const labels = [...new Set(jobs.map((job) => job.mapLabel))];
  const lines = labels.map((label) => {
    const values = new Map(jobs.filter((job) => job.mapLabel === label).map((job) => [job.key.runId, pick(job)]));
    return { label: label || name, values: runs.map(([runId]) => values.get(runId) ?? null) };
  });
  const x = runs.map((_, run) => run);
  const yText = yUnit === "seconds" ? formatDuration : undefined;
  return {
    x,
    lines,
    xLabel: "run",
    xText: (run) => (runs[run] ? timeText(runs[run][1]) : ""),
    yText,
    yUnit,
    isWhole: true,
  };
}

/**
 * @param {import("./jobs.js").Job[]} jobs of one task
 * @returns {import("./jobs.js").Job[]} those whose numbers are final, or all if none is
 */
export function comparable(jobs) {
  const final = jobs.filter(({ state, endDate }) => !isWaitedFor(state, endDate));
  return final.length > 0 ? final : jobs;
}

/**
 * @param {import("./jobs.js").Job[]} jobs of one task, oldest first
 * @returns {{name: string, mapLabel: string, newest: number | null, previous: number | null}[]} each metric's last two values
 */
export function lastTwo(jobs) {
  const pairs = new Map();
  for (const { mapLabel, metrics } of jobs) {
    for (const [name, value] of metrics) {
      const key = JSON.stringify([name, mapLabel]);
      pairs.set(key, { name, mapLabel, newest: value, previous: pairs.get(key)?.newest ?? null });
    }
  }
  return [...pairs.values()].sort((a, b) => a.name.localeCompare(b.name));
}
