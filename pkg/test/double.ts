// A worker in this thread: the real message loop over a real message channel, around a session that tests control.

import type { KeptKey, Keys } from "../../worker/src/keys.js";
import type { ToWorker } from "../../worker/src/messages.js";
import type { Signatures } from "../../worker/src/seal.js";
import { serve } from "../../worker/src/shell.js";
import type { WasmModule, WasmSession } from "../../worker/src/wasm.js";
import type { WorkerLike } from "../src/link.js";
import type { BudgetView, OpenOptions, SessionEvent } from "../src/types.js";

/** Every call answers with the same fixed values unless a test overrides it. */
export type SessionOverrides = Partial<WasmSession> & {
  open?: (options: OpenOptions, onEvent: (event: SessionEvent) => void, signatures: Signatures) => Promise<void>;
  init?: () => Promise<void>;
};

export const summary = { examples: 0, perClass: [0, 0], bytes: 0 };
export const budget: BudgetView = { epsilon: 8, delta: 1e-5, spent: 0, left: 8, rounds: 0, unit: "update", ifOneMore: null };

/** Keys in memory. */
export class MemoryKeys implements Keys {
  readonly kept = new Map<string, KeptKey>();

  async load(relay: string): Promise<KeptKey | undefined> {
    return this.kept.get(relay);
  }

  async keep(relay: string, key: KeptKey): Promise<KeptKey> {
    const kept = this.kept.get(relay) ?? key;
    this.kept.set(relay, kept);
    return kept;
  }

  async forget(): Promise<void> {
    this.kept.clear();
  }
}

export class WorkerDouble extends EventTarget implements WorkerLike {
  readonly #channel = new MessageChannel();
  readonly opened: OpenOptions[] = [];
  terminated = false;
  panicText: string | null = null;
  /** What the network carried, by model. */
  readonly carried = new Map<string, number | null>();
  /** Stands for an uncaught error in the worker's scope. */
  fault: (thrown: unknown) => void = () => {};
  readonly keys = new MemoryKeys();
  fetch: (url: string, init: RequestInit) => Promise<Response> = async () => Promise.reject(new TypeError("no network"));
  emit: (event: SessionEvent) => void = () => {};

  constructor(overrides: SessionOverrides = {}) {
    super();
    const { port1, port2 } = this.#channel;
    port1.onmessage = ({ data }) => this.dispatchEvent(new MessageEvent("message", { data }));
    const session: WasmSession = {
      manifest: async () => Promise.reject(coded("relay-unreachable", "no relay")),
      addExamples: async (_, y) => ({ ...summary, examples: y.length }),
      importShard: async (bytes) => ({ ...summary, bytes: bytes.length }),
      dataSummary: async () => summary,
      clearData: async () => summary,
      run: async () => ({ rounds: 1, reason: "rounds-done", backend: "cpu" }),
      predict: async (x) => x.map((value) => 2 * value),
      budget: async () => budget,
      setBudget: async (epsilon, delta) => ({ ...budget, epsilon, delta }),
      exportLedger: async () => '{"version":1}',
      eraseLedger: async () => budget,
      close: async () => {},
      ...overrides,
    };
    const wasm: WasmModule = {
      default: overrides.init ?? (async () => {}),
      Session: {
        open: async (options, onEvent, _, signatures) => {
          this.opened.push(options);
          this.emit = onEvent;
          await overrides.open?.(options, onEvent, signatures);
          return session;
        },
      },
      panic_for_test: () => {
        this.panicText = "a panic was asked for";
        throw new WebAssembly.RuntimeError("unreachable");
      },
    };
    serve(
      {
        postMessage: (message, transfer) => port2.postMessage(message, transfer as unknown as ArrayBuffer[]),
        onMessage: (listener) => {
          port2.onmessage = ({ data }: MessageEvent<ToWorker>) => listener(data);
        },
        onFault: (listener) => {
          this.fault = listener;
        },
        modelBytes: (hash) => this.carried.get(hash) ?? null,
        panicText: () => this.panicText,
        trials: { recall: async () => new Float64Array(), remember: async () => {} },
        world: {
          keys: this.keys,
          fetch: async (url, init) => this.fetch(url, init),
          sleep: async () => {},
          unixMs: () => Date.now(),
          steadyMs: () => performance.now(),
        },
      },
      wasm,
      "unused.wasm",
    );
  }

  postMessage(message: unknown, transfer: unknown = []): void {
    this.#channel.port1.postMessage(message, transfer as ArrayBuffer[]);
  }

  terminate(): void {
    this.terminated = true;
    this.#channel.port1.close();
  }
}

export function coded(code: string, message: string, more: object = {}): Error {
  return Object.assign(new Error(message), { code, ...more });
}
