/** What jobs have written is read without trust. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as facts from "../../../airflow_provider_mljobs/ui/static/facts.js";

const STRANGE = [undefined, null, 7, "text", true, [], [1], {}, { a: { b: [] } }, Number.NaN];

test("anything can be read as a job, and has all of a job's parts", () => {
  for (const value of STRANGE) {
    const job = facts.job(value);

    assert.deepEqual(job.metrics, []);
    assert.equal(job.key.mapIndex, -1);
    assert.equal(job.progress, null);
  }
});

test("each part of a job may be of another type", () => {
  const parts = ["dag_id", "map_index", "state", "metrics", "progress", "snowsight", "queued_seconds", "submitted_at"];
  for (const part of parts) {
    for (const value of STRANGE) facts.job({ dag_id: "d", run_id: "r", task_id: "t", [part]: value });
  }
});

test("a mapped task is named by its label, or else by its index", () => {
  assert.equal(facts.job({ map_index: -1 }).mapLabel, "");
  assert.equal(facts.job({ map_index: 2 }).mapLabel, "2");
  assert.equal(facts.job({ map_index: 2, map_label: "emea" }).mapLabel, "emea");
});

test("only http and https are addresses that a browser may follow", () => {
  assert.equal(facts.webAddress("https://app.snowflake.com/#/x"), "https://app.snowflake.com/#/x");
  assert.equal(facts.webAddress("javascript:alert(1)"), "");
  assert.equal(facts.webAddress("data:text/html,x"), "");
  assert.equal(facts.webAddress("/relative"), "");
  assert.equal(facts.webAddress({}), "");
});

test("a timeline is in order, without steps that say nothing", () => {
  const steps = facts.timeline([
    { phase: "running", at: "2026-11-21T20:00:10+00:00" },
    null,
    { phase: "queued", at: "never" },
    { phase: "queued", at: "2026-11-21T20:00:00+00:00", message: "waits" },
  ]);

  assert.deepEqual(
    steps.map(({ phase, message }) => [phase, message]),
    [
      ["queued", "waits"],
      ["running", ""],
    ],
  );
});

test("progress is between 0 and 1, or unknown", () => {
  assert.deepEqual(facts.progress({ fraction: 7, message: "m" }), { fraction: 1, message: "m" });
  assert.deepEqual(facts.progress({ message: "m" }), { fraction: null, message: "m" });
  assert.equal(facts.progress({ fraction: "0.4" }), null);
});

test("of metrics and curves only numbers are taken, and that a metric was none", () => {
  assert.deepEqual(facts.metrics({ loss: null, auc: 0.9, note: "good", f1: true }), [
    ["auc", 0.9],
    ["loss", null],
  ]);
  assert.deepEqual(facts.series({ auc: [[1, 0, 0.5], [2], "x", [3, null, 0.6]], empty: [], odd: 3 }), [
    [
      "auc",
      [
        { x: 1, step: 0, value: 0.5 },
        { x: 3, step: null, value: 0.6 },
      ],
    ],
  ]);
});

test("a reference to a stage is a text", () => {
  const reference = { __mljob_ref__: 1, stage_paths: ["@S/a", "@S/b"], protocol: "pandas", type: "DataFrame" };

  assert.equal(facts.stageReference(reference), "@S/a, @S/b (DataFrame, pandas)");
  assert.equal(facts.stageReference({ auc: 1 }), null);
});
