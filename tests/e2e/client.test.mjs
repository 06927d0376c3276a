// Local data, prediction, and where a client trains.
import assert from "node:assert/strict";
import { test } from "node:test";

import { readShard } from "./lib/harness.mjs";
import { scene } from "./lib/scene.mjs";

/** The first error of opening, loading data and taking part; otherwise the summary. */
async function wholeRun(one, options) {
  const opened = await one.connect(options);
  if (opened.code) return opened;
  await one.addShard(await readShard(0));
  return one.run({ rounds: 1 });
}

/** The choice was made by the times of both. */
function assertMeasured({ backend, reason, cpuMsPerStep, gpuMsPerStep }) {
  for (const time of [cpuMsPerStep, gpuMsPerStep]) assert.ok(Number.isFinite(time) && time > 0, `a step took ${time} ms`);
  assert.equal(backend, gpuMsPerStep < cpuMsPerStep ? "webgpu" : "cpu");
  assert.match(reason, /the faster/);
}

const assertNotMeasured = ({ cpuMsPerStep = null, gpuMsPerStep = null }) =>
  assert.deepEqual([cpuMsPerStep, gpuMsPerStep], [null, null]);

test("taking part without data is a typed error, and sends nothing", async () => {
  await scene({}, async ({ proxy, tab }) => {
    const one = await tab();
    assert.equal((await one.connect()).code, undefined);
    assert.deepEqual((await one.call("data.summary")).value.examples, 0);
    assert.equal((await one.run({ rounds: 1 })).code, "no-data");
    assert.equal(proxy.updates().length, 0);
  });
});

test("one example is enough", async () => {
  await scene({}, async ({ relay, tab }) => {
    const one = await tab();
    await one.connect();
    const added = await one.call("data.add", Array(784).fill(0.5), [7]);
    assert.deepEqual(added.value?.perClass, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0], added.message);
    assert.equal((await one.run({ rounds: 1 })).value?.reason, "rounds-done");
    assert.equal((await relay.published(1)).clients, 1);
  });
});

test("bad data is refused by name, and the good stays", async () => {
  await scene({}, async ({ tab }) => {
    const one = await (await tab()).ready({ examples: 10 });
    const code = async (...args) => (await one.call("data.add", ...args)).code;
    assert.equal(await code(Array(783).fill(0), [1]), "bad-data");
    assert.equal(await code(Array(784).fill(0), [10]), "bad-data");
    assert.equal(await code([NaN, ...Array(783).fill(0)], [1]), "bad-data");
    assert.equal(await code([], []), "bad-data");
    const shard = await readShard(0);
    for (const bytes of [shard.subarray(0, 100), Buffer.concat([shard, Buffer.alloc(1)]), Buffer.from("UNSD")]) {
      const result = await one.page.evaluate((text) => test.importShard(text), bytes.toString("base64"));
      assert.equal(result.code, "bad-data", result.message);
    }
    assert.equal((await one.call("data.summary")).value.examples, 10);
    assert.equal((await one.call("data.clear")).value.examples, 0);
  });
});

test("a client predicts with the newest shared model", async () => {
  await scene({}, async ({ tab }) => {
    const one = await (await tab()).ready();
    await one.run({ rounds: 2 });
    const right = await one.page.evaluate(async (text) => {
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const [count, features] = [new DataView(bytes.buffer).getUint32(8, true), 784];
      const labels = bytes.subarray(20, 20 + count);
      const pixels = Float32Array.from(bytes.subarray(20 + count), (pixel) => pixel / 255);
      const probabilities = await test.client.predict(pixels);
      let right = 0;
      for (let row = 0; row < count; row++) {
        const ten = probabilities.subarray(row * 10, row * 10 + 10);
        const sum = ten.reduce((total, value) => total + value, 0);
        if (Math.abs(sum - 1) > 1e-4) throw new Error(`the probabilities of row ${row} add up to ${sum}`);
        if (ten.indexOf(Math.max(...ten)) === labels[row]) right++;
      }
      if (pixels.length !== count * features) throw new Error("a shard of another size");
      return right / count;
    }, (await readShard(0)).toString("base64"));
    assert.ok(right > 0.7, `${right} of its own digits`);
  });
});

test("an unknown task and a bad option are typed errors", async () => {
  await scene({}, async ({ tab }) => {
    const one = await tab();
    assert.equal((await one.connect({ participants: 0 })).code, "bad-options");
    const opened = await one.connect({ task: "no-such-task" });
    const failed = opened.code ? opened : await one.call("manifest");
    assert.equal(failed.code, "refused", failed.message);
    assert.equal(failed.problem?.type, "urn:unsaid:error:not-found");
  });
});

test("without WebGPU, auto trains on the CPU and says why, and webgpu is a typed error", async () => {
  await scene({ browser: { webgpu: false } }, async ({ proxy, tab }) => {
    const one = await tab();
    assert.equal((await wholeRun(one, { backend: "auto" })).value?.backend, "cpu");
    const [chosen] = await one.events("backend");
    assert.equal(chosen.backend, "cpu");
    assert.equal(chosen.fallback, false);
    assert.ok(chosen.reason.length > 5, chosen.reason);
    const sent = proxy.updates().length;
    const other = await tab();
    assert.equal((await wholeRun(other, { backend: "webgpu" })).code, "webgpu-unavailable");
    assert.equal(proxy.updates().length, sent);
  });
});

