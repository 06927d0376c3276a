// Measures training in a dedicated worker of headless Chromium: `cargo xtask bench web [--wasm DIR] [--only mlp,cnn] [--backend cpu,webgpu]
// [--build plain,relaxed,gpu-relaxed] [--threads 1,2] [--optimizer sgd,adam] [--warm 5] [--timed 3] [--clip 1] [--json FILE]`. DIR (default: what was built) holds a
// folder for each build with unsaid_trainer.js and unsaid_trainer_bg.wasm; more than one thread is a build of its own, "threads". Losses are checked
// against tests/vectors/v1. Between the samples of the CPU a bare micro-kernel for products of matrices is timed (tests/bench/gemm/yardstick.mjs):
// `share` is the fastest step's part of its best speed. `peak MB` is the renderer's largest resident set (VmHWM, Linux only), which is 110 to 130 before anything is
// loaded, and `wasm MB` the trainer's memory at the end.

import { createServer } from "node:http";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import binaryen from "binaryen";

import { yardstick } from "../gemm/yardstick.mjs";
import { GOLDEN_STEPS, workloads } from "./workloads.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { chromium } = createRequire(join(here, "../../e2e/package.json"))("playwright-core");

const { values: given } = parseArgs({
  options: {
    wasm: { type: "string", default: join(here, "../../../pkg/dist/trainer") },
    only: { type: "string", default: Object.keys(workloads).join(",") },
    backend: { type: "string", default: "cpu,webgpu" },
    build: { type: "string", default: "plain,relaxed" },
    threads: { type: "string", default: "1" },
    optimizer: { type: "string", default: "sgd,adam" },
    warm: { type: "string", default: "5" },
    timed: { type: "string", default: "3" },
    clip: { type: "string" },
    chromium: { type: "string", default: process.env.UNSAID_CHROMIUM ?? "/usr/bin/chromium" },
    json: { type: "string" },
  },
});
const list = (text) => text.split(",").filter(Boolean);

const types = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };
// Threads need a page that is cross-origin isolated; every row is measured in one.
const isolated = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const server = createServer(async (request, response) => {
  for (const [name, value] of Object.entries(isolated)) response.setHeader(name, value);
  const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
  if (path === "/") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>");
  const file = path.startsWith("/wasm/") ? join(given.wasm, path.slice(6)) : join(here, path);
  try {
    const body = await readFile(file);
    response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const origin = `http://127.0.0.1:${server.address().port}/`;

/** The folder of a build that can compute on `backend`. */
const folder = (build, backend) => (backend === "webgpu" && !build.startsWith("gpu-") ? `gpu-${build}` : build);

const golden = JSON.parse(await readFile(join(here, "../../vectors/v1/losses.json"), "utf8")).losses;

/** Largest distance of the losses from the golden ones, relative. */
function distance({ name, optimizer, losses, clip }) {
  const expected = golden[name]?.[optimizer];
  if (!expected || clip) return null;
  return Math.max(...losses.slice(0, GOLDEN_STEPS).map((loss, i) => Math.abs(loss - expected[i]) / Math.abs(expected[i])));
}

/** The bare micro-kernel, for builds with and without relaxed SIMD. */
function micro(relaxed) {
  const module = binaryen.parseText(yardstick(relaxed));
  module.setFeatures(binaryen.Features.All);
  return [...module.emitBinary()];
}

/** The largest resident set, in MB, of the renderer with the most memory among the descendants of process `root`; null elsewhere than on Linux. */
async function peakOfRenderers(root) {
  try {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
    const parents = new Map();
    const peaks = [];
    const status = new Map();
    for (const pid of pids) {
      const text = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      parents.set(pid, Number(/^PPid:\s+(\d+)/m.exec(text)?.[1]));
      status.set(pid, text);
    }
    const isOurs = (pid) => pid === root || (pid > 1 && isOurs(parents.get(pid) ?? 0));
    for (const pid of pids.filter(isOurs)) {
      const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      if (command.includes("--type=renderer")) peaks.push(Number(/^VmHWM:\s+(\d+)/m.exec(status.get(pid))?.[1]) / 1000);
    }
    return peaks.length > 0 ? Math.max(...peaks) : null;
  } catch {
    return null;
  }
}

async function measure(job) {
  const launched = await chromium.launchServer({
    executablePath: given.chromium,
    args: ["--no-sandbox", "--enable-unsafe-webgpu", "--disable-background-networking", "--js-flags=--expose-gc"],
  });
  const browser = await chromium.connect(launched.wsEndpoint());
  try {
    const page = await browser.newPage();
    await page.goto(origin);
    const result = await page.evaluate(
      (job) =>
        new Promise((resolve, reject) => {
          const worker = new Worker("/worker.mjs", { type: "module" });
          worker.onerror = (event) => reject(new Error(event.message));
          worker.onmessage = ({ data }) => {
            if (data.ready) worker.postMessage(job);
            else if (data.error) reject(new Error(data.error));
            else resolve(data.result);
          };
        }),
      job,
    );
    return { ...result, peakMB: await peakOfRenderers(launched.process().pid) };
  } finally {
    await browser.close();
    await launched.close();
  }
}

const results = [];
const seconds = { warm: Number(given.warm), timed: Number(given.timed) };
const clip = given.clip === undefined ? undefined : Number(given.clip);
const threads = list(given.threads).map(Number);
const builds = [
  ...(threads.includes(1) ? list(given.build).map((build) => ({ build, threads: 1 })) : []),
  ...threads.filter((count) => count > 1).map((count) => ({ build: "threads", threads: count })),
];
console.log("workload  build    backend  optimizer  ms/step    best   GF/s share  examples/s  step 1  infer 1  load  peak MB  wasm MB  loss error");
for (const name of list(given.only)) {
  for (const { build, threads } of builds) {
    for (const backend of list(given.backend)) {
      for (const optimizer of list(given.optimizer)) {
        if (backend === "webgpu" && build !== builds[0].build) continue; // the same kernels
        const label = [name.padEnd(8), (threads > 1 ? `${threads} thr.` : build).padEnd(7), backend.padEnd(7), optimizer.padEnd(9)].join("  ");
        try {
          const result = await measure({ name, build: folder(build, backend), threads, backend, optimizer, seconds, clip, micro: micro(!build.endsWith("plain")) });
          const error = distance(result);
          results.push({ ...result, error });
          const number = (value, digits = 3) => value.toPrecision(digits).padStart(7);
          console.log(
            `${label} ${number(result.ms)} ${number(result.best)} ${number(result.gflops)}` +
              ` ${result.share === null ? "    -" : `${Math.round(100 * result.share)} %`.padStart(5)}` +
              ` ${String(Math.round(result.examplesPerSecond)).padStart(10)} ${number(result.firstStep)} ${number(result.inferOne)}` +
              ` ${number(result.loaded)} ${result.peakMB === null ? "      -" : number(result.peakMB)} ${number(result.wasmMB)}  ${error === null ? "-" : error.toExponential(1)}`,
          );
        } catch (error) {
          results.push({ name, build, threads, backend, optimizer, failed: error.message });
          console.log(`${label} FAILED: ${error.message}`);
        }
      }
    }
  }
}
server.close();
if (given.json) await writeFile(given.json, `${JSON.stringify(results, null, 1)}\n`);
if (results.some(({ failed }) => failed)) process.exitCode = 1;
