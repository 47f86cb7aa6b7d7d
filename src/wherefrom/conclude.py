"""What is concluded of the finished runs of a study: verdicts and the page."""

from __future__ import annotations

from wherefrom.claims import Verdict, judge
from wherefrom.heads import matching_as_dict, study_matching
from wherefrom.report import Material, write_page
from wherefrom.store import StudyDirectory


def conclude(study: StudyDirectory) -> list[Verdict]:
    """Judge the claims from the finished runs and write verdicts and report."""
    grid = next((run.grid for key, run in study.finished_runs().items() if not key.setting), None)
    num_tokens = None if grid is None else grid.num_tokens
    beside = {"C4": {"seed_matching": matching_as_dict(study_matching(study))}}
    table = study.measurements()
    verdicts = judge(table, num_heads=study.num_heads, num_tokens=num_tokens, beside=beside)
    study.write_verdicts([verdict.to_dict() for verdict in verdicts])
    write_page(Material(study, table), study.report_path)
    return verdicts
