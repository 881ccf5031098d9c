"""How much a model loses by each layer's bits, before any run."""
