// The page's end of the worker: call ids, aborts, crashes and restarts.

import type { CallKind, CallMessage, Calls, FromWorker } from "../../worker/src/messages.js";
import { UnsaidError } from "./errors.js";
import type { SessionEvent } from "./types.js";

/** What the link needs of a `Worker`. */
export type WorkerLike = Pick<Worker, "addEventListener" | "postMessage" | "terminate">;

export interface LinkHooks {
  /** Starts a worker. */
  readonly start: () => WorkerLike;
  /** What each worker is opened with: read anew after a crash. */
  readonly open: () => Calls["open"]["args"];
  readonly onEvent: (event: SessionEvent) => void;
  /** A crashed worker has been replaced. */
  readonly onRestarted: (message: string) => void;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** What an abort does to the promise: `reject` it at once, or let the worker `finish` and answer. */
  readonly onAbort?: "reject" | "finish";
  readonly transfer?: Transferable[];
}

interface Pending {
  readonly resolve: (value: Calls[CallKind]["result"]) => void;
  readonly reject: (error: UnsaidError) => void;
}

interface Running {
  readonly worker: WorkerLike;
  readonly pending: Map<number, Pending>;
  opened: boolean;
  dead: boolean;
}

export class Link {
  readonly #hooks: LinkHooks;
  #nextId = 1;
  #closed = false;
  #running: Running | null = null;
  #ready: Promise<Running> | null = null;

  constructor(hooks: LinkHooks) {
    this.#hooks = hooks;
  }

  /** Starts the worker and opens the session, unless that is done. After a failure, the next call tries again. */
  open(): Promise<Running> {
    if (this.#closed) return Promise.reject(closedError());
    this.#ready ??= this.#start().catch((error: unknown) => {
      this.#ready = null;
      throw error;
    });
    return this.#ready;
  }

  /** Asks the worker something. */
  async call<K extends CallKind>(kind: K, args: Calls[K]["args"], options: CallOptions = {}): Promise<Calls[K]["result"]> {
    const { signal } = options;
    throwIfAborted(signal);
    const running = await abortable(this.open(), signal);
    return this.#send(running, kind, args, options);
  }

  /** Closes the session and ends the worker, also where the worker does not answer within `patienceMs`. */
  async close(patienceMs: number): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const running = this.#running;
    if (!running || running.dead) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patienceMs);
    });
    try {
      if (running.opened) await Promise.race([this.#send(running, "close", null, {}), patience]);
    } catch {
      // A session that fails to close is ended all the same.
    } finally {
      clearTimeout(timer);
      this.#end(running, closedError());
    }
  }

  async #start(): Promise<Running> {
    let worker: WorkerLike;
    try {
      worker = this.#hooks.start();
    } catch (cause) {
      throw new UnsaidError("load-failed", `the worker cannot be started: ${text(cause)}`, { cause });
    }
    const running: Running = { worker, pending: new Map(), opened: false, dead: false };
    this.#running = running;
    worker.addEventListener("message", (event) => this.#receive(running, (event as MessageEvent<FromWorker>).data));
    worker.addEventListener("messageerror", () => this.#crash(running, "a message of the worker cannot be read"));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      const { message } = event as ErrorEvent;
      if (running.opened || message) this.#crash(running, message || "the worker failed");
      else this.#fail(running, new UnsaidError("load-failed", "the worker's script cannot be loaded"));
    });
    try {
      await this.#send(running, "open", this.#hooks.open(), {});
    } catch (error) {
      if (!running.dead) this.#end(running, closedError());
      throw error;
    }
    running.opened = true;
    return running;
  }

  #send<K extends CallKind>(
    running: Running,
    kind: K,
    args: Calls[K]["args"],
    options: CallOptions,
  ): Promise<Calls[K]["result"]> {
    const { signal, onAbort = "reject", transfer = [] } = options;
    return new Promise((resolve, reject) => {
      if (running.dead) {
        reject(this.#closed ? closedError() : new UnsaidError("crashed", "the worker has crashed"));
        return;
      }
      const id = this.#nextId++;
      const abort = (): void => {
        running.worker.postMessage({ type: "abort", id });
        if (onAbort === "finish") return;
        running.pending.delete(id);
        reject(abortedError(signal));
      };
      const settle = <T extends unknown[]>(done: (...value: T) => void) => (...value: T): void => {
        signal?.removeEventListener("abort", abort);
        done(...value);
      };
      signal?.addEventListener("abort", abort, { once: true });
      running.pending.set(id, { resolve: settle(resolve), reject: settle(reject) });
      // The cast ties `kind` and `args` together, as this method's signature does.
      running.worker.postMessage({ type: "call", id, kind, args } as CallMessage, transfer);
    });
  }

  #receive(running: Running, message: FromWorker): void {
    if (running.dead) return;
    switch (message.type) {
      case "event":
        this.#hooks.onEvent(message.event);
        break;
      case "crashed":
        this.#crash(running, message.message);
        break;
      case "result":
        take(running, message.id)?.resolve(message.value);
        break;
      case "error": {
        const { code, message: text, problem } = message.error;
        take(running, message.id)?.reject(new UnsaidError(code, text, problem ? { problem } : {}));
        break;
      }
    }
  }

  /** Replaces a worker that had been opened; one that crashes while opening fails its `open` call. */
  #crash(running: Running, message: string): void {
    if (running.dead) return;
    const { opened } = running;
    this.#fail(running, new UnsaidError("crashed", `the worker crashed: ${message}`));
    if (!opened || this.#closed) return;
    this.open().then(
      () => this.#hooks.onRestarted(message),
      () => {
        // The next call tries again, and reports why it cannot.
      },
    );
  }

  #fail(running: Running, error: UnsaidError): void {
    this.#end(running, error);
    if (running.opened) this.#ready = null;
  }

  #end(running: Running, error: UnsaidError): void {
    running.dead = true;
    running.worker.terminate();
    for (const { reject } of running.pending.values()) reject(error);
    running.pending.clear();
  }
}

function take(running: Running, id: number): Pending | undefined {
  const pending = running.pending.get(id);
  running.pending.delete(id);
  return pending;
}

function text(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function closedError(): UnsaidError {
  return new UnsaidError("closed", "the client is closed");
}

function abortedError(signal: AbortSignal | undefined): UnsaidError {
  return new UnsaidError("aborted", "the call was aborted", { cause: signal?.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(signal);
}

/** `promise`, or a rejection as soon as `signal` fires. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(abortedError(signal));
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
