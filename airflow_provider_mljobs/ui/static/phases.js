/**
 * The timeline of a job: its phases and how long each took.
 */

/** @typedef {{phase: string, message: string, from: number, seconds: number}} Span */

// A task in one of these states that has not ended watches its job.
const WAITING = ["running", "deferred", "scheduled", "queued"];

/**
 * @param {string} state of a task instance
 * @param {number | null} ended the end of its try, in seconds since the epoch
 * @returns {boolean} whether it waits for its job, so that the job's status is current
 */
export function isWaitedFor(state, ended) {
  return ended === null && WAITING.includes(state);
}

/**
 * @param {import("./untrusted.js").Step[]} steps in order of time
 * @param {number | null} submittedAt in seconds since the epoch
 * @param {number} end of the last step: now if the job is waited for, else when its task has ended
 * @returns {Span[]}
 */
export function spansOf(steps, submittedAt, end) {
  const all = fromSubmitOn(steps, submittedAt);
  return all.map(({ phase, at, message }, step) => {
    const until = all[step + 1]?.at ?? end;
    return { phase, message, from: at, seconds: Math.max(0, until - at) };
  });
}

/** Add the time between the submit and the first look: the job was queued. */
function fromSubmitOn(steps, submittedAt) {
  const [first, ...others] = steps;
  if (submittedAt === null || submittedAt >= (first?.at ?? Number.POSITIVE_INFINITY)) return steps;
  return [{ phase: "queued", message: "", at: submittedAt }, ...(first?.phase === "queued" ? others : steps)];
}
