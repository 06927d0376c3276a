// Two histograms over the same axis: the change before noise and what is sent.

import type { Histogram } from "unsaid";

import { byId, element, row, say } from "./dom.js";
import * as format from "./format.js";
import { whileOpen } from "./lazy.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 96;

export function drawHistogram({ edges, before, after }: Histogram, noisy: boolean): void {
  draw("hist-before", edges, before, "before");
  draw("hist-after", edges, after, "after");
  say(element("hist-before-title"), noisy ? "Before noise: never leaves" : "Your clipped change");
  say(element("hist-after-title"), noisy ? "After noise: what is sent" : "What is sent: the same");
  say(
    element("hist-say"),
    noisy
      ? `Middle 90 % of the coordinates: from ${span(edges, before)} before to ${span(edges, after)} after.`
      : `Middle 90 % of the coordinates: ${span(edges, before)}. The task asks for no noise, so what is sent is the clipped change.`,
  );
  const table = byId("hist-rows", HTMLTableSectionElement);
  whileOpen(table, () => {
    table.replaceChildren(
      ...before.map((count, index) =>
        row([edge(edges[index]), edge(edges[index + 1]), format.count(count), format.count(after[index] ?? 0)]),
      ),
    );
  });
}

const edge = (value: number | undefined): string => (value === undefined ? "–" : format.number(value).replace("-", "−"));

/** The range that holds all but 5 % on either side. */
function span(edges: readonly number[], counts: readonly number[]): string {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let low = 0;
  let high = counts.length - 1;
  for (let seen = counts[low] ?? 0; seen < 0.05 * total && low < high; seen += counts[low] ?? 0) low += 1;
  for (let seen = counts[high] ?? 0; seen < 0.05 * total && high > low; seen += counts[high] ?? 0) high -= 1;
  return `${edge(edges[low])} … ${edge(edges[high + 1])}`;
}

function draw(id: string, edges: readonly number[], counts: readonly number[], kind: string): void {
  const most = Math.max(1, ...counts);
  const step = WIDTH / Math.max(1, counts.length);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT + 18}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Histogram ${kind} noise; the numbers are in the table below`);
  const add = (name: string, attributes: Record<string, string | number>, text = ""): void => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
    node.textContent = text;
    svg.append(node);
  };
  const bars = counts.map((count, index) => {
    if (count === 0) return "";
    const height = Math.max(1.5, (count / most) * HEIGHT);
    const width = Math.max(0.8, step - 0.8);
    return `M${(index * step + 0.4).toFixed(2)} ${HEIGHT}v${(-height).toFixed(2)}h${width.toFixed(2)}V${HEIGHT}z`;
  });
  add("path", { class: kind, d: bars.join("") });
  add("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 });
  const labels = [
    [0, "start", edges[0]],
    [WIDTH / 2, "middle", ((edges[0] ?? 0) + (edges.at(-1) ?? 0)) / 2],
    [WIDTH, "end", edges.at(-1)],
  ] as const;
  for (const [x, anchor, value] of labels) add("text", { x, y: HEIGHT + 14, "text-anchor": anchor }, edge(value));
  element(id).replaceChildren(svg);
}
