/**
 * Requests to Airflow's public API and to the page's own, as the user who is logged in.
 */

/** A failed request. */
export class ApiError extends Error {
  /**
   * @param {string} message one sentence for the user
   * @param {number} status of HTTP; 0 without a response
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

// A request that hangs must not end the refresh for good.
const PATIENCE_MILLISECONDS = 120_000;
// The names of HTTP statuses, e.g. "Not Found", explain nothing.
const BARE = /^[A-Z]\w+( [A-Z]\w+)*$/;
const EXPLANATIONS = new Map([
  [401, "Your session has expired. Reload the page to log in again."],
  [403, "You don't have permission to see this. Ask an Airflow administrator."],
  [404, "Not found. It may have been deleted."],
]);

// The answer to a request that was sent before its view exists, and the time when it expires.
const early = { route: "", until: 0, answer: null };
const EARLY_MILLISECONDS = 5000;

/**
 * Send the first request of a view before the view exists; the view takes the answer.
 *
 * @param {string} route relative to Airflow's base URL
 */
export function askEarly(route) {
  const answer = get(route);
  // The view handles the error.
  answer.catch(() => {});
  Object.assign(early, { route, until: Date.now() + EARLY_MILLISECONDS, answer });
}

/**
 * @param {string} route relative to Airflow's base URL
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>} the answer's JSON
 * @throws {ApiError}
 */
export function get(route, signal) {
  if (early.route === route && Date.now() < early.until) {
    early.route = "";
    return early.answer;
  }
  const tooLate = AbortSignal.timeout(PATIENCE_MILLISECONDS);
  return ask(route, { signal: signal === undefined ? tooLate : AbortSignal.any([signal, tooLate]) });
}

/**
 * @param {string} route relative to Airflow's base URL
 * @param {unknown} body
 * @returns {Promise<any>} the answer's JSON
 * @throws {ApiError}
 */
export function post(route, body) {
  const headers = { "Content-Type": "application/json" };
  return ask(route, { method: "POST", headers, body: JSON.stringify(body) });
}

/**
 * @param {string} route
 * @param {RequestInit} options
 */
async function ask(route, options) {
  const url = new URL(route, new URL(new URL(document.baseURI).pathname, location.origin));
  const headers = { Accept: "application/json", ...options.headers };
  let response;
  try {
    response = await fetch(url, { ...options, headers, credentials: "same-origin" });
  } catch {
    throw new ApiError("Can't reach Airflow. The network may be down, or Airflow may be restarting.", 0);
  }
  const answer = await response.json().catch(() => undefined);
  if (response.ok && answer !== undefined) return answer;
  if (response.ok) throw new ApiError("The response isn't from Airflow. Check for a proxy in between.", 0);
  throw new ApiError(explanation(response.status, answer), response.status);
}

/**
 * @param {number} status
 * @param {any} answer
 * @returns {string}
 */
function explanation(status, answer) {
  if (status === 401) return EXPLANATIONS.get(401);
  const detail = typeof answer?.detail === "string" && !BARE.test(answer.detail) ? answer.detail : "";
  return (
    detail || EXPLANATIONS.get(status) || `Airflow responded with status ${status}. See the log of the API server.`
  );
}
