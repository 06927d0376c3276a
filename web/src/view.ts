// What the page knows, made from the session's events. Drawing reads it, at most once a frame.

import type {
  BackendEvent,
  BudgetView,
  ClientEvent,
  DataSummary,
  ManifestView,
  RoundMetrics,
  RoundStateEvent,
  SessionState,
  StepEvent,
  UpdateEvent,
  UploadEvent,
} from "unsaid";

export interface Transfer {
  readonly at: Date;
  readonly what: string;
  /** Null where the browser does not tell. */
  readonly bytes: number | null;
  outcome: string;
}

export interface View {
  relay: "connecting" | "connected" | "unreachable";
  relayDetail: string;
  manifest: ManifestView | null;
  backend: BackendEvent | null;
  state: SessionState;
  joined: boolean;
  leaving: boolean;
  step: StepEvent | null;
  loss: number | null;
  readonly rounds: Map<number, RoundMetrics>;
  open: (RoundStateEvent & { readonly at: number }) | null;
  update: UpdateEvent | null;
  upload: UploadEvent | null;
  contributions: number;
  readonly transfers: Transfer[];
  budget: BudgetView | null;
  data: DataSummary | null;
  /** The shard that was loaded last in this tab. */
  loaded: Uint8Array | null;
}

export function emptyView(): View {
  return {
    relay: "connecting",
    relayDetail: "",
    manifest: null,
    backend: null,
    state: "opening",
    joined: false,
    leaving: false,
    step: null,
    loss: null,
    rounds: new Map(),
    open: null,
    update: null,
    upload: null,
    contributions: 0,
    transfers: [],
    budget: null,
    data: null,
    loaded: null,
  };
}

/** The round that can be contributed to. */
export function openRound(view: View): number | null {
  if (view.open) return view.open.round;
  return view.rounds.size > 0 ? Math.max(...view.rounds.keys()) + 1 : null;
}

/** Published rounds, first to last. */
export const history = (view: View): RoundMetrics[] => [...view.rounds.values()].sort((a, b) => a.round - b.round);

/** Takes in an event. */
export function apply(view: View, event: ClientEvent): void {
  switch (event.type) {
    case "state":
      view.state = event.state;
      if (event.state !== "training") view.step = null;
      if (event.state !== "uploading") view.upload = null;
      break;
    case "backend":
      view.backend = event;
      break;
    case "step":
      view.step = event;
      break;
    case "epoch":
      view.loss = event.loss;
      break;
    case "update":
      view.update = event;
      break;
    case "upload": {
      view.upload = event;
      if (event.status === "retrying") view.relay = "unreachable";
      else if (event.status !== "sending") view.relay = "connected";
      const last = view.transfers.at(-1);
      const what = `update for round ${event.round}${event.attempt > 1 ? `, try ${event.attempt}` : ""}`;
      if (last?.what === what && last.outcome === "sending") last.outcome = event.status;
      else view.transfers.push({ at: new Date(), what, bytes: event.bytes, outcome: event.status });
      break;
    }
    case "round":
      view.rounds.set(event.metrics.round, event.metrics);
      view.relay = "connected";
      break;
    case "round-state":
      view.open = { ...event, at: Date.now() };
      view.relay = "connected";
      break;
    case "contribution":
      view.contributions += 1;
      if (event.bytesDown !== 0) {
        view.transfers.push({
          at: new Date(),
          what: `model that round ${event.round} started from`,
          bytes: event.bytesDown,
          outcome: "received",
        });
      }
      break;
    case "budget": {
      const { type: _, ...budget } = event;
      view.budget = budget;
      break;
    }
    case "relay":
      view.relay = event.status === "back" ? "connected" : "unreachable";
      view.relayDetail = event.detail;
      break;
    case "restarted":
      view.step = null;
      view.state = "ready";
      break;
  }
}
