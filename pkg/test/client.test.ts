import assert from "node:assert/strict";
import { test } from "node:test";

import { connect, UnsaidError, type Client, type ClientEvent, type ConnectOptions } from "../src/index.js";
import { budget, coded, type SessionOverrides, WorkerDouble } from "./double.js";

const panic = Symbol.for("unsaid.panic-for-test");

async function client(
  overrides: SessionOverrides = {},
  options: Partial<ConnectOptions> = {},
): Promise<{ client: Client; workers: WorkerDouble[] }> {
  const workers: WorkerDouble[] = [];
  const createWorker = (): Worker => {
    const worker = new WorkerDouble(overrides);
    workers.push(worker);
    return worker as unknown as Worker;
  };
  return { client: await connect({ relay: "http://127.0.0.1:1", task: "t", createWorker, ...options }), workers };
}

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof UnsaidError, String(error));
    assert.equal(error.code, expected);
    return true;
  };
}

const never = (): Promise<never> => new Promise(() => {});
const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

test("options are checked before a worker starts", async () => {
  const cases: Partial<ConnectOptions>[] = [
    { relay: "relay" },
    { relay: "ftp://relay.example" },
    { task: "A" },
    { backend: "gpu" as "cpu" },
    { budget: { epsilon: -1, delta: 1e-5 } },
    { budget: { epsilon: Infinity, delta: 1e-5 } },
    { budget: { epsilon: Number.NaN, delta: 1e-5 } },
    { budget: { epsilon: 1, delta: 1 } },
    { floors: { minCohort: -1 } },
    { floors: { minCohort: 1.5 } },
    { floors: { maxRoundsPerDay: 0.5 } },
    { floors: { maxClipL2: Infinity } },
    { participants: 0.5 },
    { participants: 0 },
    { participants: 257 },
  ];
  for (const options of cases) await assert.rejects(client({}, options), code("bad-options"), JSON.stringify(options));
});

test("the worker is opened with the checked options only", async () => {
  const { workers } = await client({}, { relay: "http://127.0.0.1:1/path", participants: 2 });
  assert.deepEqual(workers[0]?.opened, [{ relay: "http://127.0.0.1:1", task: "t", backend: "auto", participants: 2 }]);
});

test("a limit of 0 is a limit", async () => {
  const none = { epsilon: 0, delta: 1e-5 };
  const { client: c, workers } = await client({}, { budget: none, participants: 256 });
  assert.deepEqual(workers[0]?.opened[0]?.budget, none);
  assert.equal((await c.budget.set(none)).epsilon, 0);
});

test("answers reach the calls that asked, in whatever order they come", async () => {
  let late: (view: typeof budget) => void = () => {};
  const { client: c } = await client({ budget: () => new Promise((resolve) => (late = resolve)) });
  const first = c.budget.get();
  const probabilities = await c.predict([1, 2]);
  assert.deepEqual([...probabilities], [2, 4]);
  late({ ...budget, spent: 3 });
  assert.equal((await first).spent, 3);
});

test("the caller keeps its arrays", async () => {
  const { client: c } = await client();
  const x = new Float32Array([1, 2, 3, 4]);
  assert.equal((await c.data.add(x, [0, 1])).examples, 2);
  assert.equal(x.length, 4);
  const bytes = new Uint8Array(3);
  assert.equal((await c.data.importShard(bytes)).bytes, 3);
  assert.equal((await c.data.importShard(bytes.buffer)).bytes, 3);
  assert.equal(bytes.length, 3);
});

test("examples that fit nothing are refused on the page's side", async () => {
  const { client: c } = await client({ addExamples: never });
  await assert.rejects(c.data.add([1, 2, 3], [0, 1]), code("bad-data"));
  await assert.rejects(c.data.add([], []), code("bad-data"));
  await assert.rejects(c.data.add([1, 2], [0, -1]), code("bad-data"));
  await assert.rejects(c.data.add([1, 2], [0, 0.5]), code("bad-data"));
  await assert.rejects(c.predict([]), code("bad-data"));
  await assert.rejects(c.join({ rounds: 0 }), code("bad-options"));
});

test("errors keep their code and the relay's problem", async () => {
  const problem = { type: "urn:unsaid:error:version", title: "another", status: 400, detail: "update the page" };
  const { client: c } = await client({ budget: async () => Promise.reject(coded("refused", "the relay refused", { problem })) });
  await assert.rejects(c.manifest(), code("relay-unreachable"));
  await assert.rejects(c.budget.get(), (error: UnsaidError) => {
    assert.deepEqual(error.problem, problem);
    return code("refused")(error);
  });
});

