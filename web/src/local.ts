// The data on this device: labelled drawings and loaded digits.

import type { Client } from "unsaid";

import { button, byId, element, say } from "./dom.js";
import * as format from "./format.js";
import { showError } from "./notice.js";
import type { Pad } from "./pad.js";
import type { Partition, Query } from "./query.js";
import { claimShard, fetchShard } from "./shard.js";
import type { View } from "./view.js";

export interface Host {
  readonly view: View;
  readonly client: () => Client | null;
  readonly redraw: () => void;
}

export interface Local {
  /** Loads a slice of MNIST as local data. */
  load(partition: Partition): Promise<void>;
}

let loading = false;

export function createLocal(host: Host, pad: Pad, query: Query): Local {
  const said = element("data-said");
  const partition = byId("partition", HTMLSelectElement);
  partition.value = query.partition;
  createTeaching(host, pad);
  createClasses();

  const load = async (which: Partition): Promise<void> => {
    const client = host.client();
    if (!client) return;
    const index = query.shard ?? (await claimShard(which));
    const bytes = await fetchShard(which, index, query.examples);
    host.view.transfers.push({ at: new Date(), what: `demo digits, slice ${index} (${which})`, bytes: bytes.length, outcome: "received" });
    const before = host.view.data?.examples ?? 0;
    host.view.data = await client.data.importShard(bytes);
    host.view.loaded = bytes;
    say(said, `Slice ${index} loaded: ${format.plural(host.view.data.examples - before, "digit")}.`);
    host.redraw();
  };

  byId("load", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    loading = true;
    host.redraw();
    say(said, "Loading digits …");
    load(partition.value === "shards" ? "shards" : "iid")
      .catch((error: unknown) => {
        say(said, "");
        showError(error);
      })
      .finally(() => {
        loading = false;
        host.redraw();
      });
  });

  const clear = button("data-clear");
  let sure: ReturnType<typeof setTimeout> | undefined;
  const calm = (): void => {
    clearTimeout(sure);
    sure = undefined;
    say(clear, "Delete my data");
  };
  clear.addEventListener("click", () => {
    if (!sure) {
      say(clear, "Press again to delete all");
      sure = setTimeout(calm, 4000);
      return;
    }
    calm();
    host
      .client()
      ?.data.clear()
      .then((summary) => {
        host.view.data = summary;
        say(said, "Deleted.");
        host.redraw();
      })
      .catch(showError);
  });
  return { load };
}

function createTeaching(host: Host, pad: Pad): void {
  const said = element("teach-said");
  const digits = element("digits");
  digits.replaceChildren(
    ...Array.from({ length: 10 }, (_, digit) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "radio";
      input.name = "digit";
      input.value = String(digit);
      const text = document.createElement("span");
      text.textContent = String(digit);
      label.append(input, text);
      return label;
    }),
  );
  byId("teach", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = digits.querySelector<HTMLInputElement>("input:checked");
    const example = pad.example();
    const client = host.client();
    if (!example) return say(said, "Draw something first.");
    if (!chosen) return say(said, "Say which digit it is.");
    if (!client) return say(said, "The session is not open yet.");
    client.data
      .add(example, [Number(chosen.value)])
      .then((summary) => {
        host.view.data = summary;
        say(said, `Added a ${chosen.value}. ${format.plural(summary.examples, "example")} now.`);
        chosen.checked = false;
        pad.wipe();
        host.redraw();
      })
      .catch(showError);
  });
}

function createClasses(): void {
  element("data-classes").replaceChildren(
    ...Array.from({ length: 10 }, (_, digit) => {
      const column = document.createElement("span");
      column.innerHTML = `<i></i><b></b>`;
      column.lastElementChild?.append(String(digit));
      return column;
    }),
  );
}

export function drawLocal({ data, manifest }: View): void {
  const examples = data?.examples ?? 0;
  say(element("data-count"), format.count(examples));
  say(element("data-unit"), `${examples === 1 ? "example" : "examples"}${examples > 0 ? `, ${format.bytes(data?.bytes ?? 0)}` : ""}`);
  const most = Math.max(1, ...(data?.perClass ?? []));
  const chart = element("data-classes");
  [...chart.children].forEach((column, digit) => {
    const count = data?.perClass[digit] ?? 0;
    const bar = column.firstElementChild;
    if (bar instanceof HTMLElement) {
      bar.style.setProperty("--share", String(count / most));
      bar.dataset["count"] = count > 0 ? String(count) : "";
    }
  });
  const counts = (data?.perClass ?? []).map((count, digit) => `${digit}: ${count}`).join(", ");
  chart.setAttribute("aria-label", examples > 0 ? `Examples of each digit. ${counts}` : "No examples yet");
  button("data-clear").hidden = examples === 0;
  button("teach-add").disabled = !manifest;
  button("load-go").disabled = loading || !manifest;
}
