import { checkBudget, checkExamples, checkInputs, checkOpenOptions, checkRun } from "./arguments.js";
import { Emitter } from "./emitter.js";
import { abortable, Link, throwIfAborted } from "./link.js";
import type {
  Backend,
  Budget,
  BudgetView,
  ClientEvent,
  ClientEventOf,
  ClientEventType,
  DataSummary,
  Floors,
  ManifestView,
  OpenOptions,
  RunSummary,
} from "./types.js";

/** What {@link connect} takes. */
export interface ConnectOptions {
  /** The relay's origin, such as `https://relay.example`. */
  readonly relay: string;
  /** The task's id on that relay. */
  readonly task: string;
  /** Where to train. Default `auto`: WebGPU or CPU, whichever is faster on this machine. */
  readonly backend?: Backend | undefined;
  /**
   * The privacy limit of a browser that has no ledger for this origin yet. Where there is one, its own limit holds, and this
   * option changes nothing: only {@link PrivacyBudget.set} does. Default ε = 8 at δ = 10⁻⁵.
   */
  readonly budget?: Budget | undefined;
  /** The weakest terms that this client still agrees to. */
  readonly floors?: Floors | undefined;
  /** The most tabs of one browser profile that may take part at once, 1 to 256. Default 1. */
  readonly participants?: number | undefined;
  /** Called with every event from the very first, those of opening included. */
  readonly onEvent?: ((event: ClientEvent) => void) | undefined;
  /** Ends the attempt to connect. */
  readonly signal?: AbortSignal | undefined;
  /** Starts the worker; for bundlers and hosts that cannot find `worker.js` beside this module. */
  readonly createWorker?: (() => Worker) | undefined;
  /** Where `unsaid_bg.wasm` is, where it is not beside `worker.js`. */
  readonly wasmUrl?: string | URL | undefined;
}

/** Options of a call that can be given up. A signal that has fired already rejects with the code `aborted`. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** What {@link Client.join} takes. */
export interface JoinOptions extends CallOptions {
  /** Leave after contributing to this many rounds. Default: stay until the task is finished. */
  readonly rounds?: number | undefined;
  /**
   * The operator's invitation, for a task that asks for one ({@link ManifestView.identity}): 32 hexadecimal digits. It is good for
   * one browser, which needs it once: afterwards the relay knows its key.
   */
  readonly invitation?: string | undefined;
}

/** The local data of this browser. It is stored here and sent nowhere. */
export interface LocalData {
  /**
   * Adds examples: `x` is `[n, features]`, row-major; `labels` has n whole numbers. The arrays are copied.
   *
   * @throws UnsaidError `bad-data` where lengths, labels or values do not fit the task.
   */
  add(x: ArrayLike<number>, labels: ArrayLike<number>, options?: CallOptions): Promise<DataSummary>;
  /** Adds the examples of a shard file. The bytes are copied. */
  importShard(bytes: Uint8Array | ArrayBuffer, options?: CallOptions): Promise<DataSummary>;
  /** How much there is. */
  summary(options?: CallOptions): Promise<DataSummary>;
  /** Deletes all of it. */
  clear(options?: CallOptions): Promise<DataSummary>;
}

/** The person's privacy limit and what has been spent of it. */
export interface PrivacyBudget {
  get(options?: CallOptions): Promise<BudgetView>;
  /**
   * Sets the limit, for all tasks of this origin and for later visits too. It is the person's to set: ask first. What has been
   * spent stays spent.
   */
  set(budget: Budget, options?: CallOptions): Promise<BudgetView>;
  /** The ledger, byte for byte as it is stored (JSON): each update paid for, with its task, time, hash and cost. */
  export(options?: CallOptions): Promise<string>;
  /**
   * Forgets the ledger, for all tasks of this origin, and with it every id and key by which a relay could tell that this browser came back.
   * Nothing counts any more what was spent, and what was sent stays sent: it is the person's to decide, so ask first. Local data
   * stays. A run of another tab that is under way keeps its id until it ends.
   *
   * @throws UnsaidError `busy` while this client takes part.
   */
  erase(options?: CallOptions): Promise<BudgetView>;
}

/** One participant of one task. All its work is done in a worker. */
export interface Client {
  readonly data: LocalData;
  readonly budget: PrivacyBudget;
  /** What the task asks: fetched, checked against its hash and against the floors. */
  manifest(options?: CallOptions): Promise<ManifestView>;
  /**
   * Takes part: trains on the local data, protects the change, sends it, waits for the next round, and again.
   *
   * An abort while it runs is no error: the promise resolves with the reason `aborted`.
   *
   * Where the task asks for an identity, this browser makes a key that cannot leave it, enrols it, and signs what it sends.
   *
   * @throws UnsaidError `no-data`, `budget-exhausted`, `relay-unreachable`, `manifest-below-floor`, `identity-unavailable`, `refused`
   *   (with the relay's reason: not invited, revoked, more than its share), `crashed` and others.
   */
  join(options?: JoinOptions): Promise<RunSummary>;
  /** Probabilities `[n, classes]`, row-major, of inputs `[n, features]` under the newest shared model. */
  predict(x: ArrayLike<number>, options?: CallOptions): Promise<Float32Array>;
  /** Calls `listener` on each event of a type, or on every event for `*`. Returns a function that ends it. */
  on<T extends ClientEventType>(type: T, listener: (event: ClientEventOf<T>) => void): () => void;
  /** Stops a run under way and ends the worker. Calls that do not end in time are rejected with the code `closed`. */
  close(): Promise<void>;
}