test("a signal that has fired already sends nothing", async () => {
  const { client: c } = await client({ run: never, manifest: never });
  const signal = AbortSignal.abort();
  await assert.rejects(c.join({ signal }), code("aborted"));
  await assert.rejects(c.manifest({ signal }), code("aborted"));
  await assert.rejects(client({}, { signal }), code("aborted"));
});

test("leaving resolves the run; another call that is aborted rejects", async () => {
  const { client: c } = await client({
    manifest: never,
    run: (_, signal) =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => resolve({ rounds: 2, reason: "aborted", backend: "cpu" }));
      }),
  });
  const controller = new AbortController();
  const run = c.join({ signal: controller.signal });
  const manifest = c.manifest({ signal: controller.signal });
  await tick();
  controller.abort();
  await assert.rejects(manifest, code("aborted"));
  assert.deepEqual(await run, { rounds: 2, reason: "aborted", backend: "cpu" });
});

test("connecting can be given up", async () => {
  const controller = new AbortController();
  const connecting = client({ open: never }, { signal: controller.signal });
  controller.abort();
  await assert.rejects(connecting, code("aborted"));
});

test("events are typed, and those of opening reach listeners added after connecting", async () => {
  const seen: ClientEvent[] = [];
  const first = { type: "state", state: "opening" } as const;
  const { client: c, workers } = await client(
    { open: async (_, onEvent) => onEvent(first) },
    { onEvent: (event) => seen.push(event) },
  );
  assert.deepEqual(seen, [first]);
  const states: string[] = [];
  const all: string[] = [];
  const stop = c.on("state", ({ state }) => states.push(state));
  c.on("*", ({ type }) => all.push(type));
  await tick();
  assert.deepEqual(states, ["opening"]);
  stop();
  workers[0]?.emit({ type: "state", state: "ready" });
  await tick();
  assert.deepEqual(states, ["opening"]);
  assert.deepEqual(all, ["state", "state"]);
});

test("a contribution tells what the network carried for its model, not how long the model is", async () => {
  const { client: c, workers } = await client();
  const told: unknown[] = [];
  c.on("contribution", ({ round, bytesDown }) => told.push([round, bytesDown]));
  const [worker] = workers;
  worker?.carried.set("aa", 370_000);
  for (const [round, model] of [
    [1, "aa"],
    [2, "bb"],
  ] as const) {
    worker?.emit({ type: "update", round, model } as ClientEvent & { type: "update" });
    worker?.emit({ type: "contribution", round, seconds: 1, bytesUp: 2, bytesDown: 407_000, epsilonSpent: null });
  }
  await tick();
  assert.deepEqual(told, [
    [1, 370_000],
    [2, null],
  ]);
});

test("a panic rejects every pending call, and a new worker takes over with the same options", async () => {
  const { client: c, workers } = await client({ run: never });
  const restarted = new Promise<ClientEvent>((resolve) => c.on("restarted", resolve));
  await c.budget.set({ epsilon: 20, delta: 1e-6 });
  const run = c.join();
  const crash = (c as Client & Record<symbol, () => Promise<null>>)[panic]?.();
  await assert.rejects(run, code("crashed"));
  await assert.rejects(Promise.resolve(crash), code("crashed"));
  assert.equal((await c.data.summary()).examples, 0);
  assert.deepEqual(await restarted, {
    type: "restarted",
    message: "a panic was asked for",
  });
  assert.equal(workers.length, 2);
  assert.equal(workers[0]?.terminated, true);
  // The limit that the person set last is the one replayed.
  assert.deepEqual(workers[1]?.opened[0]?.budget, { epsilon: 20, delta: 1e-6 });
});

test("a fault outside any call, whose promise would never settle, is a crash too", async () => {
  const { client: c, workers } = await client({ predict: never });
  const predicting = c.predict([1]);
  await tick();
  workers[0]?.fault(new WebAssembly.RuntimeError("unreachable"));
  await assert.rejects(predicting, code("crashed"));
  assert.equal((await c.budget.get()).epsilon, 8);
});

