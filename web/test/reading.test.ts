import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../src/format.js";
import { readFrame } from "../src/frame.js";
import { readQuery } from "../src/query.js";
import { firstExamples } from "../src/shard.js";

const header =
  "554e5355" + "0100" + "02" + "00" + "aa".repeat(16) + "bb".repeat(16) + "cc".repeat(32) + "dd".repeat(32) + "0700000000000000" + "02000000";

test("a frame's first bytes are read field by field", () => {
  const fields = readFrame(`${header}0100ffff`);
  assert.deepEqual(
    fields.map(({ name }) => name),
    ["magic", "version", "width", "reserved", "update id", "client id", "manifest", "model", "round", "count", "coordinates"],
  );
  const meaning = (name: string): string | undefined => fields.find((field) => field.name === name)?.meaning;
  assert.match(meaning("magic") ?? "", /UNSU/);
  assert.equal(meaning("round"), "round 7");
  assert.equal(meaning("count"), "2 coordinates follow");
  assert.equal(meaning("coordinates"), "in grid steps: 1, −1\u00a0…");
});

test("bytes that end inside a field are shown as far as they go", () => {
  const fields = readFrame(header.slice(0, 128));
  assert.equal(fields.at(-1)?.name, "manifest");
  assert.match(fields.at(-1)?.hex ?? "", /…$/);
  assert.deepEqual(readFrame(""), []);
});

test("an ε is never shown as less than it is", () => {
  assert.equal(format.epsilon(7.001), "7.01");
  assert.equal(format.epsilon(7), "7");
  assert.equal(format.epsilon(0), "0");
  assert.equal(format.epsilon(1234.2), "1,240");
  assert.equal(format.epsilon(0.012345), "0.0124");
  assert.equal(format.delta(1e-5), "10⁻⁵");
});

test("the address is read, and nonsense in it is passed over", () => {
  const query = readQuery("?task=t&backend=gpu&shard=-1&rounds=3&epsilon=x&autojoin=1&delta=1e-6", "#invitation=none", true);
  assert.deepEqual(query, {
    task: "t",
    backend: "auto",
    partition: "iid",
    shard: null,
    examples: null,
    autojoin: true,
    rounds: 3,
    epsilon: null,
    delta: 1e-6,
    invitation: null,
  });
  const invitation = "0123456789abcdef0123456789abcdef";
  assert.equal(readQuery("", `#invitation=${invitation}`, false).invitation, invitation);
  assert.equal(readQuery(`?invitation=${invitation}`, "", false).invitation, null, "where servers would see it");
});

test("a link neither joins nor sets a limit where a person opened it", () => {
  const query = readQuery("?autojoin=1&epsilon=1000000&delta=0.1&shard=3", "", false);
  assert.deepEqual(
    { autojoin: query.autojoin, epsilon: query.epsilon, delta: query.delta, shard: query.shard },
    { autojoin: false, epsilon: null, delta: null, shard: 3 },
  );
});

test("a shard is cut to its first examples", () => {
  const bytes = new Uint8Array(20 + 3 + 6);
  const view = new DataView(bytes.buffer);
  view.setUint32(8, 3, true);
  view.setUint32(12, 2, true);
  bytes.set([7, 8, 9, 70, 71, 80, 81, 90, 91], 20);
  const cut = firstExamples(bytes, 2);
  assert.equal(new DataView(cut.buffer).getUint32(8, true), 2);
  assert.deepEqual([...cut.subarray(20)], [7, 8, 70, 71, 80, 81]);
  assert.equal(firstExamples(bytes, 3), bytes);
});
