/// <reference path="./unsaid-inversion-wasm.d.ts" />
// The inversion's worker: answers one question. The page ends it then.

import init, { invert } from "unsaid-inversion-wasm";

import { messageOf, toWireError } from "./errors.js";
import type { FoundRow, FromInversion, InvertMessage } from "./inversion-messages.js";

/** The wasm module's panic hook leaves its text in `__unsaidPanic`. */
declare const self: DedicatedWorkerGlobalScope & { __unsaidPanic?: unknown };

async function answer({ manifest, model, x, label, wasm }: InvertMessage): Promise<FromInversion> {
  try {
    await init({ module_or_path: wasm ?? new URL("./unsaid_inversion_bg.wasm", import.meta.url) });
  } catch (cause) {
    return { type: "error", code: "load-failed", message: `the wasm cannot be loaded: ${messageOf(cause)}` };
  }
  try {
    return { type: "found", rows: (await invert(manifest, model, x, label)) as FoundRow[] };
  } catch (thrown) {
    const panic = typeof self.__unsaidPanic === "string" ? self.__unsaidPanic : messageOf(thrown);
    const { code, message } = toWireError(thrown) ?? { code: "crashed", message: panic };
    return { type: "error", code, message };
  }
}

self.addEventListener("message", ({ data }: MessageEvent<InvertMessage>) => {
  void answer(data).then((message) => self.postMessage(message));
});
