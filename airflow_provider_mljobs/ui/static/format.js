/**
 * Formats numbers, durations and times.
 */

/** The placeholder for an unknown value. */
export const NOTHING = "–";

const significant = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const relative = new Intl.RelativeTimeFormat("en");
// By time zone: creating a formatter costs more than a hundred uses.
const clocks = new Map();

/**
 * @param {number | null} value
 * @returns {string} four significant digits, or all of a large integer; very small and very large numbers in powers of ten
 */
export function formatNumber(value) {
  if (value === null) return NOTHING;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e12)) return value.toExponential(3);
  return size >= 1000 ? whole.format(value) : significant.format(value);
}

/**
 * @param {number | null | undefined} value of a metric; null if NaN or infinity was reported
 * @returns {string}
 */
export function formatMetric(value) {
  return value === null ? "not finite" : formatNumber(value ?? null);
}

/**
 * @param {number} value on an axis
 * @param {number} step from one to the next
 * @returns {string} with enough digits to differ from the next
 */
export function formatTick(value, step) {
  if (step < 1e-6) return formatNumber(value);
  const maximumFractionDigits = Math.max(0, Math.ceil(-Math.log10(step)) + 1);
  return new Intl.NumberFormat("en", { maximumFractionDigits }).format(value);
}

/**
 * @param {number | null} fraction
 * @returns {string} e.g. "40 %"
 */
export function formatPercent(fraction) {
  return fraction === null ? NOTHING : `${Math.floor(fraction * 100)} %`;
}

/**
 * @param {number | null} seconds
 * @returns {string} the two largest units, e.g. "3 min 20 s"
 */
export function formatDuration(seconds) {
  if (seconds === null || seconds < 0) return NOTHING;
  const total = Math.round(seconds);
  if (total < 60) return `${total} s`;
  if (total < 3600) return twoUnits(total, 60, "min", "s");
  const minutes = Math.floor(total / 60);
  return minutes < 1440 ? twoUnits(minutes, 60, "h", "min") : twoUnits(Math.floor(minutes / 60), 24, "d", "h");
}

function twoUnits(amount, size, large, small) {
  const rest = amount % size;
  const whole = `${Math.floor(amount / size)} ${large}`;
  return rest === 0 ? whole : `${whole} ${rest} ${small}`;
}

/**
 * @param {number | null} bytes
 * @returns {string} e.g. "4.36 MiB"
 */
export function formatBytes(bytes) {
  if (bytes === null) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log(bytes) / Math.log(1024)));
  const amount = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(bytes / 1024 ** power);
  return `${amount} ${units[power]}`;
}

/**
 * @param {string} unit of a measurement of a container
 * @returns {boolean}
 */
export function isBytes(unit) {
  return /^bytes?$/i.test(unit);
}

/**
 * @param {number | null} value
 * @param {string} unit of a measurement of a container, e.g. "cores"
 * @returns {string}
 */
export function formatMeasure(value, unit) {
  if (isBytes(unit)) return formatBytes(value);
  if (/^percent(age)?$|^%$/i.test(unit)) return `${formatNumber(value)} %`;
  return unit === "" ? formatNumber(value) : `${formatNumber(value)} ${unit}`;
}

/**
 * @param {number | null} moment in seconds since the epoch
 * @param {string} [timeZone] default: the browser's
 * @returns {string} e.g. "2026-11-21 20:00:05"
 */
export function formatTime(moment, timeZone) {
  if (moment === null) return NOTHING;
  if (!clocks.has(timeZone)) {
    // The Swedish locale formats dates as ISO 8601.
    const style = /** @type {const} */ ({ dateStyle: "short", timeStyle: "medium", timeZone });
    clocks.set(timeZone, new Intl.DateTimeFormat("sv-SE", style));
  }
  return clocks.get(timeZone).format(moment * 1000);
}

/**
 * @param {number | null} moment in seconds since the epoch
 * @param {number} now in seconds since the epoch
 * @returns {string} e.g. "5 minutes ago"
 */
export function formatAgo(moment, now) {
  if (moment === null) return NOTHING;
  const seconds = Math.max(0, now - moment);
  if (seconds < 60) return "just now";
  const [unit, size] = /** @type {[Intl.RelativeTimeFormatUnit, number]} */ (
    seconds < 3600 ? ["minute", 60] : seconds < 86400 ? ["hour", 3600] : ["day", 86400]
  );
  return relative.format(-Math.floor(seconds / size), unit);
}

/**
 * @param {number | null} newest
 * @param {number | null} previous
 * @returns {string} the difference and its share of the previous value, e.g. "▲ 0.02 (+2.2 %)"
 */
export function formatDifference(newest, previous) {
  if (newest === null || previous === null) return NOTHING;
  const difference = newest - previous;
  if (difference === 0) return "= 0";
  const [arrow, sign] = difference > 0 ? ["▲", "+"] : ["▼", "−"];
  const share = previous === 0 ? "" : ` (${sign}${formatShare(Math.abs(difference / previous))})`;
  return `${arrow} ${formatNumber(Math.abs(difference))}${share}`;
}

/**
 * @param {number} share
 * @returns {string}
 */
function formatShare(share) {
  return `${new Intl.NumberFormat("en", { maximumFractionDigits: share < 0.1 ? 2 : 1 }).format(share * 100)} %`;
}

/**
 * @param {string} words
 * @returns {string} with a capital first letter
 */
export function capital(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/**
 * @param {string} name of a task or run
 * @param {string} mapLabel "" if the task is not mapped
 * @returns {string} e.g. "train [emea]"
 */
export function mappedName(name, mapLabel) {
  return mapLabel === "" ? name : `${name} [${mapLabel}]`;
}
