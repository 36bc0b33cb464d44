export interface Host {
  live: boolean;
  command?: (name: string, args?: Record<string, unknown>) => Promise<any>;
}

export interface Card {
  update(message: any, buffers?: DataView[]): void;
  load(saved: Record<string, unknown>): void;
  resync(): void;
  remove(): void;
}

export function createCard(el: HTMLElement, host: Host): Card;
