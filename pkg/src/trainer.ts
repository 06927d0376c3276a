// The engine without a relay: a model that is trained, asked, saved and loaded in a worker of this page.

import type {
  BackendRow,
  BuildUrls,
  FromTrainer,
  TensorRow,
  ThreadsGot,
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
  /**
   * How many threads share the work on the CPU, this one included. Default `auto`: up to four where the page is cross-origin
   * isolated (it was served with COOP and COEP headers) and the browser has relaxed SIMD, else one. Threads that cannot be
   * had are no error: {@link TrainerBackend} says how many there are, and why.
   */
  readonly threads?: number | "auto" | undefined;
  /** Seed of fresh weights, a whole number below 2³². Default 0. */
  readonly seed?: number | undefined;
  /** Starts the worker; for bundlers and hosts that cannot find `trainer-worker.js` beside this module. */
  readonly createWorker?: (() => Worker) | undefined;
  /**
   * Where the wasm files are, where they are not beside the worker. Those with threads have a script of their own,
   * `trainer-threads.js`.
   */
  readonly wasmUrls?: TrainerUrls | undefined;
}

/** Wasm files for one kind of back end: with relaxed SIMD, without, and with threads. */
export interface TrainerBuilds {
  readonly relaxed: string | URL;
  readonly plain: string | URL;
  readonly threads?: string | URL | undefined;
}

/** Wasm files for the CPU alone, and in `gpu` those for WebGPU too, which are loaded where it may be used. */
export interface TrainerUrls extends TrainerBuilds {
  readonly gpu?: TrainerBuilds | undefined;
  readonly threadsScript?: string | URL | undefined;
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

/** How a model is trained. */
export interface TrainingOptions {
  readonly optimizer: Optimizer;
  /** Passes over the examples. Default 1. */
  readonly epochs?: number | undefined;
  /** Examples per step. Default 32. */
  readonly batchSize?: number | undefined;
  /** Batches per step: the optimiser moves once for so many, by their mean, in the memory of one. Default 1. */
  readonly accumulate?: number | undefined;
  /** Whether every epoch visits the examples in an order of its own. Default true; false keeps the order given. */
  readonly shuffle?: boolean | undefined;
  readonly schedule?: Schedule | undefined;
  /** L2 regularisation: this times the weights is added to the gradient. */
  readonly weightDecay?: number | undefined;
  /** FedProx: this times the distance from the weights before the call is added to the gradient. */
  readonly proximal?: number | undefined;
  /** Tensors that do not learn, by the beginning of their names, such as `layers.0`. */
  readonly freeze?: readonly string[] | undefined;
  /** Clips the gradient of each single example to this L2 norm. */
  readonly clipExamplesL2?: number | undefined;
}

/** What {@link Trainer.fit} takes. */
export interface FitOptions extends TrainingData, TrainingOptions {
  /**
   * SCAFFOLD: this is added to every gradient: the shared control variate minus this client's own, as many numbers as there are
   * weights. The client's next one is {@link Trainer.controlVariate} then. For the optimiser `sgd` without momentum.
   */
  readonly correction?: ArrayLike<number> | undefined;
  /** Seed of the order of the examples and of dropout. Default 0. */
  readonly seed?: number | undefined;
  /** Hears of every step. Throwing does not stop training. */
  readonly onStep?: ((step: Step) => void) | undefined;
  /** Stops training between two steps: `fit` rejects with the code `aborted`, and the weights stay as they were before it. */
  readonly signal?: AbortSignal | undefined;
}

/** The bytes that a training on the CPU holds besides its examples. */
export interface TrainingMemory {
  readonly parameters: number;
  readonly activations: number;
  readonly gradients: number;
  readonly optimizer: number;
  readonly total: number;
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
  /** How many threads share the work of the CPU. */
  readonly threads: number;
  /** Why so many. */
  readonly threadsReason: string;
  /** The GPU's kernels for products of matrices: those that were timed on this device, or on a software adapter those used. */
  readonly kernels: readonly TrainerKernel[];
}

/** A kernel of the GPU for products of matrices. */
export interface TrainerKernel {
  /** What the product is like: few results, many, or a convolution. */
  readonly work: "small" | "large" | "convolution";
  readonly name: string;
  /** Milliseconds for one product, where it was timed. */
  readonly ms: number | null;
  /** Whether it is the one that is used. */
  readonly chosen: boolean;
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

/** More are asked for by mistake. */
const MOST_THREADS = 64;

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
  readonly #threads: ThreadsGot;
  #backend: TrainerBackend | null = null;
  #controlVariate: Float32Array | null = null;

  private constructor(link: Link, tensors: readonly Tensor[], labels: boolean, threads: ThreadsGot) {
    this.#link = link;
    this.tensors = tensors;
    this.#labels = labels;
    this.#threads = threads;
  }

