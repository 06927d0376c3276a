// The surface of the accountant's wasm module. The build checks that the generated module satisfies it.

/** The module that wasm-bindgen generates. Functions throw an `Error` that has a string `code`. */
export interface AccountantModule {
  default(input: { module_or_path: URL | string }): Promise<unknown>;
  /** ε and a lower bound on it. */
  epsilon(
    multiplier: number,
    sampling: string,
    rate: number,
    steps: number,
    delta: number,
    adjacency: string,
    accountant: string,
  ): Float64Array;
  noiseMultiplier(
    target: number,
    sampling: string,
    rate: number,
    steps: number,
    delta: number,
    adjacency: string,
    accountant: string,
  ): number;
}
