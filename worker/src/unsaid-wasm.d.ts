// `unsaid-wasm` is the module that wasm-bindgen generates; the build resolves the name (see pkg/scripts/build.mjs).
declare module "unsaid-wasm" {
  type Module = import("./wasm.js").WasmModule;
  const init: Module["default"];
  export default init;
  export const Session: Module["Session"];
  export const panic_for_test: Module["panic_for_test"];
}
