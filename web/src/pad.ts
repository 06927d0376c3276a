// The drawing area: pointer and keyboard. It keeps strokes, not pixels, so that a change of theme can draw them again.

import { element, byId, say, button } from "./dom.js";
import { SIDE, toExample } from "./digit.js";

type Point = readonly [x: number, y: number]; // 0 to 1

const PEN = 0.085; // width of the pen, as a share of the side: about as thick as MNIST's strokes
const RASTER = 112;
const KEY_STEP = 1 / 28;

export interface Pad {
  /** The drawing as an example `[784]`; null where nothing is drawn. */
  example(): Float32Array | null;
  wipe(): void;
  redraw(): void;
}

/** Ties the drawing area to the page. `onChange` is called after each change. */
export function createPad(onChange: () => void): Pad {
  const canvas = byId("pad", HTMLCanvasElement);
  const preview = byId("pad-preview", HTMLCanvasElement);
  const help = element("pad-help");
  const helpText = help.textContent ?? "";
  const strokes: Point[][] = [];
  let pen: Point = [0.5, 0.5];
  let keyboard = false;
  let drawing: Point[] | null = null;
  let cached: Float32Array | null | undefined;

  const raster = document.createElement("canvas");
  raster.width = raster.height = RASTER;

  const example = (): Float32Array | null => {
    if (cached !== undefined) return cached;
    const context = raster.getContext("2d", { willReadFrequently: true });
    if (!context) return null;
    context.fillStyle = "#000";
    context.fillRect(0, 0, RASTER, RASTER);
    trace(context, strokes, RASTER, "#fff");
    const { data } = context.getImageData(0, 0, RASTER, RASTER);
    const ink = new Float32Array(RASTER * RASTER).map((_, index) => (data[4 * index] ?? 0) / 255);
    cached = toExample(ink, RASTER);
    return cached;
  };

  const redraw = (): void => {
    const context = canvas.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(canvas);
    const side = canvas.width;
    context.clearRect(0, 0, side, side);
    trace(context, strokes, side, style.getPropertyValue("--ink"));
    if (keyboard && document.activeElement === canvas) {
      context.strokeStyle = style.getPropertyValue("--accent");
      context.lineWidth = 4;
      context.beginPath();
      context.arc(pen[0] * side, pen[1] * side, (PEN * side) / 2 + 4, 0, 2 * Math.PI);
      if (!drawing) context.setLineDash([8, 8]);
      context.stroke();
      context.setLineDash([]);
    }
    element("pad-empty").hidden = strokes.length > 0;
    drawPreview(preview, strokes.length > 0 ? example() : null, style);
  };

  let scheduled = false;
  const changed = (): void => {
    cached = undefined;
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      redraw();
      onChange();
    });
  };

  const begin = (at: Point): void => {
    drawing = [at];
    strokes.push(drawing);
    changed();
  };
  const end = (): void => {
    drawing = null;
  };
  const wipe = (): void => {
    strokes.length = 0;
    end();
    changed();
  };

  const at = (event: PointerEvent): Point => {
    const box = canvas.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    keyboard = false;
    begin(at(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing || keyboard || !event.isPrimary) return;
    const parts = event.getCoalescedEvents?.() ?? [];
    for (const part of parts.length > 0 ? parts : [event]) drawing.push(at(part));
    changed();
  });
  for (const type of ["pointerup", "pointercancel"] as const) canvas.addEventListener(type, () => !keyboard && end());

  const moves: Readonly<Record<string, Point>> = {
    ArrowLeft: [-KEY_STEP, 0],
    ArrowRight: [KEY_STEP, 0],
    ArrowUp: [0, -KEY_STEP],
    ArrowDown: [0, KEY_STEP],
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = moves[event.key];
    if (move) {
      keyboard = true;
      const faster = event.shiftKey ? 2 : 1;
      pen = [clamp(pen[0] + faster * move[0]), clamp(pen[1] + faster * move[1])];
      drawing?.push(pen);
      if (drawing) changed();
      else redraw();
    } else if (event.key === " ") {
      keyboard = true;
      if (drawing) end();
      else begin(pen);
      say(help, drawing ? "The pen is down: arrow keys draw, Space lifts it." : "The pen is up: arrow keys move it, Space sets it down.");
      redraw();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      wipe();
    } else {
      return;
    }
    event.preventDefault();
  });
  canvas.addEventListener("focus", () => {
    keyboard = canvas.matches(":focus-visible");
    redraw();
  });
  canvas.addEventListener("blur", () => {
    end();
    say(help, helpText);
    redraw();
  });
  button("pad-clear").addEventListener("click", wipe);

  redraw();
  return { example, wipe, redraw };
}

const clamp = (value: number): number => Math.min(0.98, Math.max(0.02, value));

function trace(context: CanvasRenderingContext2D, strokes: readonly Point[][], side: number, colour: string): void {
  context.strokeStyle = colour;
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    const [first, ...rest] = stroke;
    if (!first) continue;
    context.beginPath();
    context.moveTo(first[0] * side, first[1] * side);
    // A dot is a line of no length.
    context.lineTo(first[0] * side, first[1] * side);
    for (const [x, y] of rest) context.lineTo(x * side, y * side);
    context.stroke();
  }
}

function drawPreview(canvas: HTMLCanvasElement, example: Float32Array | null, style: CSSStyleDeclaration): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  canvas.hidden = !example;
  context.clearRect(0, 0, SIDE, SIDE);
  context.fillStyle = style.getPropertyValue("--ink");
  example?.forEach((value, index) => {
    context.globalAlpha = value;
    context.fillRect(index % SIDE, Math.floor(index / SIDE), 1, 1);
  });
  context.globalAlpha = 1;
}
