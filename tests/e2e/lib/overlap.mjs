// Whether two byte strings share a piece: the raw data must not be found in what is sent.

const PIECE = 64;
/** Blank paper and untouched weights are zeros in any file; a piece must have this many different bytes to mean anything. */
const DISTINCT = 8;

/** Calls back on each piece of 64 bytes that means something, at every offset, until the callback returns true. */
function eachPiece(bytes, visit) {
  const counts = new Uint8Array(256);
  let distinct = 0;
  for (let end = 0; end < bytes.length; end++) {
    if (counts[bytes[end]]++ === 0) distinct++;
    const start = end - PIECE + 1;
    if (start > 0 && --counts[bytes[start - 1]] === 0) distinct--;
    if (start >= 0 && distinct >= DISTINCT && visit(bytes.latin1Slice(start, end + 1), start)) return;
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
  eachPiece(a, (piece, at) => void places.set(piece, at));
  let found = null;
  eachPiece(b, (piece, at) => {
    if (places.has(piece)) found = [places.get(piece), at];
    return found !== null;
  });
  return found;
}
