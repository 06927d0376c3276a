import assert from "node:assert/strict";
import { test } from "node:test";

import { ModelTraffic, networkBytes } from "../../worker/src/traffic.js";

const hash = "0123456789abcdef".repeat(4);
const entry = (transferSize: number, encodedBodySize: number, what = `models/${hash}`, responseStart = 5) => ({
  name: `https://relay.example/v1/tasks/t/${what}`,
  responseStart,
  transferSize,
  encodedBodySize,
});

test("only what crossed the network counts, as it was compressed", () => {
  assert.equal(networkBytes(entry(370_300, 370_000)), 370_000);
  assert.equal(networkBytes(entry(0, 370_000)), 0, "it was cached");
  assert.equal(networkBytes(entry(300, 370_000)), 0, "what was cached was found to be still valid");
  assert.equal(networkBytes(entry(0, 0, undefined, 0)), null, "another origin's timing is not told");
});

test("downloads of a model add up until they are asked for", () => {
  const traffic = new ModelTraffic();
  traffic.add([entry(370_300, 370_000), entry(900, 600, "rounds"), entry(370_300, 370_000)]);
  assert.equal(traffic.take(hash), 740_000);
  assert.equal(traffic.take(hash), 0, "they are not told twice");
  assert.equal(traffic.take("ff".repeat(32)), 0);
  traffic.add([entry(370_300, 370_000), entry(0, 0, undefined, 0)]);
  assert.equal(traffic.take(hash), null, "a sum with an unknown part is unknown");
});
