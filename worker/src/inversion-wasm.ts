// The surface of the inversion's wasm module. The build checks that the generated module satisfies it.

/** The module that wasm-bindgen generates. `invert` rejects with an `Error` that has a string `code`. */
export interface InversionModule {
  default(input: { module_or_path: URL | string }): Promise<unknown>;
  invert(manifest: Uint8Array, model: Uint8Array, x: Float32Array, label: number): Promise<unknown[]>;
}
