// The gallery: clips move while one looks at them, and what is in progress is kept up to date.
import "/static/common.js";

const SECONDS_ACTIVE = 3;
const SECONDS_IDLE = 30;

function enliven(cards) {
  for (const link of cards.querySelectorAll(".card a")) {
    const image = link.querySelector("img[data-moving]");
    if (!image) continue;
    const start = () => {
      if (link.querySelector("video") || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const video = document.createElement("video");
      Object.assign(video, { src: image.dataset.moving, muted: true, loop: true, autoplay: true, playsInline: true });
      video.setAttribute("aria-hidden", "true");
      image.after(video);
    };
    const stop = () => link.querySelector("video")?.remove();
    link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && start());
    link.addEventListener("focus", start);
    link.addEventListener("pointerleave", stop);
    link.addEventListener("blur", stop);
  }
}

let shown = document.getElementById("cards");
let last = shown.outerHTML;

async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("part", "true");
  const answer = await fetch(address, { credentials: "same-origin" });
  if (answer.redirected) location.reload();
  if (!answer.ok) return;
  const text = (await answer.text()).trim();
  if (text === last) return; // nothing moves on a page where nothing changed
  last = text;
  const next = new DOMParser().parseFromString(text, "text/html").getElementById("cards");
  const focused = document.activeElement?.closest?.("#cards a")?.getAttribute("href");
  shown.replaceWith(next);
  shown = next;
  enliven(shown);
  if (focused) shown.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function follow() {
  for (;;) {
    const seconds = shown.dataset.active ? SECONDS_ACTIVE : SECONDS_IDLE;
    await new Promise((done) => setTimeout(done, seconds * 1000));
    if (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
    await refresh().catch(() => {}); // the studio is being started again
  }
}

enliven(shown);
follow();
