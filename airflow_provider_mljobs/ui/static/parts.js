/**
 * Components that several views share.
 */

import { formatAgo, formatPercent, formatTime, NOTHING } from "./format.js";
import { timeZone } from "./hooks.js";
import { ChakraUI, html, ReactRouterDOM } from "./host.js";

const { Alert, Badge, Box, Button, Flex, Heading, Link, NativeSelect } = ChakraUI;
const { Skeleton, Stack, Switch, Table, Text, VisuallyHidden } = ChakraUI;

/** An error in the place of data, with a button to try again. */
export function ErrorBox({ error, retry }) {
  const [words, action] = error.status === 401 ? ["Reload", () => location.reload()] : ["Try again", retry];
  return html`
    <${Alert.Root} status="error" role="alert" data-testid="error" alignItems="center" mb=${3}>
      <${Alert.Indicator} />
      <${Alert.Content}><${Alert.Description}>${error.message}<//><//>
      <${Button} size="sm" variant="outline" colorPalette="error" onClick=${action}>${words}<//>
    <//>`;
}

/** A placeholder for data that is loading. */
export function Loading({ rows = 3, height = "40px" }) {
  const still = { animation: "none" };
  const bar = (_, row) => html`<${Skeleton} key=${row} height=${height} _motionReduce=${still} />`;
  return html`
    <${Stack} gap=${2} role="status" aria-label="Loading" data-testid="loading">
      ${Array.from({ length: rows }, bar)}
    <//>`;
}

/** An empty state: its meaning, and the next step. */
export function Empty({ title, children, testId = "empty" }) {
  return html`
    <${Flex} direction="column" align="center" gap=${1} py=${10} px=${4} textAlign="center" data-testid=${testId}>
      <${Text} fontWeight="semibold">${title}<//>
      <${Text} color="fg.muted" maxW="60ch">${children}<//>
    <//>`;
}

/**
 * The data of an answer; until it arrives, a placeholder or the error.
 *
 * @param {object} props
 * @param {import("./hooks.js").Answer} props.answer
 * @param {any} [props.loading] a placeholder
 * @param {(data: any) => any} props.children
 */
export function Answered({ answer, loading = html`<${Loading} />`, children }) {
  const { data, error, refresh } = answer;
  return html`
    ${error && html`<${ErrorBox} error=${error} retry=${refresh} />`}
    ${data === undefined ? !error && loading : children(data)}`;
}

/** How parts of a view look. */
export const CARD = { borderWidth: "1px", borderRadius: "md", bg: "bg.panel", p: 4, minW: 0 };

/** A part of a view with a heading of its own. */
export function Section({ title, aside = null, children }) {
  return html`
    <${Box} as="section" ...${CARD}>
      <${Flex} justify="space-between" align="center" gap=${3} mb=${3} wrap="wrap">
        <${Heading} as="h2" size="sm">${title}<//>${aside}
      <//>
      ${children}
    <//>`;
}

const STATUS_PALETTES = new Map([
  ["DONE", "success"],
  ["FAILED", "failed"],
  ["INTERNAL_ERROR", "failed"],
  ["CANCELLED", "skipped"],
  ["CANCELLING", "skipped"],
  ["RUNNING", "running"],
  ["PENDING", "queued"],
]);

/** A state of Airflow in Airflow's colour. */
export function StateBadge({ state }) {
  return html`<${Pill} palette=${state || "none"} words=${state.replaceAll("_", " ") || "no status"} />`;
}

/** A status of Snowflake. */
export function StatusBadge({ status }) {
  return html`<${Pill} palette=${STATUS_PALETTES.get(status) ?? "none"} words=${status.replaceAll("_", " ")} />`;
}

const DOT = { content: '""', boxSize: "8px", borderRadius: "full" };
const PILL = {
  borderRadius: "full",
  px: 2,
  py: 0.5,
  gap: 1.5,
  whiteSpace: "nowrap",
  _before: { ...DOT, bg: { base: "colorPalette.solid", _dark: "colorPalette.fg" } },
};

function Pill({ palette, words }) {
  return html`<${Badge} colorPalette=${palette} variant="subtle" ...${PILL}>${words}<//>`;
}

const PROGRESS = {
  minW: 0,
  fontSize: "xs",
  "& .bar": { display: "flex", alignItems: "center", gap: 2 },
  "& .track": { flex: 1, height: 2, borderRadius: "full", bg: "bg.emphasized", overflow: "hidden" },
  "& .done": { height: "full", bg: "info.solid" },
  "& .percent": { minW: "4ch", textAlign: "end", fontVariantNumeric: "tabular-nums" },
  "& .message": { color: "fg.muted", lineHeight: "1rem", truncate: true },
};

/** The progress of a job; nothing if it has reported none. */
export function ProgressBar({ progress, label, ...props }) {
  if (progress === null) return null;
  const { fraction, message } = progress;
  return html`
    <${Box} data-testid="progress" css=${PROGRESS} ...${props}>
      ${fraction !== null && html`<${Bar} fraction=${fraction} label=${label} />`}
      <div className="message" title=${message}>${message}</div>
    <//>`;
}

