/**
 * The list of jobs: running and recent ones, of all DAGs that the user may see.
 */

import { get } from "./api.js";
import { FilterBar } from "./filters.js";
import { useAnswer, useRemembered } from "./hooks.js";
import { ChakraUI, html, React, ReactRouterDOM } from "./host.js";
import { jobOf } from "./jobs.js";
import { JobTable } from "./jobtable.js";
import { Page } from "./page.js";
import { Answered, Empty, ErrorBox, LiveSwitch, Loading, PageLink } from "./parts.js";
import * as read from "./untrusted.js";
import { CLEAN_UP_PAGE, filtersOf, jobsRoute, PAGE_SIZE } from "./urls.js";

const { Box, Button, Flex, Text } = ChakraUI;

const REFRESH_SECONDS = 5;

/** The whole view. */
export function JobsView() {
  const [search, setSearch] = ReactRouterDOM.useSearchParams();
  const [isLive, setIsLive] = useRemembered("mljobs-live");
  const filters = filtersOf(search);
  const route = jobsRoute(filters);
  const jobs = useAnswer(route, (signal) => get(route, signal), isLive ? REFRESH_SECONDS : 0);
  const options = useAnswer("filters", (signal) => get("mljobs/api/filters", signal));
  const choices = read.record(options.data);

  // An empty filter is left out of the address; a new filter starts at the first page.
  const change = (name, value, navigation) =>
    setSearch((last) => {
      const next = new URLSearchParams(last);
      next.delete("page");
      if (value === "") next.delete(name);
      else next.set(name, value);
      return next;
    }, navigation);

  const content = (data) =>
    html`<${Jobs} data=${read.record(data)} isStale=${jobs.isStale} filters=${filters} change=${change} />`;
  const aside = html`
    <${Flex} align="center" gap=${5}>
      ${choices.can_clean_up === true && html`<${PageLink} to=${CLEAN_UP_PAGE} fontSize="sm">Clean up<//>`}
      <${LiveSwitch} isLive=${isLive} setIsLive=${setIsLive} at=${jobs.at} />
    <//>`;
  return html`
    <${Page} aside=${aside}>
      <${Box} data-testid="jobs-list" aria-busy=${jobs.isStale}>
        <${FilterBar} filters=${filters} choices=${choices} change=${change} />
        ${options.error && !jobs.error && html`<${ErrorBox} error=${options.error} retry=${options.refresh} />`}
        <${Answered} answer=${jobs} loading=${html`<${Loading} rows=${10} height="44px" />`}>
          ${content}
        <//>
      <//>
    <//>`;
}

function Jobs({ data, filters, isStale, change }) {
  const jobs = read.list(data.jobs).map(jobOf);
  const total = read.number(data.total) ?? jobs.length;
  const top = React.useRef(null);
  if (jobs.length === 0) return html`<${NoJobs} filters=${filters} />`;
  return html`
    <${Box} ref=${top} tabIndex=${-1} outline="none" opacity=${isStale ? 0.6 : 1}><${JobTable} jobs=${jobs} /><//>
    <${Pager} page=${filters.page} count=${jobs.length} total=${total} change=${change} top=${top} />`;
}

function NoJobs({ filters: { dagId, state, pool, text, page } }) {
  const all = (words) => html`<${PageLink} to="?" variant="underline">${words}<//>`;
  if (page > 0) return html`<${Empty} title="This page is empty">There are fewer jobs now: ${all("show all")}.<//>`;
  if (dagId || state || pool || text) {
    return html`<${Empty} title="No matching jobs">Change the filters, or ${all("show all jobs")}.<//>`;
  }
  return html`
    <${Empty} title="No ML jobs yet">
      Run a DAG with an MLJobOperator or a @task.mljob function. Its job appears here as soon as it is submitted.
    <//>`;
}

function Pager({ page, count, total, change, top }) {
  const whole = (number) => new Intl.NumberFormat("en").format(number);
  const first = page * PAGE_SIZE + 1;
  const last = page * PAGE_SIZE + count;
  const button = (words, to, testId, disabled) => {
    const go = () => {
      change("page", to === 0 ? "" : String(to + 1));
      // Start at the top of the page: the button may be disabled there and lose the focus.
      top.current.scrollIntoView();
      top.current.focus({ preventScroll: true });
    };
    return html`
      <${Button} size="sm" variant="outline" disabled=${disabled} onClick=${go} data-testid=${testId}>${words}<//>`;
  };
  return html`
    <${Flex} as="nav" aria-label="Pages" justify="space-between" align="center" mt=${3} gap=${3} wrap="wrap">
      <${Text} fontSize="sm" color="fg.muted" fontVariantNumeric="tabular-nums" role="status">
        ${whole(first)}–${whole(last)} of <span data-testid="total">${whole(total)}</span> jobs
      <//>
      <${Flex} gap=${2}>
        ${button("Previous", page - 1, "pager-previous", page === 0)}
        ${button("Next", page + 1, "pager-next", last >= total)}
      <//>
    <//>`;
}
