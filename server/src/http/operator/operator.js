// The operator's page: what `GET /v1/admin/status` says, every two seconds, and the three calls that an operator has. It asks this
// relay and nobody else; the token is in this module's memory only.

const EVERY_MS = 2000;
/** After so long without an answer the relay counts as gone, though a connection may still be open. */
const ANSWER_MS = 5000;
const ROUNDS_SHOWN = 20;
/** How long it is said what a call did: somebody else may undo it. */
const DONE_MS = 10_000;
const SVG = "http://www.w3.org/2000/svg";

const $ = (selector, from = document) => from.querySelector(selector);
const views = new Map();
let token = "";
let timer;
let said;
/** When the relay last said how it is, by this page's clock, and whether it has not done so when it was asked since. */
let heard = 0;
let lost = false;
/** What had the focus when the buttons were switched off. */
let before = null;

const whole = new Intl.NumberFormat("en");
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const percent = (share) => (share === null ? "–" : `${(share * 100).toFixed(2)} %`);

/** Three digits in at most eight characters, the room that charts have: 0.123, 1,210, 1.21e+6. */
function epsilon(value) {
  if (value === null) return "–";
  return value !== 0 && (value < 1e-3 || value >= 999_500) ? value.toExponential(2) : three.format(value);
}

/** The least of 1, 2, 4, 6, 8 and 10 times a power of ten that is no less: half of it is round, too. */
function roundAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 4, 6, 8].find((factor) => factor * power >= value) ?? 10);
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

async function ask(path, options = {}) {
  const headers = { authorization: `Bearer ${token}`, ...options.headers };
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  // What stands between may answer in the relay's place, and not in JSON.
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const why = answer?.detail ?? `the answer (${response.status}) was not the relay’s`;
  throw Object.assign(new Error(why), { status: response.status });
}

function notice(text) {
  $("#notice").textContent = text;
  $("#done").textContent = "";
}

/** What a call did, in words. */
const DONE = {
  pause: () => "is paused",
  resume: () => "goes on",
  rollback: ({ round }) => `went back to the model of round ${round}`,
};

async function refresh() {
  clearTimeout(timer);
  const asked = token;
  try {
    const status = await ask("/v1/admin/status", { signal: AbortSignal.timeout(ANSWER_MS) });
    if (token !== asked || token === "") return;
    show(status);
  } catch (error) {
    if (token !== asked) return;
    if (error.status === 401) {
      leave();
      notice("This is not the operator’s token.");
      return;
    }
    lose(error.status ? error.message : "it does not answer");
  }
  timer = setTimeout(refresh, EVERY_MS);
}

/** What is shown is old from now on: it looks like that, says how old, and cannot be acted on. */
function lose(why) {
  if (!lost) {
    lost = true;
    if ($("#sure").open) $("#sure").close("no");
    before = document.activeElement;
    document.body.classList.add("lost");
    $("#relay").textContent = "";
    $("#done").textContent = "";
    for (const button of document.querySelectorAll("#tasks button")) button.disabled = true;
  }
  const since = heard > 0 ? ` What is below is as of ${new Date(heard).toLocaleTimeString()}.` : "";
  const said = `The relay cannot be asked: ${why}.${since} It is asked again every few seconds.`;
  // Said aloud when it changes, and it changes only with the reason.
  if ($("#lost").textContent !== said) $("#lost").textContent = said;
  age();
}

function find() {
  lost = false;
  document.body.classList.remove("lost");
  $("#lost").textContent = "";
}

/** How old the figures are, in each task, while they are old. */
function age() {
  if (!lost) return;
  const seconds = Math.round((Date.now() - heard) / 1000);
  const old = seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
  for (const { root } of views.values()) {
    $(".badges", root).replaceChildren(element("span", `as it was ${old} ago`, "bad"));
  }
}

async function operate(task, call, body) {
  const options = { method: "POST" };
  if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  notice("");
  const asked = token;
  try {
    await ask(`/v1/admin/tasks/${encodeURIComponent(task)}/${call}`, options);
    if (token !== asked) return;
    $("#done").textContent = `${task} ${DONE[call](body)}.`;
    clearTimeout(said);
    said = setTimeout(() => ($("#done").textContent = ""), DONE_MS);
  } catch (error) {
    if (token !== asked) return;
    notice(`${task}, ${call}: ${error.status ? error.message : "the relay did not answer; whether it was done, its figures will say"}`);
  }
  await refresh();
}

function leave() {
  clearTimeout(timer);
  token = "";
  views.clear();
  find();
  [heard, before] = [0, null];
  $("#tasks").replaceChildren();
  $("#relay").textContent = "";
  $("#enter").hidden = false;
  $("#leave").hidden = true;
  $("#token").focus();
}

