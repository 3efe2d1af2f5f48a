/** Rows of the page's own API become jobs. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { jobOf } from "../../../airflow_provider_mljobs/ui/static/jobs.js";

test("an unknown text is empty", () => {
  const job = jobOf({ map_index: -1, status: null, compute_pool: null, snowsight: null, metrics: {} });

  assert.deepEqual([job.status, job.pool, job.snowsight, job.mapLabel], ["", "", "", ""]);
});

test("a mapped task is named by its label, or else by its index", () => {
  assert.equal(jobOf({ map_index: 2, metrics: {} }).mapLabel, "2");
  assert.equal(jobOf({ map_index: 2, map_label: "emea", metrics: {} }).mapLabel, "emea");
});

test("metrics are in order of their names", () => {
  assert.deepEqual(jobOf({ metrics: { loss: null, auc: 0.9 } }).metrics, [
    ["auc", 0.9],
    ["loss", null],
  ]);
});
