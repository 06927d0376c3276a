// `unsaid-accountant-wasm` is the module that wasm-bindgen generates; the build resolves the name (see pkg/scripts/build.mjs).
declare module "unsaid-accountant-wasm" {
  type Module = import("./accountant-wasm.js").AccountantModule;
  const init: Module["default"];
  export default init;
  export const epsilon: Module["epsilon"];
  export const noiseMultiplier: Module["noiseMultiplier"];
}
