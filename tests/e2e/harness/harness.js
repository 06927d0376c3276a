// A page that only loads the package, as it was built, without a bundler. The tests do the rest.
import * as unsaid from "./unsaid/index.js";

/** Ends well or badly, as plain data: { value } or { code, message, problem }. */
const outcome = (promise) =>
  promise.then(
    (value) => ({ value }),
    (error) => ({ code: error.code ?? error.name, message: error.message, problem: error.problem ?? null }),
  );

const test = {
  client: null,
  events: [],
  joining: null,
  controller: null,
  /** `pretendGpu`: in a worker whose emulated adapter says that it is a real one. */
  connect({ pretendGpu = false, ...options }) {
    const onEvent = (event) => test.events.push({ ...event, at: performance.now() });
    const createWorker = pretendGpu ? () => new Worker("./pretended-gpu.js", { type: "module" }) : undefined;
    const opening = unsaid.connect({ relay: location.origin, task: "mnist", ...options, createWorker, onEvent });
    return outcome(opening.then((client) => void (test.client = client)));
  },
  importShard: (numbers) => outcome(test.client.data.importShard(Uint8Array.from(atob(numbers), (c) => c.charCodeAt(0)))),
  /** Starts taking part; `joined` waits for the end. */
  join(options = {}) {
    test.controller = new AbortController();
    test.joining = outcome(test.client.join({ ...options, signal: test.controller.signal })).then((result) => ({
      ...result,
      at: performance.now(),
    }));
  },
  joined: () => test.joining,
  async abort() {
    const start = performance.now();
    test.controller.abort();
    const result = await test.joining;
    return { ...result, tookMs: result.at - start };
  },
  call: (path, ...args) => {
    const names = path.split(".");
    const last = names.pop();
    const owner = names.reduce((value, name) => value[name], test.client);
    return outcome(owner[last](...args));
  },
  panic: () => outcome(test.client[Symbol.for("unsaid.panic-for-test")]()),
};
globalThis.test = test;
document.documentElement.dataset.ready = "true";
