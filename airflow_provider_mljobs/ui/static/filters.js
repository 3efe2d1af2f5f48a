/**
 * The filters of the list: by DAG, state, pool and text. They are kept in the page's address.
 */

import { capital } from "./format.js";
import { ChakraUI, html, React } from "./host.js";
import { Choice } from "./parts.js";
import * as read from "./untrusted.js";

const { Field, Flex, Input } = ChakraUI;

const STATES = [
  "running",
  "deferred",
  "queued",
  "scheduled",
  "up_for_retry",
  "up_for_reschedule",
  "restarting",
  "success",
  "failed",
  "upstream_failed",
  "skipped",
  "removed",
];
const PAUSE_MILLISECONDS = 300;

/**
 * @param {object} props
 * @param {import("./urls.js").Filters} props.filters
 * @param {Record<string, any>} props.choices the DAGs and pools that have jobs
 * @param {(name: string, value: string, navigation?: object) => void} props.change
 */
export function FilterBar({ filters, choices, change }) {
  const { dagId, state, pool, text } = filters;
  const states = ["active", ...STATES].map((name) => [name, capital(name.replaceAll("_", " "))]);
  const [dags, pools] = [choices.dag_ids, choices.pools].map((names) => read.list(names).map((name) => [name, name]));
  const dag = { value: dagId, options: dags, onChange: (value) => change("dag_id", value) };
  const standing = { value: state, options: states, onChange: (value) => change("state", value) };
  const place = { value: pool, options: pools, onChange: (value) => change("pool", value) };
  // A search replaces the history entry: "back" undoes it as a whole.
  const search = (value) => change("text", value, { replace: true });
  const stay = (event) => event.preventDefault();
  return html`
    <${Flex} as="form" role="search" aria-label="Filter jobs" gap=${3} mb=${4} wrap="wrap" onSubmit=${stay}>
      <${SearchField} value=${text} onChange=${search} />
      <${Filter} label="DAG" all="All DAGs" name="dag" ...${dag} />
      <${Filter} label="State" all="All states" name="state" ...${standing} />
      <${Filter} label="Pool" all="All pools" name="pool" ...${place} />
    <//>`;
}

function Labelled({ label, children, ...props }) {
  return html`
    <${Field.Root} gap=${1} ...${props}>
      <${Field.Label} fontSize="xs" color="fg.muted">${label}<//>
      ${children}
    <//>`;
}

function Filter({ label, all, name, value, options, onChange }) {
  // The address may name a value that is no longer an option.
  const isListed = value === "" || options.some(([option]) => option === value);
  const choices = [["", all], ...(isListed ? [] : [[value, value]]), ...options];
  return html`
    <${Labelled} label=${label} w=${{ base: "full", sm: "190px" }}>
      <${Choice} value=${value} options=${choices} onChange=${onChange} testId=${`filter-${name}`} />
    <//>`;
}

/** Searches once the user pauses typing, and follows the address when it changes by itself, e.g. on "back". */
function SearchField({ value, onChange }) {
  const [typed, setTyped] = React.useState(value);
  const [address, setAddress] = React.useState(value);
  const [sent, setSent] = React.useState(value);
  if (address !== value) {
    setAddress(value);
    // The address may lag behind the field.
    if (sent !== value) {
      setSent(value);
      setTyped(value);
    }
  }
  const latest = React.useRef(onChange);
  latest.current = onChange;
  React.useEffect(() => {
    if (typed === value) return undefined;
    const timer = setTimeout(() => {
      setSent(typed);
      latest.current(typed);
    }, PAUSE_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [typed, value]);
  const input = { value: typed, onChange: (event) => setTyped(event.target.value) };
  const hint = "DAG, task, run or job";
  return html`
    <${Labelled} label="Search" flex="1" minW="220px" maxW="420px">
      <${Input} type="search" size="sm" placeholder=${hint} data-testid="filter-text" ...${input} />
    <//>`;
}
