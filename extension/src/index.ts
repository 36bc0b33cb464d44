// The plugin: a panel at the left, commands, and the button that sends a cell to the cluster.
import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import type { ICodeCellModel } from '@jupyterlab/cells';
import { PathExt } from '@jupyterlab/coreutils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { LabIcon } from '@jupyterlab/ui-components';

import { ClusterPanel } from './panel';

const ID = 'nbray-lab:plugin';
const CATEGORY = 'nbray';

namespace Command {
  export const toggle = 'nbray:toggle-remote';
  export const show = 'nbray:show-panel';
  export const goTo = 'nbray:go-to-cell';
}

// Three bars that end at different times: tasks side by side.
const icon = new LabIcon({
  name: 'nbray:tasks',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 16 16"><g class="jp-icon3" fill="#616161">' +
    '<rect x="1" y="2" width="9" height="3" rx="1"/><rect x="3" y="6.5" width="12" height="3" rx="1"/><rect x="1" y="11" width="6" height="3" rx="1"/></g></svg>'
});

const MAGIC = /^%%remote\b[^\n]*\n?/;

// `%%remote` over the current cell, or away from it.
export function toggled(source: string, line: string): string {
  return MAGIC.test(source) ? source.replace(MAGIC, '') : `${line}\n${source}`;
}

// Show the cell with this id, or else the one whose prompt is `In[n]`, of the notebook that `from` is in, or else of the open one
// whose file has that name, or of the current one where no file is named. Whether there is such a cell.
function goTo(app: JupyterFrontEnd, notebooks: INotebookTracker | null, place: { cell: string; title: string; notebook: string }, from: globalThis.Node | null): boolean {
  const { cell: id, title, notebook } = place;
  const named = () => notebooks?.find(each => PathExt.basename(each.context.path) === notebook);
  const panel = notebooks?.find(each => from !== null && each.node.contains(from)) ?? (notebook ? named() : notebooks?.currentWidget);
  if (!panel) return false;
  const { content } = panel;
  const count = /^In\[(\d+)\]$/.exec(title)?.[1];
  let at = content.widgets.findIndex(each => id !== '' && each.model.id === id);
  if (at < 0 && count !== undefined) {
    at = content.widgets.findIndex(each => each.model.type === 'code' && (each.model as ICodeCellModel).executionCount === Number(count));
  }
  if (at < 0) return false;
  app.shell.activateById(panel.id);
  content.activeCellIndex = at;
  void content.scrollToItem(at, 'center');
  return true;
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'A panel of clusters, and a button that runs a cell on one',
  autoStart: true,
  optional: [ILayoutRestorer, ICommandPalette, INotebookTracker, ISettingRegistry],
  activate: async (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    notebooks: INotebookTracker | null,
    registry: ISettingRegistry | null
  ) => {
    let line = '%%remote';
    const panel = new ClusterPanel(() => PathExt.basename(notebooks?.currentWidget?.context.path ?? ''));
    panel.title.icon = icon;
    app.shell.add(panel, 'left', { rank: 900 });
    restorer?.add(panel, 'nbray-panel');

    app.commands.addCommand(Command.show, {
      label: 'Show nbray Clusters',
      caption: 'Clusters of this machine, their nodes, workers and tasks',
      execute: () => app.shell.activateById(panel.id)
    });
    app.commands.addCommand(Command.toggle, {
      label: args => (args.toolbar ? '' : 'Run Cell on nbray (%%remote)'),
      icon,
      caption: 'Put %%remote over this cell, or take it away',
      isEnabled: () => notebooks?.activeCell?.model.type === 'code',
      execute: () => {
        const model = notebooks?.activeCell?.model;
        if (model?.type === 'code') model.sharedModel.setSource(toggled(model.sharedModel.getSource(), line));
      }
    });
    app.commands.addCommand(Command.goTo, {
      label: 'Go to the Cell That Made It',
      execute: args => goTo(app, notebooks, { cell: String(args.cell ?? ''), title: String(args.title ?? ''), notebook: String(args.notebook ?? '') }, null)
    });
    // Cards ask for it where they are drawn; who takes the event says so by preventing its default.
    document.addEventListener('nbray:go-to-cell', event => {
      if (goTo(app, notebooks, (event as CustomEvent).detail, event.target as globalThis.Node)) event.preventDefault();
    });
    for (const command of [Command.toggle, Command.show]) palette?.addItem({ command, category: CATEGORY });

    if (registry !== null) {
      try {
        const settings = await registry.load(ID);
        const read = () => { line = (settings.get('magic').composite as string) || '%%remote'; };
        settings.changed.connect(read);
        read();
      } catch (error) {
        console.error('nbray: its settings do not load', error);
      }
    }
  }
};

export default plugin;
