"""When deals are asked for although a line lives: once all that live have passed the loss."""

from mexc_trio.exchange.lines import LineSource, Merger
from mexc_trio.exchange.messages import Data
from mexc_trio.record.uncertain import UncertainTime
from mexc_trio.rows import Row
from mexc_trio.spans import Span

START = 1_764_000_000_000


def line(merger: Merger) -> LineSource:
    """Return a line that is subscribed to deals."""
    source = merger.join()
    merger.subscribed(source, "deal")
    return source


def bring(merger: Merger, uncertain: UncertainTime, source: LineSource, *times: int) -> Span | None:
    """Let a line bring deals; return what is to be asked for then, counted from the start."""
    data = Data("BTC_USDT", "deal", [Row(START + at, "d", f"{at}|1|1") for at in times])
    merger.take(source, data, 0.0)
    span = uncertain.passed(source, data)
    return None if span is None else (span[0] - START, span[1] - START)


def test_a_time_is_uncertain_from_the_last_deal_of_the_line_that_broke() -> None:
    """Until the other one has brought a later one: what it still brings is not asked for."""
    merger, uncertain = Merger(60), UncertainTime()
    a, b = line(merger), line(merger)
    assert bring(merger, uncertain, b, 10) is None
    assert bring(merger, uncertain, a, 10, 20, 50) is None
    uncertain.broken(a, merger.sources)
    merger.lost(a)
    new = line(merger)
    assert bring(merger, uncertain, new, 90) is None, "the other may yet bring what is older"
    assert bring(merger, uncertain, b, 20, 40) is None
    assert bring(merger, uncertain, b, 60) == (50, 60)
    assert bring(merger, uncertain, b, 70) is None, "it was said once"


def test_several_losses_are_one_time() -> None:
    """From the first on, until all that are left have passed the last."""
    merger, uncertain = Merger(60), UncertainTime()
    a, b, c = line(merger), line(merger), line(merger)
    for source in (a, b, c):
        bring(merger, uncertain, source, 10)
    bring(merger, uncertain, b, 30)
    for source in (a, b):
        uncertain.broken(source, merger.sources)
        merger.lost(source)
    assert bring(merger, uncertain, c, 40) == (10, 40)


def test_what_no_line_is_left_to_cover_is_a_gap_and_not_uncertain() -> None:
    """The ledger has it; an uncertain time from before ends with the next deal that comes."""
    merger, uncertain = Merger(60), UncertainTime()
    a, b = line(merger), line(merger)
    bring(merger, uncertain, a, 10)
    bring(merger, uncertain, b, 20)
    uncertain.broken(a, merger.sources)
    merger.lost(a)
    uncertain.broken(b, merger.sources)
    merger.lost(b)
    assert bring(merger, uncertain, line(merger), 80) == (10, 80)
    other = line(merger)
    bring(merger, uncertain, other, 90)
    del merger.sources[0]
    uncertain.broken(other, merger.sources)
    merger.lost(other)
    assert bring(merger, uncertain, line(merger), 120) is None
