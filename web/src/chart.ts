// The accuracy of the shared model, round by round.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { RoundMetrics } from "unsaid";

import { byId, element, row } from "./dom.js";
import * as format from "./format.js";
import { whileOpen } from "./lazy.js";

export interface Chart {
  draw(rounds: readonly RoundMetrics[]): void;
  /** Draws again in the colours of the theme. */
  recolour(): void;
}

export function createChart(): Chart {
  const box = element("chart");
  const table = byId("rounds", HTMLTableSectionElement);
  let plot: uPlot | null = null;
  let drawn = "";

  const colour = (name: string) => (): string => getComputedStyle(box).getPropertyValue(name);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const size = (): { width: number; height: number } => ({ width: Math.max(200, box.clientWidth), height: box.clientHeight || 220 });

  const create = (data: uPlot.AlignedData): uPlot =>
    new uPlot(
      {
        ...size(),
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, y: false, points: { size: 9 } },
        padding: [12, 16, 0, 0],
        scales: {
          // uPlot widens a single point to a hundred rounds; five are enough to begin with.
          x: { time: false, range: (self) => [self.data[0][0] ?? 0, Math.max(self.data[0].at(-1) ?? 0, (self.data[0][0] ?? 0) + 5)] },
          y: { range: (_, min) => [Math.min(min, 0.8) < 0.5 ? 0 : 0.5, 1] },
        },
        axes: [
          { ...axis, space: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], size: 28 },
          { ...axis, size: 48, values: (_, splits) => splits.map((share) => `${Math.round(100 * share)} %`) },
        ],
        series: [
          {},
          {
            label: "accuracy",
            stroke: colour("--accent"),
            fill: colour("--accent-soft"),
            width: 2.5,
            spanGaps: true,
            points: { show: true, size: 6, fill: colour("--accent") },
          },
        ],
      },
      data,
      box,
    );

  new ResizeObserver(() => plot?.setSize(size())).observe(box);

  const draw = (rounds: readonly RoundMetrics[]): void => {
    const key = rounds.map((metrics) => `${metrics.round}:${metrics.accuracy}`).join();
    if (key === drawn) return;
    drawn = key;
    const measured = rounds.filter((metrics) => metrics.accuracy !== null);
    const noised = rounds.some((metrics) => metrics.epsilon !== null);
    element("rounds-epsilon").hidden = !noised;
    whileOpen(table, () => {
      table.replaceChildren(
        ...rounds.toReversed().map((metrics) =>
          row([
            String(metrics.round),
            metrics.accuracy === null ? "–" : format.percent(metrics.accuracy),
            metrics.loss === null ? "–" : format.number(metrics.loss),
            String(metrics.clients),
            format.bytes(metrics.bytesUp),
            metrics.round === 0 ? "–" : format.seconds(metrics.durationMs),
            ...(noised ? [metrics.epsilon === null ? "–" : format.epsilon(metrics.epsilon)] : []),
          ]),
        ),
      );
    });
    const first = measured[0];
    const last = measured.at(-1);
    if (!first || !last) return;
    const data: uPlot.AlignedData = [measured.map(({ round }) => round), measured.map(({ accuracy }) => accuracy)];
    if (plot) plot.setData(data);
    else plot = create(data);
    const from = `Round ${first.round}: ${format.percent(first.accuracy ?? 0)}`;
    const to = `round ${last.round}: ${format.percent(last.accuracy ?? 0)}`;
    box.setAttribute("aria-label", `Accuracy by round. ${from}; ${to}. All rounds are in the table below.`);
  };

  return { draw, recolour: () => plot?.redraw(false, true) };
}