function show(status) {
  const begins = heard === 0;
  find();
  heard = Date.now();
  $("#enter").hidden = true;
  $("#leave").hidden = false;
  const minutes = Math.floor(status.uptime_ms / 60000);
  const up = minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
  $("#relay").textContent = `version ${status.version} · up ${up} · ${status.uploads_free} places for updates free`;
  const known = new Set(status.tasks.map((task) => task.state.task));
  for (const [id, view] of views) {
    if (!known.has(id)) {
      view.root.remove();
      views.delete(id);
    }
  }
  for (const task of status.tasks) {
    const id = task.state.task;
    if (!views.has(id)) views.set(id, begin(id));
    update(views.get(id), task, status.delta);
  }
  // What had the focus is gone with the form, or was switched off.
  if (begins) ($("h2") ?? $("h1")).focus();
  else if (before?.isConnected && document.activeElement === document.body) before.focus();
  before = null;
}

function begin(id) {
  const root = $("#task").content.firstElementChild.cloneNode(true);
  root.id = `task-${id}`;
  $("h2", root).id = `title-${id}`;
  root.setAttribute("aria-labelledby", `title-${id}`);
  $(".scroll", root).setAttribute("aria-label", `Newest rounds of ${id}`);
  const view = { id, root, rows: new Map(), paused: false };
  $(".pause", root).addEventListener("click", () => operate(id, view.paused ? "resume" : "pause"));
  $("#tasks").append(root);
  return view;
}

function update(view, task, delta) {
  const { root } = view;
  const { state, since_start: since } = task;
  view.paused = state.paused ?? false;
  $("h2", root).textContent = `${task.title} (${state.task})`;
  const badges = [element("span", state.phase, state.phase === "collecting" ? "good" : "")];
  if (view.paused) badges.push(element("span", "paused", "bad"));
  badges.push(task.healthy ? element("span", "store works", "good") : element("span", "store failed", "bad"));
  $(".badges", root).replaceChildren(...badges);
  const pause = $(".pause", root);
  pause.textContent = view.paused ? "Resume" : "Pause";
  pause.setAttribute("aria-label", `${pause.textContent} ${state.task}`);
  pause.disabled = state.phase === "finished";

  const deadline = state.deadline_ms === null ? "" : `, ${Math.ceil(state.deadline_ms / 1000)} s left`;
  const { mode, noise_multiplier: multiplier, sampling_rate: rate } = task.privacy;
  const noises = {
    local: `on updates, ${multiplier} × Δ`,
    example: `on gradients, ${multiplier} × clip, rate ${rate}`,
    central: `on sums, by the relay, ${multiplier} × Δ`,
  };
  const noise = noises[mode] ?? mode;
  const open = ["Open round", `${state.round}: ${state.received} of ${state.checked_in} reported${deadline}`];
  facts($(".facts", root), [
    state.phase === "finished" ? ["Last round", String(state.round - 1)] : open,
    ["Strategy", task.strategy.join(", ")],
    ["Noise", noise],
    ["Parameters", whole.format(task.parameters)],
    ["Manifest", task.manifest.slice(0, 16)],
    ["Model", state.model.slice(0, 16)],
  ]);

  const steps = [
    ["Asked", since.asked],
    ["Selected", since.selected],
    ["Reported", since.reported],
    ["Late", since.late],
  ];
  const most = Math.max(1, ...steps.map(([, count]) => count));
  const bars = steps.map(([name, count]) => {
    const bar = document.createElement("i");
    bar.style.width = `${(100 * count) / most}%`;
    const item = document.createElement("li");
    item.append(element("span", name), element("b", whole.format(count)), bar);
    return item;
  });
  $(".funnel", root).replaceChildren(...bars);
  const refused = Object.entries(since.refused).map(([kind, count]) => `${kind}: ${whole.format(count)}`);
  $(".refused", root).textContent = refused.length > 0 ? refused.join(" · ") : "Nothing.";

  const points = (of) => task.rounds.filter((round) => of(round) !== null).map((round) => [round.round, of(round)]);
  chart($(".accuracy svg", root), points((round) => round.accuracy), 1, percent, "nothing yet");
  const spent = points((round) => round.epsilon);
  const whose = mode === "example" ? "one example of a client" : "a client";
  // Where the relay adds the noise, ε is at the δ of the task.
  $(".epsilon figcaption", root).textContent = `ε of ${whose} in every round, at δ = ${task.privacy.delta ?? delta}`;
  const none = mode === "none" ? "no noise, and so no ε" : "nothing yet";
  chart($(".epsilon svg", root), spent, roundAbove(Math.max(1e-9, ...spent.map(([, value]) => value))), epsilon, none);
  table(view, task.rounds.slice(-ROUNDS_SHOWN).reverse());
  const goes = view.paused ? "While it is paused the task can go back to the model of an earlier round." : "Pause the task to go back to an earlier model.";
  $(".going-back", root).textContent = goes;
}

