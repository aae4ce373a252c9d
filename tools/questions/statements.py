"""The questions that people ask most, and the statements that answer them: `questions.sql`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[2] / "README.md"
_FILE: Final = Path(__file__).with_name("questions.sql")


def statements(sql: str) -> dict[str, str]:
    """Return each question of a text, in which its comment stands above its statement."""
    return dict(re.findall(r"^-- (.+)\n(SELECT .*);$", sql, re.MULTILINE))


def shown() -> dict[str, str]:
    """Return the questions that the README shows."""
    _, _, rest = README.read_text().partition("### Questions")
    return statements(rest.partition("```sql\n")[2].partition("```")[0])


QUESTIONS: Final[Mapping[str, str]] = statements(_FILE.read_text())
"""Each question's SQL."""
CAST: Final = re.compile(r"\bCAST\b|\bto(Float|Decimal|U?Int)|::", re.IGNORECASE)
"""What none of them has."""
