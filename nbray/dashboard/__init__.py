"""The page at /nbray: clusters of this machine, live, over REST and a WebSocket; with JupyterLab, beside it, and without it."""
