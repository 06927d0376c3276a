// The surface of the wasm module that the worker relies on. The build checks that the generated module satisfies it.

import type {
  BudgetView,
  DataSummary,
  ManifestView,
  OpenOptions,
  RunSummary,
  SessionEvent,
} from "../../pkg/src/types.js";
import type { Signatures } from "./seal.js";
import type { Trials } from "./trials.js";

/** One client session, in Rust. Methods reject with an `Error` that has a string `code`. */
export interface WasmSession {
  manifest(): Promise<Omit<ManifestView, "identity">>;
  addExamples(x: Float32Array, y: Uint32Array): Promise<DataSummary>;
  importShard(bytes: Uint8Array): Promise<DataSummary>;
  dataSummary(): Promise<DataSummary>;
  clearData(): Promise<DataSummary>;
  run(options: { rounds?: number }, signal: AbortSignal): Promise<RunSummary>;
  predict(x: Float32Array): Promise<Float32Array>;
  budget(): Promise<BudgetView>;
  setBudget(epsilon: number, delta: number): Promise<BudgetView>;
  exportLedger(): Promise<string>;
  eraseLedger(): Promise<BudgetView>;
  close(): Promise<void> | void;
}

/** The module that wasm-bindgen generates. */
export interface WasmModule {
  default(input: { module_or_path: URL | string }): Promise<unknown>;
  readonly Session: {
    open(
      options: Omit<OpenOptions, "relayKey">,
      onEvent: (event: SessionEvent) => void,
      trials: Trials,
      signatures: Signatures,
    ): Promise<WasmSession>;
  };
  panic_for_test(): void;
}
