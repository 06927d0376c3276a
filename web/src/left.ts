// What left this device, and on what terms.

import type { ManifestView } from "unsaid";

import { centralSentences } from "./central.js";
import { byId, element, fact, row, say } from "./dom.js";
import * as format from "./format.js";
import { readFrame } from "./frame.js";
import { isWeak } from "./honesty.js";
import { drawHistogram } from "./histogram.js";
import { whileOpen } from "./lazy.js";
import type { View } from "./view.js";

let drawnUpdate: unknown = null;
let drawnManifest: unknown = null;
let drawnTransfers = "";

export function drawLeft(view: View): void {
  drawUpdate(view);
  if (view.manifest && view.manifest !== drawnManifest) {
    drawnManifest = view.manifest;
    drawTerms(view.manifest);
  }
  const key = `${view.transfers.length} ${view.transfers.at(-1)?.outcome}`;
  if (key === drawnTransfers) return;
  drawnTransfers = key;
  say(element("transfers-count"), String(view.transfers.length));
  const table = byId("transfers", HTMLTableSectionElement);
  whileOpen(table, () => {
    const rows = view.transfers.slice(-200).reverse();
    table.replaceChildren(
      ...rows.map(({ at, what, bytes, outcome }) => row([format.clock(at), what, bytes === null ? "not told" : format.bytes(bytes), outcomes[outcome] ?? outcome])),
    );
  });
}

const outcomes: Readonly<Record<string, string>> = {
  sending: "sending …",
  accepted: "counted",
  duplicate: "had been counted before",
  retrying: "will be sent again, unchanged",
  late: "came too late, not counted",
};

function drawUpdate({ update, manifest }: View): void {
  element("left-none").hidden = update !== null;
  element("left-some").hidden = update === null;
  if (!update || update === drawnUpdate) return;
  drawnUpdate = update;
  const trained = manifest?.privacy.mode === "example";
  const noisy = update.sigmaSteps > 0 || trained;
  const pill = element("left-noise");
  pill.hidden = false;
  const weak = manifest !== null && isWeak(manifest);
  pill.dataset["tone"] = noisy && !weak ? "good" : "bad";
  const when = trained ? "while training" : "before sending";
  say(pill, !noisy ? "not noised" : weak ? `weakly noised ${when}` : `noised ${when}`);
  const clip = manifest?.update.clipL2;
  const norm = format.number(update.normBeforeClip);
  const sigma = manifest ? format.number(update.sigmaSteps * manifest.update.gridStep) : null;
  element("left-facts").replaceChildren(
    fact("Update", `for round ${update.round}`),
    fact("Size", format.bytes(update.bytes)),
    fact("To", `${location.host}, the relay`),
    fact("Holds", `${format.count(update.coordinates)} coordinates of ${format.plural(update.widthBytes, "byte")}`),
    fact("Length of the change", update.clipped ? `${norm}, shortened to ${clip === undefined ? "the limit" : format.number(clip)}` : `${norm}, within the limit`),
    fact("Noise", trained ? "on every step of training" : noisy ? `σ = ${sigma === null ? `${format.number(update.sigmaSteps)} grid steps` : `${sigma} on each coordinate`}` : "none"),
  );
  drawHistogram(update.histogram, noisy && !trained);
  byId("frame", HTMLTableSectionElement).replaceChildren(
    ...readFrame(update.headHex).map(({ name, hex, meaning }) => {
      const tr = row([name, hex]);
      tr.dataset["field"] = name;
      const small = document.createElement("small");
      small.textContent = meaning;
      tr.firstElementChild?.append(small);
      return tr;
    }),
  );
  const shown = Math.floor(update.headHex.length / 2);
  say(element("frame-title"), `The first ${shown} of ${format.count(update.bytes)} bytes, read`);
}

function drawTerms(manifest: ManifestView): void {
  const { rounds, update, training } = manifest;
  const model = `It trains a model of ${format.count(manifest.parameters)} numbers: “${manifest.title}”.`;
  const epochs = typeof training["epochs"] === "number" ? `${format.plural(training["epochs"], "pass", "passes")} over your data, then o` : "O";
  const clip = `${epochs}ne change is sent, shortened to a length of ${format.number(update.clipL2)} at most.`;
  const central = centralSentences(manifest);
  const noise = central.length > 0 ? central : [noiseTerms(manifest)];
  const group = `A round joins at least ${format.plural(rounds.minClients, "browser")}, at best ${rounds.targetClients}, and lasts ${format.seconds(rounds.deadlineMs)} at most.`;
  // Without an identity there is nothing to say.
  const who =
    manifest.identity === "none"
      ? []
      : ["It asks who you are: this browser makes a key and signs with it, so that the relay can tell which updates came from the same browser."];
  element("terms").replaceChildren(
    ...[model, clip, ...noise, group, ...who].map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }),
  );
  element("manifest-details").hidden = false;
  say(element("manifest-hash"), manifest.hash);
  say(element("manifest-json"), pretty(manifest.json));
}

/** What noise is added, whom one has to trust, and with what. */
function noiseTerms(manifest: ManifestView): string {
  const { privacy } = manifest;
  const weak = isWeak(manifest);
  if (privacy.mode === "none") return "No noise is added: the relay sees your clipped change.";
  if (privacy.mode === "local") {
    return `Noise of σ = ${format.number(privacy.sigma)} is added to each number on this device. ${weak ? "That is too little to protect you from the relay." : "The relay need not be trusted."}`;
  }
  if (privacy.mode !== "example") return "";
  const { stepsPerRound, samplingRate, clipL2, noiseMultiplier } = privacy;
  const steps = `Noise is added while training, on this device: ${format.plural(stepsPerRound, "step")}, each of which takes an example of yours with probability ${format.number(samplingRate)}, shortens what it adds to ${format.number(clipL2)}, and gets noise of σ = ${format.number(noiseMultiplier)} times that.`;
  const trust = weak ? "That is too little to protect any of them from the relay." : "That hides whether any single example is among yours, and the relay need not be trusted with it. What your examples have in common can be learned from your change.";
  return `${steps} ${trust}`;
}

// Word for word but for line breaks, so that it can be read on a phone; the hash is of the bytes as served.
function pretty(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}
