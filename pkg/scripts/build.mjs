// Builds dist/: index.js and its declarations, worker.js, unsaid_bg.wasm. The wasm module must be in dist/wasm already
// (`cargo xtask build` puts it there); UNSAID_WASM names another folder.

import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

import { checkWasmSurface, writeDeclarations } from "./declarations.mjs";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const dist = resolve(root, "dist");
const wasm = resolve(process.env.UNSAID_WASM ?? resolve(dist, "wasm"));
const glue = resolve(wasm, "unsaid.js");

if (!existsSync(glue)) {
  console.error(`${glue} is not there: run \`cargo xtask build\` first, it makes the wasm module and then calls this script`);
  process.exit(1);
}

mkdirSync(dist, { recursive: true });
checkWasmSurface(root, wasm, "unsaid", "wasm.js", "WasmModule");
const trainer = resolve(process.env.UNSAID_TRAINER ?? resolve(dist, "trainer"));
const modules = [wasm, resolve(trainer, "gpu-plain"), resolve(trainer, "gpu-relaxed")].map((folder, index) =>
  readFileSync(resolve(folder, index === 0 ? "unsaid_bg.wasm" : "unsaid_trainer_bg.wasm")),
);
// What was measured with one build says nothing about another: see worker/src/trials.ts.
const digest = modules.reduce((hash, bytes) => hash.update(bytes), createHash("sha256")).digest("hex");
const define = { __UNSAID_BUILD__: JSON.stringify(digest.slice(0, 16)) };
const common = { define, bundle: true, format: "esm", target: "es2022", minify: true, legalComments: "none", logLevel: "warning" };
await build({
  ...common,
  entryPoints: [resolve(root, "src/index.ts")],
  outfile: resolve(dist, "index.js"),
  // Loaded when it is first asked.
  external: ["./accountant-module.js"],
});
await build({
  ...common,
  entryPoints: [resolve(root, "../worker/src/index.ts")],
  outfile: resolve(dist, "worker.js"),
  alias: { "unsaid-wasm": glue },
});
copyFileSync(resolve(wasm, "unsaid_bg.wasm"), resolve(dist, "unsaid_bg.wasm"));

// The trainer: one worker, whose glue for the CPU fits both of its wasm files without threads; the same for WebGPU.
for (const build of ["plain", "gpu-plain"]) {
  checkWasmSurface(root, resolve(trainer, build), "unsaid_trainer", "trainer-wasm.js", "TrainerModule");
}
await build({ ...common, entryPoints: [resolve(root, "src/trainer.ts")], outfile: resolve(dist, "trainer.js") });
await build({
  ...common,
  entryPoints: [resolve(root, "../worker/src/trainer.ts")],
  outfile: resolve(dist, "trainer-worker.js"),
  alias: {
    "unsaid-trainer-wasm": resolve(trainer, "plain/unsaid_trainer.js"),
    "unsaid-trainer-gpu-wasm": resolve(trainer, "gpu-plain/unsaid_trainer.js"),
  },
});
const shipTrainer = (build, name) => copyFileSync(resolve(trainer, build, "unsaid_trainer_bg.wasm"), resolve(dist, name));
const withoutThreads = { plain: "unsaid_trainer_bg.wasm", relaxed: "unsaid_trainer_relaxed_bg.wasm",
  "gpu-plain": "unsaid_trainer_gpu_bg.wasm", "gpu-relaxed": "unsaid_trainer_gpu_relaxed_bg.wasm" };
for (const [build, name] of Object.entries(withoutThreads)) shipTrainer(build, name);
// With threads it is a script of its own. It is left out where this machine could not build its wasm.
const [threads, gpuThreads] = ["threads", "gpu-threads"].map((build) => resolve(trainer, build));
const withThreads = ["trainer-threads.js", "unsaid_trainer_threads_bg.wasm", "unsaid_trainer_gpu_threads_bg.wasm"];
for (const name of withThreads) rmSync(resolve(dist, name), { force: true });
if (existsSync(threads)) {
  for (const build of [threads, gpuThreads]) checkWasmSurface(root, build, "unsaid_trainer", "trainer-wasm.js", "ThreadsModule");
  await build({
    ...common,
    entryPoints: [resolve(root, "../worker/src/trainer-threads.ts")],
    outfile: resolve(dist, "trainer-threads.js"),
    alias: {
      "unsaid-trainer-threads-wasm": resolve(threads, "unsaid_trainer.js"),
      "unsaid-trainer-gpu-threads-wasm": resolve(gpuThreads, "unsaid_trainer.js"),
    },
  });
  shipTrainer("threads", "unsaid_trainer_threads_bg.wasm");
  shipTrainer("gpu-threads", "unsaid_trainer_gpu_threads_bg.wasm");
}
// The accountant.
const accountant = resolve(process.env.UNSAID_ACCOUNTANT ?? resolve(dist, "accountant"));
checkWasmSurface(root, accountant, "unsaid_accountant", "../../pkg/src/accountant-wasm.js", "AccountantModule");
await build({
  ...common,
  entryPoints: [resolve(root, "src/accountant-module.ts")],
  outfile: resolve(dist, "accountant-module.js"),
  alias: { "unsaid-accountant-wasm": resolve(accountant, "unsaid_accountant.js") },
});
copyFileSync(resolve(accountant, "unsaid_accountant_bg.wasm"), resolve(dist, "unsaid_accountant_bg.wasm"));
// The attack on one's own update: an entry, and a worker of its own.
const inversion = resolve(process.env.UNSAID_INVERSION ?? resolve(dist, "inversion"));
checkWasmSurface(root, inversion, "unsaid_inversion", "inversion-wasm.js", "InversionModule");
await build({ ...common, entryPoints: [resolve(root, "src/inversion.ts")], outfile: resolve(dist, "inversion.js") });
await build({
  ...common,
  entryPoints: [resolve(root, "../worker/src/inversion.ts")],
  outfile: resolve(dist, "inversion-worker.js"),
  alias: { "unsaid-inversion-wasm": resolve(inversion, "unsaid_inversion.js") },
});
copyFileSync(resolve(inversion, "unsaid_inversion_bg.wasm"), resolve(dist, "unsaid_inversion_bg.wasm"));
writeDeclarations(root);
copyFileSync(resolve(root, "../crate/engine/model.schema.json"), resolve(dist, "model.schema.json"));

const shipped = [
  "index.js", "worker.js", "unsaid_bg.wasm",
  "trainer.js", "trainer-worker.js", ...Object.values(withoutThreads),
  "accountant-module.js", "unsaid_accountant_bg.wasm",
  "inversion.js", "inversion-worker.js", "unsaid_inversion_bg.wasm",
  ...(existsSync(threads) ? withThreads : []),
];
for (const name of shipped) {
  const bytes = readFileSync(resolve(dist, name));
  const gzipped = gzipSync(bytes, { level: 9 }).length;
  console.log(`${name.padEnd(30)} ${kb(bytes.length)} kB, ${kb(gzipped)} kB gzipped`);
}

function kb(bytes) {
  return (bytes / 1000).toFixed(1).padStart(7);
}
