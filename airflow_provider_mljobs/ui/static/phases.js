/**
 * The timeline of a job: what it was doing, and for how long.
 */

/** @typedef {{phase: string, message: string, from: number, seconds: number}} Span */

// While its task is in one of these states, and has not ended, somebody looks after a job.
const WAITING = ["running", "deferred", "scheduled", "queued"];

/**
 * @param {string} state of a task instance
 * @param {number | null} ended when its try has, in seconds since the epoch
 * @returns {boolean} whether it waits for its job, so that what is known of the job goes on to be true
 */
export function isWaitedFor(state, ended) {
  return ended === null && WAITING.includes(state);
}

/**
 * @param {import("./facts.js").Step[]} steps in order of time
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

/** A job is queued from its submit on, which is before anybody looked. */
function fromSubmitOn(steps, submittedAt) {
  const [first, ...others] = steps;
  if (submittedAt === null || submittedAt >= (first?.at ?? Number.POSITIVE_INFINITY)) return steps;
  return [{ phase: "queued", message: "", at: submittedAt }, ...(first?.phase === "queued" ? others : steps)];
}
