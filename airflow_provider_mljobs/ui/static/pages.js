/**
 * The pages: which view, in which frame. All views but the list load on demand.
 */

import { useAnswer } from "./hooks.js";
import { html, ReactRouterDOM } from "./host.js";
import { JobsView } from "./list.js";
import { Page, Tab } from "./page.js";
import { Answered } from "./parts.js";
import { mapIndexOf, viewOf } from "./urls.js";

const JobView = loaded(async () => (await import("./job.js")).JobView);
const ModelView = loaded(async () => (await import("./model.js")).ModelView);
const CleanUpView = loaded(async () => (await import("./cleanup.js")).CleanUpView);

/** A view that loads its module on first use. */
function loaded(load) {
  return function Loaded(props) {
    const answer = useAnswer("module", load);
    return html`<${Answered} answer=${answer}>${(View) => html`<${View} ...${props} />`}<//>`;
  };
}

/** The page in the menu "Browse". */
export function JobsPage() {
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
export function JobTab({ dagId, runId, taskId, mapIndex }) {
  const key = { dagId, runId, taskId, mapIndex: mapIndexOf(mapIndex) };
  return html`<${Tab}><${JobView} key=${JSON.stringify(key)} taskKey=${key} /><//>`;
}

/** The tab of a task. */
export function ModelTab({ dagId, taskId }) {
  const key = JSON.stringify([dagId, taskId]);
  return html`<${Tab}><${ModelView} key=${key} dagId=${dagId} taskId=${taskId} /><//>`;
}
