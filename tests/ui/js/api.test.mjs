/** What Airflow answers, or doesn't, becomes data or one sentence for the user. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { askEarly, get, post } from "../../../airflow_provider_mljobs/ui/static/api.js";

const ANSWERS = new Map([
  ["/team/airflow/fine", [200, '{"total": 3}']],
  ["/team/airflow/forbidden", [403, '{"detail": "Forbidden"}']],
  ["/team/airflow/nowhere", [404, '{"detail": "Not Found"}']],
  ["/team/airflow/gone", [404, '{"detail": "The Task Instance was not found"}']],
  ["/team/airflow/late", [401, '{"detail": "Invalid JWT token"}']],
  ["/team/airflow/odd", [422, '{"detail": [{"loc": ["path"]}]}']],
  ["/team/airflow/proxy", [200, "<html>"]],
  ["/team/airflow/broken", [502, "<html>"]],
]);
const asked = [];
const server = createServer((request, response) => {
  asked.push(request.url);
  const [status, body] = ANSWERS.get(request.url);
  response.writeHead(status).end(body);
});

before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  globalThis.location = { origin };
  globalThis.document = { baseURI: `${origin}/team/airflow/` };
});

after(() => server.close());

test("a route is below the path of Airflow", async () => {
  assert.deepEqual(await get("fine"), { total: 3 });
  assert.deepEqual(await post("fine", {}), { total: 3 });
});

test("what is asked early is asked once, and the next time anew", async () => {
  const before = asked.length;
  askEarly("fine");
  assert.deepEqual(await get("fine"), { total: 3 });
  assert.equal(asked.length, before + 1);
  await get("fine");
  assert.equal(asked.length, before + 2);
  askEarly("gone");
  await assert.rejects(get("gone"), { status: 404 });
});

test("a status is explained where Airflow only names it", async () => {
  await assert.rejects(get("forbidden"), { status: 403, message: /^You don't have permission/ });
  await assert.rejects(get("nowhere"), { status: 404, message: /^Not found/ });
  await assert.rejects(get("late"), { status: 401, message: /^Your session has expired\./ });
  await assert.rejects(get("odd"), { status: 422, message: /status 422/ });
  await assert.rejects(get("gone"), { status: 404, message: "The Task Instance was not found" });
});

test("what may pass is told from what won't", async () => {
  for (const route of ["proxy", "broken"]) await assert.rejects(get(route), { isPassing: true });
  for (const route of ["forbidden", "gone", "late"]) await assert.rejects(get(route), { isPassing: false });
  globalThis.document = { baseURI: "http://127.0.0.1:1/" };
  globalThis.location = { origin: "http://127.0.0.1:1" };
  await assert.rejects(get("fine"), { isPassing: true, message: /Can't reach Airflow/ });
});