function facts(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }),
  );
}

function chart(svg, points, most, say, nothing) {
  const [left, right, top, bottom] = [60, 312, 10, 126];
  const shapes = [];
  const add = (name, attributes, text) => {
    const shape = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    if (text !== undefined) shape.textContent = text;
    shapes.push(shape);
  };
  if (points.length === 0) {
    svg.setAttribute("aria-label", nothing);
    add("text", { x: left, y: 68 }, nothing);
    svg.replaceChildren(...shapes);
    return;
  }
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const x = (round) => left + ((right - left) * (round - first)) / Math.max(1, last - first);
  const y = (value) => bottom - ((bottom - top) * value) / most;
  for (const value of [0, most / 2, most]) {
    add("line", { x1: left, x2: right, y1: y(value), y2: y(value) });
    add("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, say === percent ? `${value * 100} %` : say(value));
  }
  add("text", { x: left, y: 144 }, `round ${first}`);
  if (last > first) add("text", { x: right, y: 144, "text-anchor": "end" }, `round ${last}`);
  const at = points.map(([round, value]) => `${x(round).toFixed(1)},${y(value).toFixed(1)}`);
  add("path", { d: `M${at.join("L")}` });
  add("circle", { cx: x(last), cy: y(points.at(-1)[1]), r: 3.5 });
  svg.setAttribute("aria-label", `${say(points[0][1])} after round ${first}, ${say(points.at(-1)[1])} after round ${last}`);
  svg.replaceChildren(...shapes);
}

// Rows are kept from one answer to the next, so that a button that has the focus keeps it.
function table(view, rounds) {
  const shown = new Set(rounds.map((round) => round.round));
  for (const [round, row] of view.rows) {
    if (!shown.has(round)) {
      row.remove();
      view.rows.delete(round);
    }
  }
  const body = $("tbody", view.root);
  let before = body.firstElementChild;
  for (const round of rounds) {
    let row = view.rows.get(round.round);
    if (!row) {
      row = begunRow(view, round);
      view.rows.set(round.round, row);
      body.insertBefore(row, before);
    } else {
      before = row.nextElementSibling;
    }
    row.cells[4].textContent = percent(round.accuracy);
    const back = $("button", row);
    back.disabled = !view.paused || round === rounds[0];
  }
}

function begunRow(view, round) {
  const row = document.createElement("tr");
  const file = element("a", String(round.round));
  file.href = `/v1/tasks/${encodeURIComponent(view.id)}/rounds/${round.round}/model`;
  file.download = "";
  file.title = "take this model away";
  file.setAttribute("aria-label", `${round.round}: take the model of this round away`);
  const head = document.createElement("th");
  head.scope = "row";
  head.append(file);
  const published = new Date(round.published_at_ms).toLocaleString();
  const reported = round.rolled_back_to === undefined ? whole.format(round.clients) : `back to ${round.rolled_back_to}`;
  const seconds = (round.duration_ms / 1000).toFixed(1);
  row.append(head);
  for (const text of [published, whole.format(round.checked_in), reported, "–", epsilon(round.epsilon), seconds]) {
    row.append(element("td", text));
  }
  const back = element("button", `Back to ${round.round}`);
  back.setAttribute("aria-label", `Back to ${round.round} of ${view.id}`);
  back.type = "button";
  back.addEventListener("click", () => goBack(view.id, round.round));
  const cell = document.createElement("td");
  cell.append(back);
  row.append(cell);
  return row;
}

function goBack(task, round) {
  const dialog = $("#sure");
  $("#sure-question").textContent =
    `Publish the model of round ${round} of ${task} again, as a round of its own? Updates of the open round are given up.`;
  dialog.returnValue = "no";
  dialog.showModal();
  dialog.onclose = () => {
    if (dialog.returnValue === "yes") void operate(task, "rollback", { round });
  };
}

$("#enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = $("#token").value.trim();
  // The relay has no other tokens, and a header cannot carry them.
  const strange = [...typed].findIndex((sign) => sign < " " || sign > "~");
  if (strange >= 0) {
    notice(`This cannot be the operator’s token: its sign number ${strange + 1} is none of ASCII’s. Was something else pasted?`);
    return;
  }
  token = typed;
  $("#token").value = "";
  notice("");
  void refresh();
});
$("#leave").addEventListener("click", () => {
  leave();
  notice("");
});
setInterval(age, 1000);
