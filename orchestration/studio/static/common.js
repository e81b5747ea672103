// What every page needs: texts, calls of the HTTP interface, theme, language, log-out.
const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
const texts = JSON.parse(meta("texts") || "{}");

export const say = (key, values = {}) =>
  (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

export const announce = (text) => { document.getElementById("said").textContent = text; };

export class Refused extends Error {
  constructor(status, body) {
    super(body?.message ?? `status ${status}`);
    this.status = status;
    this.fields = body?.fields ?? [];
  }
}

export async function call(method, address, body, headers = {}) {
  const isBytes = body instanceof Blob;
  let answer;
  try {
    answer = await fetch(address, {
      method,
      credentials: "same-origin",
      headers: {
        "x-csrf-token": meta("csrf"),
        ...(body === undefined ? {} : { "content-type": isBytes ? "application/octet-stream" : "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : isBytes ? body : JSON.stringify(body),
    });
  } catch (error) {
    throw new Refused(0, { message: say("no_answer", { reason: error.message }) });
  }
  const known = answer.headers.get("content-type")?.includes("json") ? await answer.json() : null;
  if (!answer.ok) throw new Refused(answer.status, known);
  return known;
}

document.querySelector("[data-theme-switch]")?.addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
for (const button of document.querySelectorAll("[data-language]"))
  button.addEventListener("click", async () => { await call("POST", `/language/${button.dataset.language}`); location.reload(); });
document.querySelector("[data-log-out]")?.addEventListener("click", async () => {
  await call("POST", "/logout");
  location.assign("/login");
});

// A picture that is not there yet: the sign for one that is awaited.
document.addEventListener("error", (event) => {
  const image = event.target;
  if (image.tagName === "IMG" && image.dataset.fallback && !image.dataset.failed) {
    image.dataset.failed = "1";
    image.src = image.dataset.fallback;
  }
}, true);
