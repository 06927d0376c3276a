import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Identity, requiredBy, type World } from "../../worker/src/identity.js";
import type { KeptKey } from "../../worker/src/keys.js";
import type { SessionEvent } from "../src/types.js";
import { MemoryKeys } from "./double.js";

interface Signed {
  readonly bytes: string;
  readonly signature: string;
}

interface Vector {
  readonly seed: string;
  readonly public_key: string;
  readonly relay: string;
  readonly invitation: string;
  readonly enrolment: Signed;
  readonly enrolment_open: Signed;
  readonly check_in: Signed & { readonly body: string; readonly time_ms: number; readonly header: string };
  readonly update: Signed & { readonly frame: string; readonly header: string };
}

// Tests run in this folder.
const vector = JSON.parse(await readFile("../../tests/vectors/v1/identity.json", "utf8")) as Vector;

const bytes = (hex: string): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(hex, "hex"));
const text = (text: string): Uint8Array => new TextEncoder().encode(text);
const manifest = (identity?: string): Uint8Array => text(JSON.stringify({ task: "tiny", identity }));
const RELAY = "https://relay.example";
const running = new AbortController().signal;

/** The vector's key, as a browser keeps it. */
async function vectorKey(): Promise<KeptKey> {
  const pkcs8 = bytes(`302e020100300506032b657004220420${vector.seed}`);
  const privateKey = await webcrypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  return { privateKey: privateKey as CryptoKey, publicKey: bytes(vector.public_key) };
}

/** A relay that answers in turn, and what it was sent. */
class Relay implements World {
  readonly keys = new MemoryKeys();
  readonly heard: { readonly url: string; readonly method: string; readonly body: string | undefined }[] = [];
  readonly answers: (() => Response)[] = [];
  readonly events: SessionEvent[] = [];
  now = vector.check_in.time_ms - 5_000;
  steady = 7;
  time = vector.check_in.time_ms;

  async fetch(url: string, { method = "GET", body }: RequestInit): Promise<Response> {
    this.heard.push({ url, method, body: body === undefined ? undefined : String(body) });
    const answer = this.answers.shift();
    if (answer) return answer();
    return Response.json(method === "GET" ? { relay: vector.relay, time_ms: this.time } : { identity: "", enrolment: "open" });
  }

  async sleep(ms: number): Promise<void> {
    this.now += ms;
    this.steady += ms;
  }

  unixMs = (): number => this.now;
  steadyMs = (): number => this.steady;

  identity(relayKey?: string): Identity {
    return new Identity(RELAY, relayKey, this, (event) => this.events.push(event));
  }
}

async function enrolled(invitation?: string): Promise<{ relay: Relay; identity: Identity }> {
  const relay = new Relay();
  relay.keys.kept.set(RELAY, await vectorKey());
  const identity = relay.identity(vector.relay);
  identity.heed(manifest("open"));
  await identity.enrol(invitation, running);
  return { relay, identity };
}

test("what is signed is what the vector says", async () => {
  for (const [invitation, { signature }] of [
    [vector.invitation, vector.enrolment],
    [undefined, vector.enrolment_open],
  ] as const) {
    const { relay } = await enrolled(invitation);
    assert.deepEqual(relay.heard.map(({ method, url }) => `${method} ${url}`), [
      `GET ${RELAY}/v1/identities`,
      `POST ${RELAY}/v1/identities`,
    ]);
    const sent = JSON.parse(relay.heard[1]?.body ?? "") as unknown;
    assert.deepEqual(sent, { public_key: vector.public_key, ...(invitation !== undefined && { invitation }), signature });
  }
  const { identity } = await enrolled();
  assert.equal(await identity.sign(text(vector.check_in.body)), vector.check_in.header);
  assert.equal(await identity.sign(bytes(vector.update.frame)), vector.update.header);
});

test("a request is signed as it was when it was handed over, whatever becomes of its memory", async () => {
  const { identity } = await enrolled();
  const frame = bytes(vector.update.frame);
  const signing = identity.sign(frame);
  frame.fill(0);
  assert.equal(await signing, vector.update.header);
});

