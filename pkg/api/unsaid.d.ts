// The public API of `unsaid`. Made by `npm run api:update`; do not edit.

// index.d.ts
export { accountant } from "./accountant.js";
export type { EpsilonBounds, PrivacyAccountant, PrivacyRun } from "./accountant.js";
export { connect } from "./client.js";
export type { CallOptions, Client, ConnectOptions, JoinOptions, LocalData, PrivacyBudget } from "./client.js";
export { errorCodes, UnsaidError } from "./errors.js";
export type { ErrorCode, Problem } from "./errors.js";
export { explain } from "./explain.js";
export type * from "./types.js";

// accountant.d.ts
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
    epsilon(run: PrivacyRun & {
        readonly noiseMultiplier: number;
    }): Promise<EpsilonBounds>;
    /** The least noise multiplier with which a run keeps `epsilon`. Rejects as `epsilon` does. */
    noiseMultiplier(run: PrivacyRun & {
        readonly epsilon: number;
    }): Promise<number>;
}
/** Computes privacy costs. Its wasm is loaded when it is first asked. */
export declare const accountant: PrivacyAccountant;

// client.d.ts
import type { Backend, Budget, BudgetView, ClientEvent, ClientEventOf, ClientEventType, DataSummary, Floors, ManifestView, RunSummary } from "./types.js";
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
/**
 * Starts a worker and opens a session of one task in it.
 *
 * @throws UnsaidError `bad-options` where an option makes no sense, `load-failed` where the worker cannot be started.
 */
export declare function connect(options: ConnectOptions): Promise<Client>;

