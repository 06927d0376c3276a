import type { ClientEvent, ClientEventOf, ClientEventType } from "./types.js";

type Listener = (event: ClientEvent) => void;

/** Hands events to listeners, in order. A listener that throws stops nobody else. */
export class Emitter {
  readonly #listeners = new Map<ClientEventType, Set<Listener>>();
  #held: ClientEvent[] | null = null;

  /** Calls `listener` on each event of a type until the returned function is called. */
  on<T extends ClientEventType>(type: T, listener: (event: ClientEventOf<T>) => void): () => void {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set);
    // A wrapper per call, so that one function can be added twice and be removed once. The cast is sound: `emit` looks
    // listeners up by the event's own type.
    const entry: Listener = (event) => listener(event as ClientEventOf<T>);
    set.add(entry);
    return () => void set.delete(entry);
  }

  /** Keeps events back until `release`. */
  hold(): void {
    this.#held ??= [];
  }

  /** Hands out what was kept back. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const event of held) this.emit(event);
  }

  emit(event: ClientEvent): void {
    if (this.#held) {
      this.#held.push(event);
      return;
    }
    for (const key of [event.type, "*"] as const) {
      for (const listener of [...(this.#listeners.get(key) ?? [])]) {
        try {
          listener(event);
        } catch (error) {
          // Shown where any uncaught error is shown, without stopping the others.
          queueMicrotask(() => {
            throw error;
          });
        }
      }
    }
  }
}
