/** A layer of a model. Shapes are those of one example: images `[height, width, channels]`, sequences `[time, features]`. */
export type Layer =
  | { readonly type: "dense"; readonly units: number }
  | {
      readonly type: "conv2d";
      readonly filters: number;
      readonly kernel: readonly [number, number];
      readonly stride?: readonly [number, number];
      readonly padding?: "same" | "valid";
    }
  | {
      readonly type: "max-pool2d" | "average-pool2d";
      readonly size: readonly [number, number];
      readonly stride?: readonly [number, number];
    }
  | { readonly type: "global-average-pool2d" | "global-max-pool2d" | "flatten" }
  | { readonly type: "relu" | "gelu" | "tanh" | "sigmoid" }
  | { readonly type: "dropout"; readonly rate: number }
  | { readonly type: "layer-norm"; readonly epsilon?: number }
  | { readonly type: "group-norm"; readonly groups: number; readonly epsilon?: number }
  | { readonly type: "upsample2d"; readonly factor: number }
  | { readonly type: "embedding"; readonly vocabulary: number; readonly units: number }
  | { readonly type: "lstm"; readonly units: number }
  | { readonly type: "cifg-lstm"; readonly units: number; readonly projection?: number }
  | { readonly type: "tied-dense" }
  /** Gives the value here a name, for an `add` or a `concat` further on. */
  | { readonly type: "mark"; readonly name: string }
  | { readonly type: "add" | "concat"; readonly with: string };

/** A model: the shape of one example, the layers that it passes through, and the loss at the end. */
export interface ModelSpec {
  /** `[features]`, `[height, width, channels]`, or `[time]` for token ids. */
  readonly input: readonly number[];
  readonly layers: readonly Layer[];
  readonly loss: "softmax-cross-entropy" | "sigmoid-cross-entropy" | "mean-squared-error";
}

/** How a gradient moves the weights. */
export type Optimizer =
  | { readonly type: "sgd"; readonly learningRate: number; readonly momentum?: number; readonly nesterov?: boolean }
  | {
      readonly type: "adam";
      readonly learningRate: number;
      readonly beta1?: number;
      readonly beta2?: number;
      readonly epsilon?: number;
      /** Decoupled weight decay: AdamW. */
      readonly weightDecay?: number;
    }
  | {
      readonly type: "adagrad";
      readonly learningRate: number;
      readonly initialAccumulator?: number;
      readonly epsilon?: number;
    };

/** How the step size changes over the steps of a call of `fit`, as a factor of the learning rate. */
export type Schedule =
  | { readonly type: "constant" }
  | { readonly type: "linear" | "cosine"; readonly end?: number }
  | { readonly type: "step"; readonly every: number; readonly factor: number };
