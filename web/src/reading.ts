// What the shared model reads in the drawing.

import type { Client } from "unsaid";

import { element, say } from "./dom.js";

export interface Reading {
  /** Asks the model anew: about `example`, or about nothing. */
  ask(client: Client | null, example: Float32Array | null): void;
}

export function createReading(): Reading {
  const list = element("bars");
  const line = element("reading");
  const idle = line.textContent ?? "";
  const bars = Array.from({ length: 10 }, (_, digit) => {
    const item = document.createElement("li");
    const [name, track, fill, value] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
    if (!name || !track || !fill || !value) throw new Error("no element was made");
    [name.className, track.className, value.className] = ["name", "track", "value"];
    name.textContent = String(digit);
    track.append(fill);
    item.append(name, track, value);
    list.append(item);
    return { item, fill, value };
  });

  const show = (probabilities: Float32Array | null): void => {
    const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
    bars.forEach(({ item, fill, value }, digit) => {
      const share = probabilities?.[digit] ?? 0;
      fill.style.inlineSize = `${100 * share}%`;
      say(value, probabilities ? `${Math.round(100 * share)} %` : "");
      item.classList.toggle("best", digit === best);
    });
    say(line, probabilities ? `It reads a ${best}, ${sureness(probabilities[best] ?? 0)}.` : idle);
  };
  show(null);

  // One question at a time; of those that come meanwhile, only the last counts.
  let busy = false;
  let next: (() => Promise<void>) | null = null;
  const pump = async (): Promise<void> => {
    if (busy) return;
    busy = true;
    for (let ask = next; ask; ask = next) {
      next = null;
      await ask();
    }
    busy = false;
  };
  return {
    ask: (client, example) => {
      next = async () => {
        if (!example || !client) {
          show(null);
          return;
        }
        try {
          show(await client.predict(example));
        } catch {
          // A drawing is no occasion for an alarm: other parts of the page say when the relay is away.
          show(null);
          say(line, "The shared model cannot be asked now.");
        }
      };
      void pump();
    },
  };
}

const sureness = (share: number): string => (share > 0.99 ? "over 99 % sure" : `${Math.round(100 * share)} % sure`);
