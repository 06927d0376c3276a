// Faults, as plain sentences with what to do.

import { UnsaidError, type ErrorCode } from "unsaid";

import { button, element, say } from "./dom.js";

interface Words {
  readonly title: string;
  readonly text: string;
}

const words: Partial<Record<ErrorCode, Words>> = {
  "relay-unreachable": { title: "The relay does not answer.", text: "Nothing is lost. Check your connection, then try again." },
  "bad-manifest": { title: "The task’s terms cannot be read.", text: "You have not joined. The relay’s operator must repair them." },
  "manifest-below-floor": { title: "The task’s terms are too weak.", text: "This page refuses them, and nothing was sent." },
  "manifest-changed": { title: "The task’s terms have changed.", text: "Reload the page, read the new terms, and join again if you agree." },
  "bad-model": { title: "The model does not match its hash.", text: "It was not used, and nothing was sent. Try again later." },
  "no-data": { title: "There is nothing to learn from yet.", text: "Draw a digit and add it, or load some MNIST digits. Then join." },
  "bad-data": { title: "These examples do not fit the task.", text: "They were not added." },
  "budget-exhausted": { title: "Your privacy limit is reached.", text: "Nothing more is sent. You can raise the limit if you accept the cost." },
  "non-finite": { title: "Training went out of bounds.", text: "The result was thrown away, and nothing was sent. Join again to go on." },
  "webgpu-unavailable": { title: "This browser offers no WebGPU.", text: "Open the page without ?backend=webgpu: the CPU works too." },
  storage: { title: "This browser’s storage cannot be used.", text: "Without it no privacy ledger can be kept, so nothing is sent. Leave private mode or free some space, then reload." },
  busy: { title: "This tab takes part already.", text: "Leave first, then join again." },
  crashed: { title: "The training worker crashed and was restarted.", text: "Your data and your ledger are safe. Join again to go on." },
  "load-failed": { title: "The training worker cannot be loaded.", text: "Reload the page. A blocker or a very old browser may be in the way." },
  "update-conflict": { title: "The relay has another update under this id.", text: "Yours was not counted. Join again to go on." },
  refused: { title: "The relay refused.", text: "Nothing was counted." },
  closed: { title: "The session is closed.", text: "Reload the page to start again." },
};

export interface Action {
  readonly label: string;
  readonly run: () => void;
}

const box = element("notice");
const action = button("notice-action");
let run: (() => void) | null = null;
action.addEventListener("click", () => run?.());
button("notice-close").addEventListener("click", hideNotice);

/** Shows a sentence with, perhaps, something to do. */
export function showNotice(title: string, text: string, tone: "bad" | "info", offer?: Action): void {
  box.dataset["tone"] = tone;
  say(element("notice-title"), title);
  say(element("notice-text"), text);
  action.hidden = !offer;
  if (offer) say(action, offer.label);
  run = offer?.run ?? null;
  box.hidden = false;
}

export function hideNotice(): void {
  box.hidden = true;
}

/** Shows what went wrong. */
export function showError(error: unknown, offer?: Action): void {
  if (!(error instanceof UnsaidError)) {
    showNotice("Something went wrong.", `${error instanceof Error ? error.message : String(error)}.`, "bad", offer);
    return;
  }
  const known = words[error.code] ?? { title: "Something went wrong.", text: "" };
  const detail = error.problem?.detail ?? (["refused", "bad-data", "bad-options", "manifest-below-floor"].includes(error.code) ? error.message : "");
  showNotice(known.title, [known.text, detail && `(${detail})`].filter(Boolean).join(" "), "bad", offer);
}
