import assert from "node:assert/strict";
import { test } from "node:test";

import { storedKeys, type KeptKey } from "../../worker/src/keys.js";

type Handler = (() => void) | null;

/** As much of IndexedDB as keeping one key needs. Like a browser, it aborts a transaction whose handler throws, and reports what was thrown. */
class Database {
  readonly kept = new Map<string, KeptKey>();
  readonly reported: unknown[] = [];
  open = 0;

  /** Whether `put` takes no keys, as in some browsers' private windows. */
  constructor(readonly refuses: boolean) {}

  #request<T>(result: T, after: () => void = () => {}): { result: T; onsuccess: Handler } {
    const request: { result: T; onsuccess: Handler } = { result, onsuccess: null };
    setTimeout(() => {
      request.onsuccess?.();
      after();
    });
    return request;
  }

  readonly factory = {
    open: () => {
      this.open++;
      return this.#request({ transaction: () => this.#transaction(), close: () => this.open-- });
    },
  };

  #transaction(): object {
    let aborted = false;
    const transaction: { error: unknown; oncomplete: Handler; onabort: Handler; abort(): void; objectStore(): object } = {
      error: null,
      oncomplete: null,
      onabort: null,
      abort: () => {
        aborted = true;
        setTimeout(() => transaction.onabort?.());
      },
      objectStore: () => ({
        get: (relay: string) => {
          const request: { result: unknown; onsuccess: Handler } = { result: this.kept.get(relay), onsuccess: null };
          setTimeout(() => {
            try {
              request.onsuccess?.();
            } catch (thrown) {
              this.reported.push(thrown);
              transaction.abort();
            }
            if (!aborted) transaction.oncomplete?.();
          });
          return request;
        },
        put: (key: KeptKey, relay: string) => {
          if (this.refuses) throw new DOMException("no CryptoKey is kept here", "DataCloneError");
          this.kept.set(relay, key);
        },
      }),
    };
    return transaction;
  }
}

const key: KeptKey = { privateKey: {} as CryptoKey, publicKey: new Uint8Array(32) };

for (const refuses of [false, true]) {
  test(refuses ? "a browser that keeps no keys says so to whoever asked, and to nobody else" : "a key is kept once", async () => {
    const database = new Database(refuses);
    Object.assign(globalThis, { indexedDB: database.factory });
    const keys = storedKeys();
    if (refuses) {
      await assert.rejects(keys.keep("relay", key), { code: "storage", message: /no CryptoKey is kept here/ });
    } else {
      assert.equal(await keys.keep("relay", key), key);
      assert.equal(await keys.keep("relay", { ...key }), key);
    }
    await new Promise((done) => setTimeout(done, 5));
    assert.deepEqual([database.reported, database.open, database.kept.size], [[], 0, refuses ? 0 : 1]);
  });
}
