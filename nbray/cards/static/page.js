// The page at /nbray: the panel with nothing around it, served by Jupyter or by nbray itself.

import { createPanel } from "./panel.js";

const api = new URL("nbray/api/", document.baseURI);

async function request(verb, path, body) {
  const headers = { "X-NBRAY": "1" };
  const xsrf = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
  if (xsrf) headers["X-XSRFToken"] = decodeURIComponent(xsrf[1]);
  if (verb !== "GET") headers["Content-Type"] = "application/json";
  let response, said;
  try {
    response = await fetch(new URL(path, api), { method: verb, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Error("The server does not answer.");
  }
  try {
    said = await response.json();
  } catch {
    said = {};
  }
  if (!response.ok) throw new Error(said.message ?? `${response.status} ${response.statusText}`);
  return said;
}

function socket() {
  const url = new URL("watch", api);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

createPanel(document.getElementById("nbray"), { request, socket }).show();
