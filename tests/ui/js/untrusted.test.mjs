/** XComs and logs are untrusted. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as read from "../../../airflow_provider_mljobs/ui/static/untrusted.js";

test("only http and https are addresses that a browser may follow", () => {
  assert.equal(read.webAddress("https://app.snowflake.com/#/x"), "https://app.snowflake.com/#/x");
  assert.equal(read.webAddress("javascript:alert(1)"), "");
  assert.equal(read.webAddress("data:text/html,x"), "");
  assert.equal(read.webAddress("/relative"), "");
  assert.equal(read.webAddress({}), "");
});

test("a timeline is in order, without steps that say nothing", () => {
  const steps = read.timeline([
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
  assert.deepEqual(read.progress({ fraction: 7, message: "m" }), { fraction: 1, message: "m" });
  assert.deepEqual(read.progress({ message: "m" }), { fraction: null, message: "m" });
  assert.equal(read.progress({ fraction: "0.4" }), null);
});

test("of metrics and curves only numbers are taken, and that a metric was none", () => {
  assert.deepEqual(read.metrics({ loss: null, auc: 0.9, note: "good", f1: true }), [
    ["auc", 0.9],
    ["loss", null],
  ]);
  assert.deepEqual(read.series({ auc: [[1, 0, 0.5], [2], "x", [3, null, 0.6]], empty: [], odd: 3 }), [
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

  assert.equal(read.stageReference(reference), "@S/a, @S/b (DataFrame, pandas)");
  assert.equal(read.stageReference({ auc: 1 }), null);
});
