// What crosses the network: everything is recorded by a proxy that the whole browser uses, workers included.
import assert from "node:assert/strict";
import { test } from "node:test";

import { pixelsOf, readShard, Tab } from "./lib/harness.mjs";
import { pieces, sharedPiece } from "./lib/overlap.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { scene } from "./lib/scene.mjs";

const ROUNDS = 3;
const HASH = "[0-9a-f]{64}";

/** Everything that a client may ask of a relay: method, path, and what the body may be. */
const allowed = [
  ["GET", /^\/v1\/tasks\/mnist\/manifest$/],
  ["GET", /^\/v1\/tasks\/mnist\/round$/],
  ["GET", /^\/v1\/tasks\/mnist\/rounds$/],
  ["GET", /^\/v1\/tasks\/mnist\/events$/],
  ["GET", new RegExp(`^/v1/tasks/mnist/models/${HASH}$`)],
  ["POST", /^\/v1\/tasks\/mnist\/check-in$/],
  ["POST", /^\/v1\/tasks\/mnist\/updates$/],
];
/** And of a task that asks for identities. */
const ofIdentities = [
  ["GET", /^\/v1\/identities$/],
  ["POST", /^\/v1\/identities$/],
];
const assets = /^\/(|harness\.js|unsaid\/(index\.js|worker\.js|unsaid_bg\.wasm|[\w-]+\.js))$/;

const floats = (pixels) => Buffer.from(Float32Array.from(pixels, (pixel) => pixel / 255).buffer);

for (const [mode, identity] of [["none", "none"], ["local", "none"], ["none", "open"]]) {
  test(`only the protocol's messages leave a training tab, and no raw data (noise: ${mode}, identity: ${identity})`, async (t) => {
    const set = { "privacy.mode": mode, "identity.required": identity };
    const asked = identity === "none" ? allowed : [...allowed, ...ofIdentities];
    await scene({ set, signs: identity !== "none" }, async ({ relay, profile }) => {
      const watcher = await Proxy.start(relay.origin);
      try {
        // "<-loopback>": Chromium leaves its proxy out for 127.0.0.1 unless told otherwise.
        const proxy = { server: watcher.origin, bypass: "<-loopback>" };
        const context = await profile({ proxy });
        const tab = await Tab.open(context, relay.origin);
        // The data reaches the page through the debugger, so that the network has no reason to carry it.
        await tab.ready({ shard: 3, budget: { epsilon: 1e6, delta: 1e-5 } });
        const joined = await tab.run({ rounds: ROUNDS });
        assert.equal(joined.value?.reason, "rounds-done", `${joined.code}: ${joined.message}`);
        await tab.page.close();

        const origins = new Set(watcher.requests.map((request) => new URL(request.url).origin));
        assert.deepEqual([...origins], [relay.origin], "every request goes to the relay");
        assert.ok(watcher.to("/unsaid/worker.js").length > 0, "the recorder sees what the page loads");
        for (const request of watcher.requests) {
          if (request.method === "GET" && assets.test(request.path)) continue;
          const rule = asked.find(([method, path]) => method === request.method && path.test(request.path));
          assert.ok(rule, `${request.method} ${request.path} is no message of the protocol`);
          if (request.method === "GET") assert.equal(request.body.length, 0);
          assert.equal(request.headers.cookie, undefined);
          const signs = identity !== "none" && /\/(check-in|updates)$/.test(request.path);
          assert.equal(request.headers["unsaid-identity"] !== undefined, signs, `${request.path} says who asks`);
        }
        for (const { body } of watcher.to("/v1/tasks/mnist/check-in", "POST")) {
          const message = JSON.parse(body);
          assert.deepEqual(Object.keys(message).sort(), ["client", "manifest"]);
          assert.match(message.client, /^[0-9a-f]{32}$/);
          assert.match(message.manifest, new RegExp(`^${HASH}$`));
        }

        const updates = watcher.updates();
        assert.equal(updates.length, ROUNDS, "one update per round");
        const shard = await readShard(3);
        const pixels = pixelsOf(shard);
        const raw = [shard, floats(pixels)];
        for (const bytes of raw) assert.ok(pieces(bytes) > 100_000, "the search has something to look for");
        for (const { body } of updates) {
          assert.equal(body.subarray(0, 4).toString(), "UNSU");
          const count = body.readUInt32LE(112);
          assert.equal(body.length, 116 + count * body[6]);
          for (const bytes of raw) {
            assert.equal(sharedPiece(body, bytes), null, "the update holds a piece of the raw data");
            // The same search finds one example that is slipped into the frame.
            const leaky = Buffer.concat([body.subarray(0, 1000), bytes.subarray(40_000, 42_000), body.subarray(1000)]);
            assert.notEqual(sharedPiece(leaky, bytes), null);
          }
        }
        t.diagnostic(`${watcher.requests.length} requests, updates of ${updates.map(({ body }) => body.length)} bytes`);
      } finally {
        await watcher.close();
      }
    });
  });
}

test("the bytes down that a client reports are those that the network carried for each model", async (t) => {
  await scene({}, async ({ proxy, tab }) => {
    const one = await (await tab()).ready();
    const { value: manifest } = await one.call("manifest");
    const guess = () => one.call("predict", Array(784).fill(0.5));
    const rounds = async () => {
      const models = (await one.events("update")).map(({ model }) => `/v1/tasks/mnist/models/${model}`);
      const told = (await one.events("contribution")).map(({ bytesDown }) => bytesDown);
      return models.map((path, index) => ({ path, told: told[index] }));
    };
    // A prediction fetches the first model before the round needs it.
    await guess();
    await one.run({ rounds: 2 });
    const fetched = await rounds();
    assert.equal(fetched.length, 2);
    for (const { path, told } of fetched) {
      const carried = proxy.to(path, "GET");
      assert.equal(carried.length, 1, "a model is fetched once");
      assert.equal(told, carried[0].responseBytes);
      assert.ok(told > 0 && told < 4 * manifest.parameters, `it was compressed: ${told} bytes`);
    }
    // A page that is loaded again finds the newest model in the browser's cache.
    await guess();
    const before = proxy.requests.length;
    await one.load(proxy.origin);
    await one.connect();
    await one.run({ rounds: 1 });
    const [{ path, told }] = await rounds();
    const again = proxy.requests.slice(before).filter((request) => request.path === path);
    assert.equal(told, again.reduce((sum, { responseBytes }) => sum + responseBytes, 0));
    t.diagnostic(`${fetched.map(({ told }) => told)} bytes; after a reload ${told} in ${again.length} requests`);
  });
});
