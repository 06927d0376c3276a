// What the network really carried, as the browser measured it: models are compressed on their way, and may come from a cache.

/** What is read of a `PerformanceResourceTiming`. */
export type Fetched = Pick<PerformanceResourceTiming, "name" | "responseStart" | "transferSize" | "encodedBodySize">;

/**
 * Bytes of an answer's body that crossed the network: compressed as it came, 0 where a cache had it. Null where the browser
 * does not tell, which is so for another origin that sends no `Timing-Allow-Origin`.
 */
export function networkBytes({ responseStart, transferSize, encodedBodySize }: Fetched): number | null {
  if (responseStart === 0) return null;
  // Resource Timing, section 4.2: no transfer at all, or a header alone where the cached body was found to be still valid.
  return transferSize > encodedBodySize ? encodedBodySize : 0;
}

/** Adds up the downloads of each model. */
export class ModelTraffic {
  readonly #bytes = new Map<string, number | null>();

  /** Takes in what the browser measured; anything but models is passed over. */
  add(entries: Iterable<Fetched>): void {
    for (const entry of entries) {
      const hash = /\/models\/([0-9a-f]{64})$/.exec(entry.name)?.[1];
      if (!hash) continue;
      const before = this.#bytes.get(hash);
      const bytes = networkBytes(entry);
      this.#bytes.set(hash, before === null || bytes === null ? null : (before ?? 0) + bytes);
    }
  }

  /** Bytes that the network carried for a model since they were last asked for. */
  take(hash: string): number | null {
    const bytes = this.#bytes.get(hash);
    this.#bytes.delete(hash);
    return bytes === undefined ? 0 : bytes;
  }
}
