// Checks of what a caller passes in, on the page's side: a clear error at once instead of a worker round trip.

import { UnsaidError } from "./errors.js";
import type { Backend, Budget, Floors, OpenOptions } from "./types.js";

const backends: readonly Backend[] = ["auto", "cpu", "webgpu"];
const MOST_PARTICIPANTS = 256;

function bad(message: string): UnsaidError {
  return new UnsaidError("bad-options", message);
}

export function checkBudget(budget: Budget): Budget {
  const { epsilon, delta } = budget;
  if (!(Number.isFinite(epsilon) && epsilon >= 0)) {
    throw bad(`budget.epsilon is ${epsilon}, but must be a finite number of at least 0`);
  }
  if (!(delta > 0 && delta < 1)) throw bad(`budget.delta is ${delta}, but must be above 0 and below 1`);
  return { epsilon, delta };
}

function checkFloors(floors: Floors): Floors {
  const names = ["minNoiseMultiplier", "maxClipL2", "minCohort", "maxRoundsPerDay"] as const;
  for (const name of names) {
    const value = floors[name];
    if (value !== undefined && !(Number.isFinite(value) && value >= 0)) {
      throw bad(`floors.${name} is ${value}, but must be a finite number of at least 0`);
    }
  }
  for (const name of ["minCohort", "maxRoundsPerDay"] as const) {
    const value = floors[name];
    if (value !== undefined && !(Number.isInteger(value) && value < 2 ** 32)) {
      throw bad(`floors.${name} is ${value}, but must be a whole number below 2³²`);
    }
  }
  const { exampleLevel, trustRelay } = floors;
  for (const [name, value] of Object.entries({ exampleLevel, trustRelay })) {
    if (value !== undefined && typeof value !== "boolean") {
      throw bad(`floors.${name} is ${String(value)}, but must be true or false`);
    }
  }
  const all = [...names, "exampleLevel", "trustRelay"] as const;
  return Object.fromEntries(all.filter((name) => floors[name] !== undefined).map((name) => [name, floors[name]]));
}

/** The options that the worker is opened with: nothing else that a caller may have put beside them. */
export function checkOpenOptions(
  options: { readonly [K in keyof OpenOptions]?: OpenOptions[K] | undefined },
): OpenOptions {
  const { relay, task, backend = "auto", budget, floors, relayKey, participants } = options;
  if (typeof relay !== "string" || !URL.canParse(relay)) throw bad(`relay is “${relay}”, but must be a URL`);
  const url = new URL(relay);
  if (url.protocol !== "https:" && url.protocol !== "http:") throw bad(`relay is “${relay}”, but must be http or https`);
  if (typeof task !== "string" || !/^[a-z0-9-]{1,64}$/.test(task)) {
    throw bad(`task is “${task}”, but must be 1 to 64 characters, each one of a-z, 0-9 or -`);
  }
  if (!backends.includes(backend)) throw bad(`backend is “${backend}”, but must be ${backends.join(", ")}`);
  if (relayKey !== undefined && !(typeof relayKey === "string" && /^[0-9a-f]{64}$/.test(relayKey))) {
    throw bad(`relayKey is “${relayKey}”, but must be 64 lower-case hexadecimal digits`);
  }
  if (participants !== undefined && !(Number.isInteger(participants) && participants >= 1 && participants <= MOST_PARTICIPANTS)) {
    throw bad(`participants is ${participants}, but must be a whole number from 1 to ${MOST_PARTICIPANTS}`);
  }
  return {
    relay: url.origin,
    task,
    backend,
    ...(budget && { budget: checkBudget(budget) }),
    ...(floors && { floors: checkFloors(floors) }),
    ...(relayKey !== undefined && { relayKey }),
    ...(participants !== undefined && { participants }),
  };
}

/** Examples as the worker takes them; copies, so that the caller's arrays stay the caller's. */
export function checkExamples(
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  shape: { readonly features: number; readonly classes: number } | null,
): { x: Float32Array<ArrayBuffer>; y: Uint32Array<ArrayBuffer> } {
  if (y.length === 0) throw new UnsaidError("bad-data", "there are no labels: add at least one example");
  const features = shape?.features ?? x.length / y.length;
  if (!Number.isInteger(features) || x.length !== features * y.length || features === 0) {
    const expected = shape ? `${y.length} × ${shape.features} = ${y.length * shape.features}` : `a multiple of ${y.length}`;
    throw new UnsaidError("bad-data", `x has ${x.length} numbers, but ${y.length} labels need ${expected}`);
  }
  const classes = shape?.classes ?? 2 ** 32;
  for (let i = 0; i < y.length; i++) {
    const label = y[i];
    if (label === undefined || !Number.isInteger(label) || label < 0 || label >= classes) {
      const range = shape ? `from 0 to ${shape.classes - 1}` : "of at least 0";
      throw new UnsaidError("bad-data", `label ${i} is ${label}, but must be a whole number ${range}`);
    }
  }
  return { x: new Float32Array(x), y: new Uint32Array(y) };
}

/** The inputs of a prediction. */
export function checkInputs(x: ArrayLike<number>, shape: { readonly features: number } | null): Float32Array<ArrayBuffer> {
  if (x.length === 0 || (shape && x.length % shape.features !== 0)) {
    const expected = shape ? `a multiple of ${shape.features}` : "at least one example";
    throw new UnsaidError("bad-data", `x has ${x.length} numbers, but must hold ${expected}`);
  }
  return new Float32Array(x);
}

/** How to take part: in how many rounds, and with which invitation. */
export function checkRun(
  rounds: number | undefined,
  invitation: string | undefined,
): { rounds?: number; invitation?: string } {
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0)) {
    throw bad(`rounds is ${rounds}, but must be a whole number of at least 1`);
  }
  if (invitation !== undefined && !(typeof invitation === "string" && /^[0-9a-f]{32}$/.test(invitation))) {
    throw bad("invitation must be 32 lower-case hexadecimal digits, as the relay’s operator gives them");
  }
  return { ...(rounds !== undefined && { rounds }), ...(invitation !== undefined && { invitation }) };
}
