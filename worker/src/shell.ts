// The worker's message loop. It knows no wasm module and no global scope: both are passed in, so that it can be tested.

import { messageOf, toWireError } from "./errors.js";
import type { CallKind, CallMessage, Calls, FromWorker, ToWorker } from "./messages.js";
import type { SessionEvent } from "../../pkg/src/types.js";
import { Identity, requiredBy, type World } from "./identity.js";
import { sealOf } from "./seal.js";
import type { Trials } from "./trials.js";
import type { WasmModule, WasmSession } from "./wasm.js";

/** What the shell needs of the worker's global scope. */
export interface Scope {
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  /** Calls back on each message from the page. */
  onMessage(listener: (message: ToWorker) => void): void;
  /** Calls back on each uncaught error and unhandled rejection. */
  onFault(listener: (thrown: unknown) => void): void;
  /** Bytes that the network carried for a model since they were last asked for; null where the browser does not tell. */
  modelBytes(hash: string): number | null;
  /** What the last Rust panic said, if there was one: the trap that follows it says no more than “unreachable”. */
  panicText(): string | null;
  /** What `auto` measured before. */
  readonly trials: Trials;
  /** What identities need. */
  readonly world: World;
}

/** Runs the wasm module behind `scope` until the page terminates the worker. */
export function serve(scope: Scope, wasm: WasmModule, wasmUrl: URL | string): void {
  let session: WasmSession | null = null;
  let identity: Identity | null = null;
  let dead = false;
  let busy = false;
  const running = new Map<number, { readonly controller: AbortController; readonly ended: Promise<void> }>();

  const post = (message: FromWorker, transfer: Transferable[] = []): void => {
    if (!dead) scope.postMessage(message, transfer);
  };

  // A panic leaves the wasm instance in an unknown state: say so once, then say nothing more.
  const crash = (thrown: unknown): void => {
    post({ type: "crashed", message: scope.panicText() ?? messageOf(thrown) });
    dead = true;
  };
  scope.onFault(crash);

  // The Rust side knows how long a model is, and only the browser what came over the network for it.
  let startedFrom = "";
  const hear = (event: SessionEvent): void => {
    if (event.type === "update") startedFrom = event.model;
    const counted = event.type === "contribution" ? { ...event, bytesDown: scope.modelBytes(startedFrom) } : event;
    post({ type: "event", event: counted });
  };

  const opened = (): WasmSession => {
    if (session) return session;
    throw Object.assign(new Error("the session is not open"), { code: "closed" });
  };

  // Joining begins with the identity, before the session runs. Its key must not be forgotten meanwhile, nor replaced under a run.
  const alone = async <T>(work: () => Promise<T>): Promise<T> => {
    if (busy) throw Object.assign(new Error("this client is taking part already"), { code: "busy" });
    busy = true;
    try {
      return await work();
    } finally {
      busy = false;
    }
  };

  const call = async (message: CallMessage, signal: AbortSignal): Promise<Calls[CallKind]["result"]> => {
    switch (message.kind) {
      case "open": {
        const { options: { relayKey, ...options }, wasm: override } = message.args;
        try {
          await wasm.default({ module_or_path: override ?? wasmUrl });
        } catch (cause) {
          const text = `the WebAssembly module cannot be loaded: ${messageOf(cause)}`;
          throw Object.assign(new Error(text, { cause }), { code: "load-failed" });
        }
        const own = new Identity(options.relay, relayKey, scope.world, hear);
        const { check } = sealOf(relayKey);
        session = await wasm.Session.open(options, hear, scope.trials, {
          async check(manifest, signature) {
            own.heed(manifest);
            await check(manifest, signature);
          },
          sign: (body) => own.sign(body),
        });
        identity = own;
        return null;
      }
      case "manifest": {
        const view = await opened().manifest();
        return { ...view, identity: requiredBy(view.json) };
      }
      case "add-examples":
        return opened().addExamples(message.args.x, message.args.y);
      case "import-shard":
        return opened().importShard(message.args.bytes);
      case "data-summary":
        return opened().dataSummary();
      case "clear-data":
        return opened().clearData();
      case "run": {
        const { invitation, ...options } = message.args;
        const running = opened();
        return alone(async () => {
          try {
            await identity?.enrol(invitation, signal);
          } catch (thrown) {
            if (signal.aborted) return { rounds: 0, reason: "aborted", backend: "none" };
            throw thrown;
          }
          return running.run(options, signal);
        });
      }
      case "predict":
        return opened().predict(message.args.x);
      case "budget":
        return opened().budget();
      case "set-budget":
        return opened().setBudget(message.args.epsilon, message.args.delta);
      case "export-ledger":
        return opened().exportLedger();
      case "erase-ledger": {
        const erasing = opened();
        return alone(async () => {
          // First, so that what is cut off here leaves a new key with the old ledger, and never an empty ledger with the old key.
          await scope.world.keys.forget();
          return erasing.eraseLedger();
        });
      }
      case "close": {
        const closing = session;
        session = null;
        // A session in use must not be closed: stop what runs, and wait for it.
        const others = [...running].filter(([id]) => id !== message.id).map(([, call]) => call);
        for (const { controller } of others) controller.abort();
        await Promise.all(others.map(({ ended }) => ended));
        await closing?.close();
        return null;
      }
      case "panic-for-test":
        wasm.panic_for_test();
        return null;
    }
  };

  const answer = async (message: CallMessage, signal: AbortSignal): Promise<void> => {
    const { id, kind } = message;
    try {
      const value = await call(message, signal);
      // The cast ties the value to its kind again: `call` returned what `kind` promises.
      post({ type: "result", id, kind, value } as FromWorker, transferables(value));
    } catch (thrown) {
      const error = toWireError(thrown);
      if (error) post({ type: "error", id, error });
      else crash(thrown);
    }
  };

  scope.onMessage((message) => {
    if (dead) return;
    if (message.type === "abort") {
      running.get(message.id)?.controller.abort();
      return;
    }
    const { id } = message;
    const controller = new AbortController();
    // Deferred, so that the call is registered before it begins.
    const ended = Promise.resolve()
      .then(() => answer(message, controller.signal))
      .finally(() => running.delete(id));
    running.set(id, { controller, ended });
  });
}

/** Buffers that can be moved instead of copied. A view into a larger buffer (wasm memory, perhaps) is copied. */
function transferables(value: unknown): Transferable[] {
  if (!(value instanceof Float32Array) || !(value.buffer instanceof ArrayBuffer)) return [];
  return value.byteLength > 0 && value.byteLength === value.buffer.byteLength ? [value.buffer] : [];
}
