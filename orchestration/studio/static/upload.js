// Send a file in pieces, each with its digest; after an interruption go on where the studio says.
import { call, Refused } from "/static/common.js";

const PIECE = 4 * 1024 * 1024;
const TRIES = 5;

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

async function digest(piece) {
  if (!crypto.subtle) return {}; // only where the page came by https, or from this machine
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await piece.arrayBuffer()));
  return { "upload-sha256": [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
}

export async function upload(file, onProgress, signal) {
  let state = await call("POST", "/api/v1/media", { name: file.name || "file", size: file.size });
  const address = `/api/v1/media/uploads/${state.id}`;
  let failures = 0;
  while (!state.media) {
    if (signal.aborted) {
      call("DELETE", address).catch(() => {});
      throw new DOMException("replaced", "AbortError");
    }
    const piece = file.slice(state.offset, state.offset + PIECE);
    try {
      state = await call("PATCH", address, piece, { "upload-offset": String(state.offset), ...(await digest(piece)) });
      failures = 0;
      onProgress(state.offset / file.size);
    } catch (error) {
      const mayGoOn = error instanceof Refused && [0, 409, 502, 503, 504].includes(error.status);
      if (!mayGoOn || ++failures > TRIES) throw error;
      await pause(2 ** failures / 2);
      state = await call("GET", address);
    }
  }
  return state.media;
}
