/**
 * The view of one job: of a task instance, in the page and as its tab.
 */

import { Actions } from "./actions.js";
import { Chart, Charts } from "./chart.js";
import { capital, formatDuration, formatMetric, mappedName } from "./format.js";
import { useAnswer, useRemembered } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { JobReader } from "./jobdata.js";
import { Artifacts, Assets, Attempts, Instances, Result, Specification, Usage } from "./jobparts.js";
import { LogTail } from "./logtail.js";
import {
  Answered,
  Empty,
  LiveSwitch,
  PageLink,
  ProgressBar,
  Section,
  StateBadge,
  StatusBadge,
  Time,
  WebLink,
} from "./parts.js";
import { spansOf } from "./phases.js";
import { metricPlot } from "./plots.js";
import { Timeline } from "./timeline.js";
import { dagPage, modelPage, taskInstancePage } from "./urls.js";

const { Box, Flex, Grid, Stack, Text } = ChakraUI;
const { useEffect, useState } = React;

const REFRESH_SECONDS = 5;
// Of a task that is over: a user may clear it.
const SLOW_SECONDS = 60;
const TWO_COLUMNS = { base: "minmax(0, 1fr)", lg: "repeat(2, minmax(0, 1fr))" };
// The last of an odd number fills its row.
const LAST_FILLS = { "& > :last-child:nth-child(odd)": { gridColumn: "1 / -1" } };

/** @param {{taskKey: import("./urls.js").TaskKey}} props */
export function JobView({ taskKey }) {
  const [isLive, setIsLive] = useRemembered("mljobs-live");
  const [isOver, setIsOver] = useState(false);
  const [reader] = useState(() => new JobReader(taskKey));
  const pause = isOver ? SLOW_SECONDS : REFRESH_SECONDS;
  const seconds = isLive ? pause : 0;
  const answer = useAnswer("job", (signal) => reader.read(signal), seconds);
  const isNowOver = answer.data?.isOver === true;
  useEffect(() => setIsOver(isNowOver), [isNowOver]);
  const live = html`<${LiveSwitch} isLive=${isLive} setIsLive=${setIsLive} at=${answer.at} />`;
  return html`
    <${Box} data-testid="job-view">
      <${Answered} answer=${answer}>
        ${(job) => {
          if (!job.hasJob) return html`<${NoJob} job=${job} />`;
          return html`
            <${Stack} gap=${4}>
              <${Headline} taskKey=${taskKey} job=${job} live=${live} refresh=${answer.refresh} />
              <${Metrics} job=${job} />
              <${LogTail} taskKey=${taskKey} job=${job} seconds=${seconds} />
              ${job.isOwn && html`<${Usage} taskKey=${taskKey} />`}
              <${Grid} templateColumns=${TWO_COLUMNS} gap=${4} css=${LAST_FILLS}>
                <${Result} job=${job} />
                <${Artifacts} job=${job} />
                <${Instances} job=${job} />
                <${Assets} job=${job} />
                <${Attempts} taskKey=${taskKey} job=${job} />
              <//>
              ${job.isOwn && html`<${Specification} taskKey=${taskKey} />`}
            <//>`;
        }}
      <//>
    <//>`;
}

function NoJob({ job }) {
  const [title, words] = whyNoJob(job);
  return html`<${Empty} title=${title} testId="job-empty">${words}<//>`;
}

function whyNoJob({ isOurs, isSensor, isOver }) {
  if (isSensor)
    return ["No job of its own", "This sensor waits for another task's job. Open that task to see the job."];
  if (!isOurs) {
    return ["Not an ML job", "This tab shows the job of a task that uses MLJobOperator or @task.mljob."];
  }
  if (isOver) return ["No job", "The task ended before it submitted a job. See its log."];
  return ["No job yet", "The job appears here as soon as the task has submitted it."];
}

