// The instruments of the other tests, against known answers: a broken instrument would let everything pass.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { test } from "node:test";

import { epsilonOf, rhoPerRound } from "./lib/accountant.mjs";
import { pieces, sharedPiece } from "./lib/overlap.mjs";
import { Proxy } from "./lib/proxy.mjs";

test("a shared piece is found at any offset, and blank ones do not count", () => {
  const secret = randomBytes(64);
  const a = Buffer.concat([randomBytes(1001), secret, randomBytes(77)]);
  const b = Buffer.concat([randomBytes(333), secret, randomBytes(5)]);
  assert.deepEqual(sharedPiece(a, b), [1001, 333]);
  assert.equal(sharedPiece(a, Buffer.concat([b.subarray(0, 396), b.subarray(397)])), null, "63 bytes are no piece");
  assert.deepEqual(sharedPiece(a.subarray(1001), b.subarray(333)), [0, 0]);
  assert.equal(sharedPiece(a, randomBytes(2000)), null);
  assert.equal(sharedPiece(Buffer.alloc(500), Buffer.alloc(500)), null);
  assert.equal(pieces(Buffer.alloc(500)), 0);
  assert.equal(pieces(secret), 1);
});

test("the accountant gives the published bound or better", () => {
  assert.equal(rhoPerRound(1), 2);
  const delta = 1e-5;
  for (const rho of [0.01, 0.5, 2, 10]) {
    const epsilon = epsilonOf(rho, delta);
    // The simple conversion (Bun, Steinke 2016, Proposition 1.3) is never better, and not much worse.
    const simple = rho + 2 * Math.sqrt(rho * Math.log(1 / delta));
    assert.ok(epsilon < simple && epsilon > 0.7 * simple, `${rho}: ${epsilon} against ${simple}`);
    // δ of that ε is the one asked for: the infimum over a fine grid of α.
    let least = Infinity;
    for (let t = -8; t < 12; t += 0.001) {
      const alpha = 1 + Math.exp(t);
      const log = (alpha - 1) * (alpha * rho - epsilon) - Math.log(alpha - 1) + alpha * Math.log1p(-1 / alpha);
      least = Math.min(least, Math.exp(log));
    }
    assert.ok(Math.abs(least / delta - 1) < 1e-3, `${rho}: ${least}`);
  }
});

test("the proxy records bodies, refuses, loses answers and streams", async () => {
  let served = 0;
  const server = http.createServer((request, response) => {
    served++;
    if (request.url === "/events") {
      response.write("first\n");
      setTimeout(() => response.end("second\n"), 200);
    } else request.pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy = await Proxy.start(`http://127.0.0.1:${server.address().port}`);
  try {
    const post = () => fetch(`${proxy.origin}/echo?q=1`, { method: "POST", body: "hello" });
    assert.equal(await (await post()).text(), "hello");
    const [record] = proxy.to("/echo?q=1", "POST");
    assert.equal(record.body.toString(), "hello");
    assert.equal(record.status, 200);

    proxy.rule = () => "refuse";
    await assert.rejects(post());
    assert.equal(served, 1);
    proxy.rule = () => "lose-answer";
    await assert.rejects(post());
    assert.equal(served, 2);
    proxy.rule = () => "pass";

    const [events] = await once(http.get(`${proxy.origin}/events`), "response");
    const [chunk] = await once(events, "data");
    assert.equal(chunk.toString(), "first\n");
    const broken = once(events, "error");
    proxy.target = null;
    assert.equal((await broken)[0].code, "ECONNRESET");
    assert.equal(proxy.requests.length, 4);
  } finally {
    await proxy.close();
    server.closeAllConnections();
    server.close();
  }
});
