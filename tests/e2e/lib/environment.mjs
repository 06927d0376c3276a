// Where the things under test are. xtask names them; by hand, the usual places are tried.
import { existsSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";

export const root = resolve(import.meta.dirname, "../../..");

function required(variable, what, candidates) {
  const named = process.env[variable];
  const found = named ? [named].find(existsSync) : candidates.find(existsSync);
  if (!found) throw new Error(`${what} was not found: run \`cargo xtask test --only e2e\`, or name it with ${variable}`);
  return found;
}

const onPath = (names) =>
  names.flatMap((name) => (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name)));

export const relayProgram = () =>
  required("UNSAID_RELAY", "the relay", [join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release/unsaid-relay")]);
export const xtaskProgram = () =>
  required("UNSAID_XTASK", "xtask", [join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/xtask")]);
export const dataFolder = () => required("UNSAID_DATA", "the MNIST shards", [join(root, ".cache/mnist")]);
export const pageFolder = () => required("UNSAID_PAGE", "the built page", [join(root, "web/dist")]);
export const packageFolder = () => required("UNSAID_PKG", "the built package", [join(root, "pkg/dist")]);
export const chromiumProgram = () =>
  required("UNSAID_CHROMIUM", "Chromium", onPath(["chromium", "chromium-browser", "google-chrome"]));
export const outFolder = join(root, "tests/e2e/out");
