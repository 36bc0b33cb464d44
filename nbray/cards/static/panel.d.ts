export interface PanelHost {
  socket(): string;
  request(verb: string, path: string, body?: unknown): Promise<any>;
  notebook?(): string;
}

export interface Panel {
  show(): void;
  hide(): void;
  remove(): void;
  readonly live: boolean;
}

export function createPanel(el: HTMLElement, host: PanelHost): Panel;
