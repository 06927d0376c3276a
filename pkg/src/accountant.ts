// What a run with Gaussian noise costs, without taking part in one.

import { UnsaidError } from "./errors.js";
import type { ErrorCode } from "./errors.js";

/** A number of sums with Gaussian noise, one after the other. */
export interface PrivacyRun {
  /** The probability with which a record is in a step. Default 1: every record is in every step. */
  readonly samplingRate?: number | undefined;
  /** How the records of a step are chosen: each by a coin of its own (the default), or a batch of fixed size. */
  readonly sampling?: "poisson" | "without-replacement" | undefined;
  /** The number of steps: 1 to 10⁹. */
  readonly steps: number;
  /** The δ at which ε holds. */
  readonly delta: number;
  /** What must be hard to tell apart: a record there or not, or a record and any other in its place. */
  readonly adjacency: "add-remove" | "replace-one";
  /** Rényi differential privacy, or (the default) the distribution of the privacy loss, which is tight. */
  readonly accountant?: "rdp" | "pld" | undefined;
}

/** ε, and what is known about how near it is. */
export interface EpsilonBounds {
  /** The guarantee. */
  readonly epsilon: number;
  /** No accountant can prove less; 0 where nothing is known, as with sampling without replacement. */
  readonly lower: number;
  /** The same as `epsilon`. */
  readonly upper: number;
}

/**
 * Computes privacy costs, in this thread: an ε takes some milliseconds, up to about half a second for large runs, and a noise multiplier
 * about twenty times that. Ask from a worker where it matters.
 */
export interface PrivacyAccountant {
  /**
   * ε of a run, of which the noise has `noiseMultiplier` times the norm that one record's vector can have.
   * Rejects with the code `bad-options` for what makes no sense, and `load-failed` where the wasm cannot be loaded.
   */
  epsilon(run: PrivacyRun & { readonly noiseMultiplier: number }): Promise<EpsilonBounds>;
  /** The least noise multiplier with which a run keeps `epsilon`. Rejects as `epsilon` does. */
  noiseMultiplier(run: PrivacyRun & { readonly epsilon: number }): Promise<number>;
}

type Loaded = Awaited<ReturnType<typeof import("./accountant-module.js").load>>;

let loading: Promise<Loaded> | undefined;

function loaded(): Promise<Loaded> {
  loading ??= import("./accountant-module.js").then((module) => module.load());
  return loading.catch((cause: unknown) => {
    // The next call tries again.
    loading = undefined;
    throw new UnsaidError("load-failed", `the accountant cannot be loaded: ${String(cause)}`, { cause });
  });
}

/** Anything but a number is NaN, which the wasm refuses with its name: left to itself it would take "2", true and null for numbers. */
function number(x: unknown): number {
  return typeof x === "number" ? x : NaN;
}

/** What the wasm takes, in its order. */
function words(run: PrivacyRun): [string, number, number, number, string, string] {
  const { sampling = "poisson", samplingRate = 1, steps, delta, adjacency, accountant: by = "pld" } = run;
  return [String(sampling), number(samplingRate), number(steps), number(delta), String(adjacency), String(by)];
}

async function ask<T>(question: (wasm: Loaded) => T): Promise<T> {
  const wasm = await loaded();
  try {
    return question(wasm);
  } catch (cause) {
    const { code = "internal", message } = cause as { readonly code?: ErrorCode; readonly message?: string };
    throw new UnsaidError(code, message ?? String(cause), { cause });
  }
}

/** Computes privacy costs. Its wasm is loaded when it is first asked. */
export const accountant: PrivacyAccountant = {
  async epsilon(run) {
    const [epsilon = NaN, lower = NaN] = await ask((wasm) => wasm.epsilon(number(run.noiseMultiplier), ...words(run)));
    return { epsilon, lower, upper: epsilon };
  },
  noiseMultiplier: (run) => ask((wasm) => wasm.noiseMultiplier(number(run.epsilon), ...words(run))),
};
