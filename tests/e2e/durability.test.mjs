// What is written before an upload is on the disk before the upload: every transaction on the ledger asks for it.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { harnessFolder } from "./lib/harness.mjs";
import { scene } from "./lib/scene.mjs";

/** Put before the worker's own code: tells of every transaction and every write. */
const spy = `{
  const { transaction } = IDBDatabase.prototype;
  const { put } = IDBObjectStore.prototype;
  const channel = new BroadcastChannel("spy");
  IDBDatabase.prototype.transaction = function (...given) {
    const made = transaction.apply(this, given);
    channel.postMessage({ stores: [given[0]].flat(), durability: made.durability });
    return made;
  };
  IDBObjectStore.prototype.put = function (...given) {
    channel.postMessage({ put: this.name });
    return put.apply(this, given);
  };
}
`;

test("debits are committed with strict durability, and nothing else writes the ledger", async () => {
  const folder = await harnessFolder();
  const worker = join(folder, "unsaid/worker.js");
  await writeFile(worker, spy + (await readFile(worker, "utf8")));
  await scene({ set: { "privacy.mode": "local" }, page: folder }, async ({ tab }) => {
    const one = await tab();
    await one.page.evaluate(() => {
      window.spied = [];
      new BroadcastChannel("spy").onmessage = ({ data }) => window.spied.push(data);
    });
    await one.ready({ budget: { epsilon: 1e6, delta: 1e-5 } });
    await one.run({ rounds: 2 });
    const spied = await one.page.evaluate(() => window.spied);
    const ledger = spied.filter(({ stores }) => stores?.includes("ledger"));
    assert.ok(ledger.length >= 3, `${ledger.length} transactions`);
    assert.deepEqual([...new Set(ledger.map(({ durability }) => durability))], ["strict"]);
    assert.equal(spied.filter(({ put }) => put === "ledger").length, 3, "made once, debited twice");
  });
});
