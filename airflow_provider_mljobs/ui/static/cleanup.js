/**
 * The view that finds and removes orphaned jobs and payloads in Snowflake.
 */

import { Confirmed } from "./actions.js";
import { get, post } from "./api.js";
import { capital, formatNumber, NOTHING } from "./format.js";
import { useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { Answered, Empty, ErrorBox, Mono, PlainTable, Section, Time } from "./parts.js";
import * as read from "./untrusted.js";

const { Box, Button, Field, Grid, Input, Stack, Text } = ChakraUI;
const { useState } = React;

const FIELDS = [
  {
    name: "snowflake_conn_id",
    label: "Connection",
    start: "snowflake_default",
    help: "Airflow connection to Snowflake.",
    needs: { required: true },
  },
  {
    name: "older_than_hours",
    label: "Older than (hours)",
    start: "24",
    help: "Newer jobs and files may still be in use.",
    needs: { required: true, type: "number", min: 0, step: "any" },
  },
  {
    name: "stages",
    label: "Stages",
    start: "",
    help: "Stages with payloads, e.g. @ML_PAYLOADS, separated by commas. Empty: only jobs are removed.",
  },
  {
    name: "schema",
    label: "Schema",
    start: "",
    help: "db.schema, or 'account' for all schemas. Empty: the connection's schema.",
  },
];

/** The whole view; only for users who may clean up. */
export function CleanUpView() {
  const options = useAnswer("filters", (signal) => get("mljobs/api/filters", signal));
  const forbidden = html`<${Empty} title="Administrators only">Cleaning up needs permission to edit all DAGs and connections.<//>`;
  return html`
    <${Box} data-testid="clean-up-view">
      <${Answered} answer=${options}>
        ${(data) => (read.record(data).can_clean_up === true ? html`<${CleanUp} />` : forbidden)}
      <//>
    <//>`;
}

function CleanUp() {
  const [values, setValues] = useState(() => Object.fromEntries(FIELDS.map(({ name, start }) => [name, start])));
  const [result, setResult] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setIsBusy] = useState(false);
  const run = async (isDryRun) => {
    setIsBusy(true);
    setError(null);
    try {
      setResult({ isDryRun, ...read.record(await post("mljobs/api/clean-up", request(values, isDryRun))) });
    } catch (failure) {
      setResult(null);
      setError(failure);
    }
    setIsBusy(false);
  };
  // A result belongs to the form that asked for it.
  const change = (name, value) => {
    setValues({ ...values, [name]: value });
    setResult(null);
  };
  const onSubmit = (event) => {
    event.preventDefault();
    run(true);
  };
  const field = (about) =>
    html`<${TextField} key=${about.name} about=${about} value=${values[about.name]} onChange=${change} />`;
  return html`
    <${Stack} gap=${4}>
      <${Section} title="Search">
        <form onSubmit=${onSubmit}>
          <${Grid} templateColumns="repeat(auto-fill, minmax(240px, 1fr))" gap=${4} mb=${4}>${FIELDS.map(field)}<//>
          <${Button} type="submit" size="sm" colorPalette="brand" loading=${isBusy} data-testid="dry-run">
            Preview (changes nothing)
          <//>
        </form>
      <//>
      ${error && html`<${ErrorBox} error=${error} retry=${() => run(true)} />`}
      <${Box} aria-live="polite">${result && html`<${Result} result=${result} collect=${() => run(false)} />`}<//>
    <//>`;
}

/** The form as the body of the request. */
function request(values, isDryRun) {
  const stages = values.stages.split(",").map((stage) => stage.trim());
  return {
    snowflake_conn_id: values.snowflake_conn_id.trim(),
    older_than_hours: Number(values.older_than_hours),
    stages: stages.filter(Boolean),
    schema: values.schema.trim() || null,
    dry_run: isDryRun,
  };
}

function TextField({ about, value, onChange }) {
  const { name, label, help, needs } = about;
  const input = { name, value, onChange: (event) => onChange(name, event.target.value), ...needs };
  return html`
    <${Field.Root} gap=${1}>
      <${Field.Label} fontSize="xs" color="fg.muted">${label}<//>
      <${Input} size="sm" data-testid=${`clean-up-${name}`} ...${input} />
      <${Field.HelperText} fontSize="xs">${help}<//>
    <//>`;
}

function Result({ result, collect }) {
  const items = read.list(result.items).map(read.record);
  const title = result.isDryRun ? "Orphaned jobs and files" : "Removed jobs and files";
  const button = html`
    <${Confirmed} label="Remove" testId="collect" isDanger onConfirm=${collect}>
      Searches Snowflake again and removes what is listed, if it still qualifies. This can't be undone.
    <//>`;
  const nothing = html`
    <${Empty} title="Nothing to clean up">
      Every job and payload is in use or too new. Try fewer hours or another schema.
    <//>`;
  return html`
    <${Section} title=${title} aside=${result.isDryRun && items.length > 0 && button}>
      <${Text} fontSize="sm" mb=${3}>${capital(read.text(result.summary))}<//>
      ${items.length === 0 ? nothing : html`<${Items} title=${title} items=${items} />`}
    <//>`;
}

function Items({ title, items }) {
  const head = ["Kind", "Name", "Action", "Task", "Task state", "Job status", "Created", "Credits per hour"];
  const rows = items.map((item) => [
    read.text(item.kind),
    html`<${Mono}>${read.text(item.name)}<//>`,
    html`${read.text(item.action)}<${Text} fontSize="xs" color="fg.error">${read.text(item.error)}<//>`,
    read.text(item.task) || NOTHING,
    read.text(item.task_state) || NOTHING,
    read.text(item.job_status) || NOTHING,
    html`<${Time} at=${read.moment(item.created)} />`,
    formatNumber(read.number(item.credits_per_hour)),
  ]);
  return html`<${PlainTable} caption=${title} head=${head} rows=${rows} numeric=${[7]} />`;
}
