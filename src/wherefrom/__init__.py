"""wherefrom shows where a Vision Transformer's sense of space comes from."""

__version__ = "0.1.0"
