"""wherefrom shows where a Vision Transformer's sense of space comes from.

    import wherefrom as wf

    study = wf.study("mnist16")                    # the main job; study.verdicts, study.report()
    attention = wf.capture(model, images, labels)  # per layer: q, k, v, grad_z -> attn, pressure, advantage, …
    run = wf.open_run("runs/mine")                 # run.measurements(), run.array("pos_similarity", step=500)

Names are loaded when they are first used: reading a run never imports torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "ModelConfig": "wherefrom.config",
    "PatchGrid": "wherefrom.geometry",
    "RecordConfig": "wherefrom.config",
    "TrainConfig": "wherefrom.config",
    "ViT": "wherefrom.models.vit",
    "ablate": "wherefrom.observe.ablation",
    "capture": "wherefrom.observe.capture",
    "fit": "wherefrom.train",
    "head_table": "wherefrom.heads",
    "judge": "wherefrom.claims",
    "open_run": "wherefrom.store",
    "open_study": "wherefrom.store",
    "probe": "wherefrom.observe.probe",
    "study": "wherefrom.studies",
    "watch": "wherefrom.observe.watch",
}
_MODULES = {"measures": "wherefrom.measures", "plot": "wherefrom.figures"}

__all__ = sorted((*_HOMES, *_MODULES))


def __getattr__(name: str):
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'wherefrom' has no attribute {name!r}; known: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
