// Where a browser's keys are kept: IndexedDB, one for each relay of an origin. The private half is there as a handle of the browser's
// own, which no script can read.

import type { ErrorCode } from "../../pkg/src/errors.js";

/** A key as it is kept. */
export interface KeptKey {
  /** Signs, and cannot be exported. */
  readonly privateKey: CryptoKey;
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
}

/** Keys by the origin of their relay. Methods reject with an `Error` of the code `storage`. */
export interface Keys {
  load(relay: string): Promise<KeptKey | undefined>;
  /** Keeps a key unless there is one already. The one that is kept. */
  keep(relay: string, key: KeptKey): Promise<KeptKey>;
  /** Forgets every key. */
  forget(): Promise<void>;
}

/** Keys in IndexedDB. */
export function storedKeys(): Keys {
  return {
    load: (relay) => within("readonly", (keys) => keys.get(relay) as IDBRequest<KeptKey | undefined>),
    async keep(relay, key) {
      // Two tabs that are new at the same time come to have the same.
      const kept = await within("readwrite", (keys, abort) => {
        const known = keys.get(relay) as IDBRequest<KeptKey | undefined>;
        known.onsuccess = () => {
          if (known.result) return;
          try {
            keys.put(key, relay);
          } catch (cause) {
            abort(cause); // some browsers keep no such keys in private windows: thrown from here, it would be nobody's
          }
        };
        return known;
      });
      return kept ?? key;
    },
    async forget() {
      await within("readwrite", (keys) => keys.clear());
    },
  };
}

/** Does something with the keys, in one transaction, which `abort` ends with a reason. */
function within<T>(
  mode: IDBTransactionMode,
  work: (keys: IDBObjectStore, abort: (cause: unknown) => void) => IDBRequest<T>,
): Promise<T> {
  return new Promise((done, fail) => {
    const failed = (cause: unknown): void => {
      const message = `the browser cannot keep this task’s identity: ${String(cause)}`;
      fail(Object.assign(new Error(message, { cause }), { code: "storage" satisfies ErrorCode }));
    };
    try {
      const opening = indexedDB.open("unsaid-identity", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("keys");
      opening.onerror = () => failed(opening.error);
      opening.onblocked = () => failed("another tab holds the storage");
      opening.onsuccess = () => {
        const database = opening.result;
        const settle = (settled: () => void): void => {
          database.close();
          settled();
        };
        try {
          const transaction = database.transaction("keys", mode, { durability: "strict" });
          const abort = (cause: unknown): void => {
            failed(cause);
            transaction.abort();
          };
          const request = work(transaction.objectStore("keys"), abort);
          transaction.oncomplete = () => settle(() => done(request.result));
          transaction.onabort = () => settle(() => failed(transaction.error));
        } catch (cause) {
          settle(() => failed(cause));
        }
      };
    } catch (cause) {
      failed(cause);
    }
  });
}