test("an error without a code is a fault, not an answer", async () => {
  const { client: c } = await client({ predict: async () => Promise.reject(new TypeError("x is undefined")) });
  await assert.rejects(c.predict([1]), code("crashed"));
});

test("a module that cannot be loaded is reported as that", async () => {
  await assert.rejects(client({ init: async () => Promise.reject(new Error("404")) }), code("load-failed"));
});

test("a worker that fails again while it restarts is reported by the next call, which tries once more", async () => {
  let opens = 0;
  const { client: c } = await client({
    open: async () => {
      opens += 1;
      if (opens === 2) throw coded("storage", "no storage");
    },
  });
  await assert.rejects(Promise.resolve((c as Client & Record<symbol, () => Promise<null>>)[panic]?.()), code("crashed"));
  await assert.rejects(c.budget.get(), code("storage"));
  assert.equal((await c.budget.get()).epsilon, 8);
  assert.equal(opens, 3);
});

test("closing stops a run, then ends the worker", async () => {
  const order: string[] = [];
  const { client: c, workers } = await client({
    run: (_, signal) =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => {
          order.push("run stopped");
          resolve({ rounds: 0, reason: "aborted", backend: "none" });
        });
      }),
    close: () => void order.push("session closed"),
  });
  const run = c.join();
  await tick();
  await c.close();
  assert.equal((await run).reason, "aborted");
  assert.deepEqual(order, ["run stopped", "session closed"]);
  assert.equal(workers[0]?.terminated, true);
});

test("closing does not wait forever: what does not end is rejected, as is what comes after", async () => {
  const { client: c, workers } = await client({ run: never });
  const run = c.join();
  await tick();
  const closed = c.close();
  await assert.rejects(run, code("closed"));
  await closed;
  assert.equal(workers[0]?.terminated, true);
  await assert.rejects(c.budget.get(), code("closed"));
  await c.close();
});

test("the ledger is given out as it is stored, and erased only where the worker says so", async () => {
  let erased = 0;
  const busy = async (): Promise<typeof budget> => (erased++ === 0 ? Promise.reject(coded("busy", "taking part")) : budget);
  const { client: c } = await client({ exportLedger: async () => '{"version":1,"entries":[]}', eraseLedger: busy });
  assert.equal(await c.budget.export(), '{"version":1,"entries":[]}');
  await assert.rejects(c.budget.erase(), code("busy"));
  assert.equal((await c.budget.erase()).spent, 0);
  assert.equal(erased, 2);
});

test("nothing is erased, and nobody joins again, while an identity is being enrolled", async () => {
  const open = JSON.stringify({ identity: "open" });
  let ran = 0;
  const order: string[] = [];
  const { client: c, workers } = await client({
    open: async (_, __, signatures) => signatures.check(new TextEncoder().encode(open), undefined),
    run: async () => ({ rounds: ++ran, reason: "rounds-done", backend: "cpu" }),
    eraseLedger: async () => (order.push("ledger"), budget),
  });
  const [worker] = workers;
  assert.ok(worker);
  let answer: (relay: Response) => void = () => {};
  worker.fetch = async (_, { method }) =>
    method === "GET" ? new Promise((resolve) => (answer = resolve)) : Response.json({ enrolment: "open" });
  const forget = worker.keys.forget.bind(worker.keys);
  worker.keys.forget = async () => (order.push("keys"), forget());

  const joined = c.join();
  while (worker.keys.kept.size === 0) await tick();
  await tick();
  await assert.rejects(c.budget.erase(), code("busy"));
  await assert.rejects(c.join(), code("busy"));
  assert.deepEqual([worker.keys.kept.size, order], [1, []]);
  answer(Response.json({ relay: "00".repeat(32), time_ms: 0 }));
  assert.equal((await joined).rounds, 1);

  await c.budget.erase();
  assert.deepEqual([worker.keys.kept.size, order, ran], [0, ["keys", "ledger"], 1]);
});

test("an erasing that is cut off leaves a new key with the old ledger, never the old key with an empty one", async () => {
  const { client: c, workers } = await client({ eraseLedger: async () => Promise.reject(coded("storage", "full")) });
  const [worker] = workers;
  assert.ok(worker);
  worker.keys.kept.set("relay", { privateKey: {} as CryptoKey, publicKey: new Uint8Array(32) });
  await assert.rejects(c.budget.erase(), code("storage"));
  assert.equal(worker.keys.kept.size, 0);
});
