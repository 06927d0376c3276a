// A recording proxy. In front of a relay it keeps one origin while relays come and go, and can break the connection at any
// point. As a browser's own proxy it sees every request of every page, worker and service of that browser.
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";

export class Proxy {
  #server;
  #target = null;
  #open = new Set();
  /** Every request, in order of arrival: method, url, path, headers, body, sha256, status, responseBytes. */
  requests = [];
  /** Decides what becomes of a request: "pass", "refuse" (nothing reaches the relay), "lose-answer" (the relay gets it, the
   * client never hears), or a promise of one of these. */
  rule = () => "pass";

  constructor(server) {
    this.#server = server;
  }

  static async start(target) {
    const server = http.createServer();
    const proxy = new Proxy(server);
    server.on("request", (request, response) => void proxy.#handle(request, response));
    // Anything encrypted goes to somewhere else than the relay: recorded, and refused.
    server.on("connect", (request, socket) => {
      proxy.requests.push({ method: "CONNECT", url: request.url, path: request.url, body: Buffer.alloc(0), status: 403 });
      socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
    });
    server.on("connection", (socket) => {
      proxy.#open.add(socket);
      socket.on("close", () => proxy.#open.delete(socket));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    proxy.target = target;
    return proxy;
  }

  get origin() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** The origin that requests go on to; null refuses every connection, those that are open included. */
  set target(origin) {
    this.#target = origin;
    if (origin === null) for (const socket of this.#open) socket.destroy();
  }

  /** Requests whose path is `path`, or matches it. */
  to(path, method) {
    const matches = (request) => (path instanceof RegExp ? path.test(request.path) : request.path === path);
    return this.requests.filter((request) => matches(request) && (!method || request.method === method));
  }

  updates() {
    return this.to("/v1/tasks/mnist/updates", "POST");
  }

  async close() {
    this.target = null;
    this.#server.close();
    await once(this.#server, "close");
  }

  async #handle(request, response) {
    request.on("error", () => {});
    response.on("error", () => {});
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return;
    }
    const body = Buffer.concat(chunks);
    // A browser asks its proxy for a whole URL, and any other server for a path.
    const url = new URL(request.url, this.#target ?? this.origin);
    const record = {
      method: request.method,
      url: url.href,
      path: url.pathname + url.search,
      headers: request.headers,
      body,
      sha256: createHash("sha256").update(body).digest("hex"),
      status: null,
      responseBytes: 0,
      at: Date.now(),
    };
    this.requests.push(record);
    const verdict = await this.rule(record);
    if (!this.#target || verdict === "refuse") {
      request.socket.destroy();
      return;
    }
    const to = request.url.startsWith("/") ? new URL(this.#target) : url;
    const { "proxy-connection": _, ...headers } = request.headers;
    // A connection of its own: one that is kept may be closed by the relay just as it is used again, and then nobody's fault is tested.
    const options = { host: to.hostname, port: to.port, method: request.method, path: record.path, headers, agent: false };
    const onward = http.request(options, (answer) => {
      record.status = answer.statusCode;
      answer.on("data", (chunk) => (record.responseBytes += chunk.length));
      answer.on("error", () => response.destroy());
      if (verdict === "lose-answer") {
        answer.resume();
        answer.on("end", () => request.socket.destroy());
        return;
      }
      // A browser silently repeats a request that fails on a connection it has used before; on a fresh one it does not.
      response.writeHead(answer.statusCode, { ...answer.headers, connection: "close" });
      answer.pipe(response);
    });
    onward.on("error", () => request.socket.destroy());
    response.on("close", () => onward.destroy());
    onward.end(body);
  }
}
