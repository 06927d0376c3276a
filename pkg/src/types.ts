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
export type PrivacyTerms =
  | {
      /** No noise: the relay sees each clipped update. */
      readonly mode: "none";
    }
  | {
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
    }
  | {
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
    }
  | {
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
export type SessionState =
  | "opening"
  | "waiting-for-other-tab"
  | "ready"
  | "checking-in"
  | "downloading"
  | "training"
  | "protecting"
  | "uploading"
  | "waiting"
  | "stopped";

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
export type SessionEvent =
  | StateEvent
  | BackendEvent
  | StepEvent
  | EpochEvent
  | UpdateEvent
  | UploadEvent
  | RoundEvent
  | RoundStateEvent
  | ContributionEvent
  | BudgetEvent
  | RelayEvent;

/** Everything that a client emits. */
export type ClientEvent = SessionEvent | RestartedEvent;

/** The names that `client.on` takes; `*` means every event. */
export type ClientEventType = ClientEvent["type"] | "*";

/** The event that a name stands for. */
export type ClientEventOf<T extends ClientEventType> = T extends "*" ? ClientEvent : Extract<ClientEvent, { type: T }>;
