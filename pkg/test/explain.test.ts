import assert from "node:assert/strict";
import { test } from "node:test";

import { explain } from "../src/explain.js";
import { budget } from "./double.js";

test("an ε is told as a factor, and as how sure anyone can be", () => {
  assert.match(explain(budget), /^Nothing was sent .* Your limit is ε = 8: a factor of 2,980\.$/);
  const one = explain({ ...budget, spent: Math.log(3), rounds: 1 });
  assert.match(one, /^The update that you sent has cost ε = 1\.1\./);
  // Odds of 3 to 1 are 75 %.
  assert.match(one, /can be at most 75 % sure of one of them: the odds shift by a factor of 3 at most, except with a chance of about 0\.00001\./);
  const many = explain({ ...budget, spent: 30, rounds: 1200 });
  assert.match(many, /^The 1,200 updates .* practically certain of one of them: .* a factor of 10\^13 at most/);
  // Where ε is that of single examples, it says so, and what it does not cover.
  const example = explain({ ...budget, spent: Math.log(3), rounds: 1, unit: "example" });
  assert.match(example, /whether some one example is among your data, .* at most 75 % sure of the answer: .* more can be learned/);
  assert.doesNotMatch(one + many, /example/);
  assert.match(explain({ ...budget, epsilon: 1e6, rounds: 0 }), /more than any number worth the name/);
});