// types.d.ts
/** Where a session trains. `auto` measures a few real steps and takes the faster. */
export type Backend = "auto" | "cpu" | "webgpu";
/** A person's privacy limit: (ε, δ) in the sense of differential privacy. */
export interface Budget {
    /** The most ε that all rounds together may cost, in all tasks of this origin. 0: take no part in any task with noise. */
    readonly epsilon: number;
    /** The δ at which ε is read, above 0 and below 1. */
    readonly delta: number;
}
/** The weakest terms that this client still agrees to. A manifest below one of them is refused: `manifest-below-floor`. */
export interface Floors {
    /**
     * Least σ of the noise, as a multiple of the L2 bound Δ that an update obeys once it is rounded to the grid (a little above
     * the clip norm). 0 allows tasks without noise. Default 0.5.
     */
    readonly minNoiseMultiplier?: number;
    /** Largest clip norm, in the model's units. Default 100. */
    readonly maxClipL2?: number;
    /** Least number of updates that a round may publish with. Default 2. */
    readonly minCohort?: number;
    /** Most rounds that this browser pays for in 24 hours, in all tasks of this origin. Default, and at most, 1,024. */
    readonly maxRoundsPerDay?: number;
    /**
     * Whether to take part in tasks that protect any single example, and not the participant as a whole. Default: no, unless
     * `minNoiseMultiplier` is 0.
     */
    readonly exampleLevel?: boolean;
    /** Whether the relay may be trusted to add the noise (mode `central`): it sees each clipped update as it is. Default false. */
    readonly trustRelay?: boolean;
}
/** What a session is opened with. */
export interface OpenOptions {
    /** The relay's origin, such as `https://relay.example`. */
    readonly relay: string;
    /** The task's id on that relay. */
    readonly task: string;
    /** Where to train. */
    readonly backend: Backend;
    /** The limit that a ledger begins with. A ledger that exists already keeps its own. Default ε = 8 at δ = 10⁻⁵. */
    readonly budget?: Budget;
    /** The weakest terms still agreed to. */
    readonly floors?: Floors;
    /**
     * The relay's public key, 64 hexadecimal digits as `unsaid-relay key` prints them. With it, a manifest that this key has not signed
     * is refused (`bad-manifest`): whoever stands in for the relay, or gets hold of its disk, cannot change the terms.
     */
    readonly relayKey?: string;
    /** The most tabs of one browser profile that may take part at once, 1 to 256. Default 1. In a task of mode `central` always 1. */
    readonly participants?: number;
}
/** What a task asks of its clients: the manifest, read and checked. */
export interface ManifestView {
    /** SHA-256 of the manifest's bytes, in hexadecimal. */
    readonly hash: string;
    readonly task: string;
    /** A line for people. */
    readonly title: string;
    /** A paragraph for people. */
    readonly description: string;
    /** Number of model parameters: the length of every update. */
    readonly parameters: number;
    /** Numbers per example. */
    readonly features: number;
    /** Number of labels. */
    readonly classes: number;
    /** The model: input shape, layers, loss. */
    readonly model: Readonly<Record<string, unknown>>;
    /** Local training: epochs, batch size, optimiser. */
    readonly training: Readonly<Record<string, unknown>>;
    readonly update: {
        /** The L2 norm that an update is clipped to, in the model's units. */
        readonly clipL2: number;
        /** One grid step, in the model's units. */
        readonly gridStep: number;
    };
    readonly privacy: PrivacyTerms;
    readonly rounds: {
        /** A round never publishes with fewer updates. */
        readonly minClients: number;
        /** A round publishes at once with this many. */
        readonly targetClients: number;
        /** Milliseconds from a round's first check-in to its close. */
        readonly deadlineMs: number;
    };
    /**
     * Whom the task lets take part: anyone; whoever enrols a key of this browser's; or whoever enrols one with an invitation of the
     * operator's. With a key the relay can tell that the same browser took part in several rounds.
     */
    readonly identity: "none" | "open" | "invitation";
    /** The manifest's JSON, byte for byte. */
    readonly json: string;
}
/** What noise the task asks each client to add. */
export type PrivacyTerms = {
    /** No noise: the relay sees each clipped update. */
    readonly mode: "none";
} | {
    /** Noise is added on this device; the relay need not be trusted. */
    readonly mode: "local";
    /** σ as a multiple of the L2 bound Δ of an update that is clipped and rounded to the grid. */
    readonly noiseMultiplier: number;
    /** σ in the model's units. */
    readonly sigma: number;
    /** ε of one round alone, at `delta`. */
    readonly epsilonPerRound: number;
    /** The δ of the person's budget. */
    readonly delta: number;
} | {
    /**
     * Noise is added on this device while it trains, to each sum of gradients (DP-SGD). What it protects is any single example, that is
     * there or is not: the relay need not be trusted with one, but sees what they have in common.
     */
    readonly mode: "example";
    /** σ as a multiple of what one example can add to a sum. */
    readonly noiseMultiplier: number;
    /** The L2 norm that an example's gradient is clipped to. */
    readonly clipL2: number;
    /** The probability with which a step takes an example. */
    readonly samplingRate: number;
    /** Steps of a round's training. */
    readonly stepsPerRound: number;
    /** ε of one round alone, at `delta`. */
    readonly epsilonPerRound: number;
    /** The δ of the person's budget. */
    readonly delta: number;
} | {
    /** The relay adds noise to the sum of all updates. It sees each clipped update without noise, and must be trusted. */
    readonly mode: "central";
    /** σ of the noise on the sum, or on a node of a tree over rounds, as a multiple of the L2 bound Δ of one update. */
    readonly noiseMultiplier: number;
    /**
     * ε of one round alone towards everyone but the relay, at `delta`: any update in place of any other. In a tree over rounds what the
     * ledger books for one: the nodes that an update is in, at the most that others of this client in them make it cost.
     */
    readonly epsilonPerRound: number;
    /** The δ of the person's budget. */
    readonly delta: number;
};
/** How much local data there is. */
export interface DataSummary {
    readonly examples: number;
    /** Examples of each label. */
    readonly perClass: readonly number[];
    /** Bytes stored in this browser. */
    readonly bytes: number;
}
/** The privacy ledger of this browser: one for all tasks of this origin. */
export interface BudgetView {
    /** The person's limit, as it was set last. */
    readonly epsilon: number;
    readonly delta: number;
    /** ε of everything sent so far, composed. */
    readonly spent: number;
    /** The limit less what is spent, at least 0. */
    readonly left: number;
    /** Number of updates debited. */
    readonly rounds: number;
    /**
     * What ε protects: everything in an update, where every update debited had noise of its own; any single example, where some had noise
     * on sums of gradients.
     */
    readonly unit: "update" | "example";
    /** ε after one more round of this task; null where the task asks for no noise or is not known yet. */
    readonly ifOneMore: number | null;
}
/** How taking part ended. */
export interface RunSummary {
    /** Rounds that this client contributed to. */
    readonly rounds: number;
    readonly reason: "rounds-done" | "finished" | "aborted" | "budget-exhausted" | "daily-limit";
    /** Where it trained last: `cpu` or `webgpu`; `none` where it did not train. */
    readonly backend: string;
}
/** One published round. */
export interface RoundMetrics {
    /** Round 0 is the initial model. */
    readonly round: number;
    /** SHA-256 of the model that came out, in hexadecimal. */
    readonly model: string;
    /** Updates in the aggregate. */
    readonly clients: number;
    readonly checkedIn: number;
    readonly bytesUp: number;
    readonly modelBytes: number;
    readonly durationMs: number;
    /** Unix time in milliseconds. */
    readonly publishedAtMs: number;
    /** Share of the relay's held-out examples that the model gets right; null before the evaluation. */
    readonly accuracy: number | null;
    /** Mean loss on the held-out examples. */
    readonly loss: number | null;
    /** Where the relay adds the noise: ε of all rounds so far, for a participant of each, at the task's δ and adjacency. Else null. */
    readonly epsilon: number | null;
}
/** What this client is doing. */
export type SessionState = "opening" | "waiting-for-other-tab" | "ready" | "checking-in" | "downloading" | "training" | "protecting" | "uploading" | "waiting" | "stopped";
export interface StateEvent {
    readonly type: "state";
    readonly state: SessionState;
    readonly round?: number;
}
export interface BackendEvent {
    readonly type: "backend";
    readonly backend: "cpu" | "webgpu";
    /** Why this one, in words. */
    readonly reason: string;
    readonly adapter?: string;
    readonly cpuMsPerStep?: number;
    readonly gpuMsPerStep?: number;
    /** True where they were measured on an earlier visit, on the same adapter, for the same terms. */
    readonly cached: boolean;
    /** True where WebGPU was lost. The epoch that was under way began again on the CPU, where all further training runs. */
    readonly fallback: boolean;
}
/** Training steps are done; reported a few times a second. */
export interface StepEvent {
    readonly type: "step";
    readonly round: number;
    readonly epoch: number;
    readonly epochs: number;
    readonly step: number;
    readonly steps: number;
}
/** One pass over the local data is done. */
export interface EpochEvent {
    readonly type: "epoch";
    readonly round: number;
    readonly epoch: number;
    readonly epochs: number;
    /** Mean training loss of the epoch. */
    readonly loss: number;
    readonly seconds: number;
}
/** How often values fall between edges. */
export interface Histogram {
    /** n + 1 edges of n bins, in the model's units. */
    readonly edges: readonly number[];
    /** Counts of the clipped change. */
    readonly before: readonly number[];
    /** Counts of what is sent. */
    readonly after: readonly number[];
}
/** An update is protected and encoded: everything that is about to leave the device. */
export interface UpdateEvent {
    readonly type: "update";
    readonly round: number;
    /** Hash of the manifest that it was made under. */
    readonly manifest: string;
    /** Hash of the model that it starts from. */
    readonly model: string;
    readonly updateId: string;
    readonly bytes: number;
    readonly coordinates: number;
    /** Bytes of one coordinate. */
    readonly widthBytes: number;
    readonly normBeforeClip: number;
    readonly clipped: boolean;
    /** σ in grid steps; 0 where there is no noise. */
    readonly sigmaSteps: number;
    /** The first bytes of the frame, in hexadecimal. */
    readonly headHex: string;
    readonly histogram: Histogram;
}
export interface UploadEvent {
    readonly type: "upload";
    readonly round: number;
    readonly attempt: number;
    readonly bytes: number;
    readonly status: "sending" | "accepted" | "duplicate" | "retrying" | "late";
    readonly retryInMs?: number;
    readonly detail?: string;
}
/** A round was published or evaluated. Earlier rounds are replayed on opening and on joining. */
export interface RoundEvent {
    readonly type: "round";
    readonly metrics: RoundMetrics;
}
/** The open round's counts. */
export interface RoundStateEvent {
    readonly type: "round-state";
    readonly round: number;
    readonly phase: "idle" | "collecting" | "finished";
    readonly checkedIn: number;
    readonly received: number;
    /** Milliseconds left; null while no deadline runs. */
    readonly deadlineMs: number | null;
}
/** This client's finished part of a round. */
export interface ContributionEvent {
    readonly type: "contribution";
    readonly round: number;
    readonly seconds: number;
    readonly bytesUp: number;
    /**
     * Bytes that the network carried for the model that the round started from: compressed as it came, 0 where it was here
     * already. Null where the browser does not tell: a relay of another origin has to send `Timing-Allow-Origin`.
     */
    readonly bytesDown: number | null;
    /** ε of everything sent so far, this round included; null in a task without noise. */
    readonly epsilonSpent: number | null;
}
/** The ledger changed. */
export interface BudgetEvent extends BudgetView {
    readonly type: "budget";
}
export interface RelayEvent {
    readonly type: "relay";
    readonly status: "unreachable" | "back";
    readonly detail: string;
    readonly retryInMs?: number;
}
/** The worker crashed and has been started again with the same options. A run that was under way has ended. */
export interface RestartedEvent {
    readonly type: "restarted";
    /** What the crash said. */
    readonly message: string;
}
/** What the session in the worker reports. */
export type SessionEvent = StateEvent | BackendEvent | StepEvent | EpochEvent | UpdateEvent | UploadEvent | RoundEvent | RoundStateEvent | ContributionEvent | BudgetEvent | RelayEvent;
/** Everything that a client emits. */
export type ClientEvent = SessionEvent | RestartedEvent;
/** The names that `client.on` takes; `*` means every event. */
export type ClientEventType = ClientEvent["type"] | "*";
/** The event that a name stands for. */
export type ClientEventOf<T extends ClientEventType> = T extends "*" ? ClientEvent : Extract<ClientEvent, {
    type: T;
}>;

