// Tables inside closed <details> are not drawn: nobody sees them, and drawing them takes the page's thread time.

const latest = new WeakMap<HTMLDetailsElement, () => void>();

/** Draws now where the details are open, and otherwise when they are opened. Only the last drawing asked for counts. */
export function whileOpen(inside: HTMLElement, draw: () => void): void {
  const details = inside.closest("details");
  if (!details) throw new Error(`#${inside.id} is not inside <details>`);
  if (!latest.has(details)) details.addEventListener("toggle", () => details.open && latest.get(details)?.());
  latest.set(details, draw);
  if (details.open) draw();
}
