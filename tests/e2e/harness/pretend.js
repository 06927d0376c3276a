const say = (name, value) => Object.defineProperty(GPUAdapterInfo.prototype, name, { get: () => value });
say("isFallbackAdapter", false);
say("description", "A pretended GPU");
