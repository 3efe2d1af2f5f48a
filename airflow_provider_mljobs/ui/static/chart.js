/**
 * A line chart with a caption, a summary for those who can't see it, and its numbers as a table.
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
 * @property {string} xLabel what x is
 * @property {(x: number) => string} xText x as people read it
 * @property {(value: number | null) => string} [yText] a value as people read it
 * @property {boolean} [isWhole] whether x counts something, so that there is nothing between two whole numbers
 * @property {boolean} [isTime] whether x is in seconds
 * @property {"bytes" | "seconds"} [yUnit] of the values, where their round numbers are not those of tens
 */

/** Charts beside each other, as many as there is room for. */
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
  // New numbers don't make a new chart, another shape does.
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
    const known = values.filter((value) => value !== null);
    if (known.length === 0) return `${label}: no values`;
    const [lowest, highest] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
    return `${label}: last ${yText(known[known.length - 1])}, lowest ${yText(lowest)}, highest ${yText(highest)}`;
  });
  return `Line chart of ${title} ${span}. ${words.join(". ")}.`;
}
