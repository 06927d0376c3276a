// The demo command itself: `cargo xtask demo --headless`, as a person would start it.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { ledgerEpsilon, rhoPerRound } from "./lib/accountant.mjs";
import { root, xtaskProgram } from "./lib/environment.mjs";
import { until, within } from "./lib/scene.mjs";

const LIMIT_MS = 240_000;
/** xtask gives its children four seconds to stop before it kills them. */
const STOP_MS = 15_000;
/** The header of an update frame, and the bytes of one coordinate without noise (PROTOCOL.md, “Update frame”). */
const FRAME_HEADER = 116;

/** The table begins. */
const HEAD = "round  clients test accuracy";

let folder;
before(async () => (folder = await mkdtemp(join(tmpdir(), "unsaid-demo-"))));
after(() => rm(folder, { recursive: true, force: true }));

/** Starts the demo with headless tabs; `ended` gives its exit code and everything that it said. */
const demo = (...words) => start("--headless", ...words);

/** Starts the demo command. */
function start(...words) {
  const child = spawn(xtaskProgram(), ["demo", ...words], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const said = { out: [], error: [] };
  createInterface({ input: child.stdout }).on("line", (line) => said.out.push(line));
  createInterface({ input: child.stderr }).on("line", (line) => said.error.push(line));
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, ...said }));
  return { child, said, ended: within(LIMIT_MS, "the end of the demo", ended) };
}

/** Every process there is, zombies excepted: id → { parent, command }. */
async function processes() {
  const { stdout } = await promisify(execFile)("ps", ["-A", "-ww", "-o", "pid=,ppid=,stat=,args="], { maxBuffer: 1 << 26 });
  const rows = stdout.split("\n").map((line) => /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line));
  const alive = rows.filter((row) => row && !row[3].startsWith("Z"));
  return new Map(alive.map(([, id, parent, , command]) => [Number(id), { parent: Number(parent), command }]));
}

/** The processes that `ancestor` has started, and those that they have started. */
async function descendants(ancestor) {
  const all = await processes();
  const below = (id) => {
    const { parent } = all.get(id) ?? {};
    return parent === ancestor || (parent > 1 && below(parent));
  };
  return new Map([...all].filter(([id]) => below(id)));
}

/** Those of `known` that still run. An id may have been given to another program since. */
async function left(known) {
  const now = await processes();
  return [...known].filter(([id, { command }]) => now.get(id)?.command === command).map(([id, { command }]) => `${id} ${command}`);
}

/** Chromium's last helpers notice by themselves that their browser is gone, and so have a moment. */
async function allEnded(known) {
  await until("the end of every child", async () => (await left(known)).length === 0, 5000).catch(() => {});
  assert.deepEqual(await left(known), [], "a child is left");
}

test("it runs the rounds asked for, prints a line for each, writes them as JSON, and ends with 0", async (t) => {
  const file = join(folder, "table.json");
  const words = ["--clients", "2", "--rounds", "1", "--noise", "off", "--backend", "cpu", "--examples-per-client", "100"];
  const { child, said, ended } = demo(...words, "--json", file);
  await until("the table", () => said.out.some((line) => line.startsWith(HEAD)) || child.exitCode !== null, LIMIT_MS);
  const started = await descendants(child.pid);
  const { code, out, error } = await ended;
  assert.equal(code, 0, [...out.slice(-10), ...error.slice(-10)].join("\n"));
  assert.ok(started.size > 0);
  await allEnded(started);
  const report = JSON.parse(await readFile(file, "utf8"));
  assert.deepEqual(Object.keys(report).sort(), ["backend", "delta", "rounds"]);
  assert.equal(report.backend, "cpu");
  assert.equal(report.delta, 1e-5);
  assert.equal(report.rounds.length, 1);
  const [row] = report.rounds;
  const columns = ["accuracy", "bytes_down", "bytes_up", "clients", "epsilon", "round", "seconds"];
  assert.deepEqual(Object.keys(row).sort(), columns);
  assert.equal(row.round, 1);
  assert.equal(row.clients, 2);
  assert.equal(row.epsilon, null, "without noise there is no ε");
  assert.ok(row.accuracy > 0.2 && row.accuracy < 1, `better than a guess: ${row.accuracy}`);
  assert.ok(row.seconds > 0 && row.seconds < 120, `${row.seconds} s`);
  // 784-128-10: 101,770 parameters, two bytes each on the way up, four on the way down before they are compressed.
  const parameters = 784 * 128 + 128 + 128 * 10 + 10;
  assert.equal(row.bytes_up, 2 * (FRAME_HEADER + 2 * parameters));
  assert.ok(row.bytes_down > parameters && row.bytes_down < 2 * 4 * parameters, `${row.bytes_down} bytes down`);
  const head = out.findIndex((line) => line.startsWith(HEAD));
  assert.ok(head >= 0, out.join("\n"));
  const cells = out[head + 1].trim().split(/\s{2,}/);
  const grouped = (bytes) => bytes.toLocaleString("en");
  const shown = ["1", "2", `${(100 * row.accuracy).toFixed(2)} %`, "off", grouped(row.bytes_up), grouped(row.bytes_down)];
  assert.deepEqual(cells.slice(0, 6), shown);
  t.diagnostic(out[head + 1]);
});

