// `unsaid-trainer-threads-wasm` is the build with threads of what `unsaid-trainer-wasm` names.
declare module "unsaid-trainer-threads-wasm" {
  type Module = import("./trainer-wasm.js").ThreadsModule;
  const init: Module["default"];
  export default init;
  export const Trainer: Module["Trainer"];
  export const help: Module["help"];
  export const threads: Module["threads"];
}
