// A worker in which the emulated WebGPU adapter says that it is a real one. Imports run in order.
import "./pretend.js";
import "./unsaid/worker.js";
