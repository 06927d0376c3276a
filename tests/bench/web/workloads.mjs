// The workloads of the benchmark and of the golden losses in tests/vectors/v1: models, weights and data, all made from whole
// numbers by a counter-based generator, so that any other engine can rebuild them bit for bit.

/** Value `index` of stream `seed`: the mixing function of mulberry32 (Tommy Ettinger, public domain), by counter. */
export function word(seed, index) {
  const a = (seed + Math.imul(index + 1, 0x6d2b79f5)) | 0;
  let t = Math.imul(a ^ (a >>> 15), 1 | a);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return (t ^ (t >>> 14)) >>> 0;
}
const UNIT = 2 ** -32;

const relu = { type: "relu" };
const dense = (units) => ({ type: "dense", units });
const conv = (size, filters) => ({ type: "conv2d", filters, kernel: [size, size], padding: "same" });
const pool = { type: "max-pool2d", size: [2, 2] };
const cross = "softmax-cross-entropy";
const classifier = (input, ...layers) => ({ input, layers, loss: cross });

/** Glorot-uniform tensors name their fans, and their stream where it is not their place; the others start at 0. */
const tensor = (len, fanIn = 0, fanOut = 0, stream = null) => ({ len, fanIn, fanOut, stream });
const denseTensors = (...dims) =>
  dims.slice(1).flatMap((out, i) => [tensor(dims[i] * out, dims[i], out), tensor(out)]);
const convTensors = (size, input, filters) => [
  tensor(size * size * input * filters, size * size * input, size * size * filters),
  tensor(filters),
];
/** Multiply-adds of one example forward and backward; the first layer's input needs no gradient. */
const macs = (...layers) => layers.reduce((sum, mac, i) => sum + mac * (i === 0 ? 2 : 3), 0);

const VOCABULARY = 2000;
const TIME = 20;

export const workloads = {
  logreg: {
    id: 1, batch: 64, rate: 0.005, model: classifier([784], dense(10)),
    tensors: denseTensors(784, 10), macs: macs(7840),
  },
  mlp: {
    id: 2, batch: 64, rate: 0.02, model: classifier([784], dense(128), relu, dense(64), relu, dense(10)),
    tensors: denseTensors(784, 128, 64, 10), macs: macs(784 * 128, 128 * 64, 640),
  },
  "2nn": {
    id: 3, batch: 64, rate: 0.02, model: classifier([784], dense(200), relu, dense(200), relu, dense(10)),
    tensors: denseTensors(784, 200, 200, 10), macs: macs(784 * 200, 200 * 200, 2000),
  },
  scnn: {
    id: 4, batch: 32, rate: 0.02,
    model: classifier([28, 28, 1], conv(3, 8), relu, pool, conv(3, 16), relu, pool, { type: "flatten" }, dense(10)),
    tensors: [...convTensors(3, 1, 8), ...convTensors(3, 8, 16), ...denseTensors(784, 10)],
    macs: macs(784 * 9 * 8, 196 * 72 * 16, 7840),
  },
  cnn: {
    id: 5, batch: 32, rate: 0.02,
    model: classifier(
      [28, 28, 1], conv(5, 32), relu, pool, conv(5, 64), relu, pool, { type: "flatten" }, dense(512), relu, dense(10),
    ),
    tensors: [...convTensors(5, 1, 32), ...convTensors(5, 32, 64), ...denseTensors(3136, 512, 10)],
    macs: macs(784 * 25 * 32, 196 * 800 * 64, 3136 * 512, 5120),
  },
  lstm: {
    id: 6, batch: 16, rate: 5,
    model: {
      input: [TIME],
      layers: [
        { type: "embedding", vocabulary: VOCABULARY, units: 96 }, { type: "lstm", units: 256 }, dense(96), { type: "tied-dense" },
      ],
      loss: cross,
    },
    tensors: [
      tensor(VOCABULARY * 96, VOCABULARY, 96), tensor(256 * 1024, 256, 1024, 2), tensor(96 * 1024, 96, 1024, 1), tensor(1024),
      tensor(256 * 96, 256, 96), tensor(96), tensor(VOCABULARY),
    ],
    macs: 3 * TIME * (96 * 1024 + 256 * 1024 + 256 * 96 + 96 * VOCABULARY),
  },
};

/** Batches before the data repeat. */
export const BATCHES = 8;

/** The flat parameter vector that a workload starts with. */
export function startingWeights({ id, tensors }) {
  const flat = new Float32Array(tensors.reduce((sum, { len }) => sum + len, 0));
  let at = 0;
  tensors.forEach(({ len, fanIn, fanOut, stream }, index) => {
    const limit = fanIn > 0 ? Math.sqrt(6 / (fanIn + fanOut)) : 0;
    for (let i = 0; i < len && fanIn > 0; i++) flat[at + i] = (word(1000 * id + (stream ?? index), i) * UNIT * 2 - 1) * limit;
    at += len;
  });
  return flat;
}

/** All batches one after the other: features and labels, examples first. */
export function data({ id, batch, model }) {
  const examples = batch * BATCHES;
  const [sx, sy] = [1000 * id + 900, 1000 * id + 901];
  if (model.layers[0].type === "embedding") {
    // Sequence s is a run of TIME + 1 words; what follows each is its label.
    const token = (s, t) => word(sx, s * (TIME + 1) + t) % VOCABULARY;
    const x = new Float32Array(examples * TIME).map((_, i) => token(Math.floor(i / TIME), i % TIME));
    const y = new Uint32Array(examples * TIME).map((_, i) => token(Math.floor(i / TIME), (i % TIME) + 1));
    return { x, y };
  }
  const x = new Float32Array(examples * 784).map((_, i) => word(sx, i) * UNIT);
  const y = new Uint32Array(examples).map((_, i) => word(sy, i) % 10);
  return { x, y };
}

/** Floating-point operations of a training step: two for each multiply-add. */
export const flops = ({ batch, macs: perExample }) => 2 * batch * perExample;

export const optimizers = {
  sgd: ({ rate }) => ({ type: "sgd", learning_rate: rate }),
  adam: () => ({ type: "adam", learning_rate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-7 }),
};

/** Steps of the golden losses. */
export const GOLDEN_STEPS = 20;
