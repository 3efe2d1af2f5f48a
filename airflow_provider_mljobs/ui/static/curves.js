/**
 * uPlot's options of a chart, in the colours of the theme.
 */

import { capital, formatNumber, formatTick } from "./format.js";

/** @typedef {import("./chart.js").Plot} Plot */

/** Of a chart without its legend, in pixels. */
export const HEIGHT = 180;

// The most points that are drawn as dots.
const FEW_POINTS = 40;
const HUES = ["blue", "orange", "teal", "purple", "pink", "green", "amber", "red"];
// Lines differ by more than colour.
const DASHES = [[], [8, 4], [2, 3], [12, 4, 2, 4]];

/**
 * @param {{current: Plot}} latest its labels are read at each drawing
 * @param {number} width in pixels
 * @returns {object}
 */
export function chartOptions(latest, width) {
  const { lines, xLabel, yText } = latest.current;
  const xText = (value) => (value === null ? "" : latest.current.xText(value));
  const axis = {
    stroke: colour("fg-muted"),
    grid: { stroke: colour("border"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const yTick = (value, step) => (yText === undefined ? formatTick(value, step) : yText(value));
  return {
    width,
    height: HEIGHT,
    // Half of the last label of x extends beyond the axis.
    padding: [null, 40, null, null],
    scales: { x: { time: false, range: xRange } },
    cursor: { y: false },
    hooks: { setCursor: [showLast], setData: [showLast] },
    axes: [
      { ...axis, size: 28, space: 70, incrs: xSteps(latest.current), values: (_, ticks) => ticks.map(xText) },
      {
        ...axis,
        size: yAxisSize,
        incrs: ySteps(latest.current),
        values: (_chart, ticks, _axis, _space, step) => ticks.map((tick) => yTick(tick, step)),
      },
    ],
    series: [
      { label: capital(xLabel), value: (_, value) => xText(value) },
      ...lines.map(({ label }, line) => lineOptions(label, line, yText ?? formatNumber)),
    ],
  };
}

/** Centre a single point: uPlot would put it at the edge. */
function xRange({ data: [x] }, from, to) {
  return x.length === 1 ? [x[0] - 1, x[0] + 1] : [from, to];
}

function lineOptions(label, line, yText) {
  return {
    label,
    stroke: hue(line),
    dash: DASHES[Math.floor(line / 2) % DASHES.length],
    width: 2,
    spanGaps: true,
    points: { show: (chart) => chart.data[0].length <= FEW_POINTS, size: 6, fill: hue(line) },
    value: (_, value) => yText(value ?? null),
  };
}

/** Show the last values in the legend while the pointer is elsewhere. */
function showLast(chart) {
  const isPointedAt = typeof chart.cursor.idx === "number";
  if (!isPointedAt) chart.setLegend({ idx: chart.data[0].length - 1 }, false);
}

const MINUTE = 60;
const HOUR = 3600;
const SHORT_TIMES = [1, 2, 5, 10, 15, 30];
const LONG_TIMES = [1, 2, 3, 6, 12, 24, 48, 96, 240, 480];
const ROUND_TIMES = [
  ...SHORT_TIMES,
  ...SHORT_TIMES.map((minutes) => minutes * MINUTE),
  ...LONG_TIMES.map((hours) => hours * HOUR),
];
const ROUND_COUNTS = Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
const ROUND_BYTES = Array.from({ length: 50 }, (_, power) => 2 ** power);

/** The steps of the grid along x; undefined for powers of ten. */
function xSteps({ isTime = false, isWhole = false }) {
  if (isTime) return ROUND_TIMES;
  return isWhole ? ROUND_COUNTS : undefined;
}

/** The steps of the grid along the values. */
function ySteps({ yUnit = undefined }) {
  if (yUnit === "seconds") return ROUND_TIMES;
  return yUnit === "bytes" ? ROUND_BYTES : undefined;
}

/** The width of the longest label. */
function yAxisSize(_chart, texts) {
  const longest = Math.max(0, ...(texts ?? []).map((words) => words.length));
  return 16 + longest * 6.5;
}

function hue(line) {
  const isDark = document.documentElement.classList.contains("dark");
  return colour(`${HUES[line % HUES.length]}-${isDark ? 400 : 600}`);
}

/** A colour of the theme; a canvas can't resolve CSS variables. */
function colour(token) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--chakra-colors-${token}`).trim();
}
