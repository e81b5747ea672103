// One clip: follow its progress, play it frame by frame, cancel it, try it again.
import { announce, call, say } from "/static/common.js";

const SECONDS_BETWEEN = 15;
const video = document.getElementById("video");
const watch = document.getElementById("watch");

// Only when the studio answers: a page that could not be loaded would never come back by itself.
async function reload() {
  const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
  if (answer?.ok || answer?.status === 404) location.reload();
  else setTimeout(reload, SECONDS_BETWEEN * 1000);
}

if (watch.dataset.events) {
  const progress = document.getElementById("progress");
  const state = document.getElementById("state");
  const source = new EventSource(watch.dataset.events);
  let files = null;
  source.addEventListener("state", (event) => {
    const view = JSON.parse(event.data);
    state.dataset.phase = view.phase;
    state.querySelector("[data-state]").textContent = view.state;
    document.title = `${view.state} · ${view.id}`;
    if (view.progress?.percent == null) progress.removeAttribute("value");
    else progress.value = view.progress.percent;
    const now = Object.keys(view.links).join();
    if (files !== null && files !== now) reload(); // poses, then the clip
    files = now;
  });
  source.addEventListener("end", () => { source.close(); reload(); });
  // An interrupted stream comes back by itself, one that was refused does not.
  source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) setTimeout(reload, SECONDS_BETWEEN * 1000); });
} else {
  // Nothing changes by itself, but somebody may try it again, or submit it anew: a look now and then, while one looks here.
  const before = watch.dataset.known;
  setInterval(async () => {
    if (document.hidden || (video && !video.paused)) return;
    const view = await call("GET", watch.dataset.self).catch(() => null);
    if (view && `${view.phase} ${view.state}` !== before) reload();
  }, SECONDS_BETWEEN * 1000);
}

for (const button of document.querySelectorAll("[data-act]"))
  button.addEventListener("click", async () => {
    if (button.dataset.ask && !confirm(button.dataset.ask)) return;
    button.disabled = true;
    const acted = document.getElementById("acted");
    try {
      const done = await call(button.dataset.act === "cancel" ? "DELETE" : "POST", button.dataset.address);
      acted.textContent = done.outcome;
      announce(done.outcome);
      await new Promise((waited) => setTimeout(waited, 1200));
      const isThere = await call("GET", watch.dataset.self).catch((error) => error.status !== 404);
      if (isThere) reload();
      else location.assign("/clips");
    } catch (error) {
      acted.textContent = error.message;
      button.disabled = false;
    }
  });

if (video) {
  const [play, seek, frame] = ["play", "seek", "frame"].map((id) => document.getElementById(id));
  const [numerator, denominator] = document.getElementById("player").dataset.frameRate.split("/").map(Number);
  const rate = numerator ? numerator / (denominator || 1) : 25;
  const frames = () => Math.max(1, Math.round(video.duration * rate));
  const current = () => Math.min(frames() - 1, Math.floor(video.currentTime * rate + 1e-3));

  const draw = () => {
    if (!video.duration) return;
    seek.max = frames() - 1;
    seek.value = current();
    frame.textContent = say("frame", { frame: current(), frames: frames() });
  };
  // To the middle of a frame: its borders belong to either neighbour.
  const show = (number) => {
    video.pause();
    video.currentTime = (((number % frames()) + frames()) % frames() + 0.5) / rate;
  };
  const toggle = () => (video.paused ? video.play() : video.pause());
  const tick = () => {
    draw();
    if (!video.paused) requestAnimationFrame(tick);
  };

  play.addEventListener("click", toggle);
  video.addEventListener("click", toggle);
  video.addEventListener("play", () => { play.textContent = "❚❚"; tick(); });
  video.addEventListener("pause", () => { play.textContent = "▶"; draw(); });
  for (const kind of ["loadedmetadata", "seeked"]) video.addEventListener(kind, draw);
  document.getElementById("back").addEventListener("click", () => show(current() - 1));
  document.getElementById("forward").addEventListener("click", () => show(current() + 1));
  seek.addEventListener("input", () => show(Number(seek.value)));
  document.getElementById("speed").addEventListener("change", (event) => { video.playbackRate = Number(event.target.value); });
  const loop = document.getElementById("loop");
  loop.addEventListener("change", () => { video.loop = loop.checked; });
  document.getElementById("sound").addEventListener("change", (event) => { video.muted = !event.target.checked; });

  for (const tab of document.querySelectorAll("[role=tab]"))
    tab.addEventListener("click", () => {
      for (const each of document.querySelectorAll("[role=tab]")) each.setAttribute("aria-selected", String(each === tab));
      const [time, paused, speed] = [video.currentTime, video.paused, video.playbackRate];
      video.src = tab.dataset.source;
      video.addEventListener("loadedmetadata", () => {
        video.currentTime = Math.min(time, video.duration); // all views share one time line
        video.playbackRate = speed;
        if (!paused) video.play();
      }, { once: true });
    });

  addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, button, a") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      " ": toggle,
      ArrowLeft: () => show(current() - 1),
      ArrowRight: () => show(current() + 1),
      l: () => { loop.checked = !loop.checked; video.loop = loop.checked; announce(String(loop.checked)); },
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
}