// errors.d.ts
/**
 * Every way in which a call can fail. A code never changes its meaning.
 *
 * All but the last four come from the worker's Rust side: `identity-unavailable` (this browser cannot sign), `crashed`, `load-failed`
 * and `closed` are told by this package.
 * Where the relay refuses (`refused`), {@link UnsaidError.problem} says which of its reasons it was.
 */
export declare const errorCodes: readonly ["bad-options", "relay-unreachable", "bad-manifest", "manifest-below-floor", "manifest-changed", "bad-model", "no-data", "bad-data", "budget-exhausted", "daily-limit", "non-finite", "webgpu-unavailable", "storage", "no-entropy", "aborted", "refused", "busy", "internal", "identity-unavailable", "crashed", "load-failed", "closed"];
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
export declare class UnsaidError extends Error {
    readonly name = "UnsaidError";
    /** What went wrong. */
    readonly code: ErrorCode;
    /** The relay's own words, where it refused. */
    readonly problem?: Problem;
    constructor(code: ErrorCode, message: string, options?: {
        readonly problem?: Problem;
        readonly cause?: unknown;
    });
}

// explain.d.ts
import type { BudgetView } from "./types.js";
/**
 * What the person's limit promises, in plain words: one paragraph of text for the person whose ledger it is. The promise is that of the
 * limit, as it was set before; what is spent is the sum booked so far, and promises nothing by itself, since which rounds were taken may
 * have gone by what came of earlier ones.
 *
 * ```ts
 * import { explain } from "unsaid";
 * element.textContent = explain(await client.budget.get());
 * ```
 */
