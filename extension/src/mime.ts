// A card of a cell that ran, drawn from what the notebook has saved: no kernel is needed.
import { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';

import { createCard } from '../../nbray/cards/static/card.js';

const MIME = 'application/vnd.nbray.run.v1+json';

class KeptCard extends Widget implements IRenderMime.IRenderer {
  private card: ReturnType<typeof createCard> | null = null;

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.card?.remove();
    this.card = createCard(this.node, { live: false });
    this.card.load(model.data[MIME] as Record<string, unknown>);
  }

  dispose(): void {
    this.card?.remove();
    super.dispose();
  }
}

const extension: IRenderMime.IExtension = {
  id: 'nbray-lab:card',
  description: 'Draws the cards of cells that ran on nbray',
  rendererFactory: { safe: true, mimeTypes: [MIME], createRenderer: () => new KeptCard() },
  rank: 0,
  dataType: 'json'
};

export default extension;
