// What the page and the worker say to each other. Both sides are built from this file, so they cannot disagree.

import type { ErrorCode, Problem } from "../../pkg/src/errors.js";
import type {
  Budget,
  BudgetView,
  DataSummary,
  ManifestView,
  OpenOptions,
  RunSummary,
  SessionEvent,
} from "../../pkg/src/types.js";

/** Every call: what it takes and what it gives. */
export interface Calls {
  open: { args: { options: OpenOptions; wasm: string | null }; result: null };
  manifest: { args: null; result: ManifestView };
  "add-examples": { args: { x: Float32Array; y: Uint32Array }; result: DataSummary };
  "import-shard": { args: { bytes: Uint8Array }; result: DataSummary };
  "data-summary": { args: null; result: DataSummary };
  "clear-data": { args: null; result: DataSummary };
  run: { args: { rounds?: number; invitation?: string }; result: RunSummary };
  predict: { args: { x: Float32Array }; result: Float32Array };
  budget: { args: null; result: BudgetView };
  "set-budget": { args: Budget; result: BudgetView };
  "export-ledger": { args: null; result: string };
  "erase-ledger": { args: null; result: BudgetView };
  close: { args: null; result: null };
  /** For tests of crash handling: makes the Rust side panic. */
  "panic-for-test": { args: null; result: null };
}

export type CallKind = keyof Calls;

/** A call: `id` is unique within the life of a worker. */
export type CallMessage = {
  [K in CallKind]: { readonly type: "call"; readonly id: number; readonly kind: K; readonly args: Calls[K]["args"] };
}[CallKind];

/** Page to worker. */
export type ToWorker = CallMessage | { readonly type: "abort"; readonly id: number };

/** An error, as it crosses the worker boundary. */
export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly problem?: Problem;
}

/** The result of a call. */
export type ResultMessage = {
  [K in CallKind]: { readonly type: "result"; readonly id: number; readonly kind: K; readonly value: Calls[K]["result"] };
}[CallKind];

/** Worker to page. */
export type FromWorker =
  | ResultMessage
  | { readonly type: "error"; readonly id: number; readonly error: WireError }
  | { readonly type: "event"; readonly event: SessionEvent }
  /** The last message of a worker: its wasm instance must not be used again. */
  | { readonly type: "crashed"; readonly message: string };
