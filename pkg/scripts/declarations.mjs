// The declarations of the public API, made by tsc.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, relative, resolve } from "node:path";
import { createRequire } from "node:module";

function tsc(cwd, args) {
  const packageJson = createRequire(import.meta.url).resolve("typescript/package.json");
  const { bin } = JSON.parse(readFileSync(packageJson, "utf8"));
  const run = spawnSync(process.execPath, [resolve(dirname(packageJson), bin.tsc), ...args], { cwd, encoding: "utf8" });
  if (run.status !== 0) throw new Error(`tsc ${args.join(" ")} failed:\n${run.stdout}${run.stderr}`);
}

/** Declares the modules that the entries reach: [[name, text], …], `index.d.ts` first. */
export function declarations(root) {
  const out = mkdtempSync(resolve(tmpdir(), "unsaid-types-"));
  try {
    tsc(root, ["-p", "tsconfig.types.json", "--outDir", out]);
    const folder = resolve(out, "pkg/src");
    const found = new Map();
    const visit = (name) => {
      if (found.has(name)) return;
      const text = readFileSync(resolve(folder, name), "utf8");
      found.set(name, text);
      for (const [, path] of text.matchAll(/from "\.\/([\w-]+)\.js"/g)) visit(`${path}.d.ts`);
      if (/from "\.\.\//.test(text)) throw new Error(`${name} declares something of another folder`);
    };
    visit("index.d.ts");
    visit("trainer.d.ts");
    visit("inversion.d.ts");
    return [...found];
  } finally {
    rmSync(out, { recursive: true });
  }
}

/** Writes them beside the built modules. */
export function writeDeclarations(root) {
  for (const [name, text] of declarations(root)) writeFileSync(resolve(root, "dist", name), text);
}

/** Checks that the generated wasm module has the surface that the worker relies on. */
export function checkWasmSurface(root, wasm, name, surfaceFile, type) {
  if (!existsSync(resolve(wasm, `${name}.d.ts`))) return;
  const folder = mkdtempSync(resolve(tmpdir(), "unsaid-surface-"));
  try {
    mkdirSync(resolve(folder, "wasm"));
    copyFileSync(resolve(wasm, `${name}.d.ts`), resolve(folder, `wasm/${name}.d.ts`));
    const surface = resolve(root, "../worker/src", surfaceFile);
    const test = `import * as generated from "./wasm/${name}.js";
import type { ${type} } from ${JSON.stringify(relative(folder, surface))};
export const module: ${type} = generated;
`;
    writeFileSync(resolve(folder, "surface.ts"), test);
    const config = { extends: resolve(root, "tsconfig.json"), compilerOptions: { types: [] }, include: ["surface.ts"] };
    writeFileSync(resolve(folder, "tsconfig.json"), JSON.stringify(config));
    tsc(folder, ["-p", "."]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
