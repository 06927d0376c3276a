// Whether two byte strings share a piece: the raw data must not be found in what is sent.

const PIECE = 64;
/** Blank paper and untouched weights are zeros in any file; a piece must have this many different bytes to mean anything. */
const DISTINCT = 8;
/** Any odd base will do for a hash in 32 bits; this one is the prime of FNV-1a. */
const BASE = 0x01000193;
let leaving = 1;
for (let i = 0; i < PIECE; i++) leaving = Math.imul(leaving, BASE);

/** Calls back with the hash and the start of each piece of 64 bytes that means something, at every offset, until the callback
 * returns true. The hash rolls: each byte enters it once and leaves it once (Karp, Rabin 1987). */
function eachPiece(bytes, visit) {
  const counts = new Uint8Array(256);
  let distinct = 0;
  let hash = 0;
  for (let end = 0; end < bytes.length; end++) {
    const start = end - PIECE + 1;
    hash = (Math.imul(hash, BASE) + bytes[end]) | 0;
    if (counts[bytes[end]]++ === 0) distinct++;
    if (start > 0) {
      hash = (hash - Math.imul(leaving, bytes[start - 1])) | 0;
      if (--counts[bytes[start - 1]] === 0) distinct--;
    }
    if (start >= 0 && distinct >= DISTINCT && visit(hash, start)) return;
  }
}

/** Number of pieces that are looked at: a search that looks at none finds nothing. */
export function pieces(bytes) {
  let count = 0;
  eachPiece(bytes, () => void count++);
  return count;
}

/** Offsets [in a, in b] of a piece of 64 bytes that both hold, at whatever offsets; null where there is none. */
export function sharedPiece(a, b) {
  const places = new Map();
  eachPiece(a, (hash, at) => {
    const same = places.get(hash);
    if (same) same.push(at);
    else places.set(hash, [at]);
  });
  let found = null;
  eachPiece(b, (hash, at) => {
    const candidates = places.get(hash);
    if (!candidates) return false;
    const piece = b.subarray(at, at + PIECE);
    const there = candidates.find((from) => piece.equals(a.subarray(from, from + PIECE)));
    if (there !== undefined) found = [there, at];
    return found !== null;
  });
  return found;
}
