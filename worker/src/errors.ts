// The one place where whatever the wasm side throws becomes a typed error.

import { errorCodes, type ErrorCode, type Problem } from "../../pkg/src/errors.js";
import type { WireError } from "./messages.js";

const known: ReadonlySet<string> = new Set(errorCodes);

function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && known.has(code);
}

function isProblem(value: unknown): value is Problem {
  if (typeof value !== "object" || value === null) return false;
  const problem = value as Partial<Record<keyof Problem, unknown>>;
  return (
    typeof problem.type === "string" &&
    typeof problem.title === "string" &&
    typeof problem.status === "number" &&
    typeof problem.detail === "string"
  );
}

/** What a thrown value says. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof Error) return thrown.message || thrown.name;
  return String(thrown);
}

/** The error that the Rust side meant; null where it is none of ours: a panic, or a fault in the glue. */
export function toWireError(thrown: unknown): WireError | null {
  if (typeof thrown !== "object" || thrown === null) return null;
  const { code, problem } = thrown as { code?: unknown; problem?: unknown };
  if (!isErrorCode(code) || code === "crashed") return null;
  const error = { code, message: messageOf(thrown) };
  return isProblem(problem) ? { ...error, problem } : error;
}
