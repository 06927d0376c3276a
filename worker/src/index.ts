/// <reference path="./unsaid-wasm.d.ts" />
// The worker's entry: ties the message loop to this worker's scope and to the generated wasm module.

import init, { panic_for_test, Session } from "unsaid-wasm";

import type { FromWorker, ToWorker } from "./messages.js";
import { serve } from "./shell.js";

/** The wasm module's panic hook leaves its text in `__unsaidPanic`. */
declare const self: DedicatedWorkerGlobalScope & { __unsaidPanic?: unknown };

serve(
  {
    postMessage: (message: FromWorker, transfer) => self.postMessage(message, transfer),
    onMessage: (listener) => self.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => listener(data)),
    onFault: (listener) => {
      self.addEventListener("error", (event) => listener(event.error ?? event.message));
      self.addEventListener("unhandledrejection", (event) => listener(event.reason));
    },
    panicText: () => (typeof self.__unsaidPanic === "string" ? self.__unsaidPanic : null),
  },
  { default: init, Session, panic_for_test },
  new URL("./unsaid_bg.wasm", import.meta.url),
);
