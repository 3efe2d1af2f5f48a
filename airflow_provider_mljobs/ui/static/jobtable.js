/**
 * The table of the list: a row for each job.
 */

import { capital, formatDuration, formatNumber, mappedName, NOTHING } from "./format.js";
import { ChakraUI, html, React } from "./host.js";
import { Cut, PageLink, ProgressBar, StateBadge, Time, WebLink } from "./parts.js";
import { isWaitedFor } from "./phases.js";
import { dagPage, jobPage, modelPage, taskInstancePage } from "./urls.js";

const { Flex, Table, Text, VisuallyHidden } = ChakraUI;

const COLUMNS = [
  ["Task", "auto"],
  ["Run", "195px"],
  ["State", "122px"],
  ["Progress", "145px"],
  ["Metrics", "130px"],
  ["Pool", "120px"],
  ["Queued", "95px"],
  ["Ran", "105px"],
  ["Links", "156px"],
];

/** @param {{jobs: import("./facts.js").Job[]}} props newest first */
export function JobTable({ jobs }) {
  const minute = Math.floor(Date.now() / 60000);
  const row = (job) => html`<${Row} key=${JSON.stringify(job.key)} job=${job} minute=${minute} />`;
  return html`
    <${Table.ScrollArea} borderWidth="1px" borderRadius="md">
      <${Table.Root} size="sm" minW="1254px" css=${{ tableLayout: "fixed" }} fontVariantNumeric="tabular-nums">
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

// Most rows are as they were when the list is refreshed; times as "5 minutes ago" are not, each minute.
const Row = React.memo(
  JobRow,
  (last, next) => last.minute === next.minute && JSON.stringify(last.job) === JSON.stringify(next.job),
);

function JobRow({ job }) {
  const { dagId, runId, taskId, mapIndex } = job.key;
  const name = mappedName(taskId, job.mapLabel);
  const marks = { "data-testid": "job-row", "data-dag": dagId, "data-task": taskId, "data-map-index": mapIndex };
  const oneLine = { display: "block", truncate: true };
  return html`
    <${Table.Row} verticalAlign="top" ...${marks}>
      <${Table.Cell}>
        <${PageLink} to=${jobPage(job.key)} fontWeight="semibold" title=${name} ...${oneLine}>${name}<//>
        <${PageLink} to=${dagPage(dagId)} color="fg.muted" fontSize="xs" title=${dagId} ...${oneLine}>${dagId}<//>
      <//>
      <${Table.Cell}>
        <${Cut} fontSize="xs" lineHeight="1.25rem">${runId}<//>
        <${Small}><${Time} at=${job.submittedAt ?? job.runAfter} isRelative /><//>
      <//>
      <${Table.Cell}><${StateBadge} state=${job.state} /><${Small} title=${job.message}>${standing(job)}<//><//>
      <${Table.Cell}>
        ${job.progress === null && NOTHING}
        <${ProgressBar} progress=${job.progress} label=${`Progress of ${name}`} />
      <//>
      <${Table.Cell}><${Metrics} metrics=${job.metrics} /><//>
      <${Table.Cell}><${Cut}>${job.pool}<//><${Small}>${instances(job.instances)}<//><//>
      <${Table.Cell} textAlign="end">${formatDuration(job.queuedSeconds)}<//>
      <${Table.Cell} textAlign="end">${formatDuration(job.runSeconds)}<//>
      <${Table.Cell}>
        <${Flex} wrap="wrap" columnGap=${3} fontSize="xs">
          <${PageLink} to=${taskInstancePage(job.key)}>Log<//>
          <${PageLink} to=${modelPage(dagId, taskId)}>Model<//>
          <${WebLink} href=${job.snowsight}>Snowsight<//>
          <${WebLink} href=${job.rayDashboard}>Ray<//>
        <//>
      <//>
    <//>`;
}

function Small({ children, ...props }) {
  return html`<${Text} as="div" fontSize="xs" color="fg.muted" truncate ...${props}>${children}<//>`;
}

/** What Snowflake says of a job: while it runs its phase, at the end its status. Without its task nobody watches it. */
function standing({ phase, status, state, endDate }) {
  if (phase === "" || phase === "finishing") return status;
  return isWaitedFor(state, endDate) ? capital(phase) : `Last seen ${phase}`;
}

function instances(count) {
  if (count === null) return "";
  return count === 1 ? "1 instance" : `${count} instances`;
}

/** The first two; where there are more, the first and how many more. */
function Metrics({ metrics }) {
  if (metrics.length === 0) return NOTHING;
  const shown = metrics.length > 2 ? 1 : 2;
  const hidden = metrics.slice(shown);
  const words = hidden.map(([name, value]) => `${name} ${formatNumber(value)}`).join(", ");
  const line = ([name, value]) => html`
    <${Flex} key=${name} justify="space-between" gap=${2} fontSize="xs" lineHeight="1.25rem">
      <${Cut} as="span" color="fg.muted">${name}<//><span>${formatNumber(value)}</span>
    <//>`;
  return html`
    ${metrics.slice(0, shown).map(line)}
    ${hidden.length > 0 && html`<${Small} title=${words}>and ${hidden.length} more<//>`}`;
}
