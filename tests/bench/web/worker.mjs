// One measurement in a dedicated worker: a fresh worker for each, so that nothing is warm that should be cold.

import { BATCHES, GOLDEN_STEPS, data, flops, optimizers, startingWeights, workloads } from "./workloads.mjs";

const now = () => performance.now();
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Depth of the micro-kernel's product, and milliseconds of a sample of it. */
const MICRO_DEPTH = 256;
const MICRO_MS = 4;

async function measure({ name, build, threads, backend, optimizer, seconds, clip, micro }) {
  const workload = workloads[name];
  const weights = startingWeights(workload);
  const { x, y } = data(workload);
  const signal = new AbortController().signal;
  const spec = (epochs) =>
    JSON.stringify({
      epochs, batch_size: workload.batch, optimizer: optimizers[optimizer](workload), shuffle: false,
      ...(clip ? { clip_examples_l2: clip } : {}),
    });

  const { exports: bare } = (await WebAssembly.instantiate(new Uint8Array(micro))).instance;
  /** GFLOP/s of the micro-kernel. */
  const microRate = () => {
    const start = now();
    let flop = 0;
    for (; now() - start < MICRO_MS; flop += 2 * 6 * 8 * MICRO_DEPTH * 200) bare.micro(MICRO_DEPTH, 200);
    return flop / (now() - start) / 1e6;
  };

  const loading = now();
  const glue = await import(`/wasm/${build}/unsaid_trainer.js`);
  const { Trainer } = glue;
  const wasm = `/wasm/${build}/unsaid_trainer_bg.wasm`;
  let memory;
  if (threads > 1) {
    const module = await WebAssembly.compileStreaming(fetch(wasm));
    ({ memory } = await glue.default({ module_or_path: module }));
    for (let helper = 1; helper < threads; helper++) {
      new Worker(import.meta.url, { type: "module", name: "helper" }).postMessage({ help: { build, module, memory } });
    }
    while (glue.threads() < threads) await new Promise((turn) => setTimeout(turn, 1));
  } else {
    ({ memory } = await glue.default({ module_or_path: wasm }));
  }
  const loaded = now() - loading;

  const fresh = () => {
    const trainer = new Trainer(JSON.stringify(workload.model), backend, undefined, 0);
    trainer.setWeights(weights);
    return trainer;
  };
  // The first step of all, everything included: the model, its buffers and kernels, one batch there and one loss back.
  const first = now();
  const one = workload.batch * (x.length / (workload.batch * BATCHES));
  const labels = workload.batch * (y.length / (workload.batch * BATCHES));
  await fresh().fit(x.slice(0, one), y.slice(0, labels), spec(1), 0, undefined, signal);
  const firstStep = now() - first;

  // Golden losses: batches in order, around and around.
  let losses = [];
  {
    const trainer = fresh();
    const all = await trainer.fit(x, y, spec(Math.ceil(GOLDEN_STEPS / BATCHES)), 0, undefined, signal);
    losses = [...all.slice(0, GOLDEN_STEPS)];
  }

  const trainer = fresh();
  const round = async (epochs) => {
    const start = now();
    await trainer.fit(x, y, spec(epochs), 0, undefined, signal);
    return (now() - start) / (epochs * BATCHES);
  };
  const once = await round(1);
  // Warm up: the wasm compiler takes seconds to reach its best tier.
  const epochs = Math.max(1, Math.round(250 / (once * BATCHES)));
  for (const end = now() + 1000 * seconds.warm; now() < end; ) {
    await round(epochs);
    microRate();
  }
  const samples = [];
  const rates = [];
  for (const end = now() + 1000 * seconds.timed; now() < end || samples.length < 3; ) {
    samples.push(await round(epochs));
    rates.push(microRate());
  }

  const single = x.slice(0, x.length / (workload.batch * BATCHES));
  const answers = [];
  for (const end = now() + 500; now() < end; ) {
    const start = now();
    for (let i = 0; i < 10; i++) trainer.predict(single);
    answers.push((now() - start) / 10);
  }
  const ms = median(samples);
  return {
    name, build, threads, backend, optimizer, clip: clip ?? null, ms, best: Math.min(...samples), samples: samples.length,
    gflops: flops(workload) / ms / 1e6, micro: Math.max(...rates),
    // Best by best, since what else the machine does can only slow either; of one thread's, since a GPU has another measure.
    share: backend === "cpu" && threads === 1 ? flops(workload) / Math.min(...samples) / 1e6 / Math.max(...rates) : null,
    wasmMB: memory.buffer.byteLength / 1e6, examplesPerSecond: (1000 * workload.batch) / ms,
    loaded, firstStep, inferOne: median(answers), losses, chosen: trainer.backend(),
  };
}

self.onmessage = async ({ data: job }) => {
  if (job.help) {
    const { build, module, memory } = job.help;
    const glue = await import(`/wasm/${build}/unsaid_trainer.js`);
    await glue.default({ module_or_path: module, memory });
    glue.help(); // for good
  }
  try {
    self.postMessage({ result: await measure(job) });
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};
if (self.name !== "helper") self.postMessage({ ready: true });
