// Identities: a browser enrols a key that cannot leave it, signs with it, and is told what the operator decides.
import assert from "node:assert/strict";
import { test } from "node:test";

import { scene } from "./lib/scene.mjs";

const OPERATOR = { signs: true, token: "operator-0123456789" };
const INVITED = { "identity.required": "invitation", "privacy.mode": "local" };
const BUDGET = { budget: { epsilon: 1e6, delta: 1e-5 } };

/** The keys that a tab's origin keeps: the relay, whether the private half could be taken out, and the public one. */
const keptKeys = (tab) =>
  tab.page.evaluate(
    () =>
      new Promise((done, fail) => {
        const opening = indexedDB.open("unsaid-identity");
        opening.onerror = () => fail(opening.error);
        opening.onsuccess = () => {
          const database = opening.result;
          const [keys, relays] = [[], []];
          if (!database.objectStoreNames.contains("keys")) return done([]);
          const cursor = database.transaction("keys").objectStore("keys").openCursor();
          cursor.onsuccess = async () => {
            if (cursor.result) {
              keys.push(cursor.result.value);
              relays.push(cursor.result.key);
              return cursor.result.continue();
            }
            database.close();
            done(
              await Promise.all(
                keys.map(async ({ privateKey, publicKey }, at) => ({
                  relay: relays[at],
                  isKey: privateKey instanceof CryptoKey,
                  taken: await crypto.subtle.exportKey("pkcs8", privateKey).then(() => true, () => false),
                  publicKey: Array.from(publicKey, (byte) => byte.toString(16).padStart(2, "0")).join(""),
                })),
              ),
            );
          };
        };
      }),
  );

test("a browser enrols with an invitation, takes part, is revoked, and is told so", async (t) => {
  await scene({ set: INVITED, ...OPERATOR }, async ({ relay, proxy, tab }) => {
    const one = await (await tab()).ready({ relayKey: relay.publicKey, ...BUDGET });
    assert.equal((await one.call("manifest")).value.identity, "invitation");
    const uninvited = await one.run({ rounds: 1 });
    assert.deepEqual([uninvited.code, uninvited.problem?.type], ["refused", "urn:unsaid:error:enrolment-closed"]);
    assert.equal(proxy.to("/v1/tasks/mnist/check-in").length, 0);

    const [invitation, another] = relay.admin("invite", "--count", "2").split("\n");
    assert.match(invitation, /^[0-9a-f]{32}$/);
    const joined = await one.run({ rounds: 2, invitation });
    assert.equal(joined.value?.reason, "rounds-done", `${joined.code}: ${joined.message}`);
    const [key, ...others] = await keptKeys(one);
    assert.deepEqual([others.length, key.relay, key.isKey, key.taken], [0, proxy.origin, true, false]);

    // Loaded again, it is known without an invitation.
    await one.load(proxy.origin);
    await one.connect({ relayKey: relay.publicKey, ...BUDGET });
    assert.equal((await one.run({ rounds: 1 })).value?.reason, "rounds-done");
    const listed = relay.admin("identities").split("\n").map((line) => JSON.parse(line));
    assert.equal(listed.length, 1);
    const [{ identity, enrolment, tasks }] = listed;
    assert.deepEqual([enrolment, tasks[0].task, tasks[0].updates], ["invitation", "mnist", 3]);
    const { spent } = (await one.call("budget.get")).value;
    assert.equal(tasks[0].epsilon, spent, "both ledgers say the same");

    // What an invitation was used for, another browser cannot use it for again.
    const two = await (await tab()).ready(BUDGET);
    const late = await two.run({ rounds: 1, invitation });
    assert.deepEqual([late.code, late.problem?.type], ["refused", "urn:unsaid:error:bad-invitation"]);

    relay.admin("revoke", identity);
    const revoked = await one.run({ rounds: 1 });
    assert.deepEqual([revoked.code, revoked.problem?.type], ["refused", "urn:unsaid:error:identity-revoked"]);
    t.diagnostic(`${identity}: ${tasks[0].updates} updates, ε = ${tasks[0].epsilon}`);

    // Whoever erases is another afterwards.
    assert.equal((await one.call("budget.erase")).code, undefined);
    assert.deepEqual(await keptKeys(one), []);
    assert.ok(another);
  });
});

test("an erased browser is a new one to the relay, and open enrolment asks for nothing", async () => {
  await scene({ set: { "identity.required": "open" }, ...OPERATOR }, async ({ relay, tab }) => {
    const one = await (await tab()).ready();
    for (const erase of [false, true]) {
      if (erase) await one.call("budget.erase");
      const joined = await one.run({ rounds: 1 });
      assert.equal(joined.value?.reason, "rounds-done", `${joined.code}: ${joined.message}`);
    }
    assert.equal(relay.admin("identities").split("\n").length, 2);
  });
});

test("two tabs of one browser share its identity, and its share of a round", async () => {
  const set = { "identity.required": "open", "identity.updates_per_round": 2, "rounds.min_clients": 2, "rounds.target_clients": 2 };
  await scene({ set, ...OPERATOR }, async ({ relay, profile, tab }) => {
    const context = await profile();
    const tabs = [];
    for (const shard of [0, 1]) tabs.push(await (await tab(context)).ready({ shard, participants: 2 }));
    for (const one of tabs) await one.join({ rounds: 1 });
    for (const one of tabs) assert.equal((await one.joined()).value?.reason, "rounds-done");
    const [{ tasks }, ...others] = relay.admin("identities").split("\n").map((line) => JSON.parse(line));
    assert.deepEqual([others.length, tasks[0].updates, (await relay.rounds())[1].clients], [0, 2, 2]);
  });
});

test("a browser without Ed25519 says so, and sends nothing", async () => {
  await scene({ set: { "identity.required": "open" }, ...OPERATOR }, async ({ proxy, profile, tab }) => {
    const context = await profile();
    await context.route("**/worker.js", async (route) => {
      const response = await route.fetch();
      const without = "crypto.subtle.generateKey = () => Promise.reject(new DOMException('no', 'NotSupportedError'));\n";
      await route.fulfill({ response, body: without + (await response.text()) });
    });
    const one = await (await tab(context)).ready();
    const refused = await one.run({ rounds: 1 });
    assert.equal(refused.code, "identity-unavailable", refused.message);
    assert.match(refused.message, /does not know Ed25519/);
    assert.equal(proxy.to("/v1/tasks/mnist/check-in").length, 0);
  });
});
