"""What is on disk, the only place that knows names and formats. Never imports torch: who trains hands over bytes."""

from wherefrom.store.files import claim, read_json, write_json
from wherefrom.store.run import RunDirectory
from wherefrom.store.study import RunKey, StudyDirectory

__all__ = ["RunDirectory", "RunKey", "StudyDirectory", "claim", "open_run", "open_study", "read_json", "write_json"]

open_run = RunDirectory.open
"""Open a recorded run: `open_run("runs/mine").measurements()`."""
open_study = StudyDirectory.open
"""Open a study: `open_study("runs/study").measurements()`."""
