/** Addresses have every name as it is, and say which view is meant. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as urls from "../../../airflow_provider_mljobs/ui/static/urls.js";

const KEY = { dagId: "a/b", runId: "manual__2026-11-21T20:00:00+00:00", taskId: "group.train", mapIndex: -1 };
const RUN = "manual__2026-11-21T20%3A00%3A00%2B00%3A00";

test("names are encoded", () => {
  assert.equal(urls.ownRoute(KEY, "cancel"), `mljobs/api/dags/a%2Fb/runs/${RUN}/tasks/group.train/cancel`);
  assert.equal(urls.taskInstanceRoute(KEY), `api/v2/dags/a%2Fb/dagRuns/${RUN}/taskInstances/group.train`);
  assert.equal(urls.taskInstancePage(KEY, 2), `/dags/a%2Fb/runs/${RUN}/tasks/group.train?try_number=2`);
});

test("a mapped task instance has its index where the route wants it", () => {
  const mapped = { dagId: "d", runId: "r", taskId: "t", mapIndex: 3 };

  assert.equal(urls.triesRoute(mapped), "api/v2/dags/d/dagRuns/r/taskInstances/t/3/tries");
  assert.equal(
    urls.xcomRoute(mapped, "mljob"),
    "api/v2/dags/d/dagRuns/r/taskInstances/t/xcomEntries/mljob?map_index=3",
  );
  assert.equal(
    urls.logRoute(mapped, 1, "x+y"),
    "api/v2/dags/d/dagRuns/r/taskInstances/t/logs/1?map_index=3&token=x%2By",
  );
  assert.equal(urls.taskInstancePage(mapped), "/dags/d/runs/r/tasks/t/mapped/3");
});

test("of a task's XComs only those of the job are listed: it may have more than Airflow lists at once", () => {
  const route = urls.xcomsRoute({ ...KEY, mapIndex: 3 }, ["mljob", "status"]);

  assert.match(
    route,
    /taskInstances\/group\.train\/xcomEntries\?map_index=3&limit=100&xcom_key_pattern=mljob%7Cstatus$/,
  );
});

test("the address of a job leads to its view", () => {
  const search = new URLSearchParams(urls.jobPage(KEY).split("?")[1]);

  assert.deepEqual(urls.viewOf(search), { name: "job", key: KEY });
});

test("an address that names no whole job is that of the list", () => {
  for (const search of ["", "dag_id=d", "dag_id=d&run_id=r", "view=model", "view=nonsense"]) {
    assert.equal(urls.viewOf(new URLSearchParams(search)).name, "list");
  }
  assert.equal(urls.viewOf(new URLSearchParams("view=model&dag_id=d&task_id=t")).name, "model");
  assert.equal(urls.viewOf(new URLSearchParams("view=clean-up")).name, "clean-up");
});

test("what the host leaves of a map index means that there is none", () => {
  const read = [undefined, null, "", "-1", "{MAP_INDEX}", "x", "0", "12", 4].map(urls.mapIndexOf);

  assert.deepEqual(read, [-1, -1, -1, -1, -1, -1, 0, 12, 4]);
});

test("filters are in the question; what is empty is not", () => {
  const filters = urls.filtersOf(new URLSearchParams("dag_id=d&state=failed&text=a%26b&page=3"));

  assert.equal(urls.jobsRoute(filters), "mljobs/api/jobs?limit=50&offset=100&dag_id=d&state=failed&text=a%26b");
  assert.equal(urls.jobsRoute(urls.filtersOf(new URLSearchParams("page=-4"))), "mljobs/api/jobs?limit=50&offset=0");
});

test("active jobs are those of all states in which something will still happen", () => {
  const question = new URLSearchParams(
    urls.jobsRoute(urls.filtersOf(new URLSearchParams("state=active"))).split("?")[1],
  );

  assert.ok(question.getAll("state").includes("deferred"));
  assert.ok(!question.getAll("state").includes("failed"));
});
