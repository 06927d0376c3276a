// Runs the end-to-end tests one file after another: each starts relays and browsers of its own, and some measure time.
// Arguments pick files by part of their name: `node tests/e2e/run.mjs privacy faults`.
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";

import { outFolder } from "./lib/environment.mjs";

const folder = import.meta.dirname;
const wanted = process.argv.slice(2);
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".test.mjs"))
  .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
  .sort()
  .map((name) => join(folder, name));
if (files.length === 0) throw new Error(`no test file matches ${wanted.join(", ")}`);

await rm(outFolder, { recursive: true, force: true });
const words = ["--test", "--test-concurrency=1", "--test-reporter=spec", "--test-timeout=300000", ...files];
const child = spawn(process.execPath, words, { stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code) => process.exit(code ?? 1));
