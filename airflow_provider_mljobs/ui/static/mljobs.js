/**
 * The pages that this provider adds to Airflow: Airflow imports this module and looks for them by name.
 */

import { CleanUpView } from "./cleanup.js";
import { html, ReactRouterDOM } from "./host.js";
import { JobView } from "./job.js";
import { JobsView } from "./list.js";
import { ModelView } from "./model.js";
import { Page, Settled, Tab } from "./page.js";
import { mapIndexOf, viewOf } from "./urls.js";

const stylesheet = document.createElement("link");
stylesheet.rel = "stylesheet";
stylesheet.href = new URL("vendor/uPlot.min.css", import.meta.url).href;
document.head.append(stylesheet);

/** The page in the menu "Browse". */
function JobsPage() {
  return html`<${Settled}><${View} /><//>`;
}

function View() {
  const [search] = ReactRouterDOM.useSearchParams();
  const view = viewOf(search);
  if (view.name === "list") return html`<${JobsView} />`;
  if (view.name === "clean-up") return html`<${Page} title="Clean up"><${CleanUpView} /><//>`;
  const [dagId, taskId] = [search.get("dag_id"), search.get("task_id")];
  if (view.name === "job") {
    return html`<${Page} title=${taskId}><${JobView} key=${JSON.stringify(view.key)} taskKey=${view.key} /><//>`;
  }
  const key = JSON.stringify([dagId, taskId]);
  return html`<${Page} title=${taskId}><${ModelView} key=${key} dagId=${dagId} taskId=${taskId} /><//>`;
}

/** The tab of a task instance. */
function JobTab({ dagId, runId, taskId, mapIndex }) {
  const key = { dagId, runId, taskId, mapIndex: mapIndexOf(mapIndex) };
  return html`<${Settled}><${Tab}><${JobView} key=${JSON.stringify(key)} taskKey=${key} /><//><//>`;
}

/** The tab of a task. */
function ModelTab({ dagId, taskId }) {
  const key = JSON.stringify([dagId, taskId]);
  return html`<${Settled}><${Tab}><${ModelView} key=${key} dagId=${dagId} taskId=${taskId} /><//><//>`;
}

Object.assign(globalThis, { "ML Jobs": JobsPage, "ML Job": JobTab, "ML Model": ModelTab });
