"""What a load generator is to send, and what it has sent."""

from array import array
from random import Random
from typing import Final, Literal

import attrs

from tools.bench.frames import POOL

HOST: Final = "127.0.0.1"
Scheme = Literal["wss", "ws"]


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be sent, when."""

    symbols: tuple[str, ...]
    frames: int = 0
    """Frames in all, as fast as they are taken, symbol after symbol; 0 where rates are given."""
    rates: tuple[float, ...] = ()
    """Frames a second of each symbol, at random moments."""
    seconds: float = 0.0
    burst_every: float = 0.0
    """Seconds from one burst to the next; 0 is no bursts."""
    burst_seconds: float = 0.0
    burst_factor: float = 1.0
    pool: int = POOL
    """Distinct frames."""
    scheme: Scheme = "wss"
    """Over TLS with a record for each message, as the exchange sends, or without (`ws`)."""
    hold: bool = False
    """Wait for `Load.go` when all symbols are subscribed."""

    def schedule(self) -> tuple["array[float]", "array[int]"]:
        """Return the times of all frames in seconds from the start, and their symbols' indexes."""
        if not self.rates:
            order = array("H", (n % len(self.symbols) for n in range(self.frames)))
            return array("d", bytes(8 * self.frames)), order
        chance = Random(1)  # the same load each time
        arrivals: list[tuple[float, int]] = []
        effort = self._effort(self.seconds)
        for index, rate in enumerate(self.rates):
            at = chance.expovariate(rate)
            while at < effort:
                arrivals.append((self._time(at), index))
                at += chance.expovariate(rate)
        arrivals.sort()
        return array("d", (at for at, _ in arrivals)), array("H", (n for _, n in arrivals))

    def in_burst(self, at: float) -> bool:
        """Whether a time, in seconds from the start, is within a burst."""
        return self.burst_every > 0 and at % self.burst_every >= self._calm

    @property
    def _calm(self) -> float:
        return self.burst_every - self.burst_seconds

    def _effort(self, at: float) -> float:
        """Return the seconds at the plain rate that send as much as is due until a time."""
        if not self.burst_every:
            return at
        whole, rest = divmod(at, self.burst_every)
        period = self._calm + self.burst_seconds * self.burst_factor
        extra = max(0.0, rest - self._calm) * (self.burst_factor - 1)
        return whole * period + rest + extra

    def _time(self, effort: float) -> float:
        """Return the time until which so much is due: the inverse of `_effort`."""
        if not self.burst_every:
            return effort
        period = self._calm + self.burst_seconds * self.burst_factor
        whole, rest = divmod(effort, period)
        within = rest if rest < self._calm else self._calm + (rest - self._calm) / self.burst_factor
        return whole * self.burst_every + within


@attrs.frozen
class Sent:
    """What was sent. The three arrays have an item for each frame, in no particular order."""

    times: "array[float]"
    """When it was handed to the network, on `time.monotonic`."""
    symbols: "array[int]"
    """The index of its symbol in the plan."""
    offsets: "array[int]"
    """How many bytes its connection had carried to the receiver, the frame included."""

    @property
    def began(self) -> float:
        """When the first frame was sent."""
        return min(self.times)

    def frames(self, symbol: int) -> int:
        """How many frames of a symbol were sent."""
        return self.symbols.count(symbol)

    def frame_times(self, symbol: int) -> list[float]:
        """When each frame of a symbol was sent."""
        return [at for at, index in zip(self.times, self.symbols, strict=True) if index == symbol]
