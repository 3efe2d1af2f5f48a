/** What the page asks for at once is what its first view is made of. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const STATIC = new URL("../../../airflow_provider_mljobs/ui/static/", import.meta.url);

/** @returns {Promise<string[]>} the modules that a module imports, at once and later, and those of them */
async function imported(name, found = new Set()) {
  const code = await readFile(new URL(name, STATIC), "utf8");
  for (const [, path] of code.matchAll(/^(?:import|} from) .*"\.\/(.*)";$/gm)) {
    if (found.has(path)) continue;
    found.add(path);
    await imported(path, found);
  }
  return [...found];
}

test("the modules of the list, and no others, are asked for at once", async () => {
  const entry = await readFile(new URL("mljobs.js", STATIC), "utf8");
  const [, block] = entry.match(/^const MODULES = \[(.*?)\];$/ms);
  const preloaded = [...block.matchAll(/"(.*?)"/g)].map(([, name]) => `${name}.js`);
  const needed = new Set(["pages.js", ...(await imported("pages.js"))]);
  for (const own of await imported("mljobs.js")) needed.delete(own);

  assert.deepEqual(preloaded.sort(), [...needed].sort());
});
