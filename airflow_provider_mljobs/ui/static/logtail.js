/**
 * The end of a task's log, live.
 */

import { get } from "./api.js";
import { useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { chosenLines, instancesOf, logLines, MAX_LINES } from "./loglines.js";
import { Answered, Choice, PAPER, PageLink, Section } from "./parts.js";
import { logRoute, taskInstancePage } from "./urls.js";

const { Box, Button, Flex, Text } = ChakraUI;
const { useLayoutEffect, useRef, useState } = React;

// Of all instances together, so that each has some lines to choose.
const REMEMBERED_LINES = 10 * MAX_LINES;
const NEAR_THE_END_PIXELS = 24;
const GROWING = ["running", "deferred"];

/**
 * @param {object} props
 * @param {import("./urls.js").TaskKey} props.taskKey
 * @param {import("./jobdata.js").JobDetails} props.job
 * @param {number} props.seconds between two requests; 0 for none
 */
export function LogTail({ taskKey, job, seconds }) {
  const [choice, setChoice] = useState("job");
  const answer = useLog(taskKey, job, seconds);
  const instances = instancesOf(answer.data ?? []);
  const choices = [
    ["job", instances.length > 0 ? "All instances" : "Job"],
    ...instances.map((instance) => [String(instance), `Instance ${instance}`]),
    ["all", "Job and task"],
  ];
  const aside = html`
    <${Flex} align="center" gap=${4}>
      <${PageLink} to=${taskInstancePage(taskKey, job.tryNumber)} fontSize="sm" whiteSpace="nowrap">Full log<//>
      <${Choice}
        label="Lines of" value=${choice} options=${choices} onChange=${setChoice} testId="log-choice" width="190px"
      />
    <//>`;
  return html`
    <${Section} title="Log" aside=${aside}>
      <${Answered} answer=${answer}>
        ${(lines) => html`<${Lines} key=${choice} lines=${chosenLines(lines, choice)} />`}
      <//>
    <//>`;
}

/**
 * Poll the log, and remember its last lines.
 *
 * Airflow sends new lines while a task runs or is deferred; in any other state it sends the whole log, which is read
 * once. When the task starts or stops writing, the log is read from the beginning: it may have moved.
 */
function useLog(taskKey, { tryNumber, state, isOver }, seconds) {
  const isGrowing = GROWING.includes(state);
  const question = JSON.stringify([tryNumber, isGrowing ? state : "", isOver]);
  const read = useRef({ question: "", lines: [], token: null });
  const ask = async (signal) => {
    const last = read.current.question === question ? read.current : { lines: [], token: null };
    const news = await get(logRoute(taskKey, tryNumber, last.token), signal);
    const lines = [...(last.token === null ? [] : last.lines), ...logLines(news.content)];
    read.current = { question, lines: lines.slice(-REMEMBERED_LINES), token: news.continuation_token ?? null };
    return read.current.lines;
  };
  return useAnswer(question, ask, isGrowing ? seconds : 0);
}

/** Shows the last lines, unless the user has scrolled up. */
function Lines({ lines }) {
  const place = useRef(null);
  const [isFollowing, setIsFollowing] = useState(true);
  useLayoutEffect(() => {
    if (isFollowing) place.current.scrollTop = place.current.scrollHeight;
  }, [lines, isFollowing]);
  const onScroll = ({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) =>
    setIsFollowing(scrollHeight - scrollTop - clientHeight < NEAR_THE_END_PIXELS);
  const follow = () => setIsFollowing(true);
  return html`
    <${Box} position="relative">
      <${Box}
        ref=${place} onScroll=${onScroll} tabIndex=${0} role="log" aria-live="off" aria-label="Last lines of the log"
        data-testid="log-tail" h="320px" ...${PAPER}
      >
        ${lines.length === 0 && html`<${Text} color="fg.muted" fontFamily="body">No output yet.<//>`}
        ${lines.map((line, index) => html`<${Line} key=${index} line=${line} />`)}
      <//>
      ${
        !isFollowing &&
        html`<${Button} size="xs" position="absolute" bottom=${3} right=${5} onClick=${follow}>Follow<//>`
      }
    <//>`;
}

function Line({ line: { text, isJobs, isProblem } }) {
  const quiet = isJobs ? "fg" : "fg.muted";
  return html`<${Box} minH="1.5em" color=${isProblem ? "fg.error" : quiet}>${text}<//>`;
}
