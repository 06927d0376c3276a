/// <reference path="./unsaid-wasm.d.ts" />
// The worker's entry: ties the message loop to this worker's scope and to the generated wasm module.

import init, { panic_for_test, Session } from "unsaid-wasm";

import type { FromWorker, ToWorker } from "./messages.js";
import { serve, watchPanics } from "./shell.js";

declare const self: DedicatedWorkerGlobalScope;

watchPanics(console);
serve(
  {
    postMessage: (message: FromWorker, transfer) => self.postMessage(message, transfer),
    onMessage: (listener) => self.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => listener(data)),
    onFault: (listener) => {
      self.addEventListener("error", (event) => listener(event.error ?? event.message));
      self.addEventListener("unhandledrejection", (event) => listener(event.reason));
    },
  },
  { default: init, Session, panic_for_test },
  new URL("./unsaid_bg.wasm", import.meta.url),
);
