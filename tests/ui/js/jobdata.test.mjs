/** A task instance and its XComs become what is known of a job. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { jobDetails, readable } from "../../../airflow_provider_mljobs/ui/static/jobdata.js";

const INSTANCE = { state: "deferred", try_number: 1, max_tries: 0, map_index: -1, operator: "MLJobOperator" };
const JOB = { job_id: "DB.S.J", compute_pool: "P", target_instances: 2, submitted_at: "2026-11-21T20:00:00Z" };

test("a running job has what it has reported so far", () => {
  const watched = { job_id: "DB.S.J", status: "RUNNING", metrics: { auc: 0.9 }, artifacts: ["model.json"] };
  const job = jobDetails(INSTANCE, { mljob: JOB, mljob_watched: watched }, 1000);

  assert.equal(job.status, "RUNNING");
  assert.equal(job.isJobOver, false);
  assert.equal(job.end, 1000);
  assert.deepEqual(job.metrics, [["auc", 0.9]]);
  assert.deepEqual(job.artifacts, [{ path: "model.json", bytes: null, md5: "", isReported: true }]);
});

test("at the end the final XComs count", () => {
  const over = { ...INSTANCE, state: "success", end_date: "2026-11-21T20:05:00Z" };
  const watched = { job_id: "DB.S.J", status: "RUNNING", endpoints: { ray: "https://ray.example" } };
  const xcoms = { mljob: JOB, mljob_watched: watched, status: "DONE", metrics: { auc: 0.95 }, return_value: 0 };
  const job = jobDetails(over, xcoms, 0);

  assert.deepEqual([job.status, job.isOver, job.isJobOver, job.result], ["DONE", true, true, 0]);
  assert.equal(job.end, Date.UTC(2026, 10, 21, 20, 5) / 1000);
  assert.equal(job.rayDashboard, "");
});

test("of a job whose task is over nobody knows more than what was seen last, until then", () => {
  const endpoints = { web: "https://web.example", "ray-dashboard-endpoint": "https://ray.example" };
  const xcoms = { mljob: JOB, mljob_watched: { job_id: "DB.S.J", status: "RUNNING", endpoints } };
  const ended = Date.UTC(2026, 10, 21, 20, 5) / 1000;

  for (const state of ["up_for_retry", "failed", "queued", null]) {
    const job = jobDetails({ ...INSTANCE, state, end_date: "2026-11-21T20:05:00Z" }, xcoms, ended + 900);

    assert.deepEqual([job.isWaitedFor, job.end, job.rayDashboard, job.isJobOver], [false, ended, "", false]);
  }
  const running = jobDetails({ ...INSTANCE, state: "queued", end_date: null }, xcoms, ended);

  assert.deepEqual([running.isWaitedFor, running.end, running.rayDashboard], [true, ended, "https://ray.example"]);
});

test("a sensor shows a job that is another task's", () => {
  const sensor = { ...INSTANCE, operator: "MLJobSensor" };
  const job = jobDetails(sensor, { mljob_watched: { job_id: "DB.S.J", status: "RUNNING" } }, 0);

  assert.deepEqual([job.isSensor, job.hasJob, job.isOwn, job.jobId], [true, true, false, "DB.S.J"]);
  assert.equal(jobDetails(INSTANCE, { mljob: JOB }, 0).isOwn, true);
});

test("what is known of another job is not shown", () => {
  const job = jobDetails(INSTANCE, { mljob: JOB, mljob_watched: { job_id: "DB.S.OLD", metrics: { auc: 0.1 } } }, 0);

  assert.deepEqual(job.metrics, []);
});

test("a task without a job has none, whatever its XComs are", () => {
  const plain = jobDetails(
    { ...INSTANCE, operator: "BashOperator", operator_name: "BashOperator" },
    { return_value: 3 },
    0,
  );

  assert.deepEqual([plain.hasJob, plain.isOurs], [false, false]);
});

test("XComs of a wrong type are no error", () => {
  for (const value of [null, 3, "text", [], [[]], { job_id: {} }]) {
    const names = ["mljob", "mljob_watched", "timeline", "status", "metrics", "artifacts", "instances"];

    assert.equal(jobDetails(INSTANCE, Object.fromEntries(names.map((name) => [name, value])), 0).jobId, "");
  }
});

test("a result is JSON, and references in it are texts", () => {
  const reference = { __mljob_ref__: 1, stage_paths: ["@S/a"] };

  assert.equal(readable({ auc: 1, frame: reference }), '{\n  "auc": 1,\n  "frame": "@S/a"\n}');
  assert.equal(readable("done"), "done");
  assert.equal(readable(undefined), "");
});
