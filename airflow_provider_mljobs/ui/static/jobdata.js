/**
 * What is known of a task instance's job, out of Airflow's public API.
 */

import { get } from "./api.js";
import * as facts from "./facts.js";
import { isWaitedFor } from "./phases.js";
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

/** Reads a task instance and its XComs, those that have changed since the last time. */
export class JobReader {
  /** @param {import("./urls.js").TaskKey} key */
  constructor(key) {
    this.key = key;
    /** @type {Map<string, {timestamp: string, value: any}>} */
    this.kept = new Map();
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<JobFacts>}
   */
  async read(signal) {
    const [instance, listed] = await Promise.all([
      get(taskInstanceRoute(this.key), signal),
      get(xcomsRoute(this.key, WANTED), signal),
    ]);
    const entries = facts.list(listed.xcom_entries).filter(({ key }) => WANTED.includes(key));
    const values = await Promise.all(
      entries.map(async ({ key, timestamp }) => [key, await this.value(key, timestamp, signal)]),
    );
    return jobFacts(facts.record(instance), Object.fromEntries(values), Date.now() / 1000);
  }

  async value(name, timestamp, signal) {
    if (this.kept.get(name)?.timestamp !== timestamp) {
      // Between the two questions a new try may have removed it.
      const entry = await get(xcomRoute(this.key, name), signal).catch((error) => {
        if (error.status === 404) return {};
        throw error;
      });
      this.kept.set(name, { timestamp, value: entry.value });
    }
    return this.kept.get(name).value;
  }
}

/**
 * @typedef {object} JobFacts
 * @property {string} state Airflow's
 * @property {boolean} isOver whether the task will do no more
 * @property {boolean} isWaitedFor whether the task waits for the job, so that its status goes on to be true
 * @property {boolean} isOurs whether the task is of a kind that runs jobs
 * @property {boolean} isSensor whether the task is of a kind that waits for other tasks' jobs
 * @property {boolean} hasJob
 * @property {boolean} isOwn whether the job is the task's own; a sensor shows another one's
 * @property {number} tryNumber
 * @property {number | null} maxTries
 * @property {string} mapLabel
 * @property {string} jobId
 * @property {string} status Snowflake's
 * @property {boolean} isJobOver
 * @property {import("./facts.js").Step[]} timeline
 * @property {number | null} submittedAt
 * @property {number} end when the last step of the timeline ends: now, or when the task has
 * @property {import("./facts.js").Progress | null} progress
 * @property {[string, number | null][]} metrics
 * @property {[string, import("./facts.js").Point[]][]} series
 * @property {string} snowsight
 * @property {string} rayDashboard
 * @property {[string, string][]} details names and values
 * @property {{path: string, bytes: number | null, md5: string, isReported: boolean}[]} artifacts
 * @property {{uri: string, extra: string}[]} assets
 * @property {{instance: string, exitCode: string, value: string}[]} instances
 * @property {unknown} result undefined if there is none
 */

/**
 * @param {Record<string, any>} instance of Airflow's API
 * @param {Record<string, any>} xcoms
 * @param {number} now in seconds since the epoch
 * @returns {JobFacts}
 */
export function jobFacts(instance, xcoms, now) {
  const job = facts.record(xcoms.mljob);
  const watched = watchedOf(xcoms, job);
  const state = facts.text(instance.state);
  const ended = facts.moment(instance.end_date);
  const isWaited = isWaitedFor(state, ended);
  const operator = `${facts.text(instance.operator)} ${facts.text(instance.operator_name)}`;
  const status = facts.text(xcoms.status) || facts.text(watched.status);
  const timeline = facts.timeline(xcoms.timeline);
  const metrics = facts.metrics(xcoms.metrics);
  const mapIndex = facts.number(instance.map_index) ?? -1;
  return {
    state,
    isOver: OVER.includes(state),
    isWaitedFor: isWaited,
    isOurs: /mljob/i.test(operator),
    isSensor: /mljob\w*sensor/i.test(operator),
    hasJob: "mljob" in xcoms || "mljob_watched" in xcoms,
    isOwn: facts.text(job.job_id) !== "",
    tryNumber: facts.number(instance.try_number) ?? 0,
    maxTries: facts.number(instance.max_tries),
    mapLabel: mapIndex < 0 ? "" : facts.text(instance.rendered_map_index) || String(mapIndex),
    jobId: facts.text(job.job_id) || facts.text(watched.job_id),
    status,
    isJobOver: TERMINAL.includes(status),
    timeline: timeline.length > 0 ? timeline : facts.timeline(watched.timeline),
    submittedAt: facts.moment(job.submitted_at),
    end: isWaited ? now : (ended ?? now),
    progress: facts.progress(watched.progress),
    metrics: metrics.length > 0 ? metrics : facts.metrics(watched.metrics),
    series: facts.series(watched.series),
    snowsight: facts.webAddress(job.snowsight),
    rayDashboard: isWaited ? facts.webAddress(facts.record(watched.endpoints)[DASHBOARD]) : "",
    details: details(job, xcoms),
    artifacts: artifacts(xcoms.artifacts, watched.artifacts),
    assets: facts.list(watched.assets).map(facts.record).map(asset),
    instances: facts.list(xcoms.instances).map(facts.record).map(instanceOf),
    result: xcoms.return_value,
  };
}

/** What is known of the running job, unless it is of another one. */
function watchedOf(xcoms, job) {
  const watched = facts.record(xcoms.mljob_watched);
  const ids = [job.job_id, watched.job_id].map(facts.text);
  return ids.includes("") || ids[0] === ids[1] ? watched : {};
}

function details(job, xcoms) {
  const instances = facts.number(job.target_instances);
  const named = [
    ["Compute pool", facts.text(job.compute_pool)],
    ["Instances", instances === null ? "" : String(instances)],
    ["Connection", facts.text(job.snowflake_conn_id)],
    ["Stage", facts.text(job.stage_path)],
    ["Payload", facts.text(job.payload)],
    ["Git commit", facts.text(xcoms.git_commit)],
  ];
  return /** @type {[string, string][]} */ (named.filter(([, value]) => value !== ""));
}

/** The files of a job; while it runs, those that it has reported. */
function artifacts(files, reported) {
  const rows = facts.list(files).map(facts.record);
  if (rows.length === 0) {
    return facts.list(reported).map((path) => ({ path: facts.text(path), bytes: null, md5: "", isReported: true }));
  }
  return rows.map(({ path, bytes, md5, reported: isReported }) => ({
    path: facts.text(path),
    bytes: facts.number(bytes),
    md5: facts.text(md5),
    isReported: isReported === true,
  }));
}

function asset({ uri, extra }) {
  return { uri: facts.text(uri), extra: extra === undefined || extra === null ? "" : JSON.stringify(extra) };
}

function instanceOf({ instance, exit_code: exitCode, value }) {
  return { instance: facts.text(instance), exitCode: facts.text(exitCode), value: readable(value) };
}

/**
 * @param {unknown} value
 * @returns {string} as JSON; references to stages as what they refer to
 */
export function readable(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  return JSON.stringify(value, (_, part) => facts.stageReference(part) ?? part, 2);
}
