/** A task's log is told apart into the lines of its job's instances and those of the task. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenLines, instancesOf, logLines, MAX_LINES } from "../../../airflow_provider_mljobs/ui/static/loglines.js";

const CONTENT = [
  { event: "::group::Log message source details" },
  { event: "/logs/attempt=1.log" },
  { event: "::endgroup::" },
  { event: "Submitted job J", level: "info" },
  { event: "Log of job J:\n[instance 0] epoch 1\n[instance 1] waits\n[instance 10, proxy] up", level: "info" },
  { event: "Snowflake can't be reached", level: "warning" },
];

function texts(content, choice) {
  return chosenLines(logLines(content), choice).map((line) => line.text);
}

test("the job's lines come without the task's", () => {
  assert.deepEqual(texts(CONTENT, "job"), ["[instance 0] epoch 1", "[instance 1] waits", "[instance 10, proxy] up"]);
});

test("an instance's lines come without its label", () => {
  assert.deepEqual(instancesOf(logLines(CONTENT)), [0, 1, 10]);
  assert.deepEqual(texts(CONTENT, "1"), ["waits"]);
  assert.deepEqual(texts(CONTENT, "10"), ["up"]);
});

test("all lines are there but those on where the log is", () => {
  assert.equal(texts(CONTENT, "all").length, 5);
  assert.deepEqual(
    logLines(CONTENT).map((line) => line.isProblem),
    [false, false, false, false, true],
  );
});

test("what a task prints that looks like a label is not of an instance", () => {
  assert.deepEqual(instancesOf(logLines([{ event: "[instance 3] of something else" }])), []);
});

test("a log that Airflow could not parse is read as well", () => {
  assert.deepEqual(texts(["plain", "Log of job J:\nprinted"], "job"), ["printed"]);
  assert.deepEqual(logLines(undefined), []);
  assert.deepEqual(texts([null, 3, {}], "all"), ["", "", ""]);
});

test("the error that ended a task is said", () => {
  const content = [{ event: "Task failed", level: "error", error_detail: [{ exc_type: "E", exc_value: "why" }] }];

  assert.deepEqual(texts(content, "all"), ["Task failed", "E: why"]);
});

test("only the last lines are shown", () => {
  const many = `Log of job J:\n${Array.from({ length: 2 * MAX_LINES }, (_, line) => line).join("\n")}`;

  assert.equal(texts([{ event: many }], "job").length, MAX_LINES);
  assert.equal(texts([{ event: many }], "job").at(-1), String(2 * MAX_LINES - 1));
});
