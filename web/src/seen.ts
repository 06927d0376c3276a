// What the relay could see: an attacker, played on one digit of the person's own, in a worker of this tab.

import type { ManifestView } from "unsaid";
import { invert, type Inversion } from "unsaid/inversion";

import { button, byId, element, fact, say } from "./dom.js";
import { SIDE } from "./digit.js";
import * as format from "./format.js";
import { isWeak } from "./honesty.js";
import { showError } from "./notice.js";
import type { Pad } from "./pad.js";
import { exampleOf, type Labelled } from "./shard.js";
import { history, type View } from "./view.js";

/** From here on two pictures look the same, and a digit can be read (structural similarity). */
const SAME = 0.9;
const READABLE = 0.5;

export interface Host {
  readonly view: View;
  /** Where the relay serves models. */
  readonly models: string;
}

export function createSeen({ view, models }: Host, pad: Pad): void {
  const label = byId("seen-label", HTMLSelectElement);
  label.replaceChildren(...Array.from({ length: 10 }, (_, digit) => new Option(String(digit), String(digit))));
  const buttons = [button("seen-drawn"), button("seen-loaded")];
  const said = element("seen-said");

  const play = async (digit: Labelled | null, missing: string): Promise<void> => {
    const { manifest } = view;
    const newest = history(view).at(-1);
    if (!digit) return say(said, missing);
    if (!manifest || !newest) return say(said, "The relay has not told its terms and its model yet.");
    for (const one of buttons) one.disabled = true;
    say(said, "Making the change that your tab would send, and attacking it …");
    try {
      const response = await fetch(`${models}/${newest.model}`);
      if (!response.ok) throw new Error(`the relay has no model ${newest.model} (${response.status})`);
      const model = await response.arrayBuffer();
      const found = await invert({ manifest: manifest.json, model, x: digit.x, label: digit.label });
      drawFound(digit, found, manifest, newest.round);
      say(said, summary(found, manifest));
    } catch (error) {
      say(said, "");
      showError(error);
    } finally {
      for (const one of buttons) one.disabled = false;
    }
  };

  byId("seen-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    const x = pad.example();
    void play(x && { x, label: Number(label.value) }, "Draw a digit above first, or load some.");
  });
  button("seen-loaded").addEventListener("click", () => {
    const { loaded } = view;
    void play(loaded && exampleOf(loaded, Math.random()), "Load some MNIST digits above first.");
  });
}

const titles: Readonly<Record<Inversion["protection"], string>> = {
  none: "Without protection",
  clip: "Clipped",
  noise: "Clipped and noised",
};

function drawFound(digit: Labelled, found: readonly Inversion[], manifest: ManifestView, round: number): void {
  const central = manifest.privacy.mode === "central";
  const own = picture(digit.x, "Your digit", `Your digit, a ${digit.label}`, [fact("It is a", String(digit.label))]);
  element("seen-found").replaceChildren(
    own,
    ...found.map((row) => {
      const facts = [
        fact("Label read", row.label === null ? "none" : `${row.label}, ${row.label === digit.label ? "right" : "wrong"}`),
        fact("Likeness", row.found ? `${decibels(row.psnr)}${row.ssim === null ? "" : `, SSIM ${row.ssim.toFixed(2)}`}` : "nothing found"),
        fact("From", `${format.bytes(row.frameBytes)}${row.clipped ? ", shortened" : ""}`),
      ];
      const title = row.protection === "noise" ? (central ? "What all others see" : "As this task sends it") : titles[row.protection];
      const alt = `${title}: ${row.found ? words(row) : "the attacker finds nothing"}`;
      const figure = picture(row.found ?? new Float32Array(digit.x.length), title, alt, facts);
      figure.dataset["protection"] = row.protection;
      return figure;
    }),
  );
  element("seen-result").hidden = false;
  say(element("seen-model"), `Against the shared model of round ${round}.`);
}

const decibels = (psnr: number): string => (Number.isFinite(psnr) ? `${psnr.toFixed(1)} dB` : "the same");

function words({ ssim, psnr }: Inversion): string {
  const alike = ssim ?? (psnr > 30 ? 1 : psnr > 15 ? READABLE : 0);
  if (alike >= SAME) return "the digit, as it is";
  return alike >= READABLE ? "the digit, blurred by noise" : "nothing like the digit";
}

/** What came of it, in plain words. */
function summary(found: readonly Inversion[], manifest: ManifestView): string {
  const [open, clip, noise] = ["none", "clip", "noise"].map((name) => found.find((row) => row.protection === name));
  if (!open?.found || !clip) return "The model is so sure of this digit that it learns nothing from it, and so there is nothing to find. Try one that it gets wrong.";
  const first = `From the unprotected change the attacker gets ${words(open)}.`;
  const second = words(clip) === words(open) ? "Clipping only shortens the change: it hides nothing." : `Clipped, it gives ${words(clip)}.`;
  if (!noise) return `${first} ${second} This task adds no noise, so that is what its relay could see.`;
  const trust = manifest.privacy.mode === "central" ? "This task’s relay sees the clipped change, and must be trusted. Behind the noise that it adds, all others" : "Behind this task’s noise the attacker";
  const third = `${trust} ${manifest.privacy.mode === "central" ? "get" : "gets"} ${words(noise)}.`;
  const weak = isWeak(manifest) ? " Do not rely on that: by its ε this noise protects nobody from a better attacker, or one who sees many rounds." : "";
  return `${first} ${second} ${third}${weak}`;
}

function picture(x: Float32Array, title: string, alt: string, facts: readonly HTMLElement[]): HTMLElement {
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", alt);
  const context = canvas.getContext("2d");
  if (context) {
    const image = context.createImageData(SIDE, SIDE);
    x.forEach((value, at) => {
      const grey = Math.round(255 * Math.min(1, Math.max(0, value)));
      image.data.set([grey, grey, grey, 255], 4 * at);
    });
    context.putImageData(image, 0, 0);
  }
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const list = document.createElement("dl");
  list.className = "facts tight";
  list.append(...facts);
  figure.append(canvas, caption, list);
  return figure;
}

export function drawSeen({ loaded }: View): void {
  button("seen-loaded").hidden = loaded === null;
}