test("with WebGPU, the backend is the one asked for, and nothing is measured", async () => {
  await scene({}, async ({ tab }) => {
    for (const backend of ["cpu", "webgpu"]) {
      const one = await tab();
      assert.equal((await wholeRun(one, { backend })).value?.backend, backend);
      const [chosen] = await one.events("backend");
      assert.equal(chosen.backend, backend);
      assert.equal(chosen.reason, "chosen by you");
      assertNotMeasured(chosen);
    }
  });
});

test("auto does not measure an adapter that is emulated in software, and names it; it measures a real one", async (t) => {
  await scene({}, async ({ tab }) => {
    const one = await tab();
    // What the browser itself says of its adapter decides what must be seen.
    const adapter = await one.page.evaluate(async () => {
      const found = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
      return { name: found.info.description, fallback: found.info.isFallbackAdapter };
    });
    const run = await wholeRun(one, { backend: "auto" });
    const [chosen, ...more] = await one.events("backend");
    assert.deepEqual(more, [], "it chooses once");
    t.diagnostic(`${JSON.stringify(adapter)}: ${chosen.backend}, ${chosen.reason}`);
    assert.equal(run.value?.backend, chosen.backend, "it trains where it says");
    assert.equal(chosen.adapter, adapter.name);
    assert.equal(chosen.fallback, false);
    if (adapter.fallback || /swiftshader|llvmpipe|lavapipe|softpipe|basic render/i.test(adapter.name)) {
      assert.equal(chosen.backend, "cpu");
      assert.match(chosen.reason, /emulated in software/);
      assertNotMeasured(chosen);
    } else {
      assertMeasured(chosen);
    }
  });
});

test("auto measures both where the adapter says that it is a real one, and trains on the faster", async (t) => {
  await scene({}, async ({ tab }) => {
    const one = await tab();
    const run = await wholeRun(one, { backend: "auto", pretendGpu: true });
    const [chosen] = await one.events("backend");
    t.diagnostic(`CPU ${chosen.cpuMsPerStep?.toFixed(2)} ms a step, WebGPU ${chosen.gpuMsPerStep?.toFixed(2)} ms`);
    assert.equal(run.value?.backend, chosen.backend, "it trains where it says");
    assert.equal(chosen.adapter, "A pretended GPU");
    assertMeasured(chosen);
    assert.equal(chosen.cached, false);

    // The next visit finds what this one measured; a task of other terms would not.
    await one.load(new URL(one.page.url()).origin);
    assert.equal((await wholeRun(one, { backend: "auto", pretendGpu: true })).value?.reason, "rounds-done");
    const [again] = await one.events("backend");
    const figures = ({ backend, reason, adapter, cpuMsPerStep, gpuMsPerStep }) =>
      ({ backend, reason, adapter, cpuMsPerStep, gpuMsPerStep });
    assert.deepEqual(figures(again), figures(chosen));
    assert.equal(again.cached, true);
  });
});

test("a page that is hidden and gets no time for seconds is no error: training goes on where it was", async () => {
  await scene({ set: { "training.epochs": 60 }, browser: { own: true } }, async ({ browser, relay, tab }) => {
    const one = await (await tab()).ready();
    await one.join({ rounds: 1 });
    await one.event({ type: "step" });
    // A headless browser hides no page and slows none, so both are done to it: the page is told that it is hidden, and the
    // processes of page and worker are stopped, as a system does that wants their time.
    await one.page.evaluate(() => {
      Object.defineProperty(document, "visibilityState", { get: () => "hidden", configurable: true });
      Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
      dispatchEvent(new Event("blur"));
    });
    const session = await browser.newBrowserCDPSession();
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    const renderers = processInfo.filter((info) => info.type === "renderer").map((info) => info.id);
    assert.ok(renderers.length > 0);
    for (const id of renderers) process.kill(id, "SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 2500));
    for (const id of renderers) process.kill(id, "SIGCONT");
    const result = await one.joined();
    assert.equal(result.value?.reason, "rounds-done", `${result.code}: ${result.message}`);
    const events = await one.events();
    const pauses = events.slice(1).map((event, index) => event.at - events[index].at);
    assert.ok(Math.max(...pauses) > 2000, `it stood still in the middle: ${Math.max(...pauses)} ms`);
    assert.ok(!events.some((event) => event.type === "backend" && event.fallback));
    assert.deepEqual(events.filter((event) => event.type === "epoch").map((event) => event.epoch), Array.from({ length: 60 }, (_, i) => i + 1));
    assert.equal((await relay.published(1)).clients, 1);
  });
});

test("WebGPU lost in the middle of training: it goes on on the CPU and says so", async () => {
  await scene({ set: { "training.epochs": 100 }, browser: { own: true } }, async ({ browser, relay, tab }) => {
    const one = await (await tab()).ready({ backend: "webgpu" });
    await one.join({ rounds: 1 });
    await one.event({ type: "step" }, 60_000);
    // Kills the GPU process, and with it every device.
    const session = await browser.newBrowserCDPSession();
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    const gpu = processInfo.find((info) => info.type === "GPU");
    process.kill(gpu.id, "SIGKILL");
    const event = await one.event({ type: "backend", fallback: true }, 60_000);
    assert.equal(event.backend, "cpu");
    assert.ok(event.reason.length > 5);
    const result = await one.joined();
    assert.equal(result.value?.reason, "rounds-done", `${result.code}: ${result.message}`);
    assert.equal(result.value.backend, "cpu");
    assert.equal((await relay.published(1)).clients, 1);
  });
});
