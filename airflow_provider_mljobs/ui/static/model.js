/**
 * The view of a task: the metrics, queue and run times of its jobs over the runs.
 */

import { get } from "./api.js";
import { Chart, Charts } from "./chart.js";
import { formatDifference, formatDuration, formatMetric, formatNumber, formatTime, mappedName } from "./format.js";
import { timeZone, useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { jobOf } from "./jobs.js";
import { Answered, Choice, Empty, PageLink, PlainTable, Section, StateBadge, Time } from "./parts.js";
import { comparable, lastTwo, runsPlot } from "./plots.js";
import * as read from "./untrusted.js";
import { dagPage, jobPage, runsRoute } from "./urls.js";

const { Box, Flex, Stack, Text } = ChakraUI;
const { useState } = React;

const LIMITS = [10, 30, 100].map((count) => [String(count), `Last ${count} runs`]);
// More lines in a chart can't be told apart.
const MAX_LINES = 8;
// A task whose metrics have other names in each run would have thousands.
const MAX_METRICS = 50;

/** @param {{dagId: string, taskId: string}} props */
export function ModelView({ dagId, taskId }) {
  const [limit, setLimit] = useState("30");
  const [mapLabel, setMapLabel] = useState(null);
  const route = runsRoute(dagId, taskId, Number(limit));
  const answer = useAnswer(route, (signal) => get(route, signal));
  const jobs = read.list(read.record(answer.data).runs).map(jobOf);
  const labels = [...new Set(jobs.map((job) => job.mapLabel))];
  const chosen = mapLabel ?? (labels.length > MAX_LINES ? labels[0] : "");
  const selected = chosen === "" ? jobs : jobs.filter((job) => job.mapLabel === chosen);
  const most = read.number(read.record(answer.data).map_indexes) ?? Number.POSITIVE_INFINITY;
  const maps = [["", "All map indexes"], ...labels.map((label) => [label, label])];
  const mapped = { label: "Map index", value: chosen, options: maps, onChange: setMapLabel, testId: "map-index" };
  const runs = { label: "How many runs", value: limit, options: LIMITS, onChange: setLimit, testId: "runs" };
  return html`
    <${Box} data-testid="model-view" aria-busy=${answer.isStale}>
      <${Flex} align="center" gap=${3} mb=${4} wrap="wrap">
        <${Text} fontSize="sm" color="fg.muted" flex="1" minW="200px">
          Task ${taskId} of <${PageLink} to=${dagPage(dagId)} variant="underline">${dagId}<//>
        <//>
        ${labels.length > 1 && html`<${Choice} width="180px" ...${mapped} />`}
        <${Choice} width="160px" ...${runs} />
      <//>
      ${labels.length >= most && html`<${Text} fontSize="sm" mb=${3}>Showing the first ${most} map indexes of each run.<//>`}
      <${Answered} answer=${answer}>${() => html`<${Runs} jobs=${selected} isStale=${answer.isStale} />`}<//>
    <//>`;
}

function Runs({ jobs, isStale }) {
  if (jobs.length === 0) {
    return html`
      <${Empty} title="No ML jobs yet">
        Metrics appear here after the first run of this task.
      <//>`;
  }
  const final = comparable(jobs);
  const all = [...new Set(final.flatMap(({ metrics }) => metrics.map(([name]) => name)))].sort();
  const names = all.slice(0, MAX_METRICS);
  const hidden = all.length - names.length;
  const time = { yUnit: "seconds", testId: "time-chart" };
  const chart = (name) =>
    html`<${RunsChart} key=${name} title=${name} jobs=${final} pick=${metricOf(name)} testId="metric-chart" />`;
  return html`
    <${Stack} gap=${4} opacity=${isStale ? 0.6 : 1}>
      <${Comparison} jobs=${final} />
      ${names.length > 0 && html`<${Section} title="Metrics by run"><${Charts}>${names.map(chart)}<//><//>`}
      ${hidden > 0 && html`<${Text} fontSize="sm">${hidden} more metrics: open a job to see them.<//>`}
      <${Section} title="Duration by run">
        <${Charts}>
          <${RunsChart} title="Ran" jobs=${final} pick=${(job) => job.runSeconds} ...${time} />
          <${RunsChart} title="Queued" jobs=${final} pick=${(job) => job.queuedSeconds} ...${time} />
        <//>
      <//>
      <${RunsTable} jobs=${jobs} names=${names} />
    <//>`;
}

function metricOf(name) {
  return (job) => job.metrics.find(([metric]) => metric === name)?.[1];
}

function RunsChart({ title, jobs, pick, yUnit, testId }) {
  return html`<${Chart} title=${title} plot=${runsPlot(title, jobs, pick, dates(jobs), yUnit)} testId=${testId} />`;
}

/** Label runs by day, or by day and time if a day has several. */
function dates(jobs) {
  const runs = new Map(jobs.map(({ key, runAfter }) => [key.runId, formatTime(runAfter, timeZone())]));
  const days = new Set([...runs.values()].map((time) => time.slice(0, 10)));
  const [from, to] = days.size === runs.size ? [0, 10] : [5, 16];
  return (moment) => formatTime(moment, timeZone()).slice(from, to);
}

function Comparison({ jobs }) {
  const title = "Latest run compared with the previous one";
  const metrics = lastTwo(jobs);
  if (metrics.length === 0) {
    const how = "Report them from the job: from airflow_provider_mljobs import report; report.metrics(auc=0.91)";
    return html`<${Section} title=${title}><${Empty} title="No metrics">${how}<//><//>`;
  }
  const isMapped = metrics.some(({ mapLabel }) => mapLabel !== "");
  const head = ["Metric", ...(isMapped ? ["Map index"] : []), "Latest", "Previous", "Change"];
  const rows = metrics.map(({ name, mapLabel, newest, previous }) => [
    name,
    ...(isMapped ? [mapLabel] : []),
    formatMetric(newest),
    formatNumber(previous),
    formatDifference(newest, previous),
  ]);
  const numeric = [head.length - 3, head.length - 2, head.length - 1];
  return html`
    <${Section} title=${title}>
      <${PlainTable} caption="Metrics of the latest run and the previous one" head=${head} rows=${rows} numeric=${numeric} />
    <//>`;
}

function RunsTable({ jobs, names }) {
  const head = ["Run", "Started", "State", "Queued", "Ran", ...names];
  const row = (job) => [
    html`<${PageLink} to=${jobPage(job.key)} whiteSpace="nowrap">${mappedName(job.key.runId, job.mapLabel)}<//>`,
    html`<${Time} at=${job.submittedAt ?? job.runAfter} />`,
    html`<${StateBadge} state=${job.state} />`,
    formatDuration(job.queuedSeconds),
    formatDuration(job.runSeconds),
    ...names.map((name) => formatMetric(metricOf(name)(job))),
  ];
  const numeric = head.map((_, column) => column).slice(3);
  const rows = jobs.map(row).reverse();
  return html`
    <${Section} title="Runs">
      <${PlainTable} caption="Runs, newest first" head=${head} rows=${rows} numeric=${numeric} />
    <//>`;
}
