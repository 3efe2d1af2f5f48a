/** Reports, measurements and runs become the numbers of charts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { jobOf } from "../../../airflow_provider_mljobs/ui/static/jobs.js";
import { spansOf } from "../../../airflow_provider_mljobs/ui/static/phases.js";
import {
  comparable,
  lastTwo,
  metricPlot,
  runsPlot,
  usagePlots,
} from "../../../airflow_provider_mljobs/ui/static/plots.js";

function point(x, step, value) {
  return { x, step, value };
}

function run(runId, mapIndex, metrics) {
  return jobOf({ run_id: runId, map_index: mapIndex, run_after: `2026-11-${runId}T00:00:00Z`, metrics });
}

test("a metric is drawn over its steps", () => {
  const plot = metricPlot("auc", [point(100, 1, 0.5), point(110, 2, 0.6)], 90);

  assert.deepEqual([plot.xLabel, plot.x, plot.lines], ["step", [1, 2], [{ label: "auc", values: [0.5, 0.6] }]]);
});

test("a metric whose steps are missing or go back is drawn over time", () => {
  assert.deepEqual(metricPlot("auc", [point(100, null, 0.5), point(110, 2, 0.6)], 90).x, [10, 20]);
  assert.deepEqual(metricPlot("auc", [point(110, 5, 0.5), point(100, 1, 0.6)], null).x, [0, 10]);
});

test("measurements of one kind share a chart, each container with its line", () => {
  const plots = usagePlots([
    { metric: "container.cpu.usage", unit: "cores", instance: 0, container: "main", points: [[10, 1], ["x", 2], null] },
    { metric: "container.cpu.usage", unit: "cores", instance: 1, container: "proxy", points: [[20, 3]] },
    { metric: "container.memory.usage", unit: "bytes", instance: 0, container: "main", points: [] },
    "nonsense",
  ]);

  assert.equal(plots.length, 1);
  assert.equal(plots[0].title, "CPU");
  assert.deepEqual(plots[0].plot.x, [0, 10]);
  assert.deepEqual(plots[0].plot.lines, [
    { label: "instance 0", values: [1, null] },
    { label: "instance 1, proxy", values: [null, 3] },
  ]);
});

function cpu(kind, instance, points) {
  return { metric: `container.cpu.${kind}`, unit: "cores", instance, container: "main", points };
}

test("a limit is a line in the chart of its measurement, one for all containers if it is the same", () => {
  const usage = [cpu("usage", 0, [[10, 1]]), cpu("usage", 1, [[20, 2]])];
  const [same, ...others] = usagePlots([...usage, cpu("limit", 0, [[10, 4]]), cpu("limit", 1, [[20, 4]])]);
  const [apart] = usagePlots([...usage, cpu("limit", 0, [[10, 4]]), cpu("limit", 1, [[20, 8]])]);

  assert.deepEqual(others, []);
  assert.deepEqual(same.plot.lines.slice(2), [{ label: "limit", values: [4, 4] }]);
  assert.deepEqual(apart.plot.lines.slice(2), [
    { label: "instance 0, limit", values: [4, null] },
    { label: "instance 1, limit", values: [null, 8] },
  ]);
});

test("limits without a measurement make no chart", () => {
  assert.deepEqual(usagePlots([cpu("limit", 0, [[10, 4]])]), []);
});

test("runs are in a row, each map index with its line", () => {
  const jobs = [run("07", 0, { auc: 0.7 }), run("07", 1, { auc: 0.8 }), run("14", 0, { auc: 0.9 })];
  const plot = runsPlot("auc", jobs, (job) => job.metrics[0][1], String);

  assert.deepEqual(plot.x, [0, 1]);
  assert.deepEqual(plot.lines, [
    { label: "0", values: [0.7, 0.9] },
    { label: "1", values: [0.8, null] },
  ]);
  assert.equal(plot.xText(1), String(Date.UTC(2026, 10, 14) / 1000));
  assert.equal(plot.xText(0.5), "");
});

test("the newest value of a metric is compared with the last one before, skipping runs without one", () => {
  const jobs = [run("07", -1, { auc: 0.7 }), run("14", -1, {}), run("21", -1, { auc: 0.8, loss: 1 })];

  assert.deepEqual(lastTwo(jobs), [
    { name: "auc", mapLabel: "", newest: 0.8, previous: 0.7 },
    { name: "loss", mapLabel: "", newest: 1, previous: null },
  ]);
});

test("a job that still runs is not compared with finished ones", () => {
  const job = (state, ended) => jobOf({ run_id: state, state, end_date: ended, metrics: {} });
  const over = [job("success", "2026-11-14T00:00:00Z"), job("failed", "2026-11-15T00:00:00Z")];
  const running = job("deferred", null);

  assert.deepEqual(comparable([...over, running]), over);
  assert.deepEqual(comparable([running]), [running]);
});

test("a job is queued from its submit on, and its last phase lasts until now", () => {
  const steps = [
    { phase: "pool starting", at: 105, message: "" },
    { phase: "running", at: 120, message: "" },
  ];
  const spans = spansOf(steps, 100, 150).map(({ phase, seconds }) => [phase, seconds]);

  assert.deepEqual(spans, [
    ["queued", 5],
    ["pool starting", 15],
    ["running", 30],
  ]);
  assert.deepEqual(spansOf([], null, 150), []);
  assert.equal(spansOf([], 100, 150)[0].phase, "queued");
});
