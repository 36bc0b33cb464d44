"""What a run looks like: models of cells at work, drawn live in a notebook, kept in a saved one, and told in plain text."""
