// Times the engine's matrix products in headless Chromium, beside a bare micro-kernel: `node run.mjs [filter]`.
// Needs the wasm32 target, and playwright-core and binaryen as `npm ci` in the repository installs them.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import binaryen from 'binaryen';
import { chromium } from 'playwright-core';
import { yardstick } from './yardstick.mjs';

/** m, n, k, and which operands are stored transposed. */
const SHAPES = [
  [64, 128, 784, ''], [784, 128, 64, 'a'], [64, 784, 128, 'b'],
  [64, 200, 784, ''], [784, 200, 64, 'a'],
  [64, 10, 784, ''], [784, 10, 64, 'a'],
  [32, 512, 3136, ''], [3136, 512, 32, 'a'], [32, 3136, 512, 'b'],
  [25088, 32, 25, ''],
  [6272, 64, 800, ''], [800, 64, 6272, 'a'], [6272, 800, 64, 'b'],
  [320, 1024, 96, ''], [16, 1024, 256, ''],
  [320, 2000, 96, 'b'], [2000, 96, 320, 'a'], [320, 96, 2000, ''],
  [10, 128, 784, ''], [10, 10, 128, ''],
];
const WARM_UP_MS = 5000;
/** Samples of each shape, plain and relaxed in turns. */
const PASSES = 40;
const SAMPLE_MS = 8;

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../../..');
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');

/** The bench compiled as the browser build is, optimised for size, with wasm-opt where it is installed. */
function build(relaxed) {
  const folder = join(target, relaxed ? 'bench-relaxed' : 'bench-plain');
  mkdirSync(folder, { recursive: true });
  const features = relaxed ? '+simd128,+relaxed-simd' : '+simd128';
  execFileSync(
    'cargo',
    ['build', '--quiet', '-p', 'unsaid-bench-gemm', '--target', 'wasm32-unknown-unknown', '--profile', 'wasm-release'],
    {
      cwd: here,
      stdio: 'inherit',
      env: {
        ...process.env,
        CARGO_TARGET_DIR: folder,
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS: `-Ctarget-feature=${features}`,
      },
    },
  );
  const raw = join(folder, 'wasm32-unknown-unknown/wasm-release/unsaid_bench_gemm.wasm');
  const module = binaryen.readBinary(readFileSync(raw));
  module.setFeatures(binaryen.Features.All);
  binaryen.setOptimizeLevel(2);
  binaryen.setShrinkLevel(2);
  module.optimize();
  return module.emitBinary();
}

function text(source) {
  const module = binaryen.parseText(source);
  module.setFeatures(binaryen.Features.All);
  return module.emitBinary();
}

/** Runs in a worker: takes a sample of every shape for as long as it is told to. */
function worker() {
  let jobs;
  const sample = ({ flop, run }, ms) => {
    const times = Math.max(1, Math.round((ms * 1e6) / flop));
    const start = performance.now();
    let now = start;
    let done = 0;
    for (; now < start + ms; now = performance.now()) {
      run(times);
      done += times;
    }
    return (flop * done) / (now - start) / 1e6;
  };
  self.onunhandledrejection = ({ reason }) => setTimeout(() => { throw reason; });
  self.onmessage = async ({ data: { bench, micro, shapes, ms } }) => {
    if (bench) {
      const { exports: wasm } = (await WebAssembly.instantiate(bench)).instance;
      if (!(wasm.worst_error() <= 1)) throw new Error(`results are wrong: ${wasm.worst_error()}`);
      const { exports: bare } = (await WebAssembly.instantiate(micro)).instance;
      jobs = shapes.map(([m, n, k, transposed]) => {
        const bits = (transposed.includes('a') ? 1 : 0) | (transposed.includes('b') ? 2 : 0);
        const job = wasm.prepare(m, n, k);
        return { flop: 2 * m * n * k, run: (times) => wasm.run(job, m, n, k, bits, times) };
      });
      jobs.unshift({ flop: 2 * 6 * 8 * 256, run: (times) => bare.micro(256, times) });
    }
    // Each beside the micro-kernel, since the machine's speed varies.
    self.postMessage(jobs.map((job) => [sample(job, ms), sample(jobs[0], ms / 2)]));
  };
}

/** Runs in the page: sends a message to its worker, and gives the answer. */
function ask({ source, bench, micro, ...message }) {
  const bytes = (base64) => base64 && Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  globalThis.worker ??= new Worker(URL.createObjectURL(new Blob([`(${source})()`])));
  return new Promise((resolve, reject) => {
    globalThis.worker.onerror = (event) => reject(new Error(event.message));
    globalThis.worker.onmessage = ({ data }) => resolve(data);
    globalThis.worker.postMessage({ bench: bytes(bench), micro: bytes(micro), ...message });
  });
}

const filter = process.argv[2] ?? '';
const name = ([m, n, k, transposed]) => `${m} × ${n} × ${k}${transposed ? ` ${transposed}ᵀ` : ''}`;
const shapes = SHAPES.filter((shape) => name(shape).includes(filter));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' });
const variants = [];
for (const relaxed of [false, true]) {
  const bench = build(relaxed);
  const label = relaxed ? 'relaxed' : 'plain';
  console.log(`${label}: ${bench.length} bytes, ${gzipSync(bench, { level: 9 }).length} compressed`);
  const base64 = (bytes) => Buffer.from(bytes).toString('base64');
  const page = await browser.newPage();
  await page.evaluate(ask, {
    source: worker.toString(),
    bench: base64(bench),
    micro: base64(text(yardstick(relaxed))),
    shapes,
    ms: WARM_UP_MS / (shapes.length + 1),
  });
  variants.push({ page, passes: [] });
}
for (let pass = 0; pass < PASSES; pass++) {
  for (const { page, passes } of variants) passes.push(await page.evaluate(ask, { ms: SAMPLE_MS }));
}
await browser.close();

/** The best of many short samples: what else the machine does can only slow them. */
const best = (values) => Math.max(...values);
console.log('\nGFLOP/s, and share of the bare micro-kernel: plain, relaxed');
[['micro-kernel'], ...shapes].forEach((shape, at) => {
  const cells = variants.map(({ passes }) => {
    const rate = best(passes.map((pass) => pass[at][0]));
    const share = rate / best(passes.flatMap((pass) => pass.map(([, micro]) => micro)));
    return `${rate.toFixed(1).padStart(7)} ${(100 * share).toFixed(0).padStart(4)} %`;
  });
  console.log(`${(at ? name(shape) : shape[0]).padEnd(22)}${cells.join('')}`);
});
