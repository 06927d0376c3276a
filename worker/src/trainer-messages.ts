// What the page and the trainer's worker say to each other. Both sides are built from this file, so they cannot disagree.

import type { ErrorCode } from "../../pkg/src/errors.js";

/** A tensor of the model: its name, where it begins in the flat vector, and its shape. */
export type TensorRow = readonly [name: string, offset: number, ...shape: number[]];

/** Where training happens: name, reason, adapter, milliseconds per step on the CPU and the GPU where both were measured, and
 * whether they were on an earlier visit. */
export type BackendRow = readonly [
  name: "cpu" | "webgpu",
  reason: string,
  adapter: string | null,
  cpuMsPerStep: number | null,
  gpuMsPerStep: number | null,
  cached: boolean,
  kernels: readonly KernelRow[],
];

/** How many threads should share the work. */
export type ThreadsAsked = number | "auto";

/** How many do, and why. */
export interface ThreadsGot {
  readonly threads: number;
  readonly reason: string;
}

/** Where the wasm of one kind is: with relaxed SIMD, without, and with threads. */
export interface BuildUrls {
  readonly relaxed: string;
  readonly plain: string;
  readonly threads?: string | undefined;
}

/** Where the wasm is, for the CPU alone and for WebGPU too; threads have a script of their own. */
export interface WasmUrls extends BuildUrls {
  readonly gpu?: BuildUrls | undefined;
  readonly threadsScript?: string | undefined;
}

/** A kernel for products of matrices: for what, its name, milliseconds where it was timed, and whether it is used. */
export type KernelRow = readonly [work: KernelWork, kernel: string, ms: number | null, chosen: boolean];

/** What a product of matrices is like. */
export type KernelWork = "small" | "large" | "convolution";

/** Every call: what it takes and what it gives. */
export interface TrainerCalls {
  create: {
    args: {
      readonly model: string;
      readonly backend: string;
      readonly weights: Uint8Array | null;
      readonly seed: number;
      readonly threads: ThreadsAsked;
      /** Where the wasm is; null for beside the worker. */
      readonly wasm: WasmUrls | null;
    };
    result: { readonly tensors: TensorRow[]; readonly threads: ThreadsGot };
  };
  fit: {
    args: {
      readonly x: Float32Array;
      readonly y: Uint32Array | Float32Array;
      readonly spec: string;
      readonly seed: number;
      readonly steps: boolean;
      /** SCAFFOLD's, where there is one. */
      readonly correction: Float32Array | null;
    };
    result: { readonly losses: Float32Array; readonly backend: BackendRow; readonly controlVariate: Float32Array | null };
  };
  memory: { args: { readonly spec: string; readonly examples: number }; result: Float64Array };
  evaluate: {
    args: { readonly x: Float32Array; readonly y: Uint32Array | Float32Array; readonly k: number };
    result: Float64Array;
  };
  predict: { args: { readonly x: Float32Array }; result: Float32Array };
  weights: { args: null; result: Float32Array };
  "set-weights": { args: { readonly weights: Float32Array }; result: null };
  save: { args: null; result: Uint8Array };
  load: { args: { readonly file: Uint8Array }; result: null };
}

export type TrainerCallKind = keyof TrainerCalls;

/** A call: `id` is unique within the life of a worker. */
export type TrainerCallMessage = {
  [K in TrainerCallKind]: {
    readonly type: "call";
    readonly id: number;
    readonly kind: K;
    readonly args: TrainerCalls[K]["args"];
  };
}[TrainerCallKind];

/** Page to worker. */
export type ToTrainer = TrainerCallMessage | { readonly type: "abort"; readonly id: number };

/** Worker to page. */
export type FromTrainer =
  | { readonly type: "result"; readonly id: number; readonly value: TrainerCalls[TrainerCallKind]["result"] }
  | { readonly type: "error"; readonly id: number; readonly code: ErrorCode; readonly message: string }
  /** A step is done: epoch, step and steps from 1; the loss where it is known at once. */
  | {
      readonly type: "step";
      readonly id: number;
      readonly epoch: number;
      readonly step: number;
      readonly steps: number;
      readonly loss: number | undefined;
    }
  /** The last message of a worker: its wasm instance must not be used again. */
  | { readonly type: "crashed"; readonly message: string };
