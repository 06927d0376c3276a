import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { sealOf } from "../../worker/src/seal.js";

interface Vector {
  readonly public_key: string;
  readonly manifest: string;
  readonly signature: string;
  readonly bad: Readonly<Record<string, string>>;
}

// Tests run in this folder.
const vector = JSON.parse(await readFile("../../tests/vectors/v1/manifest-signature.json", "utf8")) as Vector;
const manifest = new TextEncoder().encode(vector.manifest);

test("a manifest that the key has signed passes, and nothing else does", async () => {
  const seal = sealOf(vector.public_key);
  await seal.check(manifest, vector.signature);
  await assert.rejects(seal.check(manifest, undefined), /not signed/);
  for (const [what, signature] of Object.entries(vector.bad)) {
    await assert.rejects(seal.check(manifest, signature), /not signed by the key/, what);
  }
  const other = manifest.slice();
  other[0] = 0x20;
  await assert.rejects(seal.check(other, vector.signature), /not signed by the key/);
  await assert.rejects(sealOf("00".repeat(31) + "01").check(manifest, vector.signature), /not signed by the key/);
});

test("without a key every manifest passes", async () => {
  await sealOf(undefined).check(manifest, undefined);
});
