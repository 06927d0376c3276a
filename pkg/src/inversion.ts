// What one update would give away: an attacker at the relay, played on the person's own device.

import type { FoundRow, FromInversion, InvertMessage } from "../../worker/src/inversion-messages.js";
import { UnsaidError } from "./errors.js";

export { errorCodes, UnsaidError } from "./errors.js";
export type { ErrorCode } from "./errors.js";

/** What {@link invert} takes. */
export interface InvertOptions {
  /** The task's manifest, byte for byte or as text: `(await client.manifest()).json`. Its terms are not held against any floor. */
  readonly manifest: string | Uint8Array;
  /** The shared model that the update would start from: a safetensors file, as the relay serves it. */
  readonly model: Uint8Array | ArrayBuffer;
  /** The example, `[features]`. It is given to a worker of this page, and goes nowhere else. */
  readonly x: ArrayLike<number>;
  /** Its label. */
  readonly label: number;
  /** Gives up. */
  readonly signal?: AbortSignal | undefined;
  /** Starts the worker; for bundlers and hosts that cannot find `inversion-worker.js` beside this module. */
  readonly createWorker?: (() => Worker) | undefined;
  /** Where `unsaid_inversion_bg.wasm` is, where it is not beside the worker. */
  readonly wasmUrl?: string | URL | undefined;
}

/** What an attacker finds behind one protection. */
export interface Inversion {
  /**
   * What was done to the update before the attacker had it: nothing but the rounding to the task's grid, clipping, or clipping and the
   * task's own noise, as it leaves the device. Where the relay adds the noise, `noise` is what everyone else can see of it at worst, who
   * knows all other updates of the round; the relay itself sees `clip`.
   */
  readonly protection: "none" | "clip" | "noise";
  /** Bytes of the frame that was attacked. */
  readonly frameBytes: number;
  /** Whether the update was shortened. */
  readonly clipped: boolean;
  /** The example that was found, `[features]`, held within the range of the real one's numbers; null where nothing was. */
  readonly found: Float32Array | null;
  /** The label that was read off the update; null where none was. */
  readonly label: number | null;
  /** Peak signal-to-noise ratio in dB: above 30 the two look the same, around 10 there is nothing to see. 0 where nothing was found. */
  readonly psnr: number;
  /** Structural similarity, 1 for equal pictures; null where the input is no picture of at least 7 × 7 pixels. */
  readonly ssim: number | null;
}

/**
 * Attacks the update that a device with this one example, and no other, would send: without protection, clipped, and (in a task that has
 * noise) with the task's own noise. The update is made as {@link https://github.com/unsaid-ml/unsaid/blob/main/PRIVACY.md the client makes
 * it}, from the task's training, grid and generator of noise, to the bytes of its frame, in a worker that ends with the call. Nothing is
 * sent, and nothing is booked in the ledger.
 *
 * The attack reads the input off the change of a dense first layer, which for one example is exact, and the label off the last bias (iDLG).
 * On many examples it finds mixtures of them, and it cannot read a convolution. That it finds nothing proves nothing: another attacker may
 * know more, or see many updates. What is proved is ε.
 *
 * ```ts
 * import { invert } from "unsaid/inversion";
 * for (const { protection, psnr, label } of await invert({ manifest: json, model, x, label: 7 })) console.log(protection, psnr, label);
 * ```
 *
 * @throws UnsaidError `bad-options` where the model does not begin with a dense layer, `bad-data` for an example that does not fit,
 * `bad-manifest`, `bad-model`, `aborted`, `crashed`, `load-failed`.
 */
export function invert(options: InvertOptions): Promise<Inversion[]> {
  const { manifest, model, x, label, signal, createWorker = startWorker, wasmUrl } = options;
  const stopped = (): UnsaidError => new UnsaidError("aborted", "the call was aborted", { cause: signal?.reason });
  if (signal?.aborted) return Promise.reject(stopped());
  let worker: Worker;
  try {
    worker = createWorker();
  } catch (cause) {
    return Promise.reject(new UnsaidError("load-failed", `the worker cannot be started: ${String(cause)}`, { cause }));
  }
  let abort: (() => void) | undefined;
  const found = new Promise<readonly FoundRow[]>((resolve, reject) => {
    abort = () => reject(stopped());
    signal?.addEventListener("abort", abort, { once: true });
    worker.addEventListener("message", ({ data }: MessageEvent<FromInversion>) => {
      if (data.type === "found") resolve(data.rows);
      else reject(new UnsaidError(data.code, data.message));
    });
    worker.addEventListener("error", ({ message }) => {
      reject(new UnsaidError("load-failed", `the worker cannot be loaded: ${message || "no details"}`));
    });
    const question: InvertMessage = {
      manifest: typeof manifest === "string" ? new TextEncoder().encode(manifest) : manifest,
      model: model instanceof Uint8Array ? model : new Uint8Array(model),
      x: Float32Array.from(x),
      label,
      wasm: wasmUrl === undefined ? null : new URL(wasmUrl, location.href).href,
    };
    worker.postMessage(question);
  });
  return found
    .then((rows) => [...rows])
    .finally(() => {
      if (abort) signal?.removeEventListener("abort", abort);
      worker.terminate();
    });
}

// Bundlers look for this very expression: it makes them ship `inversion-worker.js` and the wasm beside it.
function startWorker(): Worker {
  return new Worker(new URL("./inversion-worker.js", import.meta.url), { type: "module", name: "unsaid-inversion" });
}
