// One match at a time. What models wrote is only ever set as text, never as HTML.

const byId = (id) => document.getElementById(id);
const token = document.querySelector("meta[name=token]").content;
const KEYS = { 1: "first", 2: "tie", 3: "neither", 4: "second" };
let match = null;
let isBusy = false;

async function ask(path, body) {
  const request = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const reply = await fetch(path, { ...request, headers: { "Content-Type": "application/json", "X-Arena-Token": token } });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

function show(state) {
  match = state.match;
  byId("progress").textContent = `${state.done} of ${state.total}`;
  byId("match").hidden = byId("votes").hidden = match === null;
  byId("done").hidden = match !== null;
  byId("undo").disabled = state.done === 0;
  if (match === null) return;
  for (const part of ["prompt", "first", "second"]) {
    byId(part).textContent = match[part];
    byId(part).scrollTop = 0;
  }
}

async function doing(work) {
  if (isBusy) return;
  isBusy = true;
  byId("status").textContent = "";
  try {
    show(await work());
  } catch (error) {
    byId("status").textContent = error instanceof TypeError ? "The program does not answer. Is it still running?" : error.message;
  } finally {
    isBusy = false;
  }
}

const vote = (winner) => match && doing(() => ask("/vote", { match: match.id, winner }));
const undo = () => doing(() => ask("/undo", {}));

for (const button of document.querySelectorAll("[data-winner]")) {
  button.addEventListener("click", () => vote(button.dataset.winner));
}
byId("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key in KEYS) vote(KEYS[event.key]);
  else if (event.key.toLowerCase() === "u") undo();
});

const root = document.documentElement;
const kept = localStorage.getItem("circius.theme");
if (kept) root.dataset.theme = kept;
byId("theme").addEventListener("click", () => {
  const isDark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("circius.theme", root.dataset.theme);
});

doing(() => ask("/state"));
