// The form of a new clip: two files, some fields, one button.
import { announce, call, say } from "/static/common.js";
import { upload } from "/static/upload.js";

const form = document.getElementById("new");
const make = document.getElementById("make");
const hint = document.getElementById("hint");
const problem = document.getElementById("problem");
const slots = new Map();

class Slot {
  constructor(element) {
    this.element = element;
    this.name = element.dataset.slot;
    this.path = element.dataset.path;
    this.kind = this.name === "reference" ? "picture" : "video";
    const file = element.querySelector("[data-file]");
    this.stage = element.querySelector("[data-stage]");
    this.progress = element.querySelector("progress");
    file.addEventListener("change", () => file.files[0] && this.take(file.files[0]));
    this.stage.addEventListener("click", (event) => event.target.tagName !== "VIDEO" && file.click());
    for (const kind of ["dragenter", "dragover"])
      element.addEventListener(kind, (event) => { event.preventDefault(); element.classList.add("over"); });
    element.addEventListener("dragleave", () => element.classList.remove("over"));
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      element.classList.remove("over");
      take([...event.dataTransfer.files], this);
    });
    const earlier = element.querySelector("[data-earlier]");
    earlier?.addEventListener("change", () => { if (earlier.value) this.choose(earlier.value); });
    if (this.path) this.choose(this.path);
  }

  choose(path) {
    this.stop?.abort();
    this.path = path;
    this.tell(`${path}. ${say("earlier")}`, "");
    this.progress.hidden = true;
    update();
  }

  tell(found, error) {
    this.element.querySelector("[data-found]").textContent = found;
    this.element.querySelector("[data-error]").textContent = error;
    announce(error || found);
  }

  show(file) {
    const isVideo = file.type.startsWith("video/");
    const shown = document.createElement(isVideo ? "video" : "img");
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = shown.src = URL.createObjectURL(file);
    if (isVideo) Object.assign(shown, { muted: true, loop: true, autoplay: true, playsInline: true, controls: true });
    else shown.alt = file.name;
    // A format that this browser does not show (HEIC, MKV) may still be a good file: its name stands there instead.
    shown.addEventListener("error", () => { this.stage.textContent = file.name; }, { once: true });
    this.stage.replaceChildren(shown);
    this.element.classList.add("full");
  }

  async take(file) {
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.path = "";
    update();
    this.show(file);
    this.progress.hidden = false;
    this.progress.value = 0;
    this.tell(say("sending", { percent: 0 }), "");
    try {
      const media = await upload(file, (share) => {
        this.progress.value = 100 * share;
        const found = this.element.querySelector("[data-found]");
        found.textContent = say("sending", { percent: Math.floor(100 * share) });
      }, signal);
      if (signal.aborted) return;
      if (this.name === "reference" && media.kind === "video") {
        this.tell("", say("wants_picture"));
        return;
      }
      this.path = media.path;
      const words = media.kind === "picture"
        ? [say("picture", media)]
        : [say("video", { ...media, rate: Math.round(media.frame_rate * 100) / 100, seconds: Math.round(media.seconds * 10) / 10 }),
           media.has_sound ? say("sound") : say("no_sound")];
      if (this.name === "driver" && media.kind === "picture") words.push(say("wants_video"));
      this.tell([...words, ...media.notes].join(" · "), "");
    } catch (error) {
      if (error.name !== "AbortError") this.tell("", error.message);
    } finally {
      if (!signal.aborted) {
        this.progress.hidden = true;
        update();
      }
    }
  }
}

// Two files dropped together find their places by themselves.
function take(files, slot) {
  if (files.length === 1) {
    slot.take(files[0]);
    return;
  }
  for (const file of files.slice(0, 2))
    slots.get(file.type.startsWith("video/") || file.type === "image/gif" ? "driver" : "reference").take(file);
}

function value(field) {
  const { kind } = field.dataset;
  if (kind === "size") {
    const parts = [...field.querySelectorAll("[data-part]")].filter((part) => part.value !== "");
    return parts.length ? Object.fromEntries(parts.map((part) => [part.dataset.part, Number(part.value)])) : undefined;
  }
  const input = field.querySelector("input, select, textarea");
  const standard = input.dataset.default;
  if (kind === "switch") return String(input.checked) === standard ? undefined : input.checked;
  if (input.validity.badInput) return NaN;
  if (input.value === "" ? standard === "" || kind !== "long text" : input.value === standard) return undefined;
  if (kind === "integer" || kind === "number") return Number(input.value);
  if (kind === "json" || (kind === "mixed" && /^(\[|-?\d+(\.\d+)?$)/.test(input.value))) {
    try { return JSON.parse(input.value); } catch { return input.value; }
  }
  return input.value;
}

function request() {
  const fields = [...form.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, value(field)]);
  const given = Object.fromEntries(fields.filter(([, each]) => each !== undefined));
  return { reference: slots.get("reference").path, driver: slots.get("driver").path, ...given };
}

function update() {
  const isReady = [...slots.values()].every((slot) => slot.path);
  make.disabled = !isReady;
  hint.hidden = isReady;
}

function show(problems) {
  for (const field of form.querySelectorAll("[data-field]")) {
    const own = problems.filter((each) => each.field.split(".")[0] === field.dataset.field).map((each) => each.message);
    field.querySelector("[data-error]").textContent = own.join("; ");
    field.classList.toggle("wrong", own.length > 0);
    if (own.length) field.closest("details")?.setAttribute("open", "");
  }
}

let waiting;
function check() {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    try {
      const document = { ...request() };
      document.reference ||= "none.png";
      document.driver ||= "none.mp4";
      show((await call("POST", "/api/v1/requests/check", document)).problems);
    } catch { /* submitting says it again */ }
  }, 350);
}

form.addEventListener("input", (event) => { if (event.target.closest("[data-field]")) check(); });
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  make.disabled = true;
  announce(say("submitting"));
  try {
    const submitted = await call("POST", "/api/v1/requests", request());
    location.assign(submitted.requests[0].links.page);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    update();
  }
});

for (const element of form.querySelectorAll("[data-slot]")) slots.set(element.dataset.slot, new Slot(element));
// What is dropped beside the two places is not opened by the browser instead of the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const files = [...event.dataTransfer.files];
  if (files.length) take(files, slots.get(files[0].type.startsWith("video/") ? "driver" : "reference"));
});
update();
