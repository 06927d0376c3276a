// A tab with the package loaded, steered from outside.
import assert from "node:assert/strict";
import { cp, mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import { dataFolder, outFolder, packageFolder, root } from "./environment.mjs";

let folderBeingMade = Promise.resolve();

/** The folder to serve: the test page beside the package as it was built. Tests that run side by side make it in turn. */
export function harnessFolder() {
  folderBeingMade = folderBeingMade.catch(() => {}).then(makeFolder);
  return folderBeingMade;
}

async function makeFolder() {
  const folder = join(outFolder, `harness-${process.pid}`);
  const fresh = `${folder}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  await cp(join(root, "tests/e2e/harness"), fresh, { recursive: true });
  await cp(packageFolder(), join(fresh, "unsaid"), { recursive: true });
  await rm(folder, { recursive: true, force: true });
  await rename(fresh, folder);
  return folder;
}

export const readShard = (index, partition = "iid") =>
  readFile(join(dataFolder(), partition, `${String(index).padStart(3, "0")}.shard`));

/** The first `n` examples of a shard file. */
export function firstExamples(shard, n) {
  const [count, features] = [shard.readUInt32LE(8), shard.readUInt32LE(12)];
  assert.ok(n <= count);
  const head = Buffer.from(shard.subarray(0, 20));
  head.writeUInt32LE(n, 8);
  const pixels = 20 + count;
  return Buffer.concat([head, shard.subarray(20, 20 + n), shard.subarray(pixels, pixels + n * features)]);
}

/** The pixel bytes of a shard file. */
export const pixelsOf = (shard) => shard.subarray(20 + shard.readUInt32LE(8));

/** Most tests are about something else than noise, and use a task without; a client agrees to that only when told to. */
const usual = { backend: "cpu", floors: { minNoiseMultiplier: 0, minCohort: 1 } };

export class Tab {
  constructor(page) {
    this.page = page;
  }

  /** Opens the test page at `origin`. */
  static async open(context, origin) {
    const page = await context.newPage();
    const tab = new Tab(page);
    await tab.load(origin);
    return tab;
  }

  async load(origin) {
    await this.page.goto(`${origin}/`);
    await this.page.waitForSelector("html[data-ready=true]", { state: "attached", timeout: 15_000 });
  }

  connect(options = {}) {
    return this.page.evaluate((options) => test.connect(options), { ...usual, ...options });
  }

  /** Starts connecting and does not wait: a tab may have to queue for its place. */
  beginConnect(options = {}) {
    return this.page.evaluate((options) => void (test.opening = test.connect(options)), { ...usual, ...options });
  }

  /** Adds a shard's examples to the local data. */
  async addShard(shard) {
    const result = await this.page.evaluate((text) => test.importShard(text), shard.toString("base64"));
    assert.ok(result.value, `the shard was not taken: ${result.message}`);
    return result.value;
  }

  /** Connects and loads data: what must work before the thing under test begins. */
  async ready({ shard = 0, examples = 600, ...options } = {}) {
    const opened = await this.connect(options);
    assert.deepEqual(opened, { value: undefined }, `the session did not open: ${opened.code}: ${opened.message}`);
    await this.addShard(firstExamples(await readShard(shard), examples));
    return this;
  }

  join(options = {}) {
    return this.page.evaluate((options) => test.join(options), options);
  }

  joined() {
    return this.page.evaluate(() => test.joined());
  }

  async run(options = {}) {
    await this.join(options);
    return this.joined();
  }

  abort() {
    return this.page.evaluate(() => test.abort());
  }

  call(path, ...args) {
    return this.page.evaluate(([path, args]) => test.call(path, ...args), [path, args]);
  }

  events(type) {
    return this.page.evaluate((type) => test.events.filter((event) => !type || event.type === type), type);
  }

  /** Waits for an event that holds all of `fields`. */
  async event(fields, limitMs = 30_000) {
    const found = await this.page
      .waitForFunction(
        (fields) =>
          test.events.find((event) => Object.entries(fields).every(([name, value]) => event[name] === value)) ?? false,
        fields,
        { timeout: limitMs, polling: 20 },
      )
      .catch(async (error) => {
        const last = (await this.events().catch(() => [])).slice(-8).map((event) => JSON.stringify(event).slice(0, 200));
        throw new Error(`no event ${JSON.stringify(fields)}: ${error.message}\nlast events:\n${last.join("\n")}`);
      });
    return found.jsonValue();
  }
}
