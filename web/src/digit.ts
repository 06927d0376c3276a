// A drawing becomes an example as MNIST's makers did it: the ink is scaled into a box of 20×20 and placed in 28×28 so that
// its centre of mass is the centre (LeCun, Cortes, Burges, “The MNIST database”).

export const SIDE = 28;
const BOX = 20;

/** Ink from 0 to 1, row by row; null where there is none. `ink` is `[side, side]` with values from 0 to 1. */
export function toExample(ink: Float32Array, side: number): Float32Array | null {
  const box = bounds(ink, side);
  if (!box) return null;
  const { width, height } = box;
  const scale = BOX / Math.max(width, height);
  const columns = Math.max(1, Math.round(width * scale));
  const rows = Math.max(1, Math.round(height * scale));
  const small = shrink(ink, side, box, columns, rows);

  let mass = 0;
  let x = 0;
  let y = 0;
  small.forEach((value, index) => {
    mass += value;
    x += value * ((index % columns) + 0.5);
    y += value * (Math.floor(index / columns) + 0.5);
  });
  // The box must stay inside the image, however lopsided the drawing is.
  const place = (centre: number, size: number): number =>
    Math.min(SIDE - size, Math.max(0, Math.round(SIDE / 2 - centre / mass)));
  const toX = place(x, columns);
  const toY = place(y, rows);
  const out = new Float32Array(SIDE * SIDE);
  for (let row = 0; row < rows; row++) {
    out.set(small.subarray(row * columns, (row + 1) * columns), (toY + row) * SIDE + toX);
  }
  return out;
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

function bounds(ink: Float32Array, side: number): Box | null {
  let [left, top, right, bottom] = [side, side, -1, -1];
  ink.forEach((value, index) => {
    if (value < 0.05) return;
    const x = index % side;
    const y = Math.floor(index / side);
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  });
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** Each pixel of the result is the mean of the area that it covers. */
function shrink(ink: Float32Array, side: number, box: Box, columns: number, rows: number): Float32Array {
  const out = new Float32Array(columns * rows);
  const stepX = box.width / columns;
  const stepY = box.height / rows;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      out[row * columns + column] = meanOf(
        ink,
        side,
        [box.left + column * stepX, box.left + (column + 1) * stepX],
        [box.top + row * stepY, box.top + (row + 1) * stepY],
      );
    }
  }
  return out;
}

type Span = readonly [number, number];

function meanOf(ink: Float32Array, side: number, [x0, x1]: Span, [y0, y1]: Span): number {
  let sum = 0;
  for (let y = Math.floor(y0); y < Math.min(side, y1); y++) {
    const high = Math.min(y + 1, y1) - Math.max(y, y0);
    for (let x = Math.floor(x0); x < Math.min(side, x1); x++) {
      const wide = Math.min(x + 1, x1) - Math.max(x, x0);
      sum += high * wide * (ink[y * side + x] ?? 0);
    }
  }
  return Math.min(1, sum / ((x1 - x0) * (y1 - y0)));
}
