// The trainer worker's message loop. It knows no wasm module and no global scope: both are passed in, so that it can be tested.

import { messageOf, toWireError } from "./errors.js";
import type {
  BackendRow,
  FromTrainer,
  TensorRow,
  ThreadsAsked,
  ToTrainer,
  TrainerCallKind,
  TrainerCallMessage,
  TrainerCalls,
  WasmUrls,
} from "./trainer-messages.js";
import type { Engine } from "./trainer-load.js";
import type { WasmTrainer } from "./trainer-wasm.js";
import type { Trials } from "./trials.js";

/** What the shell needs of the worker's global scope. */
export interface TrainerScope {
  postMessage(message: FromTrainer, transfer: Transferable[]): void;
  onMessage(listener: (message: ToTrainer) => void): void;
  onFault(listener: (thrown: unknown) => void): void;
  /** What the last Rust panic said, if there was one. */
  panicText(): string | null;
  /** What `auto` measured before, with this variant of the engine. */
  trials(variant: string): Trials;
}

/** Runs the engine that `load` gives behind `scope` until the page terminates the worker. */
export function serveTrainer(
  scope: TrainerScope,
  load: (urls: WasmUrls | null, backend: string, threads: ThreadsAsked) => Promise<Engine>,
): void {
  let trainer: WasmTrainer | null = null;
  let dead = false;
  const running = new Map<number, AbortController>();

  const post = (message: FromTrainer, transfer: Transferable[] = []): void => {
    if (!dead) scope.postMessage(message, transfer);
  };

  // A panic leaves the wasm instance in an unknown state: say so once, then say nothing more.
  const crash = (thrown: unknown): void => {
    post({ type: "crashed", message: scope.panicText() ?? messageOf(thrown) });
    dead = true;
  };
  scope.onFault(crash);

  const made = (): WasmTrainer => {
    if (trainer) return trainer;
    throw Object.assign(new Error("the trainer has not been created"), { code: "closed" });
  };

  const call = async (
    message: TrainerCallMessage,
    signal: AbortSignal,
  ): Promise<TrainerCalls[TrainerCallKind]["result"]> => {
    const { id } = message;
    switch (message.kind) {
      case "create": {
        const { model, backend, weights, seed, threads: asked, wasm } = message.args;
        const { Trainer, variant, threads, reason } = await load(wasm, backend, asked).catch((cause: unknown) => {
          const text = `the WebAssembly module cannot be loaded: ${messageOf(cause)}`;
          throw Object.assign(new Error(text, { cause }), { code: "load-failed" });
        });
        trainer = new Trainer(model, backend, weights ?? undefined, seed, scope.trials(variant));
        return { tensors: trainer.layout() as TensorRow[], threads: { threads, reason } };
      }
      case "fit": {
        const { x, y, spec, seed, steps: wanted, correction } = message.args;
        const onStep = wanted
          ? (epoch: number, step: number, steps: number, loss: number | undefined): void =>
              post({ type: "step", id, epoch, step, steps, loss })
          : undefined;
        const losses = await made().fit(x, y, spec, seed, onStep, signal, correction ?? undefined);
        const controlVariate = made().controlVariate() ?? null;
        return { losses, backend: made().backend() as BackendRow, controlVariate };
      }
      case "memory":
        return made().memory(message.args.spec, message.args.examples);
      case "evaluate":
        return made().evaluate(message.args.x, message.args.y, message.args.k);
      case "predict":
        return made().predict(message.args.x);
      case "weights":
        return made().weights();
      case "set-weights":
        made().setWeights(message.args.weights);
        return null;
      case "save":
        return made().save();
      case "load":
        made().load(message.args.file);
        return null;
    }
  };

  const answer = async (message: TrainerCallMessage, signal: AbortSignal): Promise<void> => {
    const { id } = message;
    try {
      post({ type: "result", id, value: await call(message, signal) });
    } catch (thrown) {
      const error = toWireError(thrown);
      if (error) post({ type: "error", id, code: error.code, message: error.message });
      else crash(thrown);
    }
  };

  scope.onMessage((message) => {
    if (dead) return;
    if (message.type === "abort") {
      running.get(message.id)?.abort();
      return;
    }
    const controller = new AbortController();
    running.set(message.id, controller);
    void answer(message, controller.signal).finally(() => running.delete(message.id));
  });
}
