// The side panel: the clusters of this machine, and what the chosen one is doing. It asks only while it is seen.
import { Widget } from '@lumino/widgets';

import { createCluster } from '../../nbray/cards/static/cluster.js';
import * as api from './api';

const PERIOD_MS = 1000;

function element(tag: string, attributes: Record<string, string> = {}, ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // text stays text
  return made;
}

function button(text: string, click: () => void, title = ''): HTMLButtonElement {
  const made = element('button', { type: 'button', class: 'nbray-panel-button', ...(title ? { title } : {}) }, text) as HTMLButtonElement;
  made.addEventListener('click', click);
  return made;
}

export class ClusterPanel extends Widget {
  private chosen: string | null = null;
  private timer: number | null = null;
  private asking = false;
  private readonly list = element('div', { class: 'nbray-panel-clusters', role: 'group', 'aria-label': 'Clusters' });
  private readonly body = element('div', { class: 'nbray-panel-body' });
  private readonly silent = element('p', { class: 'nbray-panel-problem', role: 'status' }); // of the last look
  private readonly problem = element('p', { class: 'nbray-panel-problem', role: 'alert' });

  constructor() {
    super();
    this.id = 'nbray-panel';
    this.title.caption = 'nbray clusters';
    this.addClass('nbray-panel');
    const cpus = element('input', { type: 'number', min: '1', placeholder: 'all', 'aria-label': 'CPUs of the new cluster' }) as HTMLInputElement;
    const begin = button('Start a cluster', () => {
      void this.act(async () => {
        const made = await api.start(cpus.value ? Number(cpus.value) : null);
        this.chosen = made.id;
      });
    }, 'It outlives the kernel: nbray.init() attaches to it');
    this.node.append(element('div', { class: 'nbray-panel-inside' }, element('h2', {}, 'Clusters'), this.list,
      element('div', { class: 'nbray-panel-row' }, begin, cpus, element('span', {}, 'CPUs')), this.problem, this.silent, this.body));
  }

  get interval(): number | null {
    return this.timer;
  }

  protected onAfterShow(): void {
    if (this.timer === null) {
      this.timer = window.setInterval(() => void this.refresh(), PERIOD_MS);
      void this.refresh();
    }
  }

  protected onBeforeHide(): void {
    if (this.timer !== null) window.clearInterval(this.timer);
    this.timer = null;
  }

  dispose(): void {
    this.onBeforeHide();
    this.forgetView();
    super.dispose();
  }

  private async act(what: () => Promise<unknown>): Promise<void> {
    try {
      await what();
      this.problem.textContent = '';
    } catch (error) {
      this.problem.textContent = (error as Error).message;
    }
    await this.refresh();
  }

  private async refresh(): Promise<void> {
    if (this.asking || document.hidden) return;
    this.asking = true;
    try {
      const { clusters } = await api.clusters();
      if (!clusters.some(each => each.id === this.chosen)) this.chosen = clusters[0]?.id ?? null;
      this.drawClusters(clusters);
      if (this.chosen === null) {
        this.forgetView();
        this.body.replaceChildren(element('p', { class: 'nbray-panel-muted' }, 'No cluster runs here. A notebook that uses nbray starts one of its own.'));
      } else {
        const id = this.chosen;
        this.drawView(id, await api.view(id));
      }
      this.silent.textContent = '';
    } catch (error) {
      this.silent.textContent = (error as Error).message;
    } finally {
      this.asking = false;
    }
  }

  // The list is redrawn only when it changed: a button must not vanish under the pointer or lose the keyboard.
  private drawn = '';

  private drawClusters(clusters: api.Cluster[]): void {
    const now = JSON.stringify([clusters, this.chosen]);
    if (now === this.drawn) return;
    this.drawn = now;
    this.list.replaceChildren(...clusters.map(each => {
      const choose = button(each.name, () => { this.chosen = each.id; void this.refresh(); }, `${each.address} (pid ${each.pid})`);
      choose.setAttribute('aria-pressed', String(each.id === this.chosen));
      const row = element('div', { class: 'nbray-panel-row' }, choose);
      if (each.mine) row.append(button('Stop', () => { if (window.confirm(`Stop ${each.name}? Everything on it ends.`)) void this.act(() => api.stop(each.id)); }));
      return row;
    }));
  }

  // One view for the chosen cluster, which keeps what is typed and unfolded in it from look to look.
  private view: { id: string; drawn: ReturnType<typeof createCluster> } | null = null;

  private drawView(id: string, snapshot: api.View): void {
    if (this.view?.id !== id) {
      this.forgetView();
      this.body.replaceChildren();
      const command = (_name: string, args: Record<string, unknown>) => api.scale(id, args as { node: string; cpus: number }).then(() => this.refresh());
      this.view = { id, drawn: createCluster(this.body, { can: ['scale'], command }) };
    }
    this.view.drawn.update(snapshot);
  }

  private forgetView(): void {
    this.view?.drawn.remove();
    this.view = null;
  }
}
