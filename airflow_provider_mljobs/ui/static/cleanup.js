/**
 * The view of what nobody owns: jobs and payloads that tasks have left in Snowflake, and a way to remove them.
 */

import { Confirmed } from "./actions.js";
import { get, post } from "./api.js";
import * as facts from "./facts.js";
import { capital, formatNumber, NOTHING } from "./format.js";
import { useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import { Answered, Empty, ErrorBox, Mono, PlainTable, Section, Time } from "./parts.js";

const { Box, Button, Field, Grid, Input, Stack, Text } = ChakraUI;
const { useState } = React;

const FIELDS = [
  {
    name: "snowflake_conn_id",
    label: "Connection",
    start: "snowflake_default",
    help: "An Airflow connection to Snowflake.",
    needs: { required: true },
  },
  {
    name: "older_than_hours",
    label: "Older than (hours)",
    start: "24",
    help: "What is younger may still be needed.",
    needs: { required: true, type: "number", min: 0, step: "any" },
  },
  {
    name: "stages",
    label: "Stages",
    start: "",
    help: "With payloads, e.g. @ML_PAYLOADS; several with commas. May be empty.",
  },
  {
    name: "schema",
    label: "Schema",
    start: "",
    help: "db.schema, or account for all. Empty: the connection's.",
  },
];

/** The whole view; only for users who may clean up. */
export function CleanUpView() {
  const options = useAnswer("filters", (signal) => get("mljobs/api/filters", signal));
  const forbidden = html`<${Empty} title="Not for you">Only administrators may clean up. Ask one to do it.<//>`;
  return html`
    <${Box} data-testid="clean-up-view">
      <${Answered} answer=${options}>
        ${(data) => (facts.record(data).can_clean_up === true ? html`<${CleanUp} />` : forbidden)}
      <//>
    <//>`;
}

function CleanUp() {
  const [values, setValues] = useState(() => Object.fromEntries(FIELDS.map(({ name, start }) => [name, start])));
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setIsBusy] = useState(false);
  const run = async (isDryRun) => {
    setIsBusy(true);
    setError(null);
    try {
      setFound({ isDryRun, ...facts.record(await post("mljobs/api/clean-up", request(values, isDryRun))) });
    } catch (failure) {
      setFound(null);
      setError(failure);
    }
    setIsBusy(false);
  };
  // What was found belongs to what was asked.
  const change = (name, value) => {
    setValues({ ...values, [name]: value });
    setFound(null);
  };
  const onSubmit = (event) => {
    event.preventDefault();
    run(true);
  };
  const field = (about) =>
    html`<${TextField} key=${about.name} about=${about} value=${values[about.name]} onChange=${change} />`;
  return html`
    <${Stack} gap=${4}>
      <${Section} title="Where to look">
        <form onSubmit=${onSubmit}>
          <${Grid} templateColumns="repeat(auto-fill, minmax(240px, 1fr))" gap=${4} mb=${4}>${FIELDS.map(field)}<//>
          <${Button} type="submit" size="sm" colorPalette="brand" loading=${isBusy} data-testid="dry-run">
            Look, change nothing
          <//>
        </form>
      <//>
      ${error && html`<${ErrorBox} error=${error} retry=${() => run(true)} />`}
      <${Box} aria-live="polite">${found && html`<${Found} found=${found} collect=${() => run(false)} />`}<//>
    <//>`;
}

/** The form's texts as the question to Snowflake. */
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

function Found({ found, collect }) {
  const items = facts.list(found.items).map(facts.record);
  const title = found.isDryRun ? "What nobody owns" : "What was collected";
  const button = html`
    <${Confirmed} label="Collect" testId="collect" isDanger onConfirm=${collect}>
      Snowflake is looked through again, and all of this that is still there is removed. That can't be undone.
    <//>`;
  const nothing = html`
    <${Empty} title="Nothing">
      Each job and payload has an owner, or is younger. Look again with fewer hours or another schema.
    <//>`;
  return html`
    <${Section} title=${title} aside=${found.isDryRun && items.length > 0 && button}>
      <${Text} fontSize="sm" mb=${3}>${capital(facts.text(found.summary))}<//>
      ${items.length === 0 ? nothing : html`<${Items} title=${title} items=${items} />`}
    <//>`;
}

function Items({ title, items }) {
  const head = ["Kind", "Name", "Action", "Task", "Task's state", "Job's status", "Created", "Credits an hour"];
  const rows = items.map((item) => [
    facts.text(item.kind),
    html`<${Mono}>${facts.text(item.name)}<//>`,
    html`${facts.text(item.action)}<${Text} fontSize="xs" color="fg.error">${facts.text(item.error)}<//>`,
    facts.text(item.task) || NOTHING,
    facts.text(item.task_state) || NOTHING,
    facts.text(item.job_status) || NOTHING,
    html`<${Time} at=${facts.moment(item.created)} />`,
    formatNumber(facts.number(item.credits_per_hour)),
  ]);
  return html`<${PlainTable} caption=${title} head=${head} rows=${rows} numeric=${[7]} />`;
}
