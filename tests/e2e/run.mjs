// Runs the end-to-end tests: first, one at a time, the files that measure the page's own time, then the others two at a time,
// since each starts relays and browsers of its own and much of it is waiting.
// Arguments pick files by part of their name: `node tests/e2e/run.mjs privacy faults`.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { outFolder } from "./lib/environment.mjs";

const ALONE = ["smooth"];
/** These take longest, so they begin first; the others follow by name. */
const LONGEST = ["faults", "training", "demo"];

const nameOf = (file) => file.replace(/\.test\.mjs$/, "");
const rank = (name) => (LONGEST.includes(name) ? LONGEST.indexOf(name) : LONGEST.length);
const wanted = process.argv.slice(2);
const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(".test.mjs"))
  .map(nameOf)
  .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
  .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
if (names.length === 0) throw new Error(`no test file matches ${wanted.join(", ")}`);

await rm(outFolder, { recursive: true, force: true });
await mkdir(outFolder, { recursive: true });
let child = null;
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child?.kill(signal));

/** The exit code of a run of some of the files. */
async function run(names, concurrency) {
  if (names.length === 0) return 0;
  const words = ["--test", `--test-concurrency=${concurrency}`, "--test-reporter=spec", "--test-timeout=300000"];
  const files = names.map((name) => join(import.meta.dirname, `${name}.test.mjs`));
  child = spawn(process.execPath, [...words, ...files], { stdio: "inherit" });
  const [code] = await once(child, "exit");
  return code ?? 1;
}

const alone = await run(names.filter((name) => ALONE.includes(name)), 1);
const others = await run(names.filter((name) => !ALONE.includes(name)), 2);
process.exit(alone || others);