test("a task that asks for no identity makes no key and asks nothing", async () => {
  for (const terms of [manifest(), manifest("later"), text("no JSON"), text("null")]) {
    const relay = new Relay();
    const identity = relay.identity();
    identity.heed(terms);
    await identity.enrol(vector.invitation, running);
    assert.equal(await identity.sign(text(vector.check_in.body)), undefined);
    assert.deepEqual([relay.heard.length, relay.keys.kept.size], [0, 0]);
  }
  assert.equal(requiredBy('{"identity":"invitation"}'), "invitation");
});

test("a key is made once, cannot be taken out, and is another after it was forgotten", async () => {
  const relay = new Relay();
  const publicKeys = new Set<string>();
  for (const forget of [false, false, true]) {
    if (forget) await relay.keys.forget();
    const identity = relay.identity();
    identity.heed(manifest("open"));
    await identity.enrol(undefined, running);
    const kept = relay.keys.kept.get(RELAY);
    assert.ok(kept);
    assert.equal(kept.privateKey.extractable, false);
    await assert.rejects(webcrypto.subtle.exportKey("pkcs8", kept.privateKey as webcrypto.CryptoKey));
    publicKeys.add(Buffer.from(kept.publicKey).toString("hex"));
  }
  assert.equal(publicKeys.size, 2);
});

test("a relay's refusal is told with its reason, and faults are tried again", async () => {
  const refusal = { type: "urn:unsaid:error:enrolment-closed", title: "t", status: 403, detail: "an invitation is needed" };
  const relay = new Relay();
  relay.answers.push(
    () => { throw new TypeError("the cable is cut"); },
    () => new Response("a proxy", { status: 502 }),
    () => Response.json({ ...refusal, type: "urn:unsaid:error:unavailable" }, { status: 503, headers: { "retry-after": "2" } }),
    () => Response.json({ relay: vector.relay, time_ms: 0 }),
    () => Response.json(refusal, { status: 403 }),
  );
  const identity = relay.identity();
  identity.heed(manifest("invitation"));
  await assert.rejects(identity.enrol(undefined, running), { code: "refused", problem: refusal });
  assert.deepEqual(relay.events.map((event) => event.type === "relay" && event.status), [
    "unreachable", "unreachable", "unreachable", "back",
  ]);
  assert.equal(relay.heard.length, 5);
});

test("a relay that never answers is given up, and a stop is heard", async () => {
  const relay = new Relay();
  for (let at = 0; at < 8; at++) relay.answers.push(() => { throw new TypeError("no network"); });
  const identity = relay.identity();
  identity.heed(manifest("open"));
  await assert.rejects(identity.enrol(undefined, running), { code: "relay-unreachable" });
  assert.equal(relay.heard.length, 8);
  await assert.rejects(identity.enrol(undefined, AbortSignal.abort()), { name: "AbortError" });
  assert.equal(relay.heard.length, 8);
});

test("a relay with another key than the page trusts is told nothing", async () => {
  const relay = new Relay();
  const identity = relay.identity("00".repeat(32));
  identity.heed(manifest("open"));
  await assert.rejects(identity.enrol(undefined, running), { code: "bad-manifest" });
  assert.deepEqual(relay.heard.map(({ method }) => method), ["GET"]);
});

test("check-ins carry the relay's time, also after this machine's clock was set", async () => {
  const { relay, identity } = await enrolled();
  const time = async (): Promise<number> => Number((await identity.sign(text(vector.check_in.body)))?.split(".")[2]);
  relay.now += 1_000;
  relay.steady += 1_000;
  assert.equal(await time(), vector.check_in.time_ms + 1_000);
  assert.equal(relay.heard.length, 2);
  relay.now += 3_600_000; // the person sets the clock; an hour has not passed
  assert.equal(await time(), vector.check_in.time_ms);
  assert.equal(relay.heard.length, 3);
});
