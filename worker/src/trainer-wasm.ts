// The surface of the trainer's wasm module that the worker relies on. The build checks that the generated module satisfies it.

import type { Trials } from "./trials.js";

/** A model in training, in Rust. Methods throw, or reject with, an `Error` that has a string `code`. */
export interface WasmTrainer {
  fit(
    x: Float32Array,
    y: Uint32Array | Float32Array,
    spec: string,
    seed: number,
    onStep: ((epoch: number, step: number, steps: number, loss: number | undefined) => void) | undefined,
    signal: AbortSignal,
    correction: Float32Array | undefined,
  ): Promise<Float32Array>;
  /** SCAFFOLD's, after a training that had a correction. */
  controlVariate(): Float32Array | undefined;
  /** Bytes: parameters, activations, gradients, optimiser. */
  memory(spec: string, examples: number): Float64Array;
  evaluate(x: Float32Array, y: Uint32Array | Float32Array, k: number): Float64Array;
  predict(x: Float32Array): Float32Array;
  weights(): Float32Array;
  setWeights(weights: Float32Array): void;
  layout(): unknown[];
  save(): Uint8Array;
  load(file: Uint8Array): void;
  backend(): unknown;
}

/** The module that wasm-bindgen generates. */
export interface TrainerModule {
  default(input: { module_or_path: URL | string }): Promise<unknown>;
  readonly Trainer: new (
    model: string,
    backend: string,
    weights: Uint8Array | undefined,
    seed: number,
    trials: Trials,
  ) => WasmTrainer;
}

/** The script with threads: the module for the CPU alone, and the one for WebGPU too. */
export interface ThreadsScript {
  readonly cpu: ThreadsModule;
  readonly gpu: ThreadsModule;
}

/** The same, of a build with threads. */
export interface ThreadsModule {
  default(input: { module_or_path: WebAssembly.Module; memory?: WebAssembly.Memory }): Promise<{ readonly memory: WebAssembly.Memory }>;
  readonly Trainer: TrainerModule["Trainer"];
  /** Makes this worker a helper; never returns. */
  help(): void;
  /** How many threads share the work. */
  threads(): number;
}