export declare function explain({ spent, epsilon, delta, rounds, unit }: BudgetView): string;

// trainer.d.ts
import type { ModelSpec, Optimizer, Schedule } from "./model-spec.js";
export { errorCodes, UnsaidError } from "./errors.js";
export type { ErrorCode } from "./errors.js";
export type * from "./model-spec.js";
/** What {@link Trainer.create} takes. */
export interface TrainerOptions {
    /** The model. */
    readonly model: ModelSpec;
    /** Where to train. Default `auto`: WebGPU or CPU, whichever is faster on this model's own steps. */
    readonly backend?: "auto" | "cpu" | "webgpu" | undefined;
    /** The weights to begin with: a safetensors file, or the flat vector. Default: fresh ones from `seed`. */
    readonly weights?: Uint8Array | ArrayBuffer | Float32Array | undefined;
    /**
     * How many threads share the work on the CPU, this one included. Default `auto`: up to four where the page is cross-origin
     * isolated (it was served with COOP and COEP headers) and the browser has relaxed SIMD, else one. Threads that cannot be
     * had are no error: {@link TrainerBackend} says how many there are, and why.
     */
    readonly threads?: number | "auto" | undefined;
    /** Seed of fresh weights, a whole number below 2³². Default 0. */
    readonly seed?: number | undefined;
    /** Starts the worker; for bundlers and hosts that cannot find `trainer-worker.js` beside this module. */
    readonly createWorker?: (() => Worker) | undefined;
    /**
     * Where the wasm files are, where they are not beside the worker. Those with threads have a script of their own,
     * `trainer-threads.js`.
     */
    readonly wasmUrls?: TrainerUrls | undefined;
}
/** Wasm files for one kind of back end: with relaxed SIMD, without, and with threads. */
export interface TrainerBuilds {
    readonly relaxed: string | URL;
    readonly plain: string | URL;
    readonly threads?: string | URL | undefined;
}
/** Wasm files for the CPU alone, and in `gpu` those for WebGPU too, which are loaded where it may be used. */
export interface TrainerUrls extends TrainerBuilds {
    readonly gpu?: TrainerBuilds | undefined;
    readonly threadsScript?: string | URL | undefined;
}
/** Examples: `x` is `[n, features]`, row-major; `y` has a label for each, or for a sequence one for each position, or numbers. */
export interface TrainingData {
    readonly x: ArrayLike<number>;
    /** Whole numbers for `softmax-cross-entropy` (−1: a position that does not count), else numbers. */
    readonly y: ArrayLike<number>;
}
/** A step that is done. */
export interface Step {
    /** From 1. */
    readonly epoch: number;
    /** Step of the epoch, from 1. */
    readonly step: number;
    /** Steps of an epoch. */
    readonly steps: number;
    /** The mean loss of its batch, taken before it; null on WebGPU, where losses come at the end. */
    readonly loss: number | null;
}
/** How a model is trained. */
export interface TrainingOptions {
    readonly optimizer: Optimizer;
    /** Passes over the examples. Default 1. */
    readonly epochs?: number | undefined;
    /** Examples per step. Default 32. */
    readonly batchSize?: number | undefined;
    /** Batches per step: the optimiser moves once for so many, by their mean, in the memory of one. Default 1. */
    readonly accumulate?: number | undefined;
    /** Whether every epoch visits the examples in an order of its own. Default true; false keeps the order given. */
    readonly shuffle?: boolean | undefined;
    readonly schedule?: Schedule | undefined;
    /** L2 regularisation: this times the weights is added to the gradient. */
    readonly weightDecay?: number | undefined;
    /** FedProx: this times the distance from the weights before the call is added to the gradient. */
    readonly proximal?: number | undefined;
    /** Tensors that do not learn, by the beginning of their names, such as `layers.0`. */
    readonly freeze?: readonly string[] | undefined;
    /** Clips the gradient of each single example to this L2 norm. */
    readonly clipExamplesL2?: number | undefined;
}
/** What {@link Trainer.fit} takes. */
export interface FitOptions extends TrainingData, TrainingOptions {
    /**
     * SCAFFOLD: this is added to every gradient: the shared control variate minus this client's own, as many numbers as there are
     * weights. The client's next one is {@link Trainer.controlVariate} then. For the optimiser `sgd` without momentum.
     */
    readonly correction?: ArrayLike<number> | undefined;
    /** Seed of the order of the examples and of dropout. Default 0. */
    readonly seed?: number | undefined;
    /** Hears of every step. Throwing does not stop training. */
    readonly onStep?: ((step: Step) => void) | undefined;
    /** Stops training between two steps: `fit` rejects with the code `aborted`, and the weights stay as they were before it. */
    readonly signal?: AbortSignal | undefined;
}
/** The bytes that a training on the CPU holds besides its examples. */
export interface TrainingMemory {
    readonly parameters: number;
    readonly activations: number;
    readonly gradients: number;
    readonly optimizer: number;
    readonly total: number;
}
/** Where training happens, and why. */
export interface TrainerBackend {
    readonly name: "cpu" | "webgpu";
    readonly reason: string;
    /** What the GPU's driver calls itself, where there is one. */
    readonly adapter: string | null;
    /** Milliseconds per step, where both back ends were measured. */
    readonly cpuMsPerStep: number | null;
    readonly gpuMsPerStep: number | null;
    /** True where they were measured on an earlier visit, on the same adapter, for the same model and training. */
    readonly cached: boolean;
    /** How many threads share the work of the CPU. */
    readonly threads: number;
    /** Why so many. */
    readonly threadsReason: string;
    /** The GPU's kernels for products of matrices: those that were timed on this device, or on a software adapter those used. */
    readonly kernels: readonly TrainerKernel[];
}
/** A kernel of the GPU for products of matrices. */
export interface TrainerKernel {
    /** What the product is like: few results, many, or a convolution. */
    readonly work: "small" | "large" | "convolution";
    readonly name: string;
    /** Milliseconds for one product, where it was timed. */
    readonly ms: number | null;
    /** Whether it is the one that is used. */
    readonly chosen: boolean;
}
/** What a model is measured on. */
export interface EvaluateOptions extends TrainingData {
    /** How many guesses count for {@link Evaluation.topK}. Default 3. */
    readonly k?: number | undefined;
}
/** How well a model does. */
export interface Evaluation {
    /** Share of the labels that are the model's first guess. */
    readonly accuracy: number;
    /** Share of the labels that are among its first `k` guesses. */
    readonly topK: number;
    readonly k: number;
    /** Mean loss. */
    readonly loss: number;
    /** `exp(loss)`. */
    readonly perplexity: number;
    readonly examples: number;
}
/** A tensor of the model. */
export interface Tensor {
    /** As in safetensors files: `layers.<index>.<kernel|bias|…>`. */
    readonly name: string;
    /** Where it begins in {@link Trainer.weights}. */
    readonly offset: number;
    readonly shape: readonly number[];
}
/** A model in training. Make one with {@link Trainer.create}, and {@link Trainer.dispose} of it when it is no longer needed. */
export declare class Trainer {
    #private;
    /** The model's tensors, in the order in which they lie in the flat vector. */
    readonly tensors: readonly Tensor[];
    private constructor();
    /**
     * Starts a worker with a model.
     *
     * @throws UnsaidError `bad-options` for a model that cannot be built (the message names layer and shapes), `bad-model` for
     * weights that are not its own, `load-failed` where the worker or its wasm cannot be had.
     */
    static create(options: TrainerOptions): Promise<Trainer>;
    /** Where training happens; null before the first {@link Trainer.fit}. */
    get backend(): TrainerBackend | null;
    /**
     * SCAFFOLD's control variate of this client after the last {@link Trainer.fit} that had a `correction` (Karimireddy et al. 2020,
     * algorithm 1, line 12, option II); null after one that had none.
     */
    get controlVariate(): Float32Array | null;
    /**
     * Trains; gives the mean loss of every step's batch, taken before the step. The optimiser goes on where the last call left it.
     *
     * @throws UnsaidError `bad-data`, `bad-options`, `non-finite` (the message names the step), `aborted`, `busy`,
     * `webgpu-unavailable` where WebGPU was asked for by name, `crashed`.
     */
    fit(options: FitOptions): Promise<Float32Array>;
    /**
     * What a {@link Trainer.fit} on so many examples will hold in memory, known before it begins. One that needs more than there may
     * be is refused with these numbers.
     */
    memory(options: TrainingOptions & {
        readonly examples: number;
    }): Promise<TrainingMemory>;
    /** How well the model does on `x` and `y`; `k` guesses count for {@link Evaluation.topK}, 3 if it is not given. */
    evaluate({ x, y, k }: EvaluateOptions): Promise<Evaluation>;
    /** The model's answer to each row of `x`, `[rows, outputs]`: probabilities, where the loss has them. */
    predict(x: ArrayLike<number>): Promise<Float32Array>;
    /** A copy of the flat weight vector; {@link Trainer.tensors} says what lies where. */
    weights(): Promise<Float32Array>;
    /** Takes a flat weight vector; the optimiser begins anew. */
    setWeights(weights: ArrayLike<number>): Promise<void>;
    /** The weights as a safetensors file. */
    save(): Promise<Uint8Array>;
    /** Takes the weights of a safetensors file; the optimiser begins anew. */
    load(file: Uint8Array | ArrayBuffer): Promise<void>;
    /** Ends the worker. Calls that are under way reject with the code `closed`. */
    dispose(): void;
}

