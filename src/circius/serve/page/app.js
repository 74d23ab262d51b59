// The page: a conversation with the server it came from. What was said is kept in this browser only.

import { render } from "./markdown.js";

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
const KEPT = "circius.conversation", SETTINGS = "circius.settings";
const at = (id) => document.getElementById(id);
const log = at("log"), input = at("input"), form = at("form");

let messages = [];
let model = null;
let running = null; // the AbortController of the answer that is being made

// --- what is kept ---

function load(key, otherwise) {
  try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; }
}

function keep(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { say("this browser keeps nothing", true); }
}

function settings() {
  return Object.fromEntries([...NUMBERS, "system", "key"].map((name) => [name, at(name).value]));
}

function saveSettings() {
  const { key, ...rest } = settings();
  keep(SETTINGS, { ...rest, theme: document.documentElement.dataset.theme ?? null });
  try { sessionStorage.setItem("circius.key", key); } catch { /* then it is asked for again */ }
}

function restore() {
  const kept = load(SETTINGS, {});
  for (const name of [...NUMBERS, "system"]) if (kept[name] !== undefined) at(name).value = kept[name];
  try { at("key").value = sessionStorage.getItem("circius.key") ?? ""; } catch { /* nothing was kept */ }
  if (kept.theme) document.documentElement.dataset.theme = kept.theme;
  messages = load(KEPT, []).filter((each) => typeof each?.content === "string");
  show();
}

// --- what is shown ---

function show() {
  log.replaceChildren();
  at("empty")?.remove();
  if (!messages.length) {
    const empty = document.createElement("p");
    empty.id = "empty";
    empty.className = "empty";
    empty.textContent = "Ask something. Everything stays in this browser and on this server.";
    log.append(empty);
  }
  messages.forEach((message, index) => log.append(shown(message, index)));
  log.scrollTop = log.scrollHeight;
}

function shown(message, index) {
  const box = document.createElement("article");
  box.className = `message ${message.role}`;
  const who = document.createElement("div");
  who.className = "who";
  who.textContent = message.role === "user" ? "You" : "Model";
  const body = document.createElement("div");
  body.className = "body";
  if (message.role === "user") body.textContent = message.content;
  else render(message.content, body);
  box.append(who, body);
  if (message.role === "assistant") box.append(tools(message, index));
  return box;
}

function tools(message, index) {
  const bar = document.createElement("div");
  bar.className = "tools";
  bar.append(button("Copy", "Copy this answer", () => copy(message.content)));
  if (index === messages.length - 1) bar.append(button("Regenerate", "Ask for another answer", regenerate));
  if (message.end && message.end !== "stop") {
    const end = document.createElement("span");
    end.className = "end";
    end.textContent = message.end === "length" ? "cut off at the most tokens" : "stopped";
    bar.append(end);
  }
  return bar;
}

function button(label, title, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.title = title;
  made.addEventListener("click", action);
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
  } catch { say("this browser does not let pages copy", true); }
}

function say(text, isBad = false) {
  const status = at("status");
  status.textContent = text;
  status.classList.toggle("bad", isBad);
}

function setRunning(controller) {
  running = controller;
  at("send").hidden = running !== null;
  at("stop").hidden = running === null;
}

// --- asking ---

function headers() {
  const key = at("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function failure(response) {
  try { return (await response.json()).error.message; } catch { return `the server answered ${response.status}`; }
}

async function findModel() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw new Error(await failure(response));
    model = (await response.json()).data[0].id;
    at("model").textContent = model;
    say("");
  } catch (error) {
    say(error.message, true);
    model = null;
  }
}

function request() {
  const own = settings(), body = { model, stream: true, stream_options: { include_usage: true } };
  for (const name of NUMBERS) if (own[name] !== "") body[name] = Number(own[name]);
  const system = own.system.trim() ? [{ role: "system", content: own.system.trim() }] : [];
  body.messages = [...system, ...messages.map(({ role, content }) => ({ role, content }))];
  return body;
}

async function answer() {
  if (running) return;
  if (!model) await findModel();
  if (!model) return;
  setRunning(new AbortController());
  const message = { role: "assistant", content: "", end: null }, began = performance.now();
  const question = request();
  messages.push(message);
  show();
  const box = log.lastElementChild, body = box.querySelector(".body");
  box.classList.add("busy");
  log.setAttribute("aria-busy", "true");
  say("");
  let first = null, usage = null, pending = false;
  const draw = () => {
    pending = false;
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    render(message.content, body);
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  };
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(question), signal: running.signal,
    });
    if (!response.ok) throw new Error(await failure(response));
    for await (const each of events(response.body)) {
      if (each.error) throw new Error(each.error.message);
      usage = each.usage ?? usage;
      const choice = each.choices?.[0];
      if (choice?.delta?.content) {
        first ??= performance.now();
        message.content += choice.delta.content;
        if (!pending) { pending = true; requestAnimationFrame(draw); }
      }
      message.end = choice?.finish_reason ?? message.end;
    }
  } catch (error) {
    message.end = "abort";
    if (error.name !== "AbortError") say(error.message, true);
  }
  setRunning(null);
  log.removeAttribute("aria-busy");
  if (!message.content) messages.pop();
  keep(KEPT, messages);
  show();
  if (usage && first) {
    const rate = (usage.completion_tokens - 1) / ((performance.now() - first) / 1000);
    const speed = usage.completion_tokens > 1 ? `, ${rate.toFixed(1)} tokens a second` : "";
    say(`${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written, first after ${((first - began) / 1000).toFixed(2)} s${speed}`);
  }
  input.focus();
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const data = rest.slice(0, end).replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function regenerate() {
  if (running || messages.at(-1)?.role !== "assistant") return;
  messages.pop();
  answer();
}

function stop() { running?.abort(); }

function fresh() {
  stop();
  messages = [];
  keep(KEPT, messages);
  say("");
  show();
  input.focus();
}

// --- what the keyboard and the mouse do ---

function grow() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text || running) return;
  messages.push({ role: "user", content: text });
  keep(KEPT, messages);
  input.value = "";
  grow();
  answer();
});
input.addEventListener("input", grow);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.altKey && event.key.toLowerCase() === "n") { event.preventDefault(); fresh(); }
});
log.addEventListener("click", (event) => {
  if (event.target.matches(".copy-code")) copy(event.target.parentElement.querySelector("code").textContent);
});
at("stop").addEventListener("click", stop);
at("new").addEventListener("click", fresh);
at("settings-button").addEventListener("click", () => {
  const panel = at("settings");
  panel.hidden = !panel.hidden;
  at("settings-button").setAttribute("aria-expanded", `${!panel.hidden}`);
});
at("settings").addEventListener("change", () => { saveSettings(); if (!model) findModel(); });
at("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  saveSettings();
});

restore();
findModel();
