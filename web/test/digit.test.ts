import assert from "node:assert/strict";
import { test } from "node:test";

import { SIDE, toExample } from "../src/digit.js";

const side = 112;

function ink(x0: number, y0: number, x1: number, y1: number): Float32Array {
  return new Float32Array(side * side).map((_, index) => {
    const [x, y] = [index % side, Math.floor(index / side)];
    return x >= x0 && x < x1 && y >= y0 && y < y1 ? 1 : 0;
  });
}

function box(example: Float32Array): [number, number, number, number] {
  const on = [...example.keys()].filter((index) => (example[index] ?? 0) > 0.5);
  const columns = on.map((index) => index % SIDE);
  const rows = on.map((index) => Math.floor(index / SIDE));
  return [Math.min(...columns), Math.min(...rows), Math.max(...columns) + 1, Math.max(...rows) + 1];
}

test("no ink is no example", () => {
  assert.equal(toExample(new Float32Array(side * side), side), null);
});

test("the longer side becomes 20 pixels, wherever and however large the drawing is", () => {
  for (const [x0, y0, x1, y1] of [
    [0, 0, 112, 112],
    [3, 5, 33, 35],
    [90, 100, 110, 112],
  ] as const) {
    const example = toExample(ink(x0, y0, x1, y1), side);
    assert.ok(example);
    const [left, top, right, bottom] = box(example);
    assert.equal(Math.max(right - left, bottom - top), 20);
    assert.ok(example.every((value) => value >= 0 && value <= 1));
  }
});

test("the centre of mass is the centre, to half a pixel", () => {
  const lopsided = ink(10, 10, 20, 90).map((value, index) => Math.max(value, ink(10, 80, 60, 90)[index] ?? 0));
  const example = toExample(lopsided, side);
  assert.ok(example);
  let [mass, x, y] = [0, 0, 0];
  example.forEach((value, index) => {
    mass += value;
    x += value * ((index % SIDE) + 0.5);
    y += value * (Math.floor(index / SIDE) + 0.5);
  });
  assert.ok(Math.abs(x / mass - 14) <= 0.5 + 1e-6, `${x / mass}`);
  assert.ok(Math.abs(y / mass - 14) <= 0.5 + 1e-6, `${y / mass}`);
});

test("a dot stays in the image", () => {
  const example = toExample(ink(50, 50, 51, 51), side);
  assert.ok(example);
  assert.deepEqual(box(example), [4, 4, 24, 24]);
});
