/// <reference path="./unsaid-trainer-threads-wasm.d.ts" />
// The engine with threads: the trainer's worker imports it, and helpers are workers that start from it.

import init, { help, threads, Trainer } from "unsaid-trainer-threads-wasm";

export { init as default, threads, Trainer };

declare const self: DedicatedWorkerGlobalScope;

if (self.name === "unsaid-helper") {
  self.onmessage = async ({ data }: MessageEvent<{ module: WebAssembly.Module; memory: WebAssembly.Memory }>) => {
    try {
      await init({ module_or_path: data.module, memory: data.memory });
    } catch (cause) {
      self.postMessage(String(cause));
      return;
    }
    self.postMessage(null);
    help(); // for good: the trainer's worker ends this one with itself
  };
}
