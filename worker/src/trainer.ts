/// <reference path="./unsaid-trainer-wasm.d.ts" />
// The trainer's worker: ties the message loop to this worker's scope and to the generated wasm module.

import init, { Trainer } from "unsaid-trainer-wasm";

import { hasRelaxedSimd } from "./relaxed.js";
import type { FromTrainer, ToTrainer } from "./trainer-messages.js";
import { serveTrainer } from "./trainer-shell.js";
import { storedTrials } from "./trials.js";

/** The wasm module's panic hook leaves its text in `__unsaidPanic`. */
declare const self: DedicatedWorkerGlobalScope & { __unsaidPanic?: unknown };

const relaxed = hasRelaxedSimd();

serveTrainer(
  {
    postMessage: (message: FromTrainer, transfer) => self.postMessage(message, transfer),
    onMessage: (listener) => self.addEventListener("message", ({ data }: MessageEvent<ToTrainer>) => listener(data)),
    onFault: (listener) => {
      self.addEventListener("error", (event) => listener(event.error ?? event.message));
      self.addEventListener("unhandledrejection", (event) => listener(event.reason));
    },
    panicText: () => (typeof self.__unsaidPanic === "string" ? self.__unsaidPanic : null),
    trials: storedTrials(relaxed ? "relaxed" : "plain"),
  },
  { default: init, Trainer },
  relaxed
    ? new URL("./unsaid_trainer_relaxed_bg.wasm", import.meta.url)
    : new URL("./unsaid_trainer_bg.wasm", import.meta.url),
  relaxed,
);
