// A real relay on a free port, with a store of its own.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { dataFolder, relayProgram, root } from "./environment.mjs";

const START_MS = 30_000;

export class Relay {
  #page;
  #settings;
  #folder;
  #token;
  #child = null;
  #log = [];
  /** The public half of the key that it signs with; empty where it signs nothing. */
  publicKey = "";
  /** Where it listens; another port after a restart. */
  origin = "";

  constructor(page, settings, folder, token) {
    this.#page = page;
    this.#settings = settings;
    this.#folder = folder;
    this.#token = token;
  }

  /** `set` lays values over the task file: `{ "rounds.target_clients": 4 }`; with a `token`, there is an operator, and
   * `signs`, it has a key. */
  static async start({ page, set = {}, token, signs = false }) {
    const folder = await mkdtemp(join(tmpdir(), "unsaid-relay-"));
    const relay = new Relay(page, set, folder, token);
    if (signs) {
      const made = execFileSync(relayProgram(), ["key", "new", join(folder, "relay.key")], { encoding: "utf8" });
      relay.publicKey = made.trim();
    }
    await relay.restart();
    return relay;
  }

  /** Starts it again on the same store. */
  async restart() {
    const overrides = Object.entries(this.#settings).flatMap(([key, value]) => [
      "--set",
      `${key}=${typeof value === "string" ? JSON.stringify(value) : value}`,
    ]);
    const task = join(root, "server/tasks/mnist.toml");
    const words = ["serve", "--task", task, "--listen", "127.0.0.1:0", "--store", join(this.#folder, "relay.redb")];
    if (this.#page) words.push("--page", this.#page);
    if (this.publicKey) words.push("--key", join(this.#folder, "relay.key"));
    if (this.#token) {
      const file = join(this.#folder, "token");
      await writeFile(file, this.#token, { mode: 0o600 });
      words.push("--admin-token-file", file);
    }
    const child = spawn(relayProgram(), [...words, "--data", dataFolder(), ...overrides], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    createInterface({ input: child.stderr }).on("line", (line) => this.#log.push(line));
    const lines = createInterface({ input: child.stdout });
    this.origin = await new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(`the relay ${why}:\n${this.log()}`));
      const timer = setTimeout(fail, START_MS, "did not say where it listens");
      child.once("error", (error) => fail(`cannot be started: ${error.message}`));
      child.once("exit", (code, signal) => fail(`ended at once (${code ?? signal})`));
      lines.on("line", (line) => {
        const origin = /^listening on (http:\/\/\S+)$/.exec(line)?.[1];
        if (!origin) return;
        clearTimeout(timer);
        child.removeAllListeners("exit");
        resolve(origin);
      });
    });
  }

  /** Its last words. */
  log() {
    return this.#log.slice(-30).join("\n");
  }

  /** What the operator's command prints. */
  admin(...words) {
    const options = ["--relay", this.origin, "--token-file", join(this.#folder, "token")];
    return execFileSync(relayProgram(), ["admin", ...words, ...options], { encoding: "utf8" }).trim();
  }

  async get(path) {
    const response = await fetch(this.origin + path);
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  /** Published rounds; the first is round 0, the initial model. */
  rounds() {
    return this.get("/v1/tasks/mnist/rounds");
  }

  round() {
    return this.get("/v1/tasks/mnist/round");
  }

  /** Waits until a round is published and evaluated, and returns its metrics. */
  async published(round, limitMs = 60_000) {
    const end = Date.now() + limitMs;
    for (;;) {
      const metrics = (await this.rounds()).find((metrics) => metrics.round === round && metrics.accuracy !== null);
      if (metrics) return metrics;
      if (Date.now() > end) {
        const state = JSON.stringify(await this.round());
        throw new Error(`round ${round} was not published within ${limitMs} ms; ${state}\n${this.log()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Ends it at once, as a crash or a power cut would. */
  async kill() {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  async close() {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
