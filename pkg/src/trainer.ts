// The engine without a relay: a model that is trained, asked, saved and loaded in a worker of this page.

import type {
  BackendRow,
  FromTrainer,
  TensorRow,
  TrainerCallKind,
  TrainerCallMessage,
  TrainerCalls,
} from "../../worker/src/trainer-messages.js";
import { UnsaidError } from "./errors.js";
import type { ModelSpec, Optimizer, Schedule } from "./model-spec.js";

export { errorCodes, UnsaidError } from "./errors.js";
export type { ErrorCode } from "./errors.js";
export type * from "./model-spec.js";

/** What {@link Trainer.create} takes. */
export interface TrainerOptions {
  /** The model. */
  readonly model: ModelSpec;
  /** Where to train. Default `auto`: WebGPU or CPU, whichever is faster on this model's own steps. */
  readonly backend?: "auto" | "cpu" | "webgpu" | undefined;
  /** The weights to begin with: a safetensors file, or the flat vector. Default: fresh ones from `seed`. */
  readonly weights?: Uint8Array | ArrayBuffer | Float32Array | undefined;
  /** Seed of fresh weights, a whole number below 2³². Default 0. */
  readonly seed?: number | undefined;
  /** Starts the worker; for bundlers and hosts that cannot find `trainer-worker.js` beside this module. */
  readonly createWorker?: (() => Worker) | undefined;
  /** Where the two wasm files are, where they are not beside the worker. */
  readonly wasmUrls?: { readonly relaxed: string | URL; readonly plain: string | URL } | undefined;
}

/** Examples: `x` is `[n, features]`, row-major; `y` has a label for each, or for a sequence one for each position, or numbers. */
export interface TrainingData {
  readonly x: ArrayLike<number>;
  /** Whole numbers for `softmax-cross-entropy` (−1: a position that does not count), else numbers. */
  readonly y: ArrayLike<number>;
}

/** A step that is done. */
export interface Step {
  /** From 1. */
  readonly epoch: number;
  /** Step of the epoch, from 1. */
  readonly step: number;
  /** Steps of an epoch. */
  readonly steps: number;
  /** The mean loss of its batch, taken before it; null on WebGPU, where losses come at the end. */
  readonly loss: number | null;
}

/** What {@link Trainer.fit} takes. */
export interface FitOptions extends TrainingData {
  readonly optimizer: Optimizer;
  /** Passes over the examples. Default 1. */
  readonly epochs?: number | undefined;
  /** Examples per step. Default 32. */
  readonly batchSize?: number | undefined;
  /** Whether every epoch visits the examples in an order of its own. Default true; false keeps the order given. */
  readonly shuffle?: boolean | undefined;
  readonly schedule?: Schedule | undefined;
  /** L2 regularisation: this times the weights is added to the gradient. */
  readonly weightDecay?: number | undefined;
  /** Tensors that do not learn, by the beginning of their names, such as `layers.0`. */
  readonly freeze?: readonly string[] | undefined;
  /** Clips the gradient of each single example to this L2 norm. */
  readonly clipExamplesL2?: number | undefined;
  /** Seed of the order of the examples and of dropout. Default 0. */
  readonly seed?: number | undefined;
  /** Hears of every step. Throwing does not stop training. */
  readonly onStep?: ((step: Step) => void) | undefined;
  /** Stops training between two steps: `fit` rejects with the code `aborted`, and the weights stay as they were before it. */
  readonly signal?: AbortSignal | undefined;
}

/** Where training happens, and why. */
export interface TrainerBackend {
  readonly name: "cpu" | "webgpu";
  readonly reason: string;
  /** What the GPU's driver calls itself, where there is one. */
  readonly adapter: string | null;
  /** Milliseconds per step, where both back ends were measured. */
  readonly cpuMsPerStep: number | null;
  readonly gpuMsPerStep: number | null;
  /** True where they were measured on an earlier visit, on the same adapter, for the same model and training. */
  readonly cached: boolean;
}

/** What a model is measured on. */
export interface EvaluateOptions extends TrainingData {
  /** How many guesses count for {@link Evaluation.topK}. Default 3. */
  readonly k?: number | undefined;
}

/** How well a model does. */
export interface Evaluation {
  /** Share of the labels that are the model's first guess. */
  readonly accuracy: number;
  /** Share of the labels that are among its first `k` guesses. */
  readonly topK: number;
  readonly k: number;
  /** Mean loss. */
  readonly loss: number;
  /** `exp(loss)`. */
  readonly perplexity: number;
  readonly examples: number;
}