function Bar({ fraction, label }) {
  const state = { "aria-valuenow": fraction * 100, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": label };
  return html`
    <div className="bar">
      <div role="progressbar" className="track" ...${state}>
        <div className="done" style=${{ width: `${fraction * 100}%` }} />
      </div>
      <span className="percent">${formatPercent(fraction)}</span>
    </div>`;
}

/** A link inside Airflow. */
export function PageLink({ to, children, ...props }) {
  return html`<${Link} asChild color="fg.info" ...${props}><${ReactRouterDOM.Link} to=${to}>${children}<//><//>`;
}

/** An external link; nothing without an address. */
export function WebLink({ href, children }) {
  if (href === "") return null;
  return html`
    <${Link} href=${href} target="_blank" rel="noopener noreferrer" color="fg.info" whiteSpace="nowrap">
      ${children}<${Text} as="span" aria-hidden="true"> ↗<//>
    <//>`;
}

/** A text on one line, with the full text as its tooltip. */
export function Cut({ children, ...props }) {
  return html`<${Text} truncate title=${children} ...${props}>${children || NOTHING}<//>`;
}

/** A path, JSON or other code in a cell. */
export function Mono({ children, ...props }) {
  return html`<${Text} fontFamily="mono" fontSize="xs" overflowWrap="anywhere" ...${props}>${children || NOTHING}<//>`;
}

/** How logs and code look. */
export const PAPER = {
  bg: "bg.subtle",
  borderWidth: "1px",
  borderRadius: "sm",
  fontFamily: "mono",
  fontSize: "xs",
  lineHeight: "1.5",
  px: 3,
  py: 2,
  overflow: "auto",
  whiteSpace: "pre-wrap",
  overflowWrap: "anywhere",
};

/** A moment. */
export function Time({ at, isRelative = false }) {
  if (at === null) return NOTHING;
  const exact = formatTime(at, timeZone());
  const iso = new Date(at * 1000).toISOString();
  return html`
    <time dateTime=${iso} title=${exact} style=${{ fontVariantNumeric: "tabular-nums", whiteSpace: "nowrap" }}>
      ${isRelative ? formatAgo(at, Date.now() / 1000) : exact}
    </time>`;
}

/** The switch for automatic refresh, and the time of the last one. */
export function LiveSwitch({ isLive, setIsLive, at }) {
  const choose = ({ checked }) => setIsLive(checked);
  return html`
    <${Flex} align="center" gap=${3}>
      <${Text} fontSize="xs" color="fg.muted" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
        ${at !== null && `Updated ${formatTime(at, timeZone()).slice(11)}`}
      <//>
      <${Switch.Root} size="sm" colorPalette="info" checked=${isLive} onCheckedChange=${choose}>
        <${Switch.HiddenInput} data-testid="live" />
        <${Switch.Control}><${Switch.Thumb} /><//>
        <${Switch.Label}>Live<//>
      <//>
    <//>`;
}

/**
 * A choice of one of several values.
 *
 * @param {object} props
 * @param {string} [props.label] for screen readers; not needed inside a field, which has its own
 * @param {string} props.value
 * @param {[string, string][]} props.options values and words
 * @param {(value: string) => void} props.onChange
 * @param {string} props.testId
 * @param {string} [props.width]
 */
export function Choice({ label, value, options, onChange, testId, width = "full" }) {
  const choose = (event) => onChange(event.target.value);
  return html`
    <${NativeSelect.Root} size="sm" w=${width}>
      <${NativeSelect.Field} value=${value} onChange=${choose} aria-label=${label} data-testid=${testId}>
        ${options.map(([option, words]) => html`<option key=${option} value=${option}>${words}</option>`)}
      <//>
      <${NativeSelect.Indicator} />
    <//>`;
}

/**
 * A table of plain cells.
 *
 * @param {object} props
 * @param {string} props.caption
 * @param {string[]} props.head
 * @param {any[][]} props.rows
 * @param {number[]} [props.numeric] the columns of numbers
 */
export function PlainTable({ caption, head, rows, numeric = [] }) {
  const align = (column) => (numeric.includes(column) ? "end" : "start");
  const headCell = (name, column) =>
    html`<${Table.ColumnHeader} key=${column} scope="col" textAlign=${align(column)}>${name}<//>`;
  const cell = (content, column) => html`<${Table.Cell} key=${column} textAlign=${align(column)}>${content}<//>`;
  return html`
    <${Table.ScrollArea} maxH="360px" tabIndex=${0} role="region" aria-label=${caption}>
      <${Table.Root} size="sm" fontVariantNumeric="tabular-nums">
        <${VisuallyHidden} as="caption">${caption}<//>
        <${Table.Header}><${Table.Row} bg="bg.panel">${head.map(headCell)}<//><//>
        <${Table.Body}>
          ${rows.map((cells, row) => html`<${Table.Row} key=${row} bg="bg.panel">${cells.map(cell)}<//>`)}
        <//>
      <//>
    <//>`;
}
