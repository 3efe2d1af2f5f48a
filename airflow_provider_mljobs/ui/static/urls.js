/**
 * Addresses of Airflow's pages, of its public API and of the page's own, relative to Airflow's base URL.
 */

/** @typedef {{dagId: string, runId: string, taskId: string, mapIndex: number}} TaskKey -1: the task is not mapped */

export const PAGE = "/plugin/mljobs";

/**
 * @param {string[]} parts
 * @returns {string} the parts as segments of a path
 */
function path(...parts) {
  return parts.map(encodeURIComponent).join("/");
}

/**
 * @param {Record<string, unknown>} values a list repeats its name; empty values are left out
 * @returns {string} the query, with its question mark; "" without values
 */
export function query(values) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined) search.append(name, String(one));
    }
  }
  return search.size > 0 ? `?${search}` : "";
}

/**
 * @param {TaskKey} key
 * @param {string} what e.g. "cancel"
 * @returns {string} a route of the page's own API
 */
export function ownRoute({ dagId, runId, taskId }, what) {
  return `mljobs/api/${path("dags", dagId, "runs", runId, "tasks", taskId, what)}`;
}

/**
 * @param {string} dagId
 * @returns {string} the route of the user's rights on the jobs of a DAG
 */
export function rightsRoute(dagId) {
  return `mljobs/api/${path("dags", dagId, "rights")}`;
}

/**
 * @param {string} dagId
 * @param {string} taskId
 * @param {number} limit the number of runs
 * @returns {string} the route of a task's jobs in its last runs
 */
export function runsRoute(dagId, taskId, limit) {
  return `mljobs/api/${path("dags", dagId, "tasks", taskId, "runs")}${query({ limit })}`;
}

/**
 * @param {TaskKey} key
 * @returns {string} the route of a task instance in Airflow's public API
 */
export function taskInstanceRoute({ dagId, runId, taskId, mapIndex }) {
  const instance = `api/v2/${path("dags", dagId, "dagRuns", runId, "taskInstances", taskId)}`;
  return mapIndex < 0 ? instance : `${instance}/${mapIndex}`;
}

/**
 * @param {TaskKey} key
 * @returns {string} the route of all tries of a task instance in Airflow's public API
 */
export function triesRoute(key) {
  return `${taskInstanceRoute(key)}/tries`;
}

/**
 * @param {TaskKey} key
 * @param {string[]} names Airflow lists keys that contain one of them; a task may have any number of other XComs
 * @returns {string} the route of a task instance's XComs, without their values, in Airflow's public API
 */
export function xcomsRoute({ mapIndex, ...task }, names) {
  const search = query({ map_index: mapIndex, limit: 100, xcom_key_pattern: names.join("|") });
  return `${taskInstanceRoute({ ...task, mapIndex: -1 })}/xcomEntries${search}`;
}

/**
 * @param {TaskKey} key
 * @param {string} name
 * @returns {string} the route of an XCom of a task instance in Airflow's public API
 */
export function xcomRoute({ mapIndex, ...task }, name) {
  const entries = `${taskInstanceRoute({ ...task, mapIndex: -1 })}/xcomEntries`;
  return `${entries}/${encodeURIComponent(name)}${query({ map_index: mapIndex })}`;
}

/**
 * @param {TaskKey} key
 * @param {number} tryNumber
 * @param {string | null} token the end of the last answer
 * @returns {string} the route of a try's log in Airflow's public API
 */
export function logRoute({ mapIndex, ...task }, tryNumber, token) {
  const instance = taskInstanceRoute({ ...task, mapIndex: -1 });
  return `${instance}/logs/${tryNumber}${query({ map_index: mapIndex, token })}`;
}

/**
 * @param {TaskKey} key
 * @param {number} [tryNumber]
 * @returns {string} Airflow's page of a task instance, which opens with its log
 */
export function taskInstancePage({ dagId, runId, taskId, mapIndex }, tryNumber) {
  const page = `/${path("dags", dagId, "runs", runId, "tasks", taskId)}`;
  return `${mapIndex < 0 ? page : `${page}/mapped/${mapIndex}`}${query({ try_number: tryNumber })}`;
}

/**
 * @param {string} dagId
 * @returns {string} Airflow's page of a DAG
 */
export function dagPage(dagId) {
  return `/${path("dags", dagId)}`;
}

/**
 * @param {TaskKey} key
 * @returns {string} the view of one job
 */
export function jobPage({ dagId, runId, taskId, mapIndex }) {
  return PAGE + query({ dag_id: dagId, run_id: runId, task_id: taskId, map_index: mapIndex });
}

/**
 * @param {string} dagId
 * @param {string} taskId
 * @returns {string} the view of a task's metrics over its runs
 */
export function modelPage(dagId, taskId) {
  return PAGE + query({ view: "model", dag_id: dagId, task_id: taskId });
}

/** The view of orphaned jobs and files. */
export const CLEAN_UP_PAGE = PAGE + query({ view: "clean-up" });

/**
 * @param {unknown} value of an address or of Airflow, which leaves `{MAP_INDEX}` for a task that is not mapped
 * @returns {number} the map index; -1 without one
 */
export function mapIndexOf(value) {
  const index = /^\d+$/.test(String(value)) ? Number(value) : -1;
  return Number.isSafeInteger(index) ? index : -1;
}

/**
 * @param {URLSearchParams} search
 * @returns {{name: "list" | "model" | "clean-up"} | {name: "job", key: TaskKey}} the view that the page's address names
 */
export function viewOf(search) {
  const [dagId, runId, taskId] = ["dag_id", "run_id", "task_id"].map((name) => search.get(name) ?? "");
  if (search.get("view") === "clean-up") return { name: "clean-up" };
  if (search.get("view") === "model" && dagId !== "" && taskId !== "") return { name: "model" };
  if (dagId === "" || runId === "" || taskId === "") return { name: "list" };
  return { name: "job", key: { dagId, runId, taskId, mapIndex: mapIndexOf(search.get("map_index")) } };
}

// The states of the filter "active".
const ACTIVE = ["scheduled", "queued", "running", "deferred", "restarting", "up_for_retry", "up_for_reschedule"];

/** @typedef {{dagId: string, state: string, pool: string, text: string, page: number}} Filters `page` counts from 0 */

/** The number of jobs on a page of the list. */
export const PAGE_SIZE = 50;

/**
 * @param {URLSearchParams} search
 * @returns {Filters} the filters in the list's address
 */
export function filtersOf(search) {
  const page = mapIndexOf(search.get("page") ?? "1") - 1;
  return {
    dagId: search.get("dag_id") ?? "",
    state: search.get("state") ?? "",
    pool: search.get("pool") ?? "",
    text: search.get("text") ?? "",
    page: Math.max(0, page),
  };
}

/**
 * @param {Filters} filters
 * @returns {string} the route of the jobs
 */
export function jobsRoute({ dagId, state, pool, text, page }) {
  const states = state === "active" ? ACTIVE : state;
  const offset = page * PAGE_SIZE;
  return `mljobs/api/jobs${query({ limit: PAGE_SIZE, offset, dag_id: dagId, state: states, pool, text })}`;
}
