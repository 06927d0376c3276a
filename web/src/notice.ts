// Faults, as plain sentences with what to do.

import { UnsaidError, type ErrorCode } from "unsaid";

import { button, element, say } from "./dom.js";

interface Words {
  readonly title: string;
  readonly text: string;
}

/** Every code: the type demands it. */
const words: Readonly<Record<ErrorCode, Words>> = {
  "bad-options": { title: "The page was opened with something it cannot use.", text: "Open it without what follows “?” in its address." },
  "relay-unreachable": { title: "The relay does not answer.", text: "Nothing is lost. Check your connection, then try again." },
  "bad-manifest": { title: "The task’s terms cannot be followed.", text: "You have not joined, and nothing was sent. Only the relay’s operator can repair them." },
  "manifest-below-floor": { title: "The task’s terms are weaker than this page accepts.", text: "You have not joined, and nothing was sent. Only the relay’s operator can change them." },
  "manifest-changed": { title: "The task’s terms have changed.", text: "Nothing more is sent under the new ones. Reload the page, read them, and join again if you agree." },
  "bad-model": { title: "The relay’s model is not what it should be.", text: "It was not used, and nothing was sent. Try again later." },
  "no-data": { title: "There is nothing to learn from yet.", text: "Draw a digit and add it, or load some MNIST digits. Then join." },
  "bad-data": { title: "These examples do not fit the task.", text: "They were not added." },
  "daily-limit": { title: "Enough for today.", text: "As many rounds were paid for in the last 24 hours as this browser allows. Come back later." },
  "budget-exhausted": { title: "Your privacy limit is reached.", text: "Nothing more is sent. You can raise the limit if you accept the cost." },
  "non-finite": { title: "Training went out of bounds.", text: "The result was thrown away, and nothing was sent. Join again to go on." },
  "webgpu-unavailable": { title: "This browser offers no WebGPU.", text: "Open the page without ?backend=webgpu: the CPU works too." },
  storage: { title: "This browser’s storage cannot be used.", text: "Without it no privacy ledger can be kept, so nothing is sent. Leave private mode or free some space, then reload." },
  "no-entropy": { title: "This browser gives no random numbers.", text: "Without them there is no noise, so nothing was sent. Restart the browser, or use another one." },
  aborted: { title: "Stopped.", text: "You are no longer taking part. Join again when you like." },
  refused: { title: "The relay refused.", text: "Nothing was counted. Join again, or reload the page if it happens again." },
  busy: { title: "This tab takes part already.", text: "Leave first, then join again." },
  internal: { title: "This page made a mistake.", text: "Your data and your ledger are kept. Reload the page and join again; if it comes back, please report it." },
  "identity-unavailable": { title: "This browser cannot sign.", text: "The task asks its participants to. Open the page over https, in a newer browser." },
  crashed: { title: "The training worker crashed and was restarted.", text: "Your data and your ledger are safe. Join again to go on." },
  "load-failed": { title: "The training worker cannot be loaded.", text: "Reload the page. A blocker or a very old browser may be in the way." },
  closed: { title: "The session is closed.", text: "Reload the page to start again." },
};

/** Codes whose message tells a person more than the sentence above. */
const telling: readonly ErrorCode[] = ["bad-options", "bad-manifest", "manifest-below-floor", "bad-data", "refused", "identity-unavailable", "internal"];
/** Codes after which only a new page helps. */
const final: readonly ErrorCode[] = ["manifest-changed", "storage", "internal", "load-failed", "closed"];
const reload: Action = { label: "Reload the page", run: () => location.reload() };

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
  const { title, text } = words[error.code];
  const detail = error.problem?.detail ?? (telling.includes(error.code) ? error.message : "");
  showNotice(title, [text, detail && `(${detail})`].filter(Boolean).join(" "), "bad", offer ?? (final.includes(error.code) ? reload : undefined));
}
