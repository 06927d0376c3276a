// A browser without WebGPU.
Object.defineProperty(navigator, "gpu", { value: undefined });
