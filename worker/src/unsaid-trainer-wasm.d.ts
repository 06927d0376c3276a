// `unsaid-trainer-wasm` is the module that wasm-bindgen generates; the build resolves the name (see pkg/scripts/build.mjs).
declare module "unsaid-trainer-wasm" {
  type Module = import("./trainer-wasm.js").TrainerModule;
  const init: Module["default"];
  export default init;
  export const Trainer: Module["Trainer"];
}
