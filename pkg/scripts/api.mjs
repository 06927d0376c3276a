// The API report: every public declaration in one committed file, so that a change of the API is seen in review.
// `--check` fails where the report is not what the sources declare.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { declarations } from "./declarations.mjs";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const file = resolve(root, "api/unsaid.d.ts");
const heading = "// The public API of `unsaid`. Made by `npm run api:update`; do not edit.\n";
const report = heading + declarations(root).map(([name, text]) => `\n// ${name}\n${text.trimEnd()}\n`).join("");

if (!process.argv.includes("--check")) {
  writeFileSync(file, report);
} else if (!existsSync(file) || readFileSync(file, "utf8") !== report) {
  console.error("api/unsaid.d.ts is not what the sources declare: run `npm run api:update -w pkg` and review the change");
  process.exit(1);
}
