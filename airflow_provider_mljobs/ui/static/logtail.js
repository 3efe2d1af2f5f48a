/**
 * The end of a task's log, while it is written.
 */

import { get } from "./api.js";
import { useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { chosenLines, instancesOf, KEPT_LINES, logLines } from "./loglines.js";
import { Answered, Choice, PAPER, PageLink, Section } from "./parts.js";
import { logRoute, taskInstancePage } from "./urls.js";

const { Box, Button, Flex, Text } = ChakraUI;
const { useLayoutEffect, useRef, useState } = React;

// Of all instances together, so that of each there is something to choose.
const REMEMBERED_LINES = 10 * KEPT_LINES;
const NEAR_THE_END_PIXELS = 24;
const GROWING = ["running", "deferred"];

/**
 * @param {object} props
 * @param {import("./urls.js").TaskKey} props.taskKey
 * @param {import("./jobdata.js").JobFacts} props.job
 * @param {number} props.seconds between two questions; 0: none
 */
export function LogTail({ taskKey, job, seconds }) {
  const [choice, setChoice] = useState("job");
  const answer = useLog(taskKey, job, seconds);
  const instances = instancesOf(answer.data ?? []);
  const choices = [
    ["job", instances.length > 0 ? "All instances" : "The job"],
    ...instances.map((instance) => [String(instance), `Instance ${instance}`]),
    ["all", "The job and its task"],
  ];
  const aside = html`
    <${Flex} align="center" gap=${4}>
      <${PageLink} to=${taskInstancePage(taskKey, job.tryNumber)} fontSize="sm" whiteSpace="nowrap">Whole log<//>
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
 * Ask for what is new in the log, and remember the last lines.
 *
 * Airflow tells what is new while a task runs or is deferred; in any other state it gives the whole log, which is then
 * asked for once. When the task begins or ends to be written to, the log is read anew: it may have moved.
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
  // New lines are followed.
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
        ${lines.length === 0 && html`<${Text} color="fg.muted" fontFamily="body">The job has printed nothing yet.<//>`}
        ${lines.map((line, index) => html`<${Line} key=${index} line=${line} />`)}
      <//>
      ${
        !isFollowing &&
        html`<${Button} size="xs" position="absolute" bottom=${3} right=${5} onClick=${follow}>Follow the end<//>`
      }
    <//>`;
}

function Line({ line: { text, isJobs, isProblem } }) {
  const quiet = isJobs ? "fg" : "fg.muted";
  return html`<${Box} minH="1.5em" color=${isProblem ? "fg.error" : quiet}>${text}<//>`;
}
