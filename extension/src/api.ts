// What the server extension answers (nbray/server/).
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

export interface Cluster {
  id: string;
  name: string;
  address: string;
  pid: number;
  mine: boolean; // started here: may be stopped here
}

// A snapshot of nbray/cards/cluster.py; nbray/cards/static/cluster.js draws it.
export type View = Record<string, unknown>;

async function request<T>(path: string, init: RequestInit = {}): Promise<T> {
  const settings = ServerConnection.makeSettings();
  const url = URLExt.join(settings.baseUrl, 'nbray', 'api', path);
  let response: Response;
  try {
    response = await ServerConnection.makeRequest(url, init, settings);
  } catch {
    throw new Error('The Jupyter server does not answer.');
  }
  const text = await response.text();
  let body: any = {};
  try {
    body = text ? JSON.parse(text) : {};
  } catch {
    body = {};
  }
  if (response.status === 404 && !body.message) {
    throw new Error("This Jupyter server does not have nbray's extension; `jupyter server extension list` says why.");
  }
  if (!response.ok) throw new Error(body.message ?? `${response.status} ${response.statusText}`);
  return body as T;
}

export const clusters = () => request<{ clusters: Cluster[] }>('clusters');
export const start = (cpus: number | null) =>
  request<Cluster>('clusters', { method: 'POST', body: JSON.stringify(cpus === null ? {} : { num_cpus: cpus }) });
export const stop = (id: string) => request<void>(`clusters/${encodeURIComponent(id)}`, { method: 'DELETE' });
export const view = (id: string) => request<View>(`clusters/${encodeURIComponent(id)}`);
export const scale = (id: string, asked: { node: string; cpus: number }) =>
  request<unknown>(`clusters/${encodeURIComponent(id)}`, { method: 'PATCH', body: JSON.stringify({ node: asked.node, num_cpus: asked.cpus }) });
