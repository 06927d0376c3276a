// What `auto` measured, kept in this browser across visits: milliseconds per step on the CPU and on WebGPU. Measuring takes
// seconds, and the answer is the same as long as device, model, training and this very build are.

/** Filled in by the build: a hash of the wasm files. */
declare const __UNSAID_BUILD__: string;

/** Drivers and browsers change: after this long it is measured again. */
const KEPT_MS = 30 * 24 * 3600 * 1000;

interface Row {
  readonly cpuMs: number;
  readonly gpuMs: number;
  /** When, in milliseconds since 1970. */
  readonly at: number;
}

/** The times of one model and training. Both methods work without storage too: then nothing is known, and nothing kept. */
export interface Trials {
  /** `[cpuMs, gpuMs]`, or nothing where it was not measured on this adapter, or too long ago. */
  recall(what: string, adapter: string): Promise<Float64Array>;
  remember(what: string, adapter: string, cpuMs: number, gpuMs: number): Promise<void>;
}

/** Trials in IndexedDB. `variant` tells builds of one wasm apart. */
export function storedTrials(variant: string): Trials {
  // Threads change what the CPU can do, and are there only in an isolated page.
  const build = `${__UNSAID_BUILD__} ${variant} ${self.crossOriginIsolated} ${navigator.hardwareConcurrency}`;
  const key = (what: string, adapter: string): string => JSON.stringify([build, adapter, what]);
  return {
    async recall(what, adapter) {
      const row = await within((rows) => rows.get(key(what, adapter)) as IDBRequest<Row | undefined>);
      const isFresh = row && Math.abs(Date.now() - row.at) < KEPT_MS;
      return isFresh ? Float64Array.of(row.cpuMs, row.gpuMs) : new Float64Array();
    },
    async remember(what, adapter, cpuMs, gpuMs) {
      const at = Date.now();
      await within((rows) => {
        // What other builds measured is of no use any more. The client and the trainer of this one leave each other's rows alone.
        const begin = JSON.stringify([__UNSAID_BUILD__]).slice(0, -2);
        const old = rows.getAllKeys();
        old.onsuccess = () => old.result.filter((name) => !String(name).startsWith(begin)).forEach((name) => rows.delete(name));
        return rows.put({ cpuMs, gpuMs, at } satisfies Row, key(what, adapter));
      });
    },
  };
}

/** Does something with the rows, in one transaction; undefined where the browser keeps nothing. */
function within<T>(work: (rows: IDBObjectStore) => IDBRequest<T>): Promise<T | undefined> {
  return new Promise((done) => {
    try {
      const opening = indexedDB.open("unsaid-trials", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("rows");
      opening.onerror = opening.onblocked = () => done(undefined);
      opening.onsuccess = () => {
        try {
          const transaction = opening.result.transaction("rows", "readwrite");
          const request = work(transaction.objectStore("rows"));
          transaction.oncomplete = () => done(request.result);
          transaction.onabort = transaction.onerror = () => done(undefined);
          transaction.addEventListener("complete", () => opening.result.close());
          transaction.addEventListener("abort", () => opening.result.close());
        } catch {
          done(undefined);
        }
      };
    } catch {
      done(undefined);
    }
  });
}
