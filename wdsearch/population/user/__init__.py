"""User-defined LightningModules, each trained by a Trainer of its own as its author wrote it."""
