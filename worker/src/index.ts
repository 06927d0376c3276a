/// <reference path="./unsaid-wasm.d.ts" />
// The worker's entry: ties the message loop to this worker's scope and to the generated wasm module.

import init, { panic_for_test, Session } from "unsaid-wasm";

import type { FromWorker, ToWorker } from "./messages.js";
import { storedKeys } from "./keys.js";
import { serve } from "./shell.js";
import { ModelTraffic } from "./traffic.js";
import { storedTrials } from "./trials.js";

/** The wasm module's panic hook leaves its text in `__unsaidPanic`. */
declare const self: DedicatedWorkerGlobalScope & { __unsaidPanic?: unknown };

const traffic = new ModelTraffic();
const measured = (entries: PerformanceEntryList): void =>
  traffic.add(entries.filter((entry) => entry instanceof PerformanceResourceTiming));
const observer = new PerformanceObserver((list) => measured(list.getEntries()));
observer.observe({ type: "resource", buffered: true });

serve(
  {
    postMessage: (message: FromWorker, transfer) => self.postMessage(message, transfer),
    onMessage: (listener) => self.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => listener(data)),
    onFault: (listener) => {
      self.addEventListener("error", (event) => listener(event.error ?? event.message));
      self.addEventListener("unhandledrejection", (event) => listener(event.reason));
    },
    modelBytes: (hash) => {
      measured(observer.takeRecords());
      return traffic.take(hash);
    },
    panicText: () => (typeof self.__unsaidPanic === "string" ? self.__unsaidPanic : null),
    trials: storedTrials("client"),
    world: {
      keys: storedKeys(),
      fetch: (url, init) => fetch(url, init),
      sleep: (ms, signal) =>
        new Promise((done) => {
          const timer = setTimeout(done, ms);
          signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
        }),
      unixMs: () => Date.now(),
      steadyMs: () => performance.now(),
    },
  },
  { default: init, Session, panic_for_test },
  new URL("./unsaid_bg.wasm", import.meta.url),
);
