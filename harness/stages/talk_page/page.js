"use strict";
/* The page of stage=serve. Whatever people or models write enters it by textContent and value alone. */

const BASE = "base";
const SIDES = ["left", "right"];
const $ = (id) => document.getElementById(id);

const state = {
  base: "",
  speakers: new Map(), // labels by key
  manners: new Map(), // promises by key
  turns: { left: [], right: [] },
  history: null, // as the command set it; null: by the run
  asked: 0,
  last: "",
  stopping: null, // AbortController of the answers being written
};

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

async function read(url) {
  const response = await fetch(url, { headers: { accept: "application/json" } });
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

/* Who answers */

function label(key) {
  return key === BASE ? `${state.base}, before tuning` : state.speakers.get(key) ?? key;
}

function manner(key) {
  if (!state.manners.has(key)) {
    const found = read(`api/speakers/${encodeURIComponent(key)}`);
    found.catch(() => state.manners.delete(key));
    state.manners.set(key, found);
  }
  return state.manners.get(key);
}

/* The run whose prompt and decoding a side is asked with; the base is asked as the other side is. */
function protocol(side) {
  const [own, other] = [$(side).value, $(side === "left" ? "right" : "left").value];
  return own !== BASE ? own : other !== BASE ? other : state.speakers.keys().next().value;
}

async function list() {
  const found = await read("api/speakers");
  state.base = found.base;
  state.history = found.history;
  state.speakers = new Map(found.speakers.map((each) => [each.key, each.label]));
  for (const side of SIDES) {
    const chosen = $(side).value || found[side];
    const options = [[BASE, label(BASE)], ...state.speakers];
    const shown = [...$(side).options].map((option) => [option.value, option.textContent]);
    if (JSON.stringify(options) === JSON.stringify(shown)) continue;
    $(side).replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
    $(side).value = chosen === BASE || state.speakers.has(chosen) ? chosen : found[side];
  }
  document.title = `${state.base}: before and after tuning`;
  $("title").textContent = document.title;
}

async function about(side) {
  const element = $(`${side}-about`);
  element.classList.remove("bad");
  try {
    const found = await manner(protocol(side));
    element.textContent = [`template ${found.template}`, ...($(side).value === BASE ? [] : found.notes)].join(" · ");
  } catch (error) {
    element.textContent = error.message;
    element.classList.add("bad");
  }
}

/* The settings and examples of the right side's run, or of the left's if the right is the base. */
async function adopt() {
  await Promise.all(SIDES.map(about));
  let found;
  try {
    found = await manner(protocol("right"));
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("instruction").value = found.instruction;
  $("history").checked = state.history ?? found.turns;
  for (const name of ["max_new_tokens", "temperature", "top_p"]) $(name).value = found.generation[name];
  $("do_sample").checked = found.generation.do_sample;
  $("template").textContent = `These are the settings of the run: template ${found.template}. Each side keeps the template `
    + "of its own run.";
  const rows = found.examples.length > 0;
  $("hint").textContent = rows ? "From the data of this run:" : "Both models get what you write here.";
  $("examples").replaceChildren(...found.examples.map((text) =>
    make("li", {}, make("button", { type: "button", text, onclick: () => ask(text) }))));
  $("start").hidden = $("log").children.length > 0;
}

async function changed(side) {
  reset();
  if ($("log").children.length) divide(`${side === "left" ? "Left" : "Right"}: ${label($(side).value)}`);
  await adopt();
}

/* The conversation */

function reset() {
  state.turns = { left: [], right: [] };
}

function divide(text) {
  $("log").append(make("div", { class: "divider", text }));
  toEnd();
}

function toEnd() {
  const main = document.querySelector("main");
  main.scrollTop = main.scrollHeight;
}

function nearEnd() {
  const main = document.querySelector("main");
  return main.scrollHeight - main.scrollTop - main.clientHeight < 80;
}

function turn(message) {
  const parts = {};
  const answers = SIDES.map((side) => {
    const text = make("p", { class: "text" });
    const note = make("p", { class: "about" });
    const box = make("article", { class: "answer", "data-side": side, "aria-label": `Answer of ${label($(side).value)}` },
      make("h2", { text: label($(side).value) }), text, note);
    parts[side] = { box, text, note };
    return box;
  });
  const asked = make("p", { class: "asked", text: message });
  $("log").append(make("section", { class: "turn" }, asked, make("div", { class: "columns" }, ...answers)));
  $("start").hidden = true;
  toEnd();
  return parts;
}

function settings() {
  const generation = { do_sample: $("do_sample").checked };
  for (const name of ["max_new_tokens", "temperature", "top_p"]) generation[name] = $(name).valueAsNumber;
  return { instruction: $("instruction").value, seed: $("seed").valueAsNumber + state.asked, generation };
}

async function* lines(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    const complete = rest.split("\n");
    rest = complete.pop();
    for (const line of complete) yield JSON.parse(line);
    if (done) return;
  }
}

function summary(done) {
  const rate = done.seconds > 0 ? ` · ${(done.tokens / done.seconds).toPrecision(2)} tokens/s` : "";
  return [
    `${done.tokens} tokens${rate}`,
    ...(done.text === "" ? ["an empty answer"] : []),
    ...(done.cut ? ["cut at the longest answer"] : []),
    ...(done.forgotten ? [`without the first ${done.forgotten} turns, which did not fit`] : []),
  ].join(" · ");
}

/* One side's answer, into its place; what was answered, or null if it did not end. */
async function answer(side, turns, wanted, { box, text, note }, signal) {
  box.classList.add("writing");
  note.textContent = "";
  try {
    const body = JSON.stringify({ speaker: $(side).value, manner: protocol(side), turns, ...wanted });
    const headers = { "content-type": "application/json" };
    const response = await fetch("api/answers", { method: "POST", headers, body, signal });
    if (!response.ok) throw new Error((await response.json()).error);
    for await (const event of lines(response)) {
      const follow = nearEnd();
      if (event.waiting) note.textContent = event.waiting;
      if (event.text !== undefined) {
        note.textContent = "";
        text.textContent += event.text;
      }
      if (event.error) throw new Error(event.error);
      if (event.done) {
        text.textContent = event.done.text;
        note.textContent = summary(event.done);
        return event.done.text;
      }
      if (follow) toEnd();
    }
    throw new Error("the server ended in the middle of the answer");
  } catch (error) {
    const stopped = error.name === "AbortError";
    note.textContent = stopped ? "stopped" : error instanceof TypeError ? "the server cannot be reached" : error.message;
    note.classList.toggle("bad", !stopped);
    return null;
  } finally {
    box.classList.remove("writing");
  }
}

function busy(is) {
  $("send").disabled = $("left").disabled = $("right").disabled = $("reset").disabled = is;
  for (const button of $("examples").querySelectorAll("button")) button.disabled = is;
  $("stop").disabled = !is;
  $("log").setAttribute("aria-busy", String(is));
}

async function ask(message) {
  if (state.stopping || !message.trim()) return;
  for (const name of ["max_new_tokens", "temperature", "top_p", "seed"]) {
    if (!$(name).checkValidity()) {
      $("settings").open = true;
      $(name).reportValidity();
      return;
    }
  }
  const wanted = settings();
  const parts = turn(message);
  const before = Object.fromEntries(SIDES.map((side) => [side, $("history").checked ? state.turns[side] : []]));
  const answers = {};
  state.stopping = new AbortController();
  state.last = message;
  state.asked += 1;
  busy(true);
  say("");
  parts.right.note.textContent = "follows the left";
  try {
    for (const side of SIDES) {
      if (state.stopping.signal.aborted) {
        parts[side].note.textContent = "stopped";
        continue;
      }
      const turns = [...before[side], message];
      answers[side] = await answer(side, turns, wanted, parts[side], state.stopping.signal);
    }
  } finally {
    state.stopping = null;
    busy(false);
  }
  if (SIDES.every((side) => answers[side] != null)) {
    for (const side of SIDES) state.turns[side] = [...before[side], message, answers[side]];
  } else {
    say("This message is not part of the conversation, because not both have answered it.");
  }
}

/* Controls */

function submit() {
  const message = $("message").value;
  if (state.stopping || !message.trim()) return;
  $("message").value = "";
  ask(message);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  } else if (event.key === "ArrowUp" && $("message").value === "" && state.last) {
    event.preventDefault();
    $("message").value = state.last;
  }
});
$("stop").addEventListener("click", () => state.stopping?.abort());
$("reset").addEventListener("click", () => {
  reset();
  if ($("log").children.length) divide("New conversation");
  $("message").focus();
});
for (const side of SIDES) $(side).addEventListener("change", () => changed(side));
// Runs may have ended while the page was hidden; a server that is gone is noticed with the next message.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !state.stopping) list().catch(() => {});
});
$("theme").addEventListener("click", () => {
  const next = { auto: "light", light: "dark", dark: "auto" }[document.documentElement.dataset.theme];
  document.documentElement.dataset.theme = next;
  $("theme").textContent = `Theme: ${next}`;
});

list().then(adopt).then(
  () => { document.documentElement.dataset.ready = "true"; },
  (error) => say(error instanceof TypeError ? "the server cannot be reached" : error.message, true),
);
