export interface Host {
  command?: (name: string, args: Record<string, unknown>) => Promise<unknown>;
  can?: string[]; // "scale", "stop", "end"
}

export interface Cluster {
  update(snapshot: Record<string, unknown>): void;
  remove(): void;
}

export function createCluster(el: HTMLElement, host: Host): Cluster;
