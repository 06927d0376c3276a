/// <reference path="./unsaid-accountant-wasm.d.ts" />
// The accountant's wasm, in a file of its own that is loaded when it is first asked.

import init, { epsilon, noiseMultiplier } from "unsaid-accountant-wasm";

/** Loads the wasm beside this file. */
export async function load(): Promise<{ epsilon: typeof epsilon; noiseMultiplier: typeof noiseMultiplier }> {
  await init({ module_or_path: new URL("./unsaid_accountant_bg.wasm", import.meta.url) });
  return { epsilon, noiseMultiplier };
}
