// What the address asks for: ?task=&backend=&partition=&shard=&examples=&autojoin=1&rounds=&epsilon=&delta=
// and, behind a # so that no server sees it, invitation=
// A link must not decide for a person: joining and the budget are taken from the address only where a program drives the
// browser (`navigator.webdriver`), as in tests and in the headless demo.

export type Partition = "iid" | "shards";

export interface Query {
  readonly task: string;
  readonly backend: "auto" | "cpu" | "webgpu";
  readonly partition: Partition;
  /** Load this shard instead of asking for the next one. */
  readonly shard: number | null;
  /** Use only so many examples of a shard. */
  readonly examples: number | null;
  readonly autojoin: boolean;
  readonly rounds: number | null;
  /** Sets the person's limit, also where there is a ledger already. */
  readonly epsilon: number | null;
  readonly delta: number | null;
  /** The operator's, for a task that asks for one. */
  readonly invitation: string | null;
}

export function readQuery(search: string, hash: string, automated: boolean): Query {
  const given = new URLSearchParams(search);
  const whole = (name: string, least: number): number | null => {
    const value = Number(given.get(name) ?? Number.NaN);
    return Number.isInteger(value) && value >= least ? value : null;
  };
  const real = (name: string, fits: (value: number) => boolean): number | null => {
    const text = given.get(name);
    const value = text ? Number(text) : Number.NaN;
    return Number.isFinite(value) && fits(value) ? value : null;
  };
  const backend = given.get("backend");
  const invitation = new URLSearchParams(hash.slice(1)).get("invitation");
  return {
    task: given.get("task") ?? "mnist",
    backend: backend === "cpu" || backend === "webgpu" ? backend : "auto",
    partition: given.get("partition") === "shards" ? "shards" : "iid",
    shard: whole("shard", 0),
    examples: whole("examples", 1),
    autojoin: automated && given.get("autojoin") === "1",
    rounds: whole("rounds", 1),
    epsilon: automated ? real("epsilon", (value) => value >= 0) : null,
    delta: automated ? real("delta", (value) => value > 0 && value < 1) : null,
    invitation: invitation !== null && /^[0-9a-f]{32}$/.test(invitation) ? invitation : null,
  };
}
