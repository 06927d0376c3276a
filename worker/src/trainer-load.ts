// Which build of the engine a page needs and this browser can run, and how many threads it gets.
//
// A page that trains on the CPU downloads no shader and nothing else of WebGPU.

import init, { Trainer } from "unsaid-trainer-wasm";
import initGpu, { Trainer as GpuTrainer } from "unsaid-trainer-gpu-wasm";

import { messageOf } from "./errors.js";
import { hasRelaxedSimd } from "./relaxed.js";
import type { ThreadsAsked, WasmUrls } from "./trainer-messages.js";
import type { ThreadsScript, TrainerModule } from "./trainer-wasm.js";

/** An engine that is ready. */
export interface Engine {
  readonly Trainer: TrainerModule["Trainer"];
  /** Which build it is: what was measured with one says nothing about another. */
  readonly variant: string;
  /** Threads that share the work. */
  readonly threads: number;
  /** Why so many. */
  readonly reason: string;
}

/** Cores beyond this are left to the page and to others, unless they are asked for. */
const MOST_BY_ITSELF = 4;
/** How long helpers may take to start. */
const HELPERS_START_MS = 10_000;

/** How many threads there should be, and why not more. */
export function threadsFor(
  asked: ThreadsAsked,
  can: { readonly isolated: boolean; readonly relaxed: boolean; readonly cores: number },
): { readonly threads: number; readonly reason: string } {
  if (asked === 1) return { threads: 1, reason: "asked for" };
  if (!can.isolated) return { threads: 1, reason: "the page is not cross-origin isolated" };
  if (!can.relaxed) return { threads: 1, reason: "this browser has no relaxed SIMD" };
  if (asked !== "auto") return { threads: asked, reason: "asked for" };
  if (can.cores < 2) return { threads: 1, reason: "there is one core" };
  return { threads: Math.min(can.cores, MOST_BY_ITSELF), reason: "the page is cross-origin isolated" };
}

/** Whether the engine may have to compute on a GPU: it was asked for, or there is one to choose. */
export async function mayUseGpu(
  backend: string,
  gpu: { requestAdapter(): Promise<object | null> } | undefined,
): Promise<boolean> {
  if (backend !== "auto") return backend === "webgpu";
  return (await gpu?.requestAdapter().catch(() => null)) != null;
}

/**
 * Loads the engine for `backend`. Threads that cannot be had are no error: the engine then runs on one, and says why.
 */
export async function loadEngine(urls: WasmUrls | null, backend: string, asked: ThreadsAsked): Promise<Engine> {
  const gpu = await mayUseGpu(backend, (navigator as { gpu?: Parameters<typeof mayUseGpu>[1] }).gpu);
  const relaxed = hasRelaxedSimd();
  const wanted = threadsFor(asked, { isolated: self.crossOriginIsolated, relaxed, cores: navigator.hardwareConcurrency });
  let { reason } = wanted;
  if (wanted.threads > 1) {
    try {
      const { threads } = wanted;
      return { Trainer: await startThreads(urls, gpu, threads), variant: `${threads} threads`, threads, reason };
    } catch (cause) {
      reason = `no helper could be started: ${messageOf(cause)}`;
    }
  }
  const variant = relaxed ? "relaxed" : "plain";
  if (gpu) {
    const beside = relaxed
      ? new URL("./unsaid_trainer_gpu_relaxed_bg.wasm", import.meta.url)
      : new URL("./unsaid_trainer_gpu_bg.wasm", import.meta.url);
    await initGpu({ module_or_path: urls?.gpu?.[variant] ?? beside });
    return { Trainer: GpuTrainer, variant, threads: 1, reason };
  }
  const beside = relaxed
    ? new URL("./unsaid_trainer_relaxed_bg.wasm", import.meta.url)
    : new URL("./unsaid_trainer_bg.wasm", import.meta.url);
  await init({ module_or_path: urls?.[variant] ?? beside });
  return { Trainer, variant, threads: 1, reason };
}

async function startThreads(urls: WasmUrls | null, gpu: boolean, threads: number): Promise<TrainerModule["Trainer"]> {
  const script = urls?.threadsScript ?? new URL("./trainer-threads.js", import.meta.url).href;
  const wasm = gpu
    ? (urls?.gpu?.threads ?? new URL("./unsaid_trainer_gpu_threads_bg.wasm", import.meta.url).href)
    : (urls?.threads ?? new URL("./unsaid_trainer_threads_bg.wasm", import.meta.url).href);
  const [{ cpu, gpu: withGpu }, module] = await Promise.all([
    // A file of its own, which every bundler must leave as it is: helpers start from it.
    import(/* webpackIgnore: true */ /* @vite-ignore */ script) as Promise<ThreadsScript>,
    fetch(wasm).then((response) => {
      if (!response.ok) throw new Error(`${response.status} for ${wasm}`);
      return WebAssembly.compileStreaming(response);
    }),
  ]);
  const glue = gpu ? withGpu : cpu;
  const { memory } = await glue.default({ module_or_path: module });
  const helpers: Worker[] = [];
  try {
    await new Promise<void>((resolve, reject) => {
      let missing = threads - 1;
      const late = setTimeout(() => reject(new Error(`not all were there after ${HELPERS_START_MS} ms`)), HELPERS_START_MS);
      for (let helper = 1; helper < threads; helper++) {
        const worker = new Worker(script, { type: "module", name: "unsaid-helper" });
        helpers.push(worker);
        worker.onmessage = ({ data }: MessageEvent<string | null>) => {
          if (data !== null) reject(new Error(data));
          else if (--missing === 0) {
            clearTimeout(late);
            resolve();
          }
        };
        worker.onerror = (event) => reject(new Error(event.message || "a helper's script cannot be loaded"));
        worker.postMessage({ gpu, module, memory });
      }
    });
    // Each has said that it will help; now they do.
    for (const end = performance.now() + HELPERS_START_MS; glue.threads() < threads; ) {
      if (performance.now() > end) throw new Error("a helper does not help");
      await new Promise((turn) => setTimeout(turn, 1));
    }
  } catch (cause) {
    for (const worker of helpers) worker.terminate();
    throw cause;
  }
  return glue.Trainer;
}
