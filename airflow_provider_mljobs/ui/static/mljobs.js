/**
 * The pages that this provider adds to Airflow: Airflow imports this module and looks for them by name.
 */

import { askEarly } from "./api.js";
import { filtersOf, jobsRoute, PAGE, viewOf } from "./urls.js";

const search = new URLSearchParams(location.search);
if (location.pathname.endsWith(PAGE) && viewOf(search).name === "list") askEarly(jobsRoute(filtersOf(search)));

// What the list is made of: all of it is asked for at once, not each module when another one is found to need it.
const MODULES = [
  "polling",
  "facts",
  "filters",
  "format",
  "hooks",
  "host",
  "jobtable",
  "list",
  "page",
  "pages",
  "parts",
  "phases",
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

// Airflow shows a page out of the promise that has loaded it, 0.3 s after it has begun to wait, and makes it anew at the
// next navigation, when it finds it by name: what the user was typing would lose the focus. So there is a navigation at
// once, to where the user is already.
dispatchEvent(new PopStateEvent("popstate", { state: history.state }));
