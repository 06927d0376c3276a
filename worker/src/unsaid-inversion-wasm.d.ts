// `unsaid-inversion-wasm` is the module that wasm-bindgen generates; the build resolves the name (see pkg/scripts/build.mjs).
declare module "unsaid-inversion-wasm" {
  type Module = import("./inversion-wasm.js").InversionModule;
  const init: Module["default"];
  export default init;
  export const invert: Module["invert"];
}