// model-spec.d.ts
/** A layer of a model. Shapes are those of one example: images `[height, width, channels]`, sequences `[time, features]`. */
export type Layer = {
    readonly type: "dense";
    readonly units: number;
} | {
    readonly type: "conv2d";
    readonly filters: number;
    readonly kernel: readonly [number, number];
    readonly stride?: readonly [number, number];
    readonly padding?: "same" | "valid";
} | {
    readonly type: "max-pool2d" | "average-pool2d";
    readonly size: readonly [number, number];
    readonly stride?: readonly [number, number];
} | {
    readonly type: "global-average-pool2d" | "global-max-pool2d" | "flatten";
} | {
    readonly type: "relu" | "gelu" | "tanh" | "sigmoid";
} | {
    readonly type: "dropout";
    readonly rate: number;
} | {
    readonly type: "layer-norm";
    readonly epsilon?: number;
} | {
    readonly type: "group-norm";
    readonly groups: number;
    readonly epsilon?: number;
} | {
    readonly type: "upsample2d";
    readonly factor: number;
} | {
    readonly type: "embedding";
    readonly vocabulary: number;
    readonly units: number;
} | {
    readonly type: "lstm";
    readonly units: number;
} | {
    readonly type: "cifg-lstm";
    readonly units: number;
    readonly projection?: number;
} | {
    readonly type: "tied-dense";
}
/** Gives the value here a name, for an `add` or a `concat` further on. */
 | {
    readonly type: "mark";
    readonly name: string;
} | {
    readonly type: "add" | "concat";
    readonly with: string;
};
/** A model: the shape of one example, the layers that it passes through, and the loss at the end. */
export interface ModelSpec {
    /** `[features]`, `[height, width, channels]`, or `[time]` for token ids. */
    readonly input: readonly number[];
    readonly layers: readonly Layer[];
    readonly loss: "softmax-cross-entropy" | "sigmoid-cross-entropy" | "mean-squared-error";
}
/** How a gradient moves the weights. */
export type Optimizer = {
    readonly type: "sgd";
    readonly learningRate: number;
    readonly momentum?: number;
    readonly nesterov?: boolean;
} | {
    readonly type: "adam";
    readonly learningRate: number;
    readonly beta1?: number;
    readonly beta2?: number;
    readonly epsilon?: number;
    /** Decoupled weight decay: AdamW. */
    readonly weightDecay?: number;
} | {
    readonly type: "adagrad";
    readonly learningRate: number;
    readonly initialAccumulator?: number;
    readonly epsilon?: number;
};
/** How the step size changes over the steps of a call of `fit`, as a factor of the learning rate. */
export type Schedule = {
    readonly type: "constant";
} | {
    readonly type: "linear" | "cosine";
    readonly end?: number;
} | {
    readonly type: "step";
    readonly every: number;
    readonly factor: number;
};

