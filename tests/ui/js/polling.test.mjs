/** A question is polled; late answers are dropped. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ApiError } from "../../../airflow_provider_mljobs/ui/static/api.js";
import { NO_ANSWER, Poll } from "../../../airflow_provider_mljobs/ui/static/polling.js";

let last = NO_ANSWER;

beforeEach(() => {
  globalThis.document = { hidden: false };
  last = NO_ANSWER;
});

function poll(question, ask, seconds = 0) {
  return new Poll({
    question,
    seconds,
    ask,
    update: (change) => {
      last = change(last);
    },
  });
}

function refused(status) {
  return () => Promise.reject(new ApiError("Not now.", status));
}

test("an answer is recorded with its question", async () => {
  await poll("a", async () => 1).ask();

  assert.deepEqual([last.question, last.data, last.error], ["a", 1, null]);
});

test("a failure keeps the last data, with the question that it answers", async () => {
  await poll("a", async () => 1).ask();
  await poll("b", refused(502)).ask();

  assert.deepEqual([last.question, last.data, last.error.message], ["a", 1, "Not now."]);
});

test("an answer after the stop is dropped", async () => {
  const { promise, resolve } = Promise.withResolvers();
  const first = poll("a", () => promise);
  const answered = first.ask();
  first.stop();
  resolve(1);
  await answered;

  assert.equal(last, NO_ANSWER);
});

test("a poll continues after each answer and after a passing error", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let count = 0;
  const counted = async () => {
    count += 1;
    if (count === 2) throw new ApiError("Not now.", 502);
  };
  const again = poll("a", counted, 5);
  await again.ask();
  for (const _ of [2, 3]) {
    context.mock.timers.tick(5000);
    await Promise.resolve();
    await Promise.resolve();
    await Promise.resolve();
  }
  again.stop();
  context.mock.timers.tick(60_000);

  assert.equal(count, 3);
});

test("a poll ends with a final error, and pauses while the tab is hidden", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let count = 0;
  const refusing = poll("a", refused(403), 5);
  await refusing.ask();
  refusing.answer = async () => count++;
  context.mock.timers.tick(60_000);
  refusing.look();
  assert.equal(count, 0);

  const hidden = poll("a", async () => count++, 5);
  globalThis.document.hidden = true;
  await hidden.ask();
  context.mock.timers.tick(60_000);
  assert.equal(count, 1);
  globalThis.document.hidden = false;
  hidden.look();
  assert.equal(count, 2);
  hidden.stop();
});
