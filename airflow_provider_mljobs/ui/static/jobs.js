/**
 * Jobs of the page's own API, which has checked their XComs.
 */

import { moment } from "./untrusted.js";

/**
 * @typedef {object} Job
 * @property {import("./urls.js").TaskKey} key
 * @property {string} mapLabel "" if the task is not mapped
 * @property {string} state Airflow's
 * @property {string} status Snowflake's
 * @property {string} phase
 * @property {string} message
 * @property {string} pool
 * @property {number | null} instances
 * @property {number | null} runAfter seconds since the epoch
 * @property {number | null} endDate of the task's try, in seconds since the epoch
 * @property {number | null} submittedAt seconds since the epoch
 * @property {number | null} queuedSeconds
 * @property {number | null} runSeconds
 * @property {import("./untrusted.js").Progress | null} progress
 * @property {[string, number | null][]} metrics in order of their names
 * @property {string} snowsight
 * @property {string} rayDashboard
 */

/**
 * @param {Record<string, any>} row an unknown value is null
 * @returns {Job}
 */
export function jobOf(row) {
  return {
    key: { dagId: row.dag_id, runId: row.run_id, taskId: row.task_id, mapIndex: row.map_index },
    mapLabel: row.map_index < 0 ? "" : row.map_label || String(row.map_index),
    state: row.state ?? "",
    status: row.status ?? "",
    phase: row.phase ?? "",
    message: row.message ?? "",
    pool: row.compute_pool ?? "",
    instances: row.target_instances,
    runAfter: moment(row.run_after),
    endDate: moment(row.end_date),
    submittedAt: moment(row.submitted_at),
    queuedSeconds: row.queued_seconds,
    runSeconds: row.run_seconds,
    progress: row.progress,
    metrics: Object.entries(row.metrics).sort(([a], [b]) => a.localeCompare(b)),
    snowsight: row.snowsight ?? "",
    rayDashboard: row.ray_dashboard ?? "",
  };
}
