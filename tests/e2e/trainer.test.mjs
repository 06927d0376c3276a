// The trainer in a page: the built package, its worker, both back ends.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { root } from "./lib/environment.mjs";
import { BATCHES, GOLDEN_STEPS, workloads } from "../bench/web/workloads.mjs";

const types = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const page = `<!doctype html><meta charset="utf-8"><title>trainer</title><link rel="icon" href="data:,">
<script type="module">
  import { Trainer } from "/pkg/dist/trainer.js";
  import * as workloads from "/tests/bench/web/workloads.mjs";
  Object.assign(window, { Trainer, ...workloads, ready: true });
</script>`;

/** Without the standard library's source the build with threads is left out, and its tests with it. */
const needsThreads = {
  skip: existsSync(join(root, "pkg/dist/trainer-threads.js")) ? false : "this machine cannot build the trainer with threads",
};

let server;
let browser;
let tab;
/** The same page, but cross-origin isolated, so that it may share memory between workers. */
let isolated;
/** What cannot be fetched. */
const missing = new Set();
/** What was, in order. */
const fetched = [];
/** A helper that is at work answers nothing; but while it lives, it holds a lock, which it must have before it starts. */
const lifeSign = `if (self.name === "unsaid-helper") {
  const alive = new Promise((granted) =>
    navigator.locks.request("helper " + Math.random(), () => (granted(), new Promise(() => {}))));
  const { instantiate } = WebAssembly;
  WebAssembly.instantiate = async (...given) => (await alive, instantiate(...given));
}
`;
const isolating = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
before(async () => {
  server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    // By name: one server, two sites.
    if (request.headers.host.startsWith("localhost")) {
      for (const [name, value] of Object.entries(isolating)) response.setHeader(name, value);
    }
    if (missing.has(path)) return response.writeHead(404).end();
    fetched.push(path);
    if (path === "/") return response.writeHead(200, { "content-type": "text/html" }).end(page);
    try {
      let body = await readFile(join(root, path));
      if (path === "/pkg/dist/trainer-threads.js") body = lifeSign + body;
      response.writeHead(200, { "content-type": types[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  browser = await chromium.launch({
    executablePath: process.env.UNSAID_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--enable-unsafe-webgpu", "--disable-background-networking"],
  });
  const open = async (host) => {
    const page = await browser.newPage();
    await page.goto(`http://${host}:${server.address().port}/`);
    await page.waitForFunction(() => window.ready);
    return page;
  };
  tab = await open("127.0.0.1");
  isolated = await open("localhost");
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** Runs in the page: a trainer of a golden workload trained over so many steps and a few more. */
async function goldenLosses({ name, backend, threads, optimizer = "sgd", steps = window.GOLDEN_STEPS }) {
  const workload = window.workloads[name];
  const { x, y } = window.data(workload);
  const weights = window.startingWeights(workload);
  const trainer = await window.Trainer.create({ model: workload.model, backend, weights, threads });
  const optimizers = { sgd: { type: "sgd", learningRate: workload.rate }, adam: { type: "adam", learningRate: 0.001 } };
  const losses = await trainer.fit({
    x, y, batchSize: workload.batch, epochs: Math.ceil(steps / window.BATCHES), shuffle: false, optimizer: optimizers[optimizer],
  });
  const result = { losses: [...losses], backend: trainer.backend };
  trainer.dispose();
  return result;
}

for (const backend of ["cpu", "webgpu"]) {
  for (const optimizer of ["sgd", "adam"]) {
    test(`losses are the golden ones of every workload, step by step, with ${optimizer} on ${backend}`, async () => {
      const golden = JSON.parse(await readFile(join(root, "tests/vectors/v1/losses.json"), "utf8")).losses;
      assert.deepEqual(Object.keys(golden), Object.keys(workloads));
      for (const [name, { [optimizer]: expected }] of Object.entries(golden)) {
        // A step of the large networks takes seconds where WebGPU is emulated: there they take an epoch, once.
        const isLarge = backend === "webgpu" && ["cnn", "lstm"].includes(name);
        if (isLarge && optimizer === "adam") continue;
        const steps = isLarge ? BATCHES : GOLDEN_STEPS;
        const { losses, backend: used } = await tab.evaluate(goldenLosses, { name, backend, optimizer, steps });
        assert.equal(used.name, backend);
        // The browser's adapter is emulated: its kernels are known without timing them.
        const kernel = (work) => ({ work, name: "direct", ms: null, chosen: true });
        assert.deepEqual(used.kernels, backend === "cpu" ? [] : ["small", "large", "convolution"].map(kernel));
        assert.equal(losses.length, BATCHES * Math.ceil(steps / BATCHES));
        assert.equal(expected.length, GOLDEN_STEPS);
        for (let step = 0; step < steps; step++) {
          const error = Math.abs(losses[step] - expected[step]) / expected[step];
          // Twenty steps of rounding in f32; a pool or a rectifier that goes the other way at a tie costs the most.
          assert.ok(error <= 2e-4, `${name} step ${step}: ${losses[step]} ${expected[step]}`);
        }
        // The other optimiser's losses would not do.
        const other = golden[name][optimizer === "sgd" ? "adam" : "sgd"];
        assert.ok(losses.slice(0, steps).some((loss, step) => Math.abs(loss - other[step]) > 2e-4 * other[step]), `${name}: no control`);
      }
    });
  }
}

const xor = {
  model: {
    input: [2],
    layers: [{ type: "dense", units: 16 }, { type: "tanh" }, { type: "dense", units: 2 }],
    loss: "softmax-cross-entropy",
  },
  x: [0, 0, 0, 1, 1, 0, 1, 1],
  y: [0, 1, 1, 0],
};

test("a page that trains on the CPU downloads nothing of WebGPU, and one that may use it no second module", async () => {
  const [cpu, gpu] = ["", "_gpu"].map((kind) => `/pkg/dist/unsaid_trainer${kind}_relaxed_bg.wasm`);
  const noGpu = "/tests/e2e/harness/no-gpu.js";
  for (const { backend, before, wasm, name, reason } of [
    { backend: "cpu", wasm: cpu, name: "cpu", reason: /^asked for$/ },
    { backend: "auto", before: noGpu, wasm: cpu, name: "cpu", reason: /no navigator\.gpu/ },
    { backend: "auto", wasm: gpu, name: "cpu", reason: /emulated/ },
    { backend: "webgpu", wasm: gpu, name: "webgpu", reason: /^asked for$/ },
    { backend: "webgpu", before: noGpu, wasm: gpu, name: null, reason: /^webgpu-unavailable: .*navigator\.gpu/ },
  ]) {
    const page = await browser.newPage(); // with an empty cache
    await page.goto(tab.url());
    await page.waitForFunction(() => window.ready);
    fetched.length = 0;
    const found = await page.evaluate(
      async ({ model, x, y, backend, before }) => {
        const parts = [before, "/pkg/dist/trainer-worker.js"].filter(Boolean);
        const source = parts.map((path) => `import "${location.origin}${path}";`).join("");
        const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
        const createWorker = () => new Worker(url, { type: "module" });
        const trainer = await window.Trainer.create({ model, backend, createWorker });
        const trained = trainer.fit({ x, y, batchSize: 4, optimizer: { type: "sgd", learningRate: 0.1 } });
        const failed = await trained.then(() => null, ({ code, message }) => `${code}: ${message}`);
        const { name, reason } = trainer.backend ?? { name: null, reason: failed };
        trainer.dispose();
        return { name, reason };
      },
      { ...xor, backend, before },
    );
    await page.close();
    const what = `${backend} ${before ?? ""}`;
    assert.deepEqual(fetched.filter((path) => path.endsWith(".wasm")), [wasm], what);
    assert.equal(found.name, name, what);
    assert.match(found.reason, reason, what);
  }
});

test("a model learns, is asked, saved, loaded and evaluated", async () => {
  const result = await tab.evaluate(async ({ model, x, y }) => {
    const trainer = await window.Trainer.create({ model, seed: 3 });
    const steps = [];
    const losses = await trainer.fit({
      x, y, batchSize: 4, epochs: 300, optimizer: { type: "adam", learningRate: 0.03 }, onStep: (step) => steps.push(step),
    });
    const file = await trainer.save();
    const other = await window.Trainer.create({ model, weights: file });
    const answers = [await trainer.predict(x), await other.predict(x)].map((answer) => [...answer]);
    const evaluation = await other.evaluate({ x, y });
    const { tensors, backend } = trainer;
    const same = JSON.stringify([...(await trainer.weights())]) === JSON.stringify([...(await other.weights())]);
    trainer.dispose();
    other.dispose();
    return { first: losses[0], last: losses[299], steps, answers, evaluation, tensors, backend, same };
  }, xor);
  assert.ok(result.last < 0.05 && result.first > 0.5, `${result.first} → ${result.last}`);
  assert.equal(result.steps.length, 300);
  assert.deepEqual(result.steps[299], { epoch: 300, step: 1, steps: 1, loss: result.last });
  assert.deepEqual(result.answers[0], result.answers[1]);
  assert.ok(result.answers[0][3] > 0.9, "0 xor 1 is 1");
  assert.equal(result.evaluation.accuracy, 1);
  assert.equal(result.evaluation.examples, 4);
  assert.ok(Math.abs(result.evaluation.perplexity - Math.exp(result.evaluation.loss)) < 1e-9);
  assert.ok(result.same, "a saved file holds the weights to the bit");
  assert.deepEqual(result.tensors[0], { name: "layers.0.kernel", offset: 0, shape: [2, 16] });
  assert.equal(result.backend.name, "cpu");
  assert.match(result.backend.reason, /emulated|navigator\.gpu/);
});

test("auto measures once for an adapter, a model and a training, and then knows", async () => {
  const found = await tab.evaluate(async ({ model, x, y }) => {
    // The emulated adapter says that it is a real one: otherwise nothing is measured.
    const parts = ["/tests/e2e/harness/pretend.js", "/pkg/dist/trainer-worker.js"];
    const source = parts.map((path) => `import "${location.origin}${path}";`).join("");
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const createWorker = () => new Worker(url, { type: "module" });
    const chosen = async (changes, batchSize = 4) => {
      const trainer = await window.Trainer.create({ model: { ...model, ...changes }, createWorker });
      await trainer.fit({ x, y, batchSize, optimizer: { type: "sgd", learningRate: 0.1 } });
      const { backend } = trainer;
      trainer.dispose();
      return backend;
    };
    const wider = [{ type: "dense", units: 17 }, ...model.layers.slice(1)];
    return [await chosen({}), await chosen({}), await chosen({ layers: wider }), await chosen({}, 2), await chosen({})];
  }, xor);
  const [first, again, wider, smaller, last] = found;
  for (const { adapter, cpuMsPerStep, gpuMsPerStep, name } of found) {
    assert.equal(adapter, "A pretended GPU");
    assert.ok(cpuMsPerStep > 0 && gpuMsPerStep > 0, `${cpuMsPerStep} ${gpuMsPerStep}`);
    assert.equal(name, gpuMsPerStep < cpuMsPerStep ? "webgpu" : "cpu");
  }
  assert.deepEqual(found.map(({ cached }) => cached), [false, true, false, false, true]);
  assert.deepEqual(again, { ...first, cached: true });
  assert.deepEqual(last, again);
  assert.notDeepEqual([wider.cpuMsPerStep, smaller.cpuMsPerStep], [first.cpuMsPerStep, first.cpuMsPerStep]);
});

test("the recall among k guesses is the share that k guesses hold", async () => {
  const { byK, predictions, labels } = await tab.evaluate(async () => {
    const workload = window.workloads.logreg;
    const { x, y } = window.data(workload);
    const trainer = await window.Trainer.create({ model: workload.model, backend: "cpu", seed: 5 });
    const byK = [];
    for (const k of [1, 2, 3, 10]) byK.push(await trainer.evaluate({ x, y, k }));
    byK.push(await trainer.evaluate({ x, y }));
    const predictions = [...(await trainer.predict(x))];
    trainer.dispose();
    return { byK, predictions, labels: [...y] };
  });
  const recall = (k) => {
    const hits = labels.filter((label, row) => {
      const probabilities = predictions.slice(10 * row, 10 * row + 10);
      return probabilities.filter((p, index) => p > probabilities[label] || (p === probabilities[label] && index < label)).length < k;
    });
    return hits.length / labels.length;
  };
  for (const { k, topK, accuracy } of byK) {
    assert.ok(Math.abs(topK - recall(k)) < 1e-9, `${k}: ${topK} ${recall(k)}`);
    assert.ok(Math.abs(accuracy - recall(1)) < 1e-9);
  }
  assert.deepEqual(byK.map(({ k }) => k), [1, 2, 3, 10, 3]);
  assert.equal(byK[3].topK, 1, "of ten classes one of ten guesses is right");
});

test("a correction is added to every gradient, and the control variate is the mean of the gradients themselves", async () => {
  const { model, x, y } = xor;
  const runs = await tab.evaluate(
    async ({ model, x, y }) => {
      const runs = [];
      for (const backend of ["cpu", "webgpu"]) {
        const trainer = await window.Trainer.create({ model, backend, seed: 3 });
        const start = [...(await trainer.weights())];
        const correction = start.map((_, i) => (i % 5) / 10 - 0.2);
        const how = { x, y, batchSize: 2, epochs: 2, shuffle: false, optimizer: { type: "sgd", learningRate: 0.25 } };
        await trainer.fit({ ...how, correction });
        const [end, variate] = [[...(await trainer.weights())], [...trainer.controlVariate]];
        await trainer.setWeights(start);
        await trainer.fit(how);
        const plain = [...(await trainer.weights())];
        runs.push({ start, correction, end, variate, plain, after: trainer.controlVariate });
        trainer.dispose();
      }
      return runs;
    },
    { model, x, y },
  );
  for (const { start, correction, end, variate, plain, after } of runs) {
    assert.notDeepEqual(end, plain);
    assert.equal(after, null);
    // Four steps at 1/4: the way is the sum of gradients and corrections, divided by four. Weights are below 4, rounded to f32 in
    // every step; so is the variate itself.
    for (const [i, value] of variate.entries()) {
      assert.ok(Math.abs(value - (start[i] - end[i] - correction[i])) <= 4 * 2 ** -22, `${i}: ${value}`);
    }
  }
  const far = (a, b) => Math.max(...a.map((value, i) => Math.abs(value - b[i])));
  assert.ok(far(runs[0].variate, runs[1].variate) <= 1e-5, "both back ends find the same one");
});

test("the memory of a training is known before it begins", async () => {
  const memory = await tab.evaluate(async ({ model }) => {
    const trainer = await window.Trainer.create({ model, backend: "cpu" });
    const options = { batchSize: 4, examples: 4, optimizer: { type: "adam", learningRate: 0.1 } };
    const memory = [await trainer.memory(options), await trainer.memory({ ...options, optimizer: { type: "sgd", learningRate: 1 } })];
    trainer.dispose();
    return memory;
  }, xor);
  const [adam, sgd] = memory;
  const parameters = 4 * (2 * 16 + 16 + 16 * 2 + 2);
  assert.equal(adam.parameters, parameters);
  assert.equal(adam.optimizer, 2 * parameters);
  assert.equal(sgd.optimizer, 0);
  assert.ok(adam.gradients >= parameters && adam.activations >= 4 * 4 * (2 + 16 + 2));
  assert.equal(adam.total, adam.parameters + adam.activations + adam.gradients + adam.optimizer);
});

test("training stops within 50 ms, and the weights stay", async () => {
  const { waited, code, same, busy } = await tab.evaluate(async () => {
    const workload = window.workloads.mlp;
    const { x, y } = window.data(workload);
    const trainer = await window.Trainer.create({ model: workload.model, backend: "cpu" });
    const before = await trainer.weights();
    const controller = new AbortController();
    const options = { x, y, batchSize: 64, epochs: 100000, optimizer: { type: "sgd", learningRate: 0.01 } };
    const training = trainer.fit({ ...options, signal: controller.signal }).catch((error) => error);
    await new Promise((done) => setTimeout(done, 500));
    const busy = await trainer.fit({ ...options, epochs: 1 }).catch((error) => error.code);
    const start = performance.now();
    controller.abort();
    const { code } = await training;
    const waited = performance.now() - start;
    const after = await trainer.weights();
    trainer.dispose();
    return { waited, code, busy, same: before.every((weight, i) => weight === after[i]) };
  });
  assert.equal(code, "aborted");
  assert.equal(busy, "busy");
  assert.ok(same, "an aborted training leaves the weights as they were");
  assert.ok(waited < 50, `stopped after ${waited} ms`);
});

test("what makes no sense is refused, with a code and a reason", async () => {
  const errors = await tab.evaluate(async ({ model, x, y }) => {
    const tries = {};
    const attempt = async (name, work) => {
      tries[name] = await work().then(() => null, (error) => `${error.code}: ${error.message}`);
    };
    const make = (changes) => window.Trainer.create({ model: { ...model, ...changes } });
    await attempt("layer", () => make({ layers: [{ type: "dense", units: 0 }] }));
    await attempt("type", () => make({ layers: [{ type: "attention" }] }));
    await attempt("norm", () => make({ layers: [{ type: "batch-norm" }] }));
    await attempt("weights", () => window.Trainer.create({ model, weights: new Uint8Array(9) }));
    await attempt("seed", () => window.Trainer.create({ model, seed: -1 }));
    const trainer = await window.Trainer.create({ model, backend: "cpu" });
    const adam = { type: "adam", learningRate: 0.03 };
    await attempt("lengths", () => trainer.fit({ x, y: [0], optimizer: adam }));
    await attempt("label", () => trainer.fit({ x, y: [0, 1, 1, 7], optimizer: adam }));
    await attempt("rate", () => trainer.fit({ x, y, optimizer: { type: "adam", learningRate: -1 } }));
    await attempt("field", () => trainer.fit({ x, y, optimizer: { ...adam, beta3: 1 } }));
    await attempt("variate", () => trainer.fit({ x, y, optimizer: adam, correction: new Float32Array(82) }));
    await attempt("correction", () => trainer.fit({ x, y, optimizer: { type: "sgd", learningRate: 1 }, correction: [0] }));
    await attempt("nan", () => trainer.fit({ x: x.map(() => Number.NaN), y, optimizer: adam }));
    await attempt("diverges", () => trainer.fit({ x, y, epochs: 20, optimizer: { type: "sgd", learningRate: 3e38 } }));
    await attempt("after", () => trainer.fit({ x, y, optimizer: adam }));
    trainer.dispose();
    await attempt("disposed", () => trainer.predict(x));
    return tries;
  }, xor);
  assert.match(errors.layer, /^bad-options: layer 0 \(dense\)/);
  assert.match(errors.type, /^bad-options: .*attention/);
  assert.match(errors.norm, /^bad-options: .*group-norm/);
  assert.match(errors.weights, /^bad-model: /);
  assert.match(errors.seed, /^bad-options: seed/);
  assert.match(errors.lengths, /^bad-data: /);
  assert.match(errors.label, /^bad-data: .*label 7/);
  assert.match(errors.rate, /^bad-options: optimizer\.learning_rate/);
  assert.match(errors.field, /^bad-options: .*beta3/);
  assert.match(errors.variate, /^bad-options: .*sgd without momentum/);
  assert.match(errors.correction, /^bad-model: /);
  assert.match(errors.nan, /^bad-data: .*finite/);
  assert.match(errors.diverges, /^non-finite: .*step/);
  assert.equal(errors.after, null, "a refused training leaves the trainer usable");
  assert.match(errors.disposed, /^closed: /);
});

test("threads change no bit of the losses, and share the work only where the page is isolated", needsThreads, async () => {
  for (const name of ["mlp", "scnn", "lstm"]) {
    const ask = { name, backend: "cpu" };
    const one = await isolated.evaluate(goldenLosses, { ...ask, threads: 1 });
    assert.deepEqual([one.backend.threads, one.backend.threadsReason], [1, "asked for"]);
    for (const threads of [2, 3]) {
      const shared = await isolated.evaluate(goldenLosses, { ...ask, threads });
      assert.deepEqual([shared.backend.threads, shared.backend.threadsReason], [threads, "asked for"]);
      assert.deepEqual(shared.losses, one.losses, `${name} on ${threads} threads`);
    }
    const outside = await tab.evaluate(goldenLosses, { ...ask, threads: 2 });
    assert.deepEqual([outside.backend.threads, outside.backend.threadsReason], [1, "the page is not cross-origin isolated"]);
    assert.deepEqual(outside.losses, one.losses);
  }
  const cores = await isolated.evaluate(() => navigator.hardwareConcurrency);
  const byItself = await isolated.evaluate(goldenLosses, { name: "logreg", backend: "cpu" });
  assert.equal(byItself.backend.threads, Math.min(cores, 4));
});

test("where a helper cannot be started, one thread trains, and the reason is said", needsThreads, async () => {
  for (const file of ["/pkg/dist/trainer-threads.js", "/pkg/dist/unsaid_trainer_threads_bg.wasm"]) {
    missing.add(file);
    const page = await browser.newPage();
    await page.goto(isolated.url());
    await page.waitForFunction(() => window.ready);
    const { losses, backend } = await page.evaluate(goldenLosses, { name: "logreg", backend: "cpu", threads: 2 });
    missing.delete(file);
    await page.close();
    assert.equal(losses.length, 3 * BATCHES);
    assert.equal(backend.threads, 1);
    assert.match(backend.threadsReason, /^no helper could be started: /);
  }
});

test("disposing of a trainer ends its helpers, also in the middle of a training", needsThreads, async () => {
  const helpers = () =>
    isolated.evaluate(async () => (await navigator.locks.query()).held.filter(({ name }) => name.startsWith("helper")).length);
  const settles = async (count) => {
    for (const end = Date.now() + 10_000; Date.now() < end; await new Promise((turn) => setTimeout(turn, 50))) {
      if ((await helpers()) === count) break;
    }
    return helpers();
  };
  // Those of the trainers before are gone.
  assert.equal(await settles(0), 0);
  await isolated.evaluate(async () => {
    const workload = window.workloads.mlp;
    const { x, y } = window.data(workload);
    window.busy = await window.Trainer.create({ model: workload.model, backend: "cpu", threads: 3 });
    const options = { x, y, batchSize: 64, epochs: 100000, optimizer: { type: "sgd", learningRate: 0.01 } };
    window.training = window.busy.fit(options).catch((error) => error.code);
  });
  assert.equal(await settles(2), 2);
  const code = await isolated.evaluate(() => {
    window.busy.dispose();
    return window.training;
  });
  assert.equal(code, "closed");
  assert.equal(await settles(0), 0);
});
