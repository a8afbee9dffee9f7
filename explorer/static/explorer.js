// Without this a page still shows all it has; with it the player and the words go together.
"use strict";

const player = document.getElementById("player");
// By time: the two sides of stereo stand one after the other, and speak at once.
const words = [...document.querySelectorAll(".w")].sort((a, b) => a.dataset.s - b.dataset.s);
const starts = words.map((word) => Number(word.dataset.s));
let now = null; // the word that is marked
let until = null; // where what is heard again ends
let frame = 0;

// The last word that has begun by then, if it has not ended long ago.
function wordAt(seconds) {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= seconds + 0.01) low = middle + 1;
    else high = middle;
  }
  // Of several that begin at once, the one that is marked already.
  if (now && starts[low - 1] === Number(now.dataset.s)) return now;
  const word = words[low - 1];
  return word && seconds < Number(word.dataset.e) + 1 ? word : null;
}

function mark(word) {
  if (word === now) return;
  now?.classList.remove("now");
  now?.removeAttribute("aria-current");
  now = word;
  if (!word) return;
  word.classList.add("now");
  word.setAttribute("aria-current", "true");
  const box = word.getBoundingClientRect();
  if (box.top < innerHeight * 0.35 || box.bottom > innerHeight * 0.9) word.scrollIntoView({ block: "center" });
}

function follow() {
  if (until !== null && player.currentTime >= until) {
    player.pause();
    until = null;
  }
  mark(wordAt(player.currentTime));
  cancelAnimationFrame(frame);
  if (!player.paused) frame = requestAnimationFrame(follow);
}

function play(seconds, end = null) {
  until = end;
  player.currentTime = seconds;
  // A browser may want a click first: then the player stands there, and waits for it.
  player.play().catch(() => mark(wordAt(seconds)));
}

function step(by, among) {
  // From the marked word, or from where it would stand.
  let at = now ? words.indexOf(now) : starts.findLastIndex((start) => start <= player.currentTime) + (by < 0);
  do at += by;
  while (words[at] && !among(words[at]));
  const next = words[at];
  if (!next) return;
  until = null;
  mark(next);
  player.currentTime = Number(next.dataset.s);
}

// Places where two models differ, one after the other.
function stepPlace(by) {
  const places = [...document.querySelectorAll(".hear")];
  const at = places.indexOf(document.activeElement?.closest(".differ")?.querySelector(".hear"));
  const next = at < 0 ? places[by > 0 ? 0 : places.length - 1] : places[at + by];
  next?.focus();
  next?.closest(".differ").scrollIntoView({ block: "center" });
}

if (player) {
  player.addEventListener("play", follow);
  player.addEventListener("seeked", follow);
  player.addEventListener("timeupdate", () => {
    const field = document.getElementById("now");
    if (field) field.value = player.currentTime.toFixed(2);
  });
  player.querySelector("source:last-of-type").addEventListener("error", () => {
    document.getElementById("unplayable").hidden = false;
  });
  const at = Number(player.dataset.at || 0);
  if (at > 0) {
    const begin = () => play(at);
    if (player.readyState > 0) begin();
    else player.addEventListener("loadedmetadata", begin, { once: true });
    mark(wordAt(at));
  }
}

document.addEventListener("click", (event) => {
  const word = event.target.closest(".w");
  if (word) play(Number(word.dataset.s));
  const button = event.target.closest(".hear");
  if (button) play(Math.max(0, Number(button.dataset.from) - 0.7), Number(button.dataset.to) + 0.7);
});

// As one types: what a pause of a quarter of a second finds, under the address that Enter would lead to.
const results = document.getElementById("results");
let typing = 0;
let newest = 0;
async function find(form) {
  const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  const number = ++newest;
  const answer = await fetch(`/?${asked}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (number !== newest) return; // a later question was asked
  results.replaceChildren(...page.getElementById("results").childNodes);
  history.replaceState(null, "", `/?${asked}`);
  document.title = page.title;
}
if (results) {
  const form = document.querySelector(".search");
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(find, 250, form);
  });
  form.addEventListener("submit", () => clearTimeout(typing));
}

// An address to share says what was asked, and nothing else.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
});
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll(":disabled")) field.disabled = false;
});

document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, select, textarea, button, summary, video, a");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !field?.matches("input, select")) {
    const search = document.getElementById("q");
    if (search) search.select();
    else location.assign("/");
    event.preventDefault();
    return;
  }
  if (!player || field?.matches("input, select")) return;
  const does = {
    " ": () => (player.paused ? player.play() : player.pause()),
    j: () => (player.currentTime -= 5),
    l: () => (player.currentTime += 5),
    ArrowLeft: () => step(-1, () => true),
    ArrowRight: () => step(1, () => true),
    "[": () => (document.querySelector(".differ") ? stepPlace(-1) : step(-1, (word) => word.matches(".low"))),
    "]": () => (document.querySelector(".differ") ? stepPlace(1) : step(1, (word) => word.matches(".low"))),
  }[event.key];
  if (!does || (field && [" ", "ArrowLeft", "ArrowRight"].includes(event.key))) return;
  event.preventDefault();
  does();
});
