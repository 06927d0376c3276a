// Times noise, accountants and steps of private training in wasm, on one thread of V8: `node run.mjs`. Needs the wasm32 target, and binaryen as `npm ci` in the
// repository installs it. The module is built as the client is: optimised for size, but for the generator.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import binaryen from 'binaryen';

/** The weights of the convolutional network of McMahan et al. 2017. */
const COORDINATES = 1_663_370;
const REPEATS = 5;

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../../..');
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');

function build() {
  execFileSync(
    'cargo',
    ['build', '--quiet', '-p', 'unsaid-bench-privacy', '--target', 'wasm32-unknown-unknown', '--profile', 'wasm-release'],
    { cwd: here, stdio: 'inherit' },
  );
  const raw = join(target, 'wasm32-unknown-unknown/wasm-release/unsaid_bench_privacy.wasm');
  const module = binaryen.readBinary(readFileSync(raw));
  // What browsers and Node have; of all that binaryen knows, it would use types that they do not.
  const has = ['MutableGlobals', 'SIMD128', 'BulkMemory', 'BulkMemoryOpt', 'NontrappingFPToInt', 'SignExt', 'ReferenceTypes', 'Multivalue', 'CallIndirectOverlong'];
  module.setFeatures(has.reduce((features, name) => features | (binaryen.Features[name] ?? 0), 0));
  binaryen.setOptimizeLevel(2);
  binaryen.setShrinkLevel(2);
  module.optimize();
  return module.emitBinary();
}

const { instance } = await WebAssembly.instantiate(build());
const wasm = instance.exports;

/** Milliseconds: the first call, which V8 runs with its quick compiler, and the median of those after. */
function time(what, call) {
  const times = [];
  let result;
  for (let i = 0; i <= REPEATS; i += 1) {
    const begun = performance.now();
    result = call();
    times.push(performance.now() - begun);
  }
  if (Number.isNaN(result)) throw new Error(`${what}: no result`);
  const [first, ...rest] = times;
  rest.sort((a, b) => a - b);
  console.log(`${what.padEnd(64)} first ${first.toFixed(0).padStart(6)} ms, then ${rest[REPEATS >> 1].toFixed(0).padStart(6)} ms`);
}

for (const multiplier of [0.1, 1, 4]) {
  time(`clip, round and noise, ${COORDINATES} coordinates, z = ${multiplier}`, () => wasm.update(COORDINATES, multiplier));
}
for (const [num, den] of [[1, 1], [25, 4], [2500, 1], [1_000_000, 1]]) {
  const sigma = Math.sqrt(num / den);
  time(`discrete Gaussian, σ = ${sigma}, ${COORDINATES} samples`, () => wasm.gaussian(num, den, COORDINATES));
}
time('Skellam, σ = 10, 100000 samples', () => wasm.skellam(100, 1, 100_000));
for (const [z, rate, steps] of [[4, 0.01, 10_000], [1.1, 256 / 60_000, 14_062], [1, 0.01, 10_000], [0.6, 0.001, 10_000]]) {
  time(`epsilon by loss distribution, z = ${z}, q = ${rate.toFixed(4)}, ${steps} steps`, () => wasm.epsilon(z, rate, steps, 1e-5, 0));
}
/** Milliseconds of a step: what `more` steps take longer than one, by the fastest of some. */
function step(layers, isPrivate, more) {
  const best = [Infinity, Infinity];
  for (let i = 0; i <= REPEATS; i += 1) {
    [1, 1 + more].forEach((steps, which) => {
      const begun = performance.now();
      if (Number.isNaN(wasm.train(...layers, steps, isPrivate))) throw new Error(`${layers}: no loss`);
      best[which] = Math.min(best[which], performance.now() - begun);
    });
  }
  return (best[1] - best[0]) / more;
}
for (const layers of [[0, 0], [128, 64], [200, 200]]) {
  const [plain, own] = [step(layers, false, 100), step(layers, true, 10)];
  console.log(`a step on 64 examples, 784-${layers.filter(Boolean).concat(10).join('-')}: ${plain.toFixed(3)} ms, private ${own.toFixed(3)} ms`);
}
time('epsilon by Rényi orders, z = 4, q = 0.01, 10000 steps', () => wasm.epsilon(4, 0.01, 10_000, 1e-5, 1));
