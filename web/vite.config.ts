import { defineConfig } from "vite";

export default defineConfig({
  // Relative, so that the page can be served below any path.
  base: "./",
  build: {
    target: "es2022",
    // Nothing inline: the content security policy then needs no exception for data URLs or inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
  // The package finds its worker by a URL beside it, which pre-bundling would break.
  optimizeDeps: { exclude: ["unsaid"] },
  server: { proxy: { "/v1": "http://127.0.0.1:8787", "/data": "http://127.0.0.1:8787" } },
});
