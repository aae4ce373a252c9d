"""What holds for one symbol."""

import attrs

from mexc_trio.channels import USUAL
from mexc_trio.settings.routes import DIRECT, Route


@attrs.frozen(kw_only=True)
class SymbolSettings:
    """What holds for one symbol."""

    symbol: str
    table: str
    max_errors: int
    linger: float
    route: tuple[Route, ...] = (DIRECT,)
    channels: tuple[str, ...] = USUAL
    engine: str = "stripelog"
    wide: bool = False
    shard: int | None = None
    """The one that it belongs to, if not that of the rule in `words`."""
