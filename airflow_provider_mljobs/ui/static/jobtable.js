/**
 * The table of the list: a row for each job.
 */

import { capital, formatDuration, formatMetric, mappedName, NOTHING } from "./format.js";
import { ChakraUI, html, React, ReactRouterDOM } from "./host.js";
import { ProgressBar, StateBadge, Time } from "./parts.js";
import { isWaitedFor } from "./phases.js";
import { dagPage, jobPage, modelPage, taskInstancePage } from "./urls.js";

const { Table, VisuallyHidden } = ChakraUI;
const { Link } = ReactRouterDOM;

const COLUMNS = [
  ["Task", "auto"],
  ["Run", "195px"],
  ["State", "122px"],
  ["Progress", "145px"],
  ["Metrics", "130px"],
  ["Pool", "138px"],
  ["Queued", "95px"],
  ["Ran", "105px"],
  ["Links", "145px"],
];

// Cells are plain elements: as Chakra components, fifty rows take a quarter of a second.
const LOOKS = {
  tableLayout: "fixed",
  "& tbody tr": { bg: "bg", verticalAlign: "top" },
  "& td": { px: 2, py: 2, borderBottomWidth: "1px" },
  "& .number": { textAlign: "end" },
  "& .cut": { display: "block", truncate: true },
  "& .small": { fontSize: "xs", lineHeight: "1.25rem" },
  "& a": { color: "fg.info", borderRadius: "l1", focusVisibleRing: "outside" },
  "& a:hover": { textDecoration: "underline", textUnderlineOffset: "3px" },
  "& a.name": { fontWeight: "semibold" },
  "& .muted, & a.muted": { color: "fg.muted" },
  "& .pair": { display: "flex", justifyContent: "space-between", gap: 2 },
  "& .links": { display: "flex", flexWrap: "wrap", columnGap: 3, whiteSpace: "nowrap" },
};

/** @param {{jobs: import("./jobs.js").Job[]}} props newest first */
export function JobTable({ jobs }) {
  const minute = Math.floor(Date.now() / 60000);
  const row = (job) => html`<${Row} key=${JSON.stringify(job.key)} job=${job} minute=${minute} />`;
  return html`
    <${Table.ScrollArea} borderWidth="1px" borderRadius="md">
      <${Table.Root} size="sm" minW="1261px" css=${LOOKS} fontVariantNumeric="tabular-nums">
        <${VisuallyHidden} as="caption">ML jobs, newest first<//>
        <${Table.ColumnGroup}>
          ${COLUMNS.map(([name, width]) => html`<${Table.Column} key=${name} htmlWidth=${width} />`)}
        <//>
        <${Table.Header}>
          <${Table.Row}>${COLUMNS.map(([name]) => html`<${Head} key=${name} name=${name} />`)}<//>
        <//>
        <${Table.Body}>${jobs.map(row)}<//>
      <//>
    <//>`;
}

function Head({ name }) {
  const align = ["Queued", "Ran"].includes(name) ? "end" : "start";
  const sort = name === "Run" ? "descending" : undefined;
  return html`<${Table.ColumnHeader} scope="col" textAlign=${align} aria-sort=${sort}>${name}<//>`;
}

// A refresh changes few rows; relative times change once a minute.
const Row = React.memo(
  JobRow,
  (last, next) => last.minute === next.minute && JSON.stringify(last.job) === JSON.stringify(next.job),
);

function JobRow({ job }) {
  const { dagId, runId, taskId, mapIndex } = job.key;
  const name = mappedName(taskId, job.mapLabel);
  const marks = { "data-testid": "job-row", "data-dag": dagId, "data-task": taskId, "data-map-index": mapIndex };
  return html`
    <tr ...${marks}>
      <td>
        <${Link} to=${jobPage(job.key)} className="cut name" title=${name}>${name}<//>
        <${Link} to=${dagPage(dagId)} className="cut small muted" title=${dagId}>${dagId}<//>
      </td>
      <td>
        <div className="cut small" title=${runId}>${runId}</div>
        <div className="cut small muted"><${Time} at=${job.submittedAt ?? job.runAfter} isRelative /></div>
      </td>
      <td>
        <${StateBadge} state=${job.state} />
        <div className="cut small muted" title=${job.message}>${standing(job)}</div>
      </td>
      <td>
        ${job.progress === null && NOTHING}
        <${ProgressBar} progress=${job.progress} label=${`Progress of ${name}`} />
      </td>
      <td><${Metrics} metrics=${job.metrics} /></td>
      <td>
        <div className="cut" title=${job.pool}>${job.pool || NOTHING}</div>
        <div className="cut small muted">${instances(job.instances)}</div>
      </td>
      <td className="number">${formatDuration(job.queuedSeconds)}</td>
      <td className="number">${formatDuration(job.runSeconds)}</td>
      <td>
        <div className="links small">
          <${Link} to=${taskInstancePage(job.key)}>Log<//>
          <${Link} to=${modelPage(dagId, taskId)}>Model<//>
          <${WebLink} href=${job.snowsight}>Snowsight<//>
          <${WebLink} href=${job.rayDashboard}>Ray<//>
        </div>
      </td>
    </tr>`;
}

/** An external link; nothing without an address. */
function WebLink({ href, children }) {
  if (href === "") return null;
  return html`
    <a href=${href} target="_blank" rel="noopener noreferrer">${children}<span aria-hidden="true"> ↗</span></a>`;
}

/** The phase of a running job, the status of one that has ended; "last seen" if its task no longer watches it. */
function standing({ phase, status, state, endDate }) {
  if (phase === "" || phase === "finishing") return status;
  return isWaitedFor(state, endDate) ? capital(phase) : `Last seen ${phase}`;
}

function instances(count) {
  if (count === null) return "";
  return count === 1 ? "1 instance" : `${count} instances`;
}

/** Two metrics, or the first and the number of the others. */
function Metrics({ metrics }) {
  if (metrics.length === 0) return NOTHING;
  const visible = metrics.length > 2 ? 1 : 2;
  const hidden = metrics.slice(visible);
  const words = hidden.map(([name, value]) => `${name} ${formatMetric(value)}`).join(", ");
  const line = ([name, value]) => html`
    <div key=${name} className="pair small">
      <span className="cut muted" title=${name}>${name}</span><span>${formatMetric(value)}</span>
    </div>`;
  return html`
    ${metrics.slice(0, visible).map(line)}
    ${hidden.length > 0 && html`<div className="cut small muted" title=${words}>and ${hidden.length} more</div>`}`;
}
