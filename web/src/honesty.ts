// Plain words about what an ε is worth.

import type { BudgetView, ManifestView } from "unsaid";

import { epsilonOf, rhoPerRound } from "./epsilon.js";
import * as format from "./format.js";

/** Above this, an ε protects nobody in practice: e²⁰ is half a billion. */
const WORTHLESS = 20;
/** Above this, ε promises little: e¹⁰ is 22,000. */
const LARGE = 10;
/** A noise multiplier that protects, for comparison. */
const STRONG = 4;

export interface Warning {
  readonly title: string;
  /** The finding. */
  readonly cause: string;
  /** One sentence or two, for beside the button. */
  readonly short: string;
  /** Why it is so. */
  readonly why: string;
  /** What protection would take. */
  readonly needed: string;
}

/** Whether the noise of a single round is too weak to protect anyone. */
export const isWeak = ({ privacy }: ManifestView): boolean => privacy.mode !== "none" && privacy.epsilonPerRound > WORTHLESS;

/** What must be said before someone joins; null where the terms protect. */
export function warning(manifest: ManifestView | null, budget: BudgetView | null): Warning | null {
  if (!manifest) return null;
  const { privacy, rounds } = manifest;
  if (privacy.mode === "none") {
    return {
      title: "No noise.",
      cause: "",
      short: "The relay sees your clipped update. Take part with data that may be seen.",
      why: "This task asks for no differential privacy, so taking part costs no ε and promises nothing.",
      needed: "",
    };
  }
  if (privacy.mode === "central") {
    return {
      title: "The relay must be trusted.",
      cause: "",
      short: "It sees your clipped update as it is, and adds the noise only to the sum of all. Take part if you trust it.",
      why: "This task’s noise protects you from everyone but the relay, and from whoever can read its memory, its store or its traffic.",
      needed: "",
    };
  }
  const each = privacy.epsilonPerRound;
  const spent = budget?.spent ?? 0;
  const weak = isWeak(manifest);
  if (!weak && spent <= WORTHLESS) return null;
  const finding = weak ? `One round costs ε = ${format.epsilon(each)}` : `You have spent ε = ${format.epsilon(spent)}`;
  const cause = `${finding}, and an ε above ${WORTHLESS} protects nobody in practice.`;
  if (!weak) {
    return {
      title: "Little protection is left.",
      cause,
      short: `${cause} Go on only with data that may be seen.`,
      why: "Every update you send adds to what others can learn about your data. The noise of one round alone would still protect.",
      needed: "To be protected, one takes part in fewer rounds.",
    };
  }
  if (privacy.mode === "example") {
    return {
      title: "This noise protects nobody.",
      cause,
      short: `${cause} Take part with data that may be seen.`,
      why: `Each of ${format.plural(privacy.stepsPerRound, "step")} tells something about your examples, and its noise is only ${format.number(privacy.noiseMultiplier)} times what one of them can add.`,
      needed: "To protect single examples, the task would need more noise, fewer steps, or steps that take fewer of them.",
    };
  }
  const more = (STRONG / privacy.noiseMultiplier) ** 2;
  return {
    title: "This noise protects nobody.",
    cause,
    short: `${cause} It shows how the mechanism works. Take part with data that may be seen.`,
    why: `Each device adds its own noise, and only over very many devices does it average out. With ${format.plural(rounds.targetClients, "device")} a round, noise strong enough to hide you would drown what the model learns, so this task adds little: its σ is ${format.number(privacy.noiseMultiplier)} times the longest update.`,
    needed: `To protect you, σ would have to be about ${STRONG} times that length (ε = ${format.epsilon(epsilonOf(rhoPerRound(STRONG), privacy.delta))} a round). To learn as well as now, a round would then need about ${format.about(more * rounds.targetClients)} devices, or the model would have to be far smaller.`,
  };
}

/** What a limit is worth, where the terms themselves give no cause for alarm. */
export function worthOf(limit: number): string | null {
  return limit > LARGE ? `Your limit is ε = ${format.epsilon(limit)}. An ε above about ${LARGE} promises little.` : null;
}
