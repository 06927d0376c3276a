// What a task whose relay adds the noise promises, in plain words. The adjacency and the tree are in the manifest as it is served.

import type { ManifestView } from "unsaid";

import * as format from "./format.js";

interface Terms {
  readonly adjacency: "add-remove" | "replace-one";
  readonly delta: number;
  readonly tree?: { readonly restart_every: number; readonly min_separation: number };
}

/** The terms; null in any other task. */
export function centralTerms(manifest: ManifestView): Terms | null {
  if (manifest.privacy.mode !== "central") return null;
  // The session has read these very bytes, and agreed to them.
  return (JSON.parse(manifest.json) as { readonly privacy: Terms }).privacy;
}

/** Sentences for the list of terms: whom one trusts, what is told apart how badly, and what a round costs. */
export function centralSentences(manifest: ManifestView): string[] {
  const terms = centralTerms(manifest);
  const { privacy } = manifest;
  if (!terms || privacy.mode !== "central") return [];
  const { adjacency, tree } = terms;
  const times = format.number(privacy.noiseMultiplier);
  const trust = `You have to trust the relay: it sees your clipped update as it is, and adds noise of ${times} times its longest length ${tree ? "to sums over rounds, by a tree" : "to the sum of all"}, before anyone else sees it.`;
  const what = tree ? "all updates of this browser" : "your update";
  const apart =
    adjacency === "add-remove"
      ? `What the relay tells of a round is for ${what} there or counting nothing (add/remove).`
      : `What the relay tells of a round is for ${what} in place of any other (replace-one).`;
  const cost = `Your own ledger books ε = ${format.epsilon(privacy.epsilonPerRound)} for one round, for an update in place of any other, at δ = ${format.delta(privacy.delta)}.`;
  const wait = tree ? [`Counted in one round, you are let in again ${format.plural(tree.min_separation, "round")} later, and a new tree begins every ${format.plural(tree.restart_every, "round")}.`] : [];
  return [trust, `${apart} ${cost}`, ...wait];
}
