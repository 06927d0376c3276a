import assert from "node:assert/strict";
import { test } from "node:test";

import { exampleOf, firstExamples } from "../src/shard.js";

/** Three examples of two numbers. PROTOCOL.md, “Shard”, has the layout. */
const shard = Uint8Array.from([...Buffer.from("UNSD"), 1, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 7, 8, 9, 0, 255, 51, 102, 255, 0]);

test("an example of a shard is its numbers from 0 to 1 and its label", () => {
  const read = (share: number): [number, number[]] | null => {
    const found = exampleOf(shard, share);
    return found && [found.label, [...found.x].map((value) => Math.round(value * 5) / 5)];
  };
  assert.deepEqual(read(0), [7, [0, 1]]);
  assert.deepEqual(read(0.5), [8, [0.2, 0.4]]);
  assert.deepEqual(read(0.999), [9, [1, 0]]);
  assert.deepEqual(read(1), [9, [1, 0]]);
  assert.deepEqual(exampleOf(firstExamples(shard, 1), 0.9)?.label, 7);
});

test("what is no shard has no example", () => {
  for (const bytes of [shard.subarray(0, 19), shard.subarray(0, 20), shard.subarray(0, shard.length - 1), new Uint8Array(20)]) {
    assert.equal(exampleOf(bytes, 0.99), null);
  }
});
