import assert from "node:assert/strict";
import { test } from "node:test";

import { invert, UnsaidError } from "../src/inversion.js";
import type { FromInversion, InvertMessage } from "../../worker/src/inversion-messages.js";

/** A worker that answers with `reply`, if it does. */
class Double extends EventTarget {
  asked: InvertMessage[] = [];
  ended = 0;
  constructor(readonly reply: ((question: InvertMessage) => FromInversion | Error) | null) {
    super();
  }
  postMessage(question: InvertMessage): void {
    this.asked.push(question);
    const answer = this.reply?.(question);
    if (!answer) return;
    const event =
      answer instanceof Error
        ? Object.assign(new Event("error"), { message: answer.message })
        : new MessageEvent("message", { data: answer });
    queueMicrotask(() => this.dispatchEvent(event));
  }
  terminate(): void {
    this.ended += 1;
  }
}

const row = { protection: "clip", frameBytes: 9, clipped: true, found: null, label: null, psnr: 0, ssim: null } as const;
const question = { manifest: "{}", model: new ArrayBuffer(4), x: [0.5, 1], label: 3 };
const using = (worker: Double) => ({ ...question, createWorker: () => worker as unknown as Worker });
const refused = (code: string) => (error: unknown) => error instanceof UnsaidError && error.code === code;

test("the worker is asked once, with bytes and 32-bit numbers, and ended with its answer", async () => {
  const worker = new Double(() => ({ type: "found", rows: [row] }));
  assert.deepEqual(await invert(using(worker)), [row]);
  const [{ manifest, model, x, label, wasm } = assert.fail()] = worker.asked;
  assert.deepEqual([new TextDecoder().decode(manifest), model, [...x], label, wasm], ["{}", new Uint8Array(4), [0.5, 1], 3, null]);
  assert.deepEqual([worker.asked.length, worker.ended], [1, 1]);
});

test("whatever goes wrong is a typed error, and no worker is left", async () => {
  const told = new Double(() => ({ type: "error", code: "bad-data", message: "no" }));
  await assert.rejects(invert(using(told)), refused("bad-data"));
  const broken = new Double(() => new Error("no script"));
  await assert.rejects(invert(using(broken)), refused("load-failed"));
  const silent = new Double(null);
  const stop = new AbortController();
  const asked = invert({ ...using(silent), signal: stop.signal });
  stop.abort();
  await assert.rejects(asked, refused("aborted"));
  await assert.rejects(invert({ ...using(silent), signal: stop.signal }), refused("aborted"));
  const none = () => {
    throw new Error("none");
  };
  await assert.rejects(invert({ ...question, createWorker: none }), refused("load-failed"));
  assert.deepEqual([told.ended, broken.ended, silent.ended], [1, 1, 1]);
});