// inversion.d.ts
export { errorCodes, UnsaidError } from "./errors.js";
export type { ErrorCode } from "./errors.js";
/** What {@link invert} takes. */
export interface InvertOptions {
    /** The task's manifest, byte for byte or as text: `(await client.manifest()).json`. Its terms are not held against any floor. */
    readonly manifest: string | Uint8Array;
    /** The shared model that the update would start from: a safetensors file, as the relay serves it. */
    readonly model: Uint8Array | ArrayBuffer;
    /** The example, `[features]`. It is given to a worker of this page, and goes nowhere else. */
    readonly x: ArrayLike<number>;
    /** Its label. */
    readonly label: number;
    /** Gives up. */
    readonly signal?: AbortSignal | undefined;
    /** Starts the worker; for bundlers and hosts that cannot find `inversion-worker.js` beside this module. */
    readonly createWorker?: (() => Worker) | undefined;
    /** Where `unsaid_inversion_bg.wasm` is, where it is not beside the worker. */
    readonly wasmUrl?: string | URL | undefined;
}
/** What an attacker finds behind one protection. */
export interface Inversion {
    /**
     * What was done to the update before the attacker had it: nothing but the rounding to the task's grid, clipping, or clipping and the
     * task's own noise, as it leaves the device. Where the relay adds the noise, `noise` is what everyone else can see of it at worst, who
     * knows all other updates of the round; the relay itself sees `clip`.
     */
    readonly protection: "none" | "clip" | "noise";
    /** Bytes of the frame that was attacked. */
    readonly frameBytes: number;
    /** Whether the update was shortened. */
    readonly clipped: boolean;
    /** The example that was found, `[features]`, held within the range of the real one's numbers; null where nothing was. */
    readonly found: Float32Array | null;
    /** The label that was read off the update; null where none was. */
    readonly label: number | null;
    /** Peak signal-to-noise ratio in dB: above 30 the two look the same, around 10 there is nothing to see. 0 where nothing was found. */
    readonly psnr: number;
    /** Structural similarity, 1 for equal pictures; null where the input is no picture of at least 7 × 7 pixels. */
    readonly ssim: number | null;
}
/**
 * Attacks the update that a device with this one example, and no other, would send: without protection, clipped, and (in a task that has
 * noise) with the task's own noise. The update is made as {@link https://github.com/unsaid-ml/unsaid/blob/main/PRIVACY.md the client makes
 * it}, from the task's training, grid and generator of noise, to the bytes of its frame, in a worker that ends with the call. Nothing is
 * sent, and nothing is booked in the ledger.
 *
 * The attack reads the input off the change of a dense first layer, which for one example is exact, and the label off the last bias (iDLG).
 * On many examples it finds mixtures of them, and it cannot read a convolution. That it finds nothing proves nothing: another attacker may
 * know more, or see many updates. What is proved is ε.
 *
 * ```ts
 * import { invert } from "unsaid/inversion";
 * for (const { protection, psnr, label } of await invert({ manifest: json, model, x, label: 7 })) console.log(protection, psnr, label);
 * ```
 *
 * @throws UnsaidError `bad-options` where the model does not begin with a dense layer, `bad-data` for an example that does not fit,
 * `bad-manifest`, `bad-model`, `aborted`, `crashed`, `load-failed`.
 */
export declare function invert(options: InvertOptions): Promise<Inversion[]>;
