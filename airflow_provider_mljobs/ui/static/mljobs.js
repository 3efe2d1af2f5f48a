/**
 * The pages that this provider adds to Airflow: Airflow imports this module and looks for them by name.
 */

import { askEarly } from "./api.js";
import { filtersOf, jobsRoute, PAGE, viewOf } from "./urls.js";

const search = new URLSearchParams(location.search);
if (location.pathname.endsWith(PAGE) && viewOf(search).name === "list") askEarly(jobsRoute(filtersOf(search)));

// The modules of the list, preloaded: the browser would request each only after it has parsed an importer.
const MODULES = [
  "filters",
  "format",
  "hooks",
  "host",
  "jobs",
  "jobtable",
  "list",
  "page",
  "pages",
  "parts",
  "phases",
  "polling",
  "untrusted",
  "vendor/htm",
];

for (const name of MODULES) {
  const link = document.createElement("link");
  link.rel = "modulepreload";
  link.href = new URL(`${name}.js`, import.meta.url).href;
  document.head.append(link);
}

const { JobsPage, JobTab, ModelTab } = await import("./pages.js");
Object.assign(globalThis, { "ML Jobs": JobsPage, "ML Job": JobTab, "ML Model": ModelTab });

// Airflow first renders a page from the promise that loads it, and again at the next navigation, when it looks the page up
// by name: a text field would lose the focus. Navigate to the current address now, before the user types.
dispatchEvent(new PopStateEvent("popstate", { state: history.state }));
