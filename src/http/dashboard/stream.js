// Reads /v1/stream, for as long as the page is open. Not by EventSource, which can send no token.

const SILENCE_MAX_MS = 6000; // the server says something every second
const PAUSES_MS = [500, 1000, 2000, 4000, 8000]; // before trying again

export class Stream {
  #listener;
  #query = "";
  #attempt = null;
  #failures = 0;
  #timer;

  /**
   * `listener.event(name, data)` hears of events, `listener.lost(retryAtMs)` that the server is gone and when it is tried
   * again, `listener.refused(status, detail)` that it does not answer what is asked.
   */
  constructor(listener) {
    this.#listener = listener;
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
  }

  /** Asks for something else from now on. */
  ask(query) {
    this.#query = query;
    this.#connect();
  }

  /** Tries again at once, if it would later. */
  retry() {
    if (this.#failures > 0) this.#connect();
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.#attempt?.abort();
    const attempt = new AbortController();
    this.#attempt = attempt;
    const token = sessionStorage.getItem("token");
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const silence = this.#silence(attempt);
    try {
      const answer = await fetch(`/v1/stream?${this.#query}`, { headers, signal: attempt.signal, cache: "no-store" });
      if (answer.status >= 400 && answer.status < 500) {
        const problem = await answer.json().catch(() => ({}));
        if (this.#attempt === attempt) this.#listener.refused(answer.status, problem.detail ?? answer.statusText);
        return;
      }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      for await (const [name, data] of events(answer.body, () => silence.heard())) {
        if (this.#attempt !== attempt) return;
        this.#failures = 0;
        this.#listener.event(name, data);
      }
    } catch (error) {
      // A network that fails is a TypeError, and a silence or another attempt aborts; anything else is our own fault.
      if (!(error instanceof TypeError) && error.name !== "AbortError") console.error(error);
    } finally {
      silence.end();
    }
    // Another attempt has taken over, or the server is gone.
    if (this.#attempt !== attempt) return;
    const pause = PAUSES_MS[Math.min(this.#failures, PAUSES_MS.length - 1)];
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), pause);
    this.#listener.lost(Date.now() + pause);
  }

  /** A connection that is dead but open says nothing. */
  #silence(attempt) {
    let timer;
    const end = () => clearTimeout(timer);
    const heard = () => {
      end();
      timer = setTimeout(() => attempt.abort(), SILENCE_MAX_MS);
    };
    heard();
    return { heard, end };
  }
}

/** The server-sent events of a body: their names, and their data as JSON. */
async function* events(body, heard) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
      const data = field("data");
      if (data.length > 0) yield [field("event")[0] ?? "message", JSON.parse(data.join("\n"))];
    }
  }
}