/** A tensor of the model. */
export interface Tensor {
  /** As in safetensors files: `layers.<index>.<kernel|bias|…>`. */
  readonly name: string;
  /** Where it begins in {@link Trainer.weights}. */
  readonly offset: number;
  readonly shape: readonly number[];
}

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: UnsaidError) => void;
  readonly onStep: ((step: Step) => void) | undefined;
}

/** A model in training. Make one with {@link Trainer.create}, and {@link Trainer.dispose} of it when it is no longer needed. */
export class Trainer {
  /** The model's tensors, in the order in which they lie in the flat vector. */
  readonly tensors: readonly Tensor[];
  readonly #link: Link;
  readonly #labels: boolean;
  #backend: TrainerBackend | null = null;

  private constructor(link: Link, tensors: readonly Tensor[], labels: boolean) {
    this.#link = link;
    this.tensors = tensors;
    this.#labels = labels;
  }

  /**
   * Starts a worker with a model.
   *
   * @throws UnsaidError `bad-options` for a model that cannot be built (the message names layer and shapes), `bad-model` for
   * weights that are not its own, `load-failed` where the worker or its wasm cannot be had.
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { model, backend = "auto", weights, seed = 0, createWorker, wasmUrls } = options;
    whole("seed", seed, 0, 2 ** 32 - 1);
    const link = new Link(createWorker ?? startWorker);
    try {
      const rows = await link.call("create", {
        model: JSON.stringify(model),
        backend,
        weights: weights === undefined || weights instanceof Float32Array ? null : bytes(weights),
        seed,
        wasm: wasmUrls ? { relaxed: absolute(wasmUrls.relaxed), plain: absolute(wasmUrls.plain) } : null,
      });
      const tensors = rows.map(([name, offset, ...shape]: TensorRow): Tensor => ({ name, offset, shape }));
      const trainer = new Trainer(link, tensors, model.loss === "softmax-cross-entropy");
      if (weights instanceof Float32Array) await trainer.setWeights(weights);
      return trainer;
    } catch (error) {
      link.dispose();
      throw error;
    }
  }

  /** Where training happens; null before the first {@link Trainer.fit}. */
  get backend(): TrainerBackend | null {
    return this.#backend;
  }

  /**
   * Trains; gives the mean loss of every step's batch, taken before the step. The optimiser goes on where the last call left it.
   *
   * @throws UnsaidError `bad-data`, `bad-options`, `non-finite` (the message names the step), `aborted`, `busy`,
   * `webgpu-unavailable` where WebGPU was asked for by name, `crashed`.
   */
  async fit(options: FitOptions): Promise<Float32Array> {
    const { x, y, optimizer, epochs = 1, batchSize = 32, shuffle = true, seed = 0, onStep, signal } = options;
    whole("seed", seed, 0, 2 ** 32 - 1);
    whole("epochs", epochs, 1, 2 ** 32 - 1);
    whole("batchSize", batchSize, 1, 2 ** 32 - 1);
    const spec = {
      epochs,
      batch_size: batchSize,
      optimizer: snakeCase(optimizer),
      shuffle,
      ...(options.schedule ? { schedule: options.schedule } : {}),
      ...(options.weightDecay === undefined ? {} : { weight_decay: options.weightDecay }),
      ...(options.freeze ? { freeze: options.freeze } : {}),
      ...(options.clipExamplesL2 === undefined ? {} : { clip_examples_l2: options.clipExamplesL2 }),
    };
    const args = { x: floats(x), y: this.#targets(y), spec: JSON.stringify(spec), seed, steps: onStep !== undefined };
    const { losses, backend } = await this.#link.call("fit", args, { signal, onStep });
    this.#backend = backendOf(backend);
    return losses;
  }

  /** How well the model does on `x` and `y`; `k` guesses count for {@link Evaluation.topK}, 3 if it is not given. */
  async evaluate({ x, y, k = 3 }: EvaluateOptions): Promise<Evaluation> {
    whole("k", k, 1, 2 ** 32 - 1);
    const row = await this.#link.call("evaluate", { x: floats(x), y: this.#targets(y), k });
    const [accuracy = 0, topK = 0, loss = 0, perplexity = 0, examples = 0] = row;
    return { accuracy, topK, k, loss, perplexity, examples };
  }

  /** The model's answer to each row of `x`, `[rows, outputs]`: probabilities, where the loss has them. */
  async predict(x: ArrayLike<number>): Promise<Float32Array> {
    return this.#link.call("predict", { x: floats(x) });
  }

  /** A copy of the flat weight vector; {@link Trainer.tensors} says what lies where. */
  async weights(): Promise<Float32Array> {
    return this.#link.call("weights", null);
  }

  /** Takes a flat weight vector; the optimiser begins anew. */
  async setWeights(weights: ArrayLike<number>): Promise<void> {
    await this.#link.call("set-weights", { weights: floats(weights) });
  }

  /** The weights as a safetensors file. */
  async save(): Promise<Uint8Array> {
    return this.#link.call("save", null);
  }

  /** Takes the weights of a safetensors file; the optimiser begins anew. */
  async load(file: Uint8Array | ArrayBuffer): Promise<void> {
    await this.#link.call("load", { file: bytes(file) });
  }

  /** Ends the worker. Calls that are under way reject with the code `closed`. */
  dispose(): void {
    this.#link.dispose();
  }

  #targets(y: ArrayLike<number>): Uint32Array | Float32Array {
    if (!this.#labels) return floats(y);
    // −1 becomes 2³² − 1, which marks a position that does not count.
    const labels = new Uint32Array(y.length);
    for (let i = 0; i < y.length; i++) {
      const label = y[i] ?? Number.NaN;
      if (!Number.isInteger(label) || label < -1 || label >= 2 ** 32) {
        throw new UnsaidError("bad-data", `label ${i} is ${label}, but must be a whole number, or -1 for none`);
      }
      labels[i] = label;
    }
    return labels;
  }
}

function startWorker(): Worker {
  return new Worker(new URL("./trainer-worker.js", import.meta.url), { type: "module", name: "unsaid-trainer" });
}

/** The page's end of the worker. */
class Link {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #ended: UnsaidError | null = null;

