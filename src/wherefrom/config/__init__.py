"""Everything a run or a study depends on, as frozen data."""

from wherefrom.config.files import from_dict, from_toml, to_dict
from wherefrom.config.run import (
    ARMS,
    Arm,
    ModelConfig,
    Pool,
    PosEmbed,
    RecordConfig,
    TrainConfig,
    suitable_patch_size,
)
from wherefrom.config.study import CAUSAL, CUT, RunKey, StudyConfig, data_to_put_back, settings_to_vary

__all__ = [
    "ARMS",
    "CAUSAL",
    "CUT",
    "Arm",
    "ModelConfig",
    "Pool",
    "PosEmbed",
    "RecordConfig",
    "RunKey",
    "StudyConfig",
    "TrainConfig",
    "data_to_put_back",
    "from_dict",
    "from_toml",
    "settings_to_vary",
    "suitable_patch_size",
    "to_dict",
]
