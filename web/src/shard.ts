// Demo data: slices of MNIST that the relay's host hands out.

import type { Partition } from "./query.js";

/** The next slice that nobody else was given. */
export async function claimShard(partition: Partition, signal?: AbortSignal): Promise<number> {
  const response = await request(`data/${partition}/claim`, { method: "POST", signal: signal ?? null });
  const { index } = (await response.json()) as { index: number };
  return index;
}

/** The bytes of a slice; only its first `examples`, where that is given. */
export async function fetchShard(partition: Partition, index: number, examples: number | null): Promise<Uint8Array> {
  const response = await request(`data/${partition}/${String(index).padStart(3, "0")}.shard`, {});
  const bytes = new Uint8Array(await response.arrayBuffer());
  return examples === null ? bytes : firstExamples(bytes, examples);
}

async function request(path: string, init: RequestInit): Promise<Response> {
  const response = await fetch(new URL(path, document.baseURI), init);
  if (!response.ok) throw new Error(`the relay’s host has no demo data at ${path} (${response.status})`);
  return response;
}

const HEADER = 20;

/** An example and its label. */
export interface Labelled {
  readonly x: Float32Array;
  readonly label: number;
}

/** One example of a shard, as far into it as `share` says, 0 to 1; null where there is none. */
export function exampleOf(bytes: Uint8Array, share: number): Labelled | null {
  if (bytes.length < HEADER) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(8, true);
  const features = view.getUint32(12, true);
  const index = Math.min(count - 1, Math.floor(share * count));
  const label = bytes[HEADER + index];
  const pixels = bytes.subarray(HEADER + count + index * features, HEADER + count + (index + 1) * features);
  if (label === undefined || index < 0 || pixels.length !== features) return null;
  return { x: Float32Array.from(pixels, (value) => value / 255), label };
}

/** A shard with the first `examples` of another. PROTOCOL.md, “Shard”, has the layout. */
export function firstExamples(bytes: Uint8Array, examples: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER) return bytes;
  const count = view.getUint32(8, true);
  const features = view.getUint32(12, true);
  if (examples >= count) return bytes;
  const out = new Uint8Array(HEADER + examples * (1 + features));
  out.set(bytes.subarray(0, HEADER + examples));
  new DataView(out.buffer).setUint32(8, examples, true);
  out.set(bytes.subarray(HEADER + count, HEADER + count + examples * features), HEADER + examples);
  return out;
}
