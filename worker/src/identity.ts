// Who this browser is to a relay: an Ed25519 key that cannot be taken out of it, and what is signed with it. The browser's own
// cryptography does all of it, which costs no byte of wasm. PROTOCOL.md, section 12.

import type { ErrorCode, Problem } from "../../pkg/src/errors.js";
import type { SessionEvent } from "../../pkg/src/types.js";
import type { KeptKey, Keys } from "./keys.js";

/** Which identity a task asks for. */
export type Required = "none" | "open" | "invitation";

/** What the identity needs of the world around it. */
export interface World {
  readonly keys: Keys;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Waits, until `signal` fires at the latest. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** Milliseconds since 1970, by a clock that people set. */
  unixMs(): number;
  /** Milliseconds by a clock that nobody sets. */
  steadyMs(): number;
}

/** What a relay says of itself: its public key, and the time. */
interface RelayView {
  readonly relay: Bytes;
  /** What has to be added to the clock of `unixMs`. */
  readonly aheadMs: number;
  /** `unixMs` less `steadyMs` then: the clock was set, or the machine slept, where this is no longer so. */
  readonly skewMs: number;
}

type Bytes = Uint8Array<ArrayBuffer>;

const ATTEMPTS = 8;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** A clock that has moved by more is asked for anew. */
const MOST_DRIFT_MS = 60_000;

/** A browser's identity at one relay, for one session. */
export class Identity {
  readonly #relay: string;
  readonly #relayKey: string | undefined;
  readonly #world: World;
  readonly #hear: (event: SessionEvent) => void;
  #required: Required = "none";
  /** None until it is enrolled. */
  #key: KeptKey | null = null;
  #view: RelayView | null = null;

  /** `relay` is its origin, `relayKey` the public key that the page trusts. */
  constructor(relay: string, relayKey: string | undefined, world: World, hear: (event: SessionEvent) => void) {
    this.#relay = relay;
    this.#relayKey = relayKey;
    this.#world = world;
    this.#hear = hear;
  }

  /** Reads from a manifest what it asks for. One that cannot be read is refused elsewhere. */
  heed(manifest: Uint8Array): void {
    this.#required = requiredBy(new TextDecoder().decode(manifest));
  }

