// Status line, taking part, and the open round.

import type { Chart } from "./chart.js";
import { button, byId, element, say } from "./dom.js";
import * as format from "./format.js";
import { history, openRound, type View } from "./view.js";

const doing: Record<View["state"], string> = {
  opening: "opening",
  "waiting-for-other-tab": "waiting for a place",
  ready: "ready",
  "checking-in": "checking in",
  downloading: "getting the model",
  training: "training",
  protecting: "protecting the change",
  uploading: "sending",
  waiting: "waiting for others",
  stopped: "not taking part",
};

export function drawLearn(view: View, chart: Chart): void {
  drawStatus(view);
  const join = button("join");
  join.disabled = view.manifest === null || view.leaving;
  say(join, view.leaving ? "Leaving …" : view.joined ? "Leave" : "Join");
  join.classList.toggle("primary", !view.joined);
  say(element("learn-say"), sentence(view));
  drawStages(view);
  drawProgress(view);
  drawFunnel(view);

  const rounds = history(view);
  chart.draw(rounds);
  const last = rounds.findLast((metrics) => metrics.accuracy !== null);
  say(element("accuracy"), last?.accuracy != null ? format.percent(last.accuracy) : "–");
  say(element("accuracy-note"), last ? (last.round === 0 ? "untrained" : `after round ${last.round}`) : "no round measured yet");
}

function drawStatus(view: View): void {
  const relay = element("status-relay");
  say(relay, { connecting: "connecting", connected: "connected", unreachable: "not answering" }[view.relay]);
  relay.dataset["tone"] = { connecting: "idle", connected: "good", unreachable: "bad" }[view.relay];
  const { backend, manifest } = view;
  const name = backend && (backend.backend === "webgpu" ? "WebGPU" : "CPU");
  say(element("status-backend"), name ? (backend.fallback ? `${name} (WebGPU was lost)` : name) : "chosen on joining");
  element("status-backend").title = backend?.reason ?? "";
  const round = openRound(view);
  const finished = view.open?.phase === "finished";
  say(element("status-round"), finished ? `${view.open?.round}, the last` : round === null ? "–" : String(round));
  const mine = view.joined ? doing[view.state] : manifest ? "not taking part" : doing[view.state];
  say(element("status-you"), mine);
}

function sentence(view: View): string {
  const { state, manifest, data, open } = view;
  if (view.upload?.status === "retrying") {
    const wait = format.seconds(view.upload.retryInMs ?? 0);
    return `The relay does not take the update now. The very same bytes are sent again in ${wait}.`;
  }
  if (view.relay === "unreachable") return "The relay does not answer. It is tried again by itself.";
  if (!manifest) return "Opening the session.";
  if (!view.joined) {
    if (open?.phase === "finished") return "The task has published its last round. The model is yours to try.";
    if (!data || data.examples === 0) return "First get some data: draw digits or load a slice of MNIST. Then join.";
    return `You have ${format.plural(data.examples, "example")}. Join, and your browser trains with the others.`;
  }
  const examples = format.plural(data?.examples ?? 0, "example");
  switch (state) {
    case "training":
      return `Training on your ${examples}.`;
    case "waiting": {
      const wanted = missing(view);
      const who = wanted > 0 ? `for ${format.plural(wanted, "more browser")}` : "for the round to close";
      return `Your part is done. Waiting ${who}. To try it alone, open this page in more tabs.`;
    }
    case "waiting-for-other-tab":
      return "Other tabs of this browser take part already. This one waits for a place.";
    case "protecting":
      if (manifest.privacy.mode === "example") return "Clipping the change, which was trained with noise, and paying for it.";
      return manifest.privacy.mode === "local" ? "Clipping the change, adding noise, paying for it." : "Clipping the change. No noise is added on this device.";
    case "uploading":
      return "Sending one update to the relay.";
    case "downloading":
      return "Getting the newest shared model.";
    default:
      return "Joining the next round.";
  }
}

/** Updates that the open round still wants. */
function missing({ open, manifest }: View): number {
  return Math.max(0, (manifest?.rounds.targetClients ?? 0) - (open?.received ?? 0));
}

function drawStages(view: View): void {
  const items = [...element("stages").children];
  const now = view.joined ? items.findIndex((item) => item instanceof HTMLElement && item.dataset["stage"] === view.state) : -1;
  items.forEach((item, index) => {
    item.classList.toggle("done", index < now);
    if (index === now) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
}

function drawProgress({ joined, state, step, loss, manifest }: View): void {
  const bar = byId("progress", HTMLProgressElement);
  const text = element("progress-text");
  const lossText = loss === null ? "" : `, loss ${format.number(loss)}`;
  if (joined && state === "training" && step) {
    bar.value = (step.epoch - 1 + step.step / Math.max(1, step.steps)) / step.epochs;
    say(text, `Epoch ${step.epoch} of ${step.epochs}, step ${step.step} of ${step.steps}${lossText}`);
  } else {
    const done = joined && ["protecting", "uploading", "waiting"].includes(state);
    bar.value = done ? 1 : 0;
    const epochs = manifest?.training["epochs"];
    const plan = typeof epochs === "number" ? ` A round is ${format.plural(epochs, "pass", "passes")} over your data.` : "";
    say(text, done ? `Trained${lossText}.` : `Not training.${plan}`);
  }
}

function drawFunnel(view: View): void {
  const { open, manifest } = view;
  const list = element("funnel");
  if (!open || !manifest || open.phase === "finished") {
    list.replaceChildren();
    say(element("funnel-say"), open ? "The task is finished." : "Not known yet.");
    return;
  }
  const wanted = manifest.rounds.targetClients;
  const scale = Math.max(wanted, open.checkedIn, 1);
  const rows: [string, number][] = [
    ["checked in", open.checkedIn],
    ["reported", open.received],
    ["wanted", wanted],
  ];
  if (list.children.length !== rows.length) {
    list.replaceChildren(
      ...rows.map(([name]) => {
        const item = document.createElement("li");
        item.innerHTML = `<span class="name"></span><span class="track"><span></span></span><span class="value"></span>`;
        item.dataset["kind"] = name;
        return item;
      }),
    );
  }
  rows.forEach(([name, value], index) => {
    const [label, track, figure] = list.children[index]?.children ?? [];
    if (!(label instanceof HTMLElement) || !(track?.firstElementChild instanceof HTMLElement) || !(figure instanceof HTMLElement)) return;
    say(label, name);
    say(figure, String(value));
    track.firstElementChild.style.inlineSize = `${(100 * value) / scale}%`;
  });
  const left = open.deadlineMs === null ? null : Math.max(0, open.deadlineMs - (Date.now() - open.at));
  const least = manifest.rounds.minClients;
  const closing = left === null ? "Its clock starts with the first browser." : `It closes in ${format.seconds(1000 * Math.ceil(left / 1000))} at the latest, if ${format.plural(least, "browser")} reported.`;
  const last = history(view).at(-1);
  const before = last && last.round > 0 ? ` The last one had ${format.plural(last.clients, "browser")}.` : "";
  say(element("funnel-say"), `${closing}${before}`);
}