function Headline({ taskKey, job, live, refresh }) {
  const spans = spansOf(job.timeline, job.submittedAt, job.end);
  // The provider stops watching a job when its task ends.
  const isOld = job.status !== "" && !job.isJobOver && !job.isWaitedFor;
  return html`
    <${Section} title="Job" aside=${live}>
      <${Flex} justify="space-between" align="start" gap=${4} wrap="wrap" mb=${4}>
        <${Flex} align="center" gap=${3} wrap="wrap">
          <${StateBadge} state=${job.state} />
          ${isOld && html`<${Text} fontSize="sm" color="fg.muted">last seen<//>`}
          ${job.status !== "" && html`<${StatusBadge} status=${job.status} />`}
          ${!isOld && html`<${Text} fontSize="sm">${waitingFor(job, spans[spans.length - 1])}<//>`}
        <//>
        ${job.isOwn && html`<${Actions} taskKey=${taskKey} job=${job} onDone=${refresh} />`}
      <//>
      <${ProgressBar} progress=${job.progress} label="Progress of the job" mb=${4} />
      ${spans.length > 0 && html`<${Timeline} spans=${spans} />`}
      <${Details} taskKey=${taskKey} job=${job} spans=${spans} />
      <${Flex} columnGap=${5} rowGap=${1} mt=${4} fontSize="sm" wrap="wrap">
        <${PageLink} to=${taskInstancePage(taskKey)}>Task instance<//>
        <${PageLink} to=${modelPage(taskKey.dagId, taskKey.taskId)}>Model over the runs<//>
        <${WebLink} href=${job.snowsight}>Snowsight<//>
        <${WebLink} href=${job.rayDashboard}>Ray dashboard<//>
      <//>
    <//>`;
}

/** The current phase of a job, unless its status says the same. */
function waitingFor({ isJobOver, status }, span) {
  if (isJobOver || span === undefined || span.phase === status.toLowerCase()) return "";
  return span.message === "" ? capital(span.phase) : `${capital(span.phase)}: ${span.message}`;
}

function Details({ taskKey, job, spans }) {
  const tries = job.maxTries === null ? "" : ` of ${Math.max(job.maxTries + 1, job.tryNumber)}`;
  const detail = ([name, value]) => html`<${Detail} key=${name} name=${name} isWide=${name === "Stage"}>${value}<//>`;
  const running = spans.filter(({ phase }) => phase === "running").reduce((sum, { seconds }) => sum + seconds, 0);
  return html`
    <${Grid} as="dl" templateColumns="repeat(auto-fill, minmax(min(210px, 45%), 1fr))" gap=${3} mt=${5}>
      <${Detail} name="DAG"><${PageLink} to=${dagPage(taskKey.dagId)}>${taskKey.dagId}<//><//>
      <${Detail} name="Run">${taskKey.runId}<//>
      <${Detail} name="Task">${mappedName(taskKey.taskId, job.mapLabel)}<//>
      <${Detail} name="Try">${job.tryNumber}${tries}<//>
      <${Detail} name="Job" isWide>${job.jobId}<//>
      ${job.details.map(detail)}
      <${Detail} name="Submitted"><${Time} at=${job.submittedAt} /><//>
      <${Detail} name="Ran">${formatDuration(running > 0 ? running : null)}<//>
    <//>`;
}

function Detail({ name, children, isWide = false }) {
  return html`
    <${Box} minW=${0} gridColumn=${isWide ? "span 2" : "auto"}>
      <${Text} as="dt" fontSize="xs" color="fg.muted">${name}<//>
      <${Text} as="dd" fontSize="sm" overflowWrap="anywhere" fontVariantNumeric="tabular-nums">${children}<//>
    <//>`;
}

function Metrics({ job }) {
  if (job.metrics.length === 0 && job.series.length === 0) return null;
  const start = job.timeline.find(({ phase }) => phase === "running")?.at ?? job.submittedAt;
  const curves = job.series.filter(([, points]) => points.length > 1);
  const last = ([name, value]) => html`
    <${Box} key=${name}>
      <${Text} as="dt" fontSize="xs" color="fg.muted">${name}<//>
      <${Text} as="dd" fontSize="xl" fontWeight="semibold" fontVariantNumeric="tabular-nums">${formatMetric(value)}<//>
    <//>`;
  const curve = ([name, points]) =>
    html`<${Chart} key=${name} title=${name} plot=${metricPlot(name, points, start)} testId="metric-chart" />`;
  return html`
    <${Section} title="Metrics">
      <${Flex} as="dl" gap=${8} rowGap=${3} wrap="wrap" mb=${curves.length > 0 ? 5 : 0}>${job.metrics.map(last)}<//>
      <${Charts}>${curves.map(curve)}<//>
    <//>`;
}
