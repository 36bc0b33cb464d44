// The plugin: a panel at the left, commands, and the button that sends a cell to the cluster.
import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { LabIcon } from '@jupyterlab/ui-components';

import { ClusterPanel } from './panel';

const ID = 'nbray-lab:plugin';
const CATEGORY = 'nbray';

namespace Command {
  export const toggle = 'nbray:toggle-remote';
  export const show = 'nbray:show-panel';
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
    const panel = new ClusterPanel();
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
    for (const command of Object.values(Command)) palette?.addItem({ command, category: CATEGORY });

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
