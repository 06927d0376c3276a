// What the page and the inversion's worker say to each other: one question, one answer.

import type { ErrorCode } from "../../pkg/src/errors.js";

/** The question. */
export interface InvertMessage {
  readonly manifest: Uint8Array;
  readonly model: Uint8Array;
  readonly x: Float32Array;
  readonly label: number;
  /** Where the wasm is, where it is not beside the worker. */
  readonly wasm: string | null;
}

/** What an attacker finds behind one protection, as the wasm gives it. */
export interface FoundRow {
  readonly protection: "none" | "clip" | "noise";
  readonly frameBytes: number;
  readonly clipped: boolean;
  readonly found: Float32Array | null;
  readonly label: number | null;
  readonly psnr: number;
  readonly ssim: number | null;
}

/** The answer. */
export type FromInversion =
  | { readonly type: "found"; readonly rows: readonly FoundRow[] }
  | { readonly type: "error"; readonly code: ErrorCode; readonly message: string };
