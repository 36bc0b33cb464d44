// The side panel: the same views as the page at /nbray, over Jupyter's own connection. It looks only while it is seen.
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { Widget } from '@lumino/widgets';

import { createPanel, Panel } from '../../nbray/cards/static/panel.js';

async function request(verb: string, path: string, body?: unknown): Promise<any> {
  const settings = ServerConnection.makeSettings();
  const url = URLExt.join(settings.baseUrl, 'nbray', 'api') + `/${path}`;
  let response: Response;
  try {
    response = await ServerConnection.makeRequest(url, { method: verb, ...(body === undefined ? {} : { body: JSON.stringify(body) }) }, settings);
  } catch {
    throw new Error('The Jupyter server does not answer.');
  }
  let said: any = {};
  try {
    said = JSON.parse(await response.text());
  } catch {
    said = {};
  }
  if (response.status === 404 && !said.message) {
    throw new Error("This Jupyter server does not have nbray's extension; `jupyter server extension list` says why.");
  }
  if (!response.ok) throw new Error(said.message ?? `${response.status} ${response.statusText}`);
  return said;
}

function socket(): string {
  const settings = ServerConnection.makeSettings();
  const url = URLExt.join(settings.wsUrl, 'nbray', 'api', 'watch');
  return settings.appendToken && settings.token ? `${url}?token=${encodeURIComponent(settings.token)}` : url;
}

export class ClusterPanel extends Widget {
  private readonly panel: Panel;

  constructor(notebook: () => string) {
    super();
    this.id = 'nbray-panel';
    this.title.caption = 'nbray clusters';
    this.addClass('nbray-dock');
    this.panel = createPanel(this.node, { request, socket, notebook });
  }

  get live(): boolean {
    return this.panel.live;
  }

  protected onAfterAttach(): void {
    if (this.isVisible) this.panel.show();
  }

  protected onAfterShow(): void {
    this.panel.show();
  }

  protected onBeforeHide(): void {
    this.panel.hide();
  }

  dispose(): void {
    this.panel.remove();
    super.dispose();
  }
}
