/**
 * Every way in which a call can fail. A code never changes its meaning.
 *
 * All but the last four come from the worker's Rust side: `identity-unavailable` (this browser cannot sign), `crashed`, `load-failed`
 * and `closed` are told by this package.
 * Where the relay refuses (`refused`), {@link UnsaidError.problem} says which of its reasons it was.
 */
export const errorCodes = [
  "bad-options",
  "relay-unreachable",
  "bad-manifest",
  "manifest-below-floor",
  "manifest-changed",
  "bad-model",
  "no-data",
  "bad-data",
  "budget-exhausted",
  "daily-limit",
  "non-finite",
  "webgpu-unavailable",
  "storage",
  "no-entropy",
  "aborted",
  "refused",
  "busy",
  "internal",
  "identity-unavailable",
  "crashed",
  "load-failed",
  "closed",
] as const;

/** One of {@link errorCodes}. */
export type ErrorCode = (typeof errorCodes)[number];

/** A relay's refusal: a problem document (RFC 9457) with a stable `type`. */
export interface Problem {
  /** `urn:unsaid:error:…` */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  /** What was wrong, and what to do. */
  readonly detail: string;
}

/** The only error that this package throws. */
export class UnsaidError extends Error {
  override readonly name = "UnsaidError";
  /** What went wrong. */
  readonly code: ErrorCode;
  /** The relay's own words, where it refused. */
  readonly problem?: Problem;

  constructor(code: ErrorCode, message: string, options: { readonly problem?: Problem; readonly cause?: unknown } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
    if (options.problem) this.problem = options.problem;
  }
}
