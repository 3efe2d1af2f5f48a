/**
 * Asks Airflow's public API and the page's own, as the user who is logged in.
 */

/** An answer that is none. */
export class ApiError extends Error {
  /**
   * @param {string} message one sentence for the user
   * @param {number} status of HTTP; 0 if there was no answer
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** Whether the same question may be answered later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

// A question that hangs must not end the refresh for good.
const PATIENCE_MILLISECONDS = 120_000;
// What HTTP calls a status explains nothing.
const BARE = /^[A-Z]\w+( [A-Z]\w+)*$/;
const EXPLANATIONS = new Map([
  [401, "The session is over. Reload the page to log in again."],
  [403, "You have no right to see this. Ask who administers this Airflow."],
  [404, "This isn't there, or not any more."],
]);

// What is asked before there is a view to show it, and until when that is worth having.
const early = { route: "", until: 0, answer: null };
const EARLY_MILLISECONDS = 5000;

/**
 * Ask what a view will ask as soon as it is there; its first question takes this answer.
 *
 * @param {string} route relative to Airflow's base URL
 */
export function askEarly(route) {
  const answer = get(route);
  // Whoever takes it is told what went wrong.
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
    throw new ApiError("Airflow can't be reached. Is the network down, or is it restarting?", 0);
  }
  const answer = await response.json().catch(() => undefined);
  if (response.ok && answer !== undefined) return answer;
  if (response.ok) throw new ApiError("The answer isn't from Airflow. Is there a proxy in between?", 0);
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
  return detail || EXPLANATIONS.get(status) || `Airflow answered with status ${status}. Its log may say why.`;
}
