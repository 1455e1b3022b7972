"""How much to ask of a far store at once, and on how many connections. Pure; for `ahead`."""

from __future__ import annotations

FEW = 4
"""Connections to begin with: one waits for its answer while others use the link."""
LONGEST = 8 << 20
"""Bytes of one request, at most."""
_SECONDS = 1.0
"""What one request should take, at most."""
_WORTH = 1.25
"""How much more must come over many connections than over few."""
_LOOK = 0.3
"""Seconds over which a rate is measured, at least."""
_LATE = 4.0
"""Seconds before the end in which nothing is tried any more."""


class Link:
    """What was seen of a link so far, and what follows from it.

    A request costs its own time (a round trip, a server's look at its object) and one of
    the few that a bucket takes in a second; so the longer the better, up to where

    - it takes a second at the rate at which its connection was seen to read. A slow link has
      nothing to gain, since there a request's own time is a small part of one frame's already,
      and much to lose: each connection reads its frames in order, and the first of them is
      waited for. Nothing is known at first: then it is one frame;
    - all that are under way fill the memory that there is for them;
    - what is left would be read by fewer connections than there are, and that is much.

    Connections: a few are as good as many where the link itself is the limit, or the cores
    that decode what it brings. Many are better where each is held down by itself, by a
    distant server's window or a store that gives each reader so much and no more. Neither
    can be known but by trying: where frames are mostly waited for, so that cores are idle,
    once as many are tried as the store likes, and kept if a quarter more came. Small steps
    would drown in what a rate varies by itself.
    """

    def __init__(self, most: int, memory: int) -> None:
        """Args:
        most: Connections that the store likes at once.
        memory: Bytes that all that is under way may take.
        """
        self.connections = min(FEW, most)
        self._most, self._memory = most, memory
        self._rate = 0.0
        """Bytes a second of one connection."""
        self._before = 0.0
        """Bytes a second of a few together, while many are tried."""
        self._settled = most <= FEW
        self._left = 0
        self._count = self._from = self._ended = 0
        self._since, self._asked = 0.0, [0, 0]

    def length(self, left: int) -> int:
        """Bytes that the next request should have, of so many that are still to be asked
        for; 0: a single frame, whatever its length."""
        self._left = left
        share = max(left // self.connections, LONGEST // 2)
        return min(LONGEST, self._memory // self.connections, share, int(self._rate * _SECONDS))

    def came(self, count: int) -> None:
        """So many bytes came."""
        self._count += count

    def asked(self, *, waited: bool) -> None:
        """A frame was asked for by who decodes it, and had perhaps to be waited for."""
        self._asked[waited] += 1

    def ended(self, length: int, wait: float, seconds: float, now: float) -> None:
        """A request was answered.

        Args:
            length: Bytes of it.
            wait: Seconds until its first byte.
            seconds: From there to its last. A short answer comes with its head, in no time;
                then a part of the wait is taken for it.
            now: By any clock.
        """
        rate = length / max(seconds, wait / 8, 1e-6)
        self._rate = (self._rate + rate) / 2 if self._rate else rate
        self._ended += 1
        if self._ended == self.connections:  # they are warm
            self._since, self._from = now, self._count
        elif self._ended >= 3 * self.connections and now - self._since >= _LOOK:
            self._judge((self._count - self._from) / (now - self._since))
            self._watch(now)

    def _watch(self, now: float) -> None:
        self._since, self._from, self._ended, self._asked = now, self._count, 0, [0, 0]

    def _judge(self, rate: float) -> None:
        if self._settled:
            return
        if self._before:
            self._settled = True
            if rate < self._before * _WORTH:
                self.connections = FEW
        elif self._asked[True] > self._asked[False] and self._left > rate * _LATE:
            self._before, self.connections = rate, self._most
