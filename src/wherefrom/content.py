"""What the patches of probe images hold: `natural`, or `shuffled`: permuted anew in each image. No torch.

What a head still does on shuffled contents, it does because of positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

CONTENTS = ("natural", "shuffled")


def of_content(table: pd.DataFrame, content: str = "natural") -> pd.DataFrame:
    """Rows taken on probe images of this content; rows that know of none count as natural."""
    if "content" not in table:
        return table if content == "natural" else table.iloc[:0]
    same = table["content"] == content
    return table[same | table["content"].isna()] if content == "natural" else table[same]
