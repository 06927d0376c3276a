// These are the builds with threads of what `unsaid-trainer-wasm` and `unsaid-trainer-gpu-wasm` name.
declare module "unsaid-trainer-threads-wasm" {
  type Module = import("./trainer-wasm.js").ThreadsModule;
  const init: Module["default"];
  export default init;
  export const Trainer: Module["Trainer"];
  export const help: Module["help"];
  export const threads: Module["threads"];
}
declare module "unsaid-trainer-gpu-threads-wasm" {
  export * from "unsaid-trainer-threads-wasm";
  export { default } from "unsaid-trainer-threads-wasm";
}