  /** Makes sure that there is a key, and that the relay knows it. Does nothing for a task that asks for none. */
  async enrol(invitation: string | undefined, signal: AbortSignal): Promise<void> {
    if (this.#required === "none") return;
    const { subtle } = globalThis.crypto;
    if (!subtle) throw unavailable("this page is not in a secure context (https), so the browser signs nothing");
    const kept = await this.#kept(subtle);
    this.#key = kept;
    const view = await this.#ask(signal);
    const hash = invitation === undefined ? new Uint8Array(32) : await sha256(text("unsaid/v1/invitation\0"), fromHex(invitation));
    const signature = await sign(kept, text("unsaid/v1/enrolment\0"), view.relay, kept.publicKey, hash);
    const body = JSON.stringify({
      public_key: toHex(kept.publicKey),
      ...(invitation !== undefined && { invitation }),
      signature: toHex(signature),
    });
    const headers = { "content-type": "application/json" };
    await this.#exchange({ method: "POST", headers, body }, signal);
  }

  /** The header that says who signed a request with this body, an update frame or a check-in; nothing in a task that asks for none. */
  async sign(request: Uint8Array): Promise<string | undefined> {
    const key = this.#key;
    if (this.#required === "none" || !key) return undefined;
    const body = request.slice(); // it may be a view into the wasm's memory, which goes on while this waits
    const view = await this.#current();
    const publicKey = toHex(key.publicKey);
    if (isFrame(body)) {
      const signature = await sign(
        key,
        text("unsaid/v1/update\0"),
        view.relay,
        body.slice(40, 72), // manifest
        body.slice(104, 112), // round
        body.slice(24, 40), // client
        await sha256(body),
      );
      return `${publicKey}.${toHex(signature)}`;
    }
    const { client, manifest } = JSON.parse(new TextDecoder().decode(body)) as { client: string; manifest: string };
    const time = Math.round(this.#world.unixMs() + view.aheadMs);
    const signature = await sign(
      key,
      text("unsaid/v1/check-in\0"),
      view.relay,
      fromHex(manifest),
      fromHex(client),
      littleEndian(time),
    );
    return `${publicKey}.${toHex(signature)}.${time}`;
  }

  /** The key of this relay, made on first use. */
  async #kept(subtle: SubtleCrypto): Promise<KeptKey> {
    const { keys } = this.#world;
    const known = await keys.load(this.#relay);
    if (known) return known;
    let pair: CryptoKeyPair;
    try {
      pair = (await subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
    } catch (cause) {
      const what = "this browser does not know Ed25519, with which this task’s participants sign: use a newer one";
      throw unavailable(what, cause);
    }
    const publicKey = new Uint8Array(await subtle.exportKey("raw", pair.publicKey));
    return keys.keep(this.#relay, { privateKey: pair.privateKey, publicKey });
  }

  /** The relay's key and clock as known, unless this machine's clock has moved since. */
  async #current(): Promise<RelayView> {
    const { unixMs, steadyMs } = this.#world;
    const moved = this.#view ? Math.abs(unixMs() - steadyMs() - this.#view.skewMs) : Infinity;
    return this.#view && moved <= MOST_DRIFT_MS ? this.#view : this.#ask(new AbortController().signal);
  }

  /** Asks the relay for its key and its clock. */
  async #ask(signal: AbortSignal): Promise<RelayView> {
    const answer = (await this.#exchange({ method: "GET" }, signal)) as { relay?: unknown; time_ms?: unknown };
    const { relay, time_ms } = answer;
    if (typeof relay !== "string" || !/^[0-9a-f]{64}$/.test(relay) || typeof time_ms !== "number") {
      throw coded("relay-unreachable", "the answer is not a relay’s");
    }
    if (this.#relayKey !== undefined && relay !== this.#relayKey) {
      throw coded("bad-manifest", "the relay’s key is not the one that the page trusts");
    }
    const now = this.#world.unixMs();
    this.#view = { relay: fromHex(relay), aheadMs: time_ms - now, skewMs: now - this.#world.steadyMs() };
    return this.#view;
  }

  /** Asks `/v1/identities`, again and again while that can help. */
  async #exchange(init: RequestInit, signal: AbortSignal): Promise<unknown> {
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      let detail: string;
      let waitMs = Math.min(FIRST_WAIT_MS * 2 ** (attempt - 1), LONGEST_WAIT_MS);
      try {
        const url = `${this.#relay}/v1/identities`;
        const response = await this.#world.fetch(url, { ...init, signal, credentials: "omit", cache: "no-store" });
        const answer = (await response.json()) as unknown;
        if (response.ok) {
          if (attempt > 1) this.#hear({ type: "relay", status: "back", detail: "the relay answers again" });
          return answer;
        }
        const problem = problemOf(answer);
        const again = response.headers.get("retry-after");
        if (problem && again === null) throw coded("refused", `the relay refuses: ${problem.detail}`, problem);
        detail = problem?.detail ?? `the answer was ${response.status}`;
        waitMs = Math.max(waitMs, Number(again ?? 0) * 1000);
      } catch (thrown) {
        if (signal.aborted || (thrown instanceof Error && "code" in thrown && thrown.code === "refused")) throw thrown;
        detail = String(thrown);
      }
      if (attempt >= ATTEMPTS) throw coded("relay-unreachable", `the relay cannot be reached: ${detail}`);
      this.#hear({ type: "relay", status: "unreachable", detail, retryInMs: waitMs });
      await this.#world.sleep(waitMs, signal);
    }
  }
}

/** What a manifest asks for. */
export function requiredBy(manifest: string): Required {
  try {
    const { identity } = JSON.parse(manifest) as { identity?: unknown };
    return identity === "open" || identity === "invitation" ? identity : "none";
  } catch {
    return "none";
  }
}

function coded(code: ErrorCode, message: string, problem?: Problem): Error {
  return Object.assign(new Error(message), { code }, problem && { problem });
}

function unavailable(message: string, cause?: unknown): Error {
  return Object.assign(new Error(message, { cause }), { code: "identity-unavailable" satisfies ErrorCode });
}

function problemOf(answer: unknown): Problem | null {
  const { type, title, status, detail } = (answer ?? {}) as Partial<Record<keyof Problem, unknown>>;
  if (typeof type !== "string" || !type.startsWith("urn:unsaid:error:") || typeof detail !== "string") return null;
  return { type, title: String(title), status: Number(status), detail };
}

/** Update frames begin with these letters, and check-ins with a brace. */
function isFrame(body: Uint8Array): boolean {
  return new TextDecoder().decode(body.subarray(0, 4)) === "UNSU";
}

async function sign(key: KeptKey, ...parts: Bytes[]): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.sign("Ed25519", key.privateKey, joined(parts)));
}

async function sha256(...parts: Bytes[]): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined(parts)));
}

function joined(parts: readonly Bytes[]): Bytes {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function text(text: string): Bytes {
  return Uint8Array.from(new TextEncoder().encode(text));
}

function littleEndian(number: number): Bytes {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(number), true);
  return bytes;
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Bytes of hexadecimal digits that were checked to be such. */
function fromHex(digits: string): Bytes {
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) => Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16));
}
