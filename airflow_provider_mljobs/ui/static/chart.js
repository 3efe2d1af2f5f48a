/**
 * A line chart with a caption, a summary for screen readers, and its numbers as a table.
 */

import { chartOptions, HEIGHT } from "./curves.js";
import { capital, formatNumber } from "./format.js";
import { useTheme } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { Cut, PlainTable } from "./parts.js";
import uPlot from "./vendor/uPlot.esm.js";

const { Box, Button, Flex, Grid } = ChakraUI;
const { useEffect, useRef, useState } = React;

const stylesheet = document.createElement("link");
stylesheet.rel = "stylesheet";
stylesheet.href = new URL("vendor/uPlot.min.css", import.meta.url).href;
document.head.append(stylesheet);

/**
 * @typedef {object} Plot
 * @property {number[]} x ascending
 * @property {{label: string, values: (number | null)[]}[]} lines a value, or null, for each x
 * @property {string} xLabel the name of x
 * @property {(x: number) => string} xText x, formatted
 * @property {(value: number | null) => string} [yText] a value, formatted
 * @property {boolean} [isWhole] whether x is a whole number
 * @property {boolean} [isTime] whether x is in seconds
 * @property {"bytes" | "seconds"} [yUnit] of values whose ticks are not powers of ten
 */

/** Charts side by side, as many as fit. */
export function Charts({ children }) {
  return html`<${Grid} templateColumns="repeat(auto-fit, minmax(min(380px, 100%), 1fr))" gap=${6}>${children}<//>`;
}

/**
 * @param {object} props
 * @param {string} props.title
 * @param {Plot} props.plot
 * @param {string} props.testId
 */
export function Chart({ title, plot, testId }) {
  const [isTable, setIsTable] = useState(false);
  const toggle = { "aria-pressed": isTable, "aria-label": `${title} as a table`, onClick: () => setIsTable(!isTable) };
  const numbers = html`<${ChartTable} title=${title} plot=${plot} />`;
  const canvas = html`<${Canvas} plot=${plot} summary=${summaryOf(title, plot)} />`;
  return html`
    <${Box} as="figure" data-testid=${testId} minW=${0}>
      <${Flex} as="figcaption" justify="space-between" align="center" gap=${2} mb=${1}>
        <${Cut} fontSize="sm" fontWeight="semibold">${title}<//>
        <${Button} size="2xs" variant="ghost" ...${toggle}>${isTable ? "Show as chart" : "Show as table"}<//>
      <//>
      ${isTable ? numbers : canvas}
    <//>`;
}

function ChartTable({ title, plot }) {
  const { x, lines, xLabel, xText, yText = formatNumber } = plot;
  const rows = x.map((at, row) => [xText(at), ...lines.map((line) => yText(line.values[row] ?? null))]);
  const head = [capital(xLabel), ...lines.map((line) => line.label)];
  return html`<${PlainTable} caption=${title} head=${head} rows=${rows} numeric=${lines.map((_, line) => line + 1)} />`;
}

const LEGEND = {
  fontVariantNumeric: "tabular-nums",
  "& .u-legend": { fontSize: "12px", textAlign: "start" },
  "& .u-legend th": { fontWeight: "normal" },
  "& .u-series:first-of-type .u-marker": { display: "none" },
};

function Canvas({ plot, summary }) {
  const place = useRef(null);
  const drawn = useRef(null);
  const theme = useTheme();
  const data = [plot.x, ...plot.lines.map((line) => line.values)];
  const shape = JSON.stringify([theme, plot.xLabel, plot.lines.map((line) => line.label)]);
  const latest = useRef(plot);
  latest.current = plot;
  // Only a new shape makes a new chart; new numbers update it.
  useEffect(() => {
    const chart = new uPlot(chartOptions(latest, place.current.clientWidth), data, place.current);
    drawn.current = chart;
    const observer = new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width > 0) chart.setSize({ width: contentRect.width, height: HEIGHT });
    });
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      chart.destroy();
    };
  }, [shape]);
  const numbers = JSON.stringify(data);
  // Compared by value.
  useEffect(() => drawn.current.setData(data), [numbers]);
  return html`<${Box} ref=${place} role="img" aria-label=${summary} overflow="hidden" css=${LEGEND} />`;
}

/**
 * @param {string} title
 * @param {Plot} plot
 * @returns {string}
 */
function summaryOf(title, { x, lines, xText, yText = formatNumber }) {
  const span = x.length > 1 ? `from ${xText(x[0])} to ${xText(x[x.length - 1])}` : "";
  const words = lines.map(({ label, values }) => {
    const numbers = values.filter((value) => value !== null);
    if (numbers.length === 0) return `${label}: no values`;
    const [lowest, highest] = [numbers.reduce((a, b) => Math.min(a, b)), numbers.reduce((a, b) => Math.max(a, b))];
    return `${label}: last ${yText(numbers[numbers.length - 1])}, lowest ${yText(lowest)}, highest ${yText(highest)}`;
  });
  return `Line chart of ${title} ${span}. ${words.join(". ")}.`;
}
