// The side panel: the clusters of this machine, and what the chosen one is doing. It asks only while it is seen.
import { Widget } from '@lumino/widgets';

import * as api from './api';

const PERIOD_MS = 1000;
const HISTORY = 60;

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
  private history = new Map<string, number[]>();
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
      if (this.chosen === null) this.body.replaceChildren(element('p', { class: 'nbray-panel-muted' }, 'No cluster runs here. A notebook that uses nbray starts one of its own.'));
      else this.drawView(await api.view(this.chosen));
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

  private drawView(view: api.View): void {
    const parts: Node[] = [];
    const counts = Object.entries(view.tasks).filter(([, number]) => number);
    parts.push(element('h3', {}, 'Tasks'), element('p', {}, counts.map(([state, number]) => `${number.toLocaleString()} ${state}`).join(', ') || 'none yet'));
    for (const node of view.nodes) parts.push(this.nodePart(node));
    if (view.actors.length) {
      parts.push(element('h3', {}, 'Actors'), element('ul', {}, ...view.actors.map(each => element('li', {}, `${each.name} · ${each.state.toLowerCase()}${each.pid ? ` · pid ${each.pid}` : ''}`))));
    }
    const place = this.node.scrollTop;
    this.body.replaceChildren(...parts);
    this.node.scrollTop = place;
  }

  private nodePart(node: api.Node): HTMLElement {
    const state = node.alive ? '' : ' ✗ dead';
    const part = element('section', { 'aria-label': `Node ${node.host}` }, element('h3', {}, `${node.head ? 'Head' : 'Node'} ${node.id.slice(0, 4)} on ${node.host}${state}`));
    for (const each of node.resources) {
      const line = element('div', { class: 'nbray-panel-resource' }, element('span', {}, each.name), element('span', {}, `${each.used} of ${each.total}`));
      part.append(line, this.sparkline(`${node.id}/${each.name}`, each.share));
    }
    if (node.waiting.length) part.append(element('ul', { class: 'nbray-panel-waiting' }, ...node.waiting.map(text => element('li', {}, text))));
    const busy = node.workers.filter(each => each.task);
    part.append(element('p', { class: 'nbray-panel-muted' }, `${node.workers.length} workers, ${busy.length} busy`));
    if (busy.length) part.append(element('ul', {}, ...busy.slice(0, 32).map(each => element('li', {}, `${each.task} · pid ${each.pid}`))));
    return part;
  }

  private sparkline(key: string, share: number): Element {
    const past = this.history.get(key) ?? [];
    past.push(Math.max(0, Math.min(1, share)));
    if (past.length > HISTORY) past.shift();
    this.history.set(key, past);
    const points = past.map((value, i) => `${((HISTORY - past.length + i) / (HISTORY - 1)) * 200},${22 - value * 20}`);
    const made = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    made.setAttribute('viewBox', '0 0 200 24');
    made.setAttribute('preserveAspectRatio', 'none');
    made.setAttribute('class', 'nbray-panel-spark');
    made.setAttribute('role', 'img');
    made.setAttribute('aria-label', `${Math.round(share * 100)} % used; the last ${past.length} s`);
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
    line.setAttribute('points', points.join(' '));
    made.append(line);
    return made;
  }
}
