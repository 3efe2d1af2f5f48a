/**
 * The job of a task instance, read from Airflow's public API.
 */

import { get } from "./api.js";
import { isWaitedFor } from "./phases.js";
import * as read from "./untrusted.js";
import { taskInstanceRoute, xcomRoute, xcomsRoute } from "./urls.js";

const WANTED = [
  "mljob",
  "mljob_watched",
  "timeline",
  "status",
  "metrics",
  "artifacts",
  "instances",
  "git_commit",
  "return_value",
];
const OVER = ["success", "failed", "upstream_failed", "skipped", "removed"];
const DASHBOARD = "ray-dashboard-endpoint";
const TERMINAL = ["DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"];

/** Reads a task instance and those of its XComs that have changed since the last read. */
export class JobReader {
  /** @param {import("./urls.js").TaskKey} key */
  constructor(key) {
    this.key = key;
    /** @type {Map<string, {timestamp: string, value: any}>} */
    this.values = new Map();
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<JobDetails>}
   */
  async read(signal) {
    const [instance, listed] = await Promise.all([
      get(taskInstanceRoute(this.key), signal),
      get(xcomsRoute(this.key, WANTED), signal),
    ]);
    const entries = read.list(listed.xcom_entries).filter(({ key }) => WANTED.includes(key));
    const values = await Promise.all(
      entries.map(async ({ key, timestamp }) => [key, await this.value(key, timestamp, signal)]),
    );
    return jobDetails(read.record(instance), Object.fromEntries(values), Date.now() / 1000);
  }

  async value(name, timestamp, signal) {
    if (this.values.get(name)?.timestamp !== timestamp) {
      // A new try may have removed it since the list was read.
      const entry = await get(xcomRoute(this.key, name), signal).catch((error) => {
        if (error.status === 404) return {};
        throw error;
      });
      this.values.set(name, { timestamp, value: entry.value });
    }
    return this.values.get(name).value;
  }
}

/**
 * @typedef {object} JobDetails
 * @property {string} state Airflow's
 * @property {boolean} isOver whether the task has reached a final state
 * @property {boolean} isWaitedFor whether the task waits for the job, so that the status is current
 * @property {boolean} isOurs whether the task's operator runs jobs
 * @property {boolean} isSensor whether the task's operator waits for other tasks' jobs
 * @property {boolean} hasJob
 * @property {boolean} isOwn false for a sensor, which shows another task's job
 * @property {number} tryNumber
 * @property {number | null} maxTries
 * @property {string} mapLabel
 * @property {string} jobId
 * @property {string} status Snowflake's
 * @property {boolean} isJobOver
 * @property {import("./untrusted.js").Step[]} timeline
 * @property {number | null} submittedAt
 * @property {number} end when the last step of the timeline ends: now, or the end of the task
 * @property {import("./untrusted.js").Progress | null} progress
 * @property {[string, number | null][]} metrics
 * @property {[string, import("./untrusted.js").Point[]][]} series
 * @property {string} snowsight
 * @property {string} rayDashboard
 * @property {[string, string][]} details names and values
 * @property {{path: string, bytes: number | null, md5: string, isReported: boolean}[]} artifacts
 * @property {{uri: string, extra: string}[]} assets
 * @property {{instance: string, exitCode: string, value: string}[]} instances
 * @property {unknown} result undefined without one
 */

/**
 * @param {Record<string, any>} instance of Airflow's API
 * @param {Record<string, any>} xcoms
 * @param {number} now in seconds since the epoch
 * @returns {JobDetails}
 */
export function jobDetails(instance, xcoms, now) {
  const job = read.record(xcoms.mljob);
  const watched = watchedOf(xcoms, job);
  const state = read.text(instance.state);
  const ended = read.moment(instance.end_date);
  const isWaited = isWaitedFor(state, ended);
  const operator = `${read.text(instance.operator)} ${read.text(instance.operator_name)}`;
  const status = read.text(xcoms.status) || read.text(watched.status);
  const timeline = read.timeline(xcoms.timeline);
  const metrics = read.metrics(xcoms.metrics);
  const mapIndex = read.number(instance.map_index) ?? -1;
  return {
    state,
    isOver: OVER.includes(state),
    isWaitedFor: isWaited,
    isOurs: /mljob/i.test(operator),
    isSensor: /mljob\w*sensor/i.test(operator),
    hasJob: "mljob" in xcoms || "mljob_watched" in xcoms,
    isOwn: read.text(job.job_id) !== "",
    tryNumber: read.number(instance.try_number) ?? 0,
    maxTries: read.number(instance.max_tries),
    mapLabel: mapIndex < 0 ? "" : read.text(instance.rendered_map_index) || String(mapIndex),
    jobId: read.text(job.job_id) || read.text(watched.job_id),
    status,
    isJobOver: TERMINAL.includes(status),
    timeline: timeline.length > 0 ? timeline : read.timeline(watched.timeline),
    submittedAt: read.moment(job.submitted_at),
    end: isWaited ? now : (ended ?? now),
    progress: read.progress(watched.progress),
    metrics: metrics.length > 0 ? metrics : read.metrics(watched.metrics),
    series: read.series(watched.series),
    snowsight: read.webAddress(job.snowsight),
    rayDashboard: isWaited ? read.webAddress(read.record(watched.endpoints)[DASHBOARD]) : "",
    details: details(job, xcoms),
    artifacts: artifacts(xcoms.artifacts, watched.artifacts),
    assets: read.list(watched.assets).map(read.record).map(asset),
    instances: read.list(xcoms.instances).map(read.record).map(instanceOf),
    result: xcoms.return_value,
  };
}

/** Return the progress of the job; an XCom of another job is ignored. */
function watchedOf(xcoms, job) {
  const watched = read.record(xcoms.mljob_watched);
  const ids = [job.job_id, watched.job_id].map(read.text);
  return ids.includes("") || ids[0] === ids[1] ? watched : {};
}

function details(job, xcoms) {
  const instances = read.number(job.target_instances);
  const named = [
    ["Compute pool", read.text(job.compute_pool)],
    ["Instances", instances === null ? "" : String(instances)],
    ["Connection", read.text(job.snowflake_conn_id)],
    ["Stage", read.text(job.stage_path)],
    ["Payload", read.text(job.payload)],
    ["Git commit", read.text(xcoms.git_commit)],
  ];
  return /** @type {[string, string][]} */ (named.filter(([, value]) => value !== ""));
}

/** Return the files of a job; while it runs, those that it has reported. */
function artifacts(files, reported) {
  const rows = read.list(files).map(read.record);
  if (rows.length === 0) {
    return read.list(reported).map((path) => ({ path: read.text(path), bytes: null, md5: "", isReported: true }));
  }
  return rows.map(({ path, bytes, md5, reported: isReported }) => ({
    path: read.text(path),
    bytes: read.number(bytes),
    md5: read.text(md5),
    isReported: isReported === true,
  }));
}

function asset({ uri, extra }) {
  return { uri: read.text(uri), extra: extra === undefined || extra === null ? "" : JSON.stringify(extra) };
}

function instanceOf({ instance, exit_code: exitCode, value }) {
  return { instance: read.text(instance), exitCode: read.text(exitCode), value: readable(value) };
}

/**
 * @param {unknown} value
 * @returns {string} as JSON; a reference as the files that it names
 */
export function readable(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  return JSON.stringify(value, (_, part) => read.stageReference(part) ?? part, 2);
}
