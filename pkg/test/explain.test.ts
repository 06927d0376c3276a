import assert from "node:assert/strict";
import { test } from "node:test";

import { explain } from "../src/explain.js";
import { budget } from "./double.js";

test("the limit is told as a factor, and as how sure anyone can be; what is booked promises nothing", () => {
  assert.match(explain(budget), /^Your limit is ε = 8\. .* a factor of 2,980 at most, .* Nothing was sent yet that has a cost\.$/);
  const limit = { ...budget, epsilon: Math.log(3) };
  const one = explain({ ...limit, spent: 0.3, rounds: 1 });
  assert.match(one, /^Your limit is ε = 1\.1\. .* The update that you sent is booked with ε = 0\.3 so far\.$/);
  // Odds of 3 to 1 are 75 %.
  assert.match(one, /can be at most 75 % sure of one of them: the odds shift by a factor of 3 at most, except with a chance of about 0\.00001\./);
  // The promise is the limit's, whatever is spent.
  const promise = (text: string): string => text.slice(0, text.lastIndexOf(" The "));
  const more = explain({ ...limit, spent: 1, rounds: 1200 });
  assert.match(more, /The 1,200 updates that you sent are booked with ε = 1 so far\.$/);
  assert.equal(promise(more), promise(one));
  assert.match(explain({ ...budget, epsilon: 30 }), /practically certain of one of them: .* a factor of 10\^13 at most/);
  // Where ε is that of single examples, it says so, and what it does not cover.
  const example = explain({ ...limit, spent: 0.3, rounds: 1, unit: "example" });
  assert.match(example, /whether some one example is among your data, .* at most 75 % sure of the answer: .* more can be learned/);
  assert.doesNotMatch(one + more, /example/);
  for (const epsilon of [700, 1000, 1e6]) {
    assert.match(explain({ ...budget, epsilon, rounds: 0 }), /practically certain of one of them: the odds shift without any bound worth the name, except/);
  }
});
