/** A question is asked again and again; only its own answers count. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ApiError } from "../../../airflow_provider_mljobs/ui/static/api.js";
import { Asking, NOTHING_KNOWN } from "../../../airflow_provider_mljobs/ui/static/polling.js";

let known = NOTHING_KNOWN;

beforeEach(() => {
  globalThis.document = { hidden: false };
  known = NOTHING_KNOWN;
});

function asking(question, ask, seconds = 0) {
  return new Asking({
    question,
    seconds,
    ask,
    tell: (change) => {
      known = change(known);
    },
  });
}

function refused(status) {
  return () => Promise.reject(new ApiError("Not now.", status));
}

test("an answer is known with its question", async () => {
  await asking("a", async () => 1).ask();

  assert.deepEqual([known.question, known.data, known.error], ["a", 1, null]);
});

test("where there is no answer, what was known stays that of the question before", async () => {
  await asking("a", async () => 1).ask();
  await asking("b", refused(502)).ask();

  assert.deepEqual([known.question, known.data, known.error.message], ["a", 1, "Not now."]);
});

test("an answer that comes too late is not told", async () => {
  const { promise, resolve } = Promise.withResolvers();
  const first = asking("a", () => promise);
  const answered = first.ask();
  first.stop();
  resolve(1);
  await answered;

  assert.equal(known, NOTHING_KNOWN);
});

test("it is asked again after each answer, and after trouble that may pass", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let count = 0;
  const counted = async () => {
    count += 1;
    if (count === 2) throw new ApiError("Not now.", 502);
  };
  const again = asking("a", counted, 5);
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

test("what is refused for good is not asked again, nor is anything while nobody looks", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let count = 0;
  const refusing = asking("a", refused(403), 5);
  await refusing.ask();
  refusing.answer = async () => count++;
  context.mock.timers.tick(60_000);
  refusing.look();
  assert.equal(count, 0);

  const hidden = asking("a", async () => count++, 5);
  globalThis.document.hidden = true;
  await hidden.ask();
  context.mock.timers.tick(60_000);
  assert.equal(count, 1);
  globalThis.document.hidden = false;
  hidden.look();
  assert.equal(count, 2);
  hidden.stop();
});