  /**
   * Starts a worker with a model.
   *
   * @throws UnsaidError `bad-options` for a model that cannot be built (the message names layer and shapes), `bad-model` for
   * weights that are not its own, `load-failed` where the worker or its wasm cannot be had.
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { model, backend = "auto", weights, threads = "auto", seed = 0, createWorker, wasmUrls } = options;
    whole("seed", seed, 0, 2 ** 32 - 1);
    if (threads !== "auto") whole("threads", threads, 1, MOST_THREADS);
    const link = new Link(createWorker ?? startWorker);
    try {
      const made = await link.call("create", {
        model: JSON.stringify(model),
        backend,
        weights: weights === undefined || weights instanceof Float32Array ? null : bytes(weights),
        seed,
        threads,
        wasm: wasmUrls
          ? {
              ...buildUrls(wasmUrls),
              gpu: wasmUrls.gpu && buildUrls(wasmUrls.gpu),
              threadsScript: wasmUrls.threadsScript && absolute(wasmUrls.threadsScript),
            }
          : null,
      });
      const tensors = made.tensors.map(([name, offset, ...shape]: TensorRow): Tensor => ({ name, offset, shape }));
      const trainer = new Trainer(link, tensors, model.loss === "softmax-cross-entropy", made.threads);
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
   * SCAFFOLD's control variate of this client after the last {@link Trainer.fit} that had a `correction` (Karimireddy et al. 2020,
   * algorithm 1, line 12, option II); null after one that had none.
   */
  get controlVariate(): Float32Array | null {
    return this.#controlVariate;
  }

  /**
   * Trains; gives the mean loss of every step's batch, taken before the step. The optimiser goes on where the last call left it.
   *
   * @throws UnsaidError `bad-data`, `bad-options`, `non-finite` (the message names the step), `aborted`, `busy`,
   * `webgpu-unavailable` where WebGPU was asked for by name, `crashed`.
   */
  async fit(options: FitOptions): Promise<Float32Array> {
    const { x, y, seed = 0, onStep, signal } = options;
    whole("seed", seed, 0, 2 ** 32 - 1);
    const spec = specOf(options);
    const args = {
      x: floats(x),
      y: this.#targets(y),
      spec,
      seed,
      steps: onStep !== undefined,
      correction: options.correction ? floats(options.correction) : null,
    };
    const { losses, backend, controlVariate } = await this.#link.call("fit", args, { signal, onStep });
    this.#backend = backendOf(backend, this.#threads);
    this.#controlVariate = controlVariate;
    return losses;
  }

  /**
   * What a {@link Trainer.fit} on so many examples will hold in memory, known before it begins. One that needs more than there may
   * be is refused with these numbers.
   */
  async memory(options: TrainingOptions & { readonly examples: number }): Promise<TrainingMemory> {
    whole("examples", options.examples, 1, 2 ** 32 - 1);
    const row = await this.#link.call("memory", { spec: specOf(options), examples: options.examples });
    const [parameters = 0, activations = 0, gradients = 0, optimizer = 0] = row;
    return { parameters, activations, gradients, optimizer, total: parameters + activations + gradients + optimizer };
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

/** The training as the engine reads it. */
function specOf(options: TrainingOptions): string {
  const { optimizer, epochs = 1, batchSize = 32, accumulate, shuffle = true } = options;
  whole("epochs", epochs, 1, 2 ** 32 - 1);
  whole("batchSize", batchSize, 1, 2 ** 32 - 1);
  if (accumulate !== undefined) whole("accumulate", accumulate, 1, 2 ** 32 - 1);
  // What is undefined is left out.
  return JSON.stringify({
    epochs,
    batch_size: batchSize,
    accumulate,
    optimizer: snakeCase(optimizer),
    shuffle,
    schedule: options.schedule,
    weight_decay: options.weightDecay,
    proximal: options.proximal,
    freeze: options.freeze,
    clip_examples_l2: options.clipExamplesL2,
  });
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

function backendOf(
  [name, reason, adapter, cpuMsPerStep, gpuMsPerStep, cached, rows]: BackendRow,
  { threads, reason: threadsReason }: ThreadsGot,
): TrainerBackend {
  const kernels = rows.map(([work, name, ms, chosen]) => ({ work, name, ms, chosen }));
  return { name, reason, adapter, cpuMsPerStep, gpuMsPerStep, cached, threads, threadsReason, kernels };
}

function floats(values: ArrayLike<number>): Float32Array {
  return values instanceof Float32Array ? values : Float32Array.from(values);
}

function bytes(values: Uint8Array | ArrayBuffer): Uint8Array {
  return values instanceof Uint8Array ? values : new Uint8Array(values);
}

function buildUrls({ relaxed, plain, threads }: TrainerBuilds): BuildUrls {
  return { relaxed: absolute(relaxed), plain: absolute(plain), threads: threads && absolute(threads) };
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
