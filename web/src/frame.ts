// Reads the first bytes of an update frame for people. PROTOCOL.md, “Update frame”, has the layout.

import * as format from "./format.js";

export interface FrameField {
  readonly name: string;
  /** Hexadecimal bytes, in pairs. */
  readonly hex: string;
  readonly meaning: string;
}

type Meaning = (bytes: Uint8Array) => string;

const little = (bytes: Uint8Array): number => bytes.reduceRight((value, byte) => value * 256 + byte, 0);

const layout: readonly (readonly [name: string, length: number, meaning: Meaning])[] = [
  ["magic", 4, (bytes) => `“${String.fromCharCode(...bytes)}”: an Unsaid update`],
  ["version", 2, (bytes) => `protocol version ${little(bytes)}`],
  ["width", 1, (bytes) => `${format.plural(little(bytes), "byte")} for each coordinate`],
  ["reserved", 1, () => "always zero"],
  ["update id", 16, () => "random; sending twice counts once"],
  ["client id", 16, () => "random; the same in all your rounds"],
  ["manifest", 32, () => "hash of the terms you agreed to"],
  ["model", 32, () => "hash of the model it starts from"],
  ["round", 8, (bytes) => `round ${little(bytes)}`],
  ["count", 4, (bytes) => `${format.count(little(bytes))} coordinates follow`],
];

/** The fields that the bytes hold; a field that is cut off is shown as far as it goes. */
export function readFrame(hex: string): FrameField[] {
  const bytes = Uint8Array.from(hex.match(/[0-9a-f]{2}/gi) ?? [], (pair) => Number.parseInt(pair, 16));
  const fields: FrameField[] = [];
  let offset = 0;
  let width = 1;
  for (const [name, length, meaning] of layout) {
    if (offset >= bytes.length) return fields;
    const part = bytes.subarray(offset, offset + length);
    const cut = part.length < length;
    if (name === "width") width = little(part);
    fields.push({ name, hex: pairs(part) + (cut ? "\u00a0…" : ""), meaning: cut ? "(goes on)" : meaning(part) });
    offset += length;
  }
  if (offset < bytes.length) {
    const part = bytes.subarray(offset);
    const values = [];
    for (let at = 0; at + width <= part.length; at += width) values.push(signed(part.subarray(at, at + width)));
    fields.push({
      name: "coordinates",
      hex: pairs(part),
      meaning: values.length > 0 ? `in grid steps: ${values.map((value) => String(value).replace("-", "−")).join(", ")}\u00a0…` : "the change itself",
    });
  }
  return fields;
}

const pairs = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");

function signed(bytes: Uint8Array): number {
  const value = little(bytes);
  const range = 256 ** bytes.length;
  return value >= range / 2 ? value - range : value;
}
