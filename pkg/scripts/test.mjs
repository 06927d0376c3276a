// Bundles every *.test.ts of a folder (default: ../test) and runs them with node:test, in that folder.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ? resolve(process.argv[2]) : resolve(here, "../test");
const tests = readdirSync(folder).filter((name) => name.endsWith(".test.ts"));
if (tests.length === 0) throw new Error(`no *.test.ts in ${folder}`);

const out = mkdtempSync(resolve(tmpdir(), "unsaid-test-"));
let status = 1;
try {
  await build({
    entryPoints: tests.map((name) => resolve(folder, name)),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    // The accountant's half is loaded when it is first asked, and needs the wasm: the end-to-end tests have it.
    external: ["./accountant-module.js"],
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "inline",
    logLevel: "warning",
  });
  const files = tests.map((name) => resolve(out, name.replace(/\.ts$/, ".mjs")));
  // Forced, because open message ports of doubles would keep the process alive.
  const flags = ["--enable-source-maps", "--test", "--test-force-exit", "--test-timeout=20000"];
  status = spawnSync(process.execPath, [...flags, ...files], { stdio: "inherit", cwd: folder }).status ?? 1;
} finally {
  rmSync(out, { recursive: true });
}
process.exit(status);
