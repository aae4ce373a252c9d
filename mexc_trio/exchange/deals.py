"""Whether the exchange is asked for every deal, or for deals that it merges."""

import logging

import attrs

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Deals:
    """How deals are subscribed to; one object for all connections."""

    merged: bool = False
    """Whether they are asked for merged, as the exchange sends them unless told otherwise."""

    def only_merged(self, why: str) -> None:
        """Note that the exchange has refused the unmerged ones, and not the merged."""
        if not self.merged:
            log.warning("the exchange refuses unmerged deals (%s); merged ones are recorded", why)
        self.merged = True
