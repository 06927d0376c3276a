/// <reference path="./unsaid-trainer-threads-wasm.d.ts" />
// The engine with threads: the trainer's worker imports it, and helpers are workers that start from it.

import * as gpu from "unsaid-trainer-gpu-threads-wasm";
import * as cpu from "unsaid-trainer-threads-wasm";

import type { ThreadsModule } from "./trainer-wasm.js";

export { cpu, gpu };

/** What a helper needs to share another worker's instance. */
interface Instance {
  readonly gpu: boolean;
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
}

declare const self: DedicatedWorkerGlobalScope;

if (self.name === "unsaid-helper") {
  self.onmessage = async ({ data }: MessageEvent<Instance>) => {
    const glue: ThreadsModule = data.gpu ? gpu : cpu;
    try {
      await glue.default({ module_or_path: data.module, memory: data.memory });
    } catch (cause) {
      self.postMessage(String(cause));
      return;
    }
    self.postMessage(null);
    glue.help(); // for good: the trainer's worker ends this one with itself
  };
}