  constructor(start: () => Worker) {
    try {
      this.#worker = start();
    } catch (cause) {
      throw new UnsaidError("load-failed", `the worker cannot be started: ${String(cause)}`, { cause });
    }
    this.#worker.addEventListener("message", ({ data }: MessageEvent<FromTrainer>) => this.#receive(data));
    this.#worker.addEventListener("error", (event) => {
      this.#end(new UnsaidError("load-failed", `the worker cannot be loaded: ${event.message || "no details"}`));
    });
  }

  call<K extends TrainerCallKind>(
    kind: K,
    args: TrainerCalls[K]["args"],
    options: { signal?: AbortSignal | undefined; onStep?: ((step: Step) => void) | undefined } = {},
  ): Promise<TrainerCalls[K]["result"]> {
    const { signal, onStep } = options;
    if (this.#ended) return Promise.reject(this.#ended);
    if (signal?.aborted) return Promise.reject(new UnsaidError("aborted", "the call was aborted", { cause: signal.reason }));
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const abort = (): void => this.#worker.postMessage({ type: "abort", id });
      signal?.addEventListener("abort", abort, { once: true });
      const settled = (): void => signal?.removeEventListener("abort", abort);
      this.#pending.set(id, {
        resolve: (value) => (settled(), resolve(value)),
        reject: (error) => (settled(), reject(error)),
        onStep,
      });
      // The cast ties `kind` and `args` together, as this method's signature does.
      this.#worker.postMessage({ type: "call", id, kind, args } as TrainerCallMessage);
    });
  }

  dispose(): void {
    this.#end(new UnsaidError("closed", "the trainer was disposed of"));
  }

  #receive(message: FromTrainer): void {
    switch (message.type) {
      case "step": {
        const { epoch, step, steps, loss } = message;
        try {
          this.#pending.get(message.id)?.onStep?.({ epoch, step, steps, loss: loss ?? null });
        } catch (error) {
          // The listener's own fault: reported as uncaught, and training goes on.
          queueMicrotask(() => {
            throw error;
          });
        }
        break;
      }
      case "result":
        this.#take(message.id)?.resolve(message.value as never);
        break;
      case "error":
        this.#take(message.id)?.reject(new UnsaidError(message.code, message.message));
        break;
      case "crashed":
        this.#end(new UnsaidError("crashed", `the worker crashed: ${message.message}`));
        break;
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #end(error: UnsaidError): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#worker.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

function backendOf([name, reason, adapter, cpuMsPerStep, gpuMsPerStep, cached]: BackendRow): TrainerBackend {
  return { name, reason, adapter, cpuMsPerStep, gpuMsPerStep, cached };
}

function floats(values: ArrayLike<number>): Float32Array {
  return values instanceof Float32Array ? values : Float32Array.from(values);
}

function bytes(values: Uint8Array | ArrayBuffer): Uint8Array {
  return values instanceof Uint8Array ? values : new Uint8Array(values);
}

function absolute(url: string | URL): string {
  return new URL(url, location.href).href;
}

function whole(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new UnsaidError("bad-options", `${name} is ${value}, but must be a whole number from ${least} to ${most}`);
}

/** The optimiser with the names of the JSON document. */
function snakeCase(optimizer: Optimizer): Record<string, unknown> {
  const entries = Object.entries(optimizer).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries.map(([name, value]) => [name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]));
}
