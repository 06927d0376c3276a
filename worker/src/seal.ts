// Whether a relay's manifest is signed by the key that the page trusts. The browser's own Ed25519 checks it, which costs no byte of
// wasm. PROTOCOL.md, section 3.1.

/** What is signed is this, then the manifest's bytes: a signature of a manifest can be none of anything else. */
const CONTEXT = new TextEncoder().encode("unsaid/v1/manifest\0");

/** Checks a manifest; rejects where it may not be used. */
export interface Seal {
  check(manifest: Uint8Array, signature: string | undefined): Promise<void>;
}

/** What the wasm asks about signatures: the relay's, and this browser's own. */
export interface Signatures extends Seal {
  /** The header that says who signed a request with this body; nothing where nobody need have. */
  sign(body: Uint8Array): Promise<string | undefined>;
}

/** The seal of a relay's public key, 64 hexadecimal digits; without a key, every manifest passes. */
export function sealOf(key: string | undefined): Seal {
  return {
    async check(manifest, signature) {
      if (key === undefined) return;
      if (signature === undefined) throw new Error("it is not signed, and the page asks for a signature");
      const verified = await verify(fromHex(key), fromHex(signature), manifest);
      if (!verified) throw new Error("it is not signed by the key that the page trusts");
    },
  };
}

async function verify(key: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>, manifest: Uint8Array): Promise<boolean> {
  const { subtle } = globalThis.crypto;
  if (!subtle) throw new Error("this page is not in a secure context (https), so the browser checks no signatures");
  const signed = new Uint8Array(CONTEXT.length + manifest.length);
  signed.set(CONTEXT);
  signed.set(manifest, CONTEXT.length);
  let imported: CryptoKey;
  try {
    imported = await subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  } catch (cause) {
    throw new Error("this browser does not know Ed25519, so it cannot check the manifest’s signature", { cause });
  }
  return subtle.verify("Ed25519", imported, signature, signed);
}

/** Bytes of hexadecimal digits; none where they are no such. */
function fromHex(text: string): Uint8Array<ArrayBuffer> {
  if (!/^([0-9a-f]{2})*$/.test(text)) return new Uint8Array();
  return Uint8Array.from({ length: text.length / 2 }, (_, at) => Number.parseInt(text.slice(2 * at, 2 * at + 2), 16));
}
