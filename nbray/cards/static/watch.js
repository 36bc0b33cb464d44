// What a server tells of clusters, while somebody looks: over a WebSocket, or by asking again and again where that cannot be had.
// host.socket() -> URL, host.request(verb, path, body) -> Promise. Nothing is asked while the page is hidden.

const SOONEST_MS = 1000;
const LATEST_MS = 30000;
const OPENS_WITHIN_MS = 5000;

export function createWatch(host, show, fail) {
  let socket = null, timer = null, active = false, pause = SOONEST_MS, deaf = false;
  let wanted = { cluster: "", views: [] };
  document.addEventListener("visibilitychange", seen);

  function start() {
    active = true;
    seen();
  }

  function stop() {
    active = false;
    quiet();
  }

  function remove() {
    stop();
    document.removeEventListener("visibilitychange", seen);
  }

  function choose(cluster, views) {
    wanted = { cluster, views };
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wanted));
    else if (active && !document.hidden && timer !== null) again(0);
  }

  function seen() {
    if (!active || document.hidden) quiet();
    else if (socket === null && timer === null) connect();
  }

  function quiet() {
    clearTimeout(timer);
    timer = null;
    const old = socket;
    socket = null;
    old?.close();
  }

  function again(delay) {
    clearTimeout(timer);
    timer = setTimeout(() => { timer = null; if (deaf) poll(); else connect(); }, delay);
  }

  function later() {
    again(pause);
    pause = Math.min(LATEST_MS, pause * 2);
  }

  function connect() {
    let mine, told = false;
    try {
      mine = socket = new WebSocket(host.socket());
    } catch {
      socket = null;
      deaf = true;
      again(0);
      return;
    }
    const slow = setTimeout(() => { if (!told) mine.close(); }, OPENS_WITHIN_MS);
    mine.onopen = () => mine.send(JSON.stringify(wanted));
    mine.onmessage = (event) => {
      told = true;
      pause = SOONEST_MS;
      if (mine === socket) show(JSON.parse(event.data));
    };
    mine.onclose = () => {
      clearTimeout(slow);
      if (mine !== socket) return; // closed by us
      socket = null;
      deaf = !told; // it never spoke: ask instead, and try a socket again after a while
      if (deaf) again(0); else later();
    };
  }

  let polls = 0;
  async function poll() {
    const asked = wanted;
    try {
      const said = await host.request("GET", `snapshot?cluster=${encodeURIComponent(asked.cluster)}&views=${encodeURIComponent(asked.views.join(","))}`);
      if (!active) return;
      pause = SOONEST_MS;
      if (asked === wanted) show(said);
      if (++polls % 30 === 0) deaf = false;
      again(asked === wanted ? SOONEST_MS : 0);
    } catch (error) {
      if (!active) return;
      fail(error.message);
      later();
    }
  }

  return { start, stop, remove, choose, get live() { return socket !== null || timer !== null; } };
}
