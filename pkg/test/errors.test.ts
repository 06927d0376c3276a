import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { toWireError } from "../../worker/src/errors.js";
import { errorCodes } from "../src/index.js";
import { coded } from "./double.js";

/** Told by this package and not by the Rust side. */
const ours = ["identity-unavailable", "crashed", "load-failed", "closed"];

/** What `ClientError::code` can return. Tests run in this folder. */
function rustCodes(): string[] {
  const source = readFileSync("../../crate/src/error.rs", "utf8");
  const body = source.split("pub const fn code(")[1]?.split("\nimpl ")[0];
  assert.ok(body, "ClientError::code is not where it was");
  const codes = [...body.matchAll(/=> "([a-z-]+)",/g)].map(([, code]) => code ?? "");
  assert.equal(codes.length, body.split("Self::").length - 1, "not every arm was read");
  return codes;
}

test("the codes are those of crate/src/error.rs, and four more", () => {
  assert.deepEqual([...errorCodes].sort(), [...rustCodes(), ...ours].sort());
});

test("the worker passes on every code of the Rust side", () => {
  for (const code of rustCodes()) assert.equal(toWireError(coded(code, "why"))?.code, code);
});
