"""What is on disk: the only place that knows names and formats. Never imports torch; whoever trains hands over bytes."""

from wherefrom.store.files import claim, read_json, write_json
from wherefrom.store.run import RunDirectory
from wherefrom.store.study import StudyDirectory

__all__ = ["RunDirectory", "StudyDirectory", "claim", "read_json", "write_json"]
