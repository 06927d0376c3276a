// Prints what a visitor downloads.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const dist = resolve(dirname(fileURLToPath(import.meta.url)), "../dist");
for (const name of readdirSync(dist, { recursive: true }).sort()) {
  if (!/\.(html|js|css|wasm|svg)$/.test(name)) continue;
  const bytes = readFileSync(resolve(dist, name));
  const gzipped = gzipSync(bytes, { level: 9 }).length;
  console.log(`${name.padEnd(36)} ${(bytes.length / 1000).toFixed(1)} kB, ${(gzipped / 1000).toFixed(1)} kB gzipped`);
}