test("with noise, the column of ε is what the ledgers hold: an accountant of our own computes the same", async (t) => {
  const file = join(folder, "noisy.json");
  const words = ["--clients", "2", "--rounds", "2", "--noise", "local", "--backend", "cpu", "--examples-per-client", "50"];
  const { code, out, error } = await demo(...words, "--json", file).ended;
  assert.equal(code, 0, [...out.slice(-10), ...error.slice(-10)].join("\n"));
  const { rounds, delta } = JSON.parse(await readFile(file, "utf8"));
  const task = await readFile(join(root, "server/tasks/mnist.toml"), "utf8");
  const rho = rhoPerRound(Number(/^noise_multiplier = ([\d.]+)$/m.exec(task)[1]));
  const lines = out.slice(out.findIndex((line) => line.startsWith(HEAD)) + 1);
  for (const [index, { epsilon }] of rounds.entries()) {
    const expected = ledgerEpsilon((index + 1) * rho, delta);
    assert.ok(Math.abs(epsilon / expected - 1) < 1e-3, `round ${index + 1}: ${epsilon}, expected ${expected}`);
    assert.equal(lines[index].trim().split(/\s{2,}/)[3], epsilon.toFixed(2), "the table shows what the file holds");
    t.diagnostic(lines[index]);
  }
  assert.equal(rounds.length, 2);
});

test("without --headless it serves the page until it is interrupted, and starts again in seconds", async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  const origin = `http://127.0.0.1:${port}`;
  // The second start finds what the first has built.
  for (const limitMs of [LIMIT_MS, 10_000]) {
    const { child, said, ended } = start("--port", String(port));
    const answer = (path) => fetch(`${origin}${path}`).catch(() => null);
    await until("the page", async () => (await answer("/"))?.ok || child.exitCode !== null, limitMs);
    assert.equal(child.exitCode, null, said.error.join("\n"));
    assert.match(await (await answer("/")).text(), /<title>[^<]*Unsaid/);
    const manifest = await (await answer("/v1/tasks/mnist/manifest")).json();
    assert.equal(manifest.parameters, 101_770);
    assert.equal((await answer("/data/iid/000.shard")).status, 200);
    await until("the address", () => said.out.some((line) => line.includes(origin)), 5000);
    const started = await descendants(child.pid);
    child.kill("SIGINT");
    assert.equal((await within(STOP_MS, "the end", ended)).code, 130);
    await allEnded(started);
    assert.equal(await answer("/"), null, "the port is free again");
  }
});

test("a port that is taken is told at once, with what to do", async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  try {
    const start = performance.now();
    const { code, out, error } = await demo("--port", String(port)).ended;
    assert.equal(code, 1);
    assert.match(error.join("\n"), new RegExp(`error: port ${port} is taken by another program; .*--port`));
    assert.deepEqual(out, [], "nothing was built or started before");
    assert.ok(performance.now() - start < 5000);
  } finally {
    server.close();
  }
});

test("an interrupt ends it, and no relay and no browser is left", async () => {
  const { child, said, ended } = demo("--clients", "2", "--rounds", "1000", "--noise", "off", "--backend", "cpu");
  // In the middle of its rounds.
  await until("a round", () => said.out.some((line) => /^\s+2\s+2\s/.test(line)) || child.exitCode !== null, LIMIT_MS);
  assert.equal(child.exitCode, null, said.error.join("\n"));
  const started = await descendants(child.pid);
  const commands = [...started.values()].map(({ command }) => command);
  for (const name of ["unsaid-relay", "headless.mjs", "chrom"]) {
    assert.ok(commands.some((command) => command.includes(name)), `${name} is running: ${commands.join("\n")}`);
  }
  child.kill("SIGINT");
  const { code } = await within(STOP_MS, "the end", ended);
  assert.equal(code, 130);
  await allEnded(started);
});
