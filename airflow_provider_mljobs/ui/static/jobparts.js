/**
 * The lower parts of a job's view: usage, result, files, attempts and specification.
 */

import { get } from "./api.js";
import { Chart, Charts } from "./chart.js";
import { formatBytes, formatDuration, NOTHING } from "./format.js";
import { useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { readable } from "./jobdata.js";
import { Answered, CARD, Empty, Mono, PAPER, PageLink, PlainTable, Section, StateBadge, Time } from "./parts.js";
import { usagePlots } from "./plots.js";
import * as read from "./untrusted.js";
import { ownRoute, query, taskInstancePage, triesRoute } from "./urls.js";

const { Box, Button, Flex, Heading, Text } = ChakraUI;

/** @typedef {{taskKey: import("./urls.js").TaskKey}} OfTask */
/** @typedef {{job: import("./jobdata.js").JobDetails}} OfJob */

/** A part that queries Snowflake, and therefore only once it is opened. */
function OnDemand({ title, testId, taskKey, what, children }) {
  const [isOpen, setIsOpen] = React.useState(false);
  const route = ownRoute(taskKey, what) + query({ map_index: taskKey.mapIndex });
  const answer = useAnswer(isOpen ? route : null, (signal) => get(route, signal));
  const onToggle = (event) => setIsOpen(event.currentTarget.open);
  const answered = () => html`
    <${Answered} answer=${answer}>${(data) => children(read.record(data), answer.refresh)}<//>`;
  // A 404 is final: the job was dropped.
  const isGone = answer.error?.status === 404;
  const content = html`
    <${Box} mt=${3}>
      ${isGone ? html`<${Empty} title="Not available">${answer.error.message}<//>` : answered()}
    <//>`;
  return html`
    <${Box} as="details" data-testid=${testId} onToggle=${onToggle} ...${CARD}>
      <${Box} as="summary" cursor="pointer"><${Heading} as="h2" size="sm" display="inline">${title}<//><//>
      ${isOpen && content}
    <//>`;
}

/** CPU, memory and GPU of the job's containers. @param {OfTask} props */
export function Usage({ taskKey }) {
  return html`
    <${OnDemand} title="CPU, memory and GPU" testId="usage" taskKey=${taskKey} what="usage">
      ${(data, refresh) => {
        const plots = usagePlots(data.usage);
        if (plots.length === 0) {
          const reason =
            read.text(data.reason) || "Snowflake hasn't published any for this job yet. Check again in a few minutes.";
          return html`<${Empty} title="No measurements">${reason}<//>`;
        }
        const chart = ({ title, plot }) =>
          html`<${Chart} key=${title} title=${title} plot=${plot} testId="usage-chart" />`;
        return html`
          <${Charts}>${plots.map(chart)}<//>
          <${Flex} justify="end"><${Button} size="xs" variant="outline" onClick=${refresh}>Refresh<//><//>`;
      }}
    <//>`;
}

/** The job's specification in Snowflake, without secrets. @param {OfTask} props */
export function Specification({ taskKey }) {
  return html`
    <${OnDemand} title="Specification" testId="specification" taskKey=${taskKey} what="specification">
      ${(data) => html`<${Code} label="Specification">${read.text(data.specification)}<//>`}
    <//>`;
}

function Code({ label, children }) {
  return html`
    <${Box} as="pre" tabIndex=${0} role="region" aria-label=${label} maxH="360px" ...${PAPER}>
      ${children || NOTHING}
    <//>`;
}

/** The task's return value. @param {OfJob} props */
export function Result({ job }) {
  if (job.result === undefined || job.result === null) return null;
  return html`<${Section} title="Result"><${Code} label="Result">${readable(job.result)}<//><//>`;
}

/** The files of the job. @param {OfJob} props */
export function Artifacts({ job }) {
  if (job.artifacts.length === 0) return null;
  const head = ["File", "Size", "MD5"];
  const rows = job.artifacts.map(({ path, bytes, md5, isReported }) => [
    html`<${Text} overflowWrap="anywhere" fontWeight=${isReported ? "semibold" : "normal"}>${path}<//>`,
    formatBytes(bytes),
    html`<${Mono} title=${md5}>${md5.slice(0, 8)}<//>`,
  ]);
  return html`
    <${Section} title="Artifacts"><${PlainTable} caption="Artifacts" head=${head} rows=${rows} numeric=${[1]} /><//>`;
}

/** The assets that the job reported. @param {OfJob} props */
export function Assets({ job }) {
  if (job.assets.length === 0) return null;
  const rows = job.assets.map(({ uri, extra }) => [
    html`<${Text} overflowWrap="anywhere">${uri}<//>`,
    html`<${Mono}>${extra}<//>`,
  ]);
  const head = ["Asset", "Extra"];
  return html`<${Section} title="Assets"><${PlainTable} caption="Assets" head=${head} rows=${rows} /><//>`;
}

/** Exit code and value of each instance. @param {OfJob} props */
export function Instances({ job }) {
  if (job.instances.length === 0) return null;
  const head = ["Instance", "Exit code", "Value"];
  const rows = job.instances.map(({ instance, exitCode, value }) => [
    instance,
    exitCode || NOTHING,
    html`<${Mono}>${value}<//>`,
  ]);
  return html`<${Section} title="Instances"><${PlainTable} caption="Instances" head=${head} rows=${rows} /><//>`;
}

/** The tries of the task. @param {OfTask & OfJob} props */
export function Attempts({ taskKey, job }) {
  const answer = useAnswer(`${job.tryNumber} ${job.state}`, (signal) => get(triesRoute(taskKey), signal));
  const head = ["Try", "State", "Started", "Took", "Log"];
  const row = (one) => [
    read.text(one.try_number),
    html`<${StateBadge} state=${read.text(one.state)} />`,
    html`<${Time} at=${read.moment(one.start_date)} />`,
    formatDuration(read.number(one.duration)),
    html`<${PageLink} to=${taskInstancePage(taskKey, one.try_number)}>Log<//>`,
  ];
  const table = (data) => {
    const rows = read.list(read.record(data).task_instances).map(read.record).map(row);
    return html`<${PlainTable} caption="Attempts" head=${head} rows=${rows} numeric=${[3]} />`;
  };
  return html`<${Section} title="Attempts"><${Answered} answer=${answer}>${table}<//><//>`;
}
