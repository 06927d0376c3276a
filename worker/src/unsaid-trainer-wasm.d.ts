// These are the modules that wasm-bindgen generates, for the CPU alone and for WebGPU too; the build resolves the names (see
// pkg/scripts/build.mjs).
declare module "unsaid-trainer-wasm" {
  type Module = import("./trainer-wasm.js").TrainerModule;
  const init: Module["default"];
  export default init;
  export const Trainer: Module["Trainer"];
}
declare module "unsaid-trainer-gpu-wasm" {
  export * from "unsaid-trainer-wasm";
  export { default } from "unsaid-trainer-wasm";
}
