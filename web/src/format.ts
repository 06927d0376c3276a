const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value: number): string => whole.format(value);

export const plural = (value: number, one: string, many = `${one}s`): string => `${count(value)} ${value === 1 ? one : many}`;

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export function bytes(value: number): string {
  if (value < 1000) return `${value} B`;
  return value < 1e6 ? `${(value / 1e3).toFixed(1)} kB` : `${(value / 1e6).toFixed(2)} MB`;
}

export const seconds = (ms: number): string => (ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`);

/** Three significant digits, rounded up: what is shown is never less than what was spent. */
export function epsilon(value: number): string {
  if (!Number.isFinite(value)) return "∞";
  if (value <= 0) return "0";
  const unit = 10 ** (Math.floor(Math.log10(value)) - 2);
  const up = Math.ceil(value / unit - 1e-9) * unit;
  return up >= 100 ? count(up) : String(Number(up.toPrecision(3)));
}

/** Three significant digits. */
export const number = (value: number): string => (Math.abs(value) >= 1000 ? count(value) : String(Number(value.toPrecision(3))));

/** Two significant digits: for what is only known roughly. */
export const about = (value: number): string => count(Number(value.toPrecision(2)));

export function delta(value: number): string {
  const exponent = Math.round(Math.log10(value));
  return Math.abs(value - 10 ** exponent) < 1e-9 * value ? `10${superscript(exponent)}` : value.toExponential(1);
}

const superscript = (value: number): string =>
  [...String(value)].map((digit) => (digit === "-" ? "⁻" : ("⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)] ?? ""))).join("");

export const clock = (at: Date): string => at.toLocaleTimeString("en-GB");

/** A long hash, by its ends. */
export const short = (hash: string): string => (hash.length > 20 ? `${hash.slice(0, 10)}…${hash.slice(-6)}` : hash);
