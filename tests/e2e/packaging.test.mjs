// The package as a user gets it: packed, installed, built into a small app by the usual tools, opened, trained with.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { watch } from "./lib/browser.mjs";
import { root } from "./lib/environment.mjs";
import { scene, within } from "./lib/scene.mjs";

const run = promisify(execFile);
const app = `import { connect } from "unsaid";

const client = await connect({ relay: location.origin, task: "mnist", backend: "cpu", floors: { minCohort: 1 } });
await client.data.add(new Float32Array(2 * 784).fill(0.25), [3, 4]);
client.on("round", ({ metrics }) => console.log(metrics.round, metrics.accuracy));
const { rounds, reason } = await client.join({ rounds: 1 });
document.title = \`\${rounds} round, \${reason}\`;
await client.close();
`;
const html = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>app</title><link rel="icon" href="data:,">
<script type="module" src="./app.js"></script></head><body></body></html>
`;

let folder;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "unsaid-consumer-"));
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: join(root, "pkg") });
  // npm 10 prints a list, npm 11 may print an object by name.
  const [packed] = Object.values(JSON.parse(stdout));
  const files = packed.files.map((file) => file.path);
  for (const file of ["dist/index.js", "dist/index.d.ts", "dist/worker.js", "dist/unsaid_bg.wasm", "dist/model.schema.json", "package.json"]) {
    assert.ok(files.includes(file), `${file} is packed`);
  }
  const strays = files.filter((file) => !/^(dist\/|package\.json|README|LICENSE|CHANGELOG)/.test(file));
  assert.deepEqual(strays, [], "nothing else is");
  await writeFile(join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
  const tarball = join(folder, packed.filename);
  await run("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts", tarball], { cwd: folder });
  await writeFile(join(folder, "app.js"), app);
  await writeFile(join(folder, "index.html"), html);
});
after(() => rm(folder, { recursive: true, force: true }));

const tool = (name) => join(root, "node_modules/.bin", name);

async function trainsWith(page) {
  // Noise that leaves room for a round in the default budget.
  const set = { "privacy.mode": "local", "privacy.noise_multiplier": 4 };
  await scene({ page, set }, async ({ profile, proxy, relay }) => {
    const tab = await (await profile()).newPage();
    const troubles = watch(tab);
    await tab.goto(`${proxy.origin}/index.html`);
    const trained = tab.waitForFunction(() => document.title === "1 round, rounds-done", null, { timeout: 30_000 });
    await within(40_000, "a round", trained).catch((error) => {
      throw new Error(`${error.message}\n${troubles.join("\n")}`);
    });
    assert.equal((await relay.published(1)).clients, 1);
    assert.deepEqual(troubles, []);
  });
}

test("a ten-line app built by Vite trains a round", async () => {
  await run(tool("vite"), ["build", "--logLevel", "warn", "--target", "esnext"], { cwd: folder });
  const assets = await readdir(join(folder, "dist/assets"));
  assert.ok(assets.some((name) => name.endsWith(".wasm")), `the wasm is shipped: ${assets}`);
  await trainsWith(join(folder, "dist"));
});

test("the same app built by esbuild trains a round", async () => {
  const out = join(folder, "out");
  const words = ["app.js", "--bundle", "--format=esm", "--target=esnext", "--log-level=warning", `--outdir=${out}`];
  await run(tool("esbuild"), words, { cwd: folder });
  // esbuild leaves `new URL(…, import.meta.url)` as it is: the worker and the wasm are copied beside the bundle.
  for (const name of ["worker.js", "unsaid_bg.wasm"]) {
    await cp(join(folder, "node_modules/unsaid/dist", name), join(out, name));
  }
  await mkdir(out, { recursive: true });
  await cp(join(folder, "index.html"), join(out, "index.html"));
  await trainsWith(out);
});