/** How long `close` waits for the worker before it ends it. */
const CLOSE_PATIENCE_MS = 3000;

/**
 * Starts a worker and opens a session of one task in it.
 *
 * @throws UnsaidError `bad-options` where an option makes no sense, `load-failed` where the worker cannot be started.
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const open = checkOpenOptions(options);
  throwIfAborted(options.signal);
  const client = new WorkerClient(open, options);
  try {
    await client.open(options.signal);
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

class WorkerClient implements Client {
  readonly data: LocalData;
  readonly budget: PrivacyBudget;
  readonly #events = new Emitter();
  readonly #link: Link;
  /** Replayed after a crash, with the budget set last. */
  #options: OpenOptions;
  /** Known once the manifest was asked for; then arguments are checked against it. */
  #manifest: ManifestView | null = null;

  constructor(options: OpenOptions, host: ConnectOptions) {
    this.#options = options;
    const { onEvent } = host;
    const start = host.createWorker ?? startWorker;
    const wasm = host.wasmUrl === undefined ? null : String(host.wasmUrl);
    const emit = (event: ClientEvent): void => {
      onEvent?.(event);
      this.#events.emit(event);
    };
    this.#link = new Link({
      start,
      open: () => ({ options: this.#options, wasm }),
      onEvent: emit,
      onRestarted: (message) => emit({ type: "restarted", message }),
    });
    const link = this.#link;

    this.data = {
      add: async (x, labels, { signal } = {}) => {
        const args = checkExamples(x, labels, this.#manifest);
        return link.call("add-examples", args, { signal, transfer: [args.x.buffer, args.y.buffer] });
      },
      importShard: async (source, { signal } = {}) => {
        const bytes = new Uint8Array(source).slice();
        return link.call("import-shard", { bytes }, { signal, transfer: [bytes.buffer] });
      },
      summary: async ({ signal } = {}) => link.call("data-summary", null, { signal }),
      clear: async ({ signal } = {}) => link.call("clear-data", null, { signal }),
    };
    this.budget = {
      get: async ({ signal } = {}) => link.call("budget", null, { signal }),
      set: async (budget, { signal } = {}) => {
        const checked = checkBudget(budget);
        const view = await link.call("set-budget", checked, { signal });
        this.#options = { ...this.#options, budget: checked };
        return view;
      },
      export: async ({ signal } = {}) => link.call("export-ledger", null, { signal }),
      erase: async ({ signal } = {}) => link.call("erase-ledger", null, { signal }),
    };
    // For tests of crash handling, and so not part of the interface.
    Object.defineProperty(this, Symbol.for("unsaid.panic-for-test"), {
      value: () => link.call("panic-for-test", null),
    });
  }

  /** Opens the session. Events are kept back until the caller could add listeners. */
  async open(signal: AbortSignal | undefined): Promise<void> {
    this.#events.hold();
    try {
      const opening = this.#link.open();
      await abortable(opening, signal);
    } finally {
      setTimeout(() => this.#events.release());
    }
  }

  async manifest({ signal }: CallOptions = {}): Promise<ManifestView> {
    this.#manifest = await this.#link.call("manifest", null, { signal });
    return this.#manifest;
  }

  async join({ rounds, invitation, signal }: JoinOptions = {}): Promise<RunSummary> {
    // What was spent must be remembered: asks the browser not to evict it. Only advice, and not available in workers.
    void globalThis.navigator?.storage?.persist?.().catch(() => false);
    return this.#link.call("run", checkRun(rounds, invitation), { signal, onAbort: "finish" });
  }

  async predict(x: ArrayLike<number>, { signal }: CallOptions = {}): Promise<Float32Array> {
    const inputs = checkInputs(x, this.#manifest);
    return this.#link.call("predict", { x: inputs }, { signal, transfer: [inputs.buffer] });
  }

  on<T extends ClientEventType>(type: T, listener: (event: ClientEventOf<T>) => void): () => void {
    return this.#events.on(type, listener);
  }

  async close(): Promise<void> {
    await this.#link.close(CLOSE_PATIENCE_MS);
  }
}

// Bundlers look for this very expression: it makes them ship `worker.js` and the wasm beside it.
function startWorker(): Worker {
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "unsaid" });
}
