"""The cap that a meter reads back: the looser of two readings, and none where none stood all the time."""

from __future__ import annotations

from ullage.claims import Bound, Evidence, Trust
from ullage.network.link import default_link
from ullage.network.standing_cap import StandingCap, StandingCaps, cap_claims, read_caps

LINK = default_link(8000)
NARROW, WIDE = StandingCap(1_000, 100), StandingCap(2_000, 50)


def test_of_two_readings_the_looser_counts() -> None:
    both = StandingCaps(NARROW, WIDE).or_looser(StandingCaps(WIDE, WIDE))
    assert both == StandingCaps(StandingCap(2_000, 100), WIDE)


def test_what_stood_at_one_end_only_did_not_stand() -> None:
    whole, gone = StandingCaps(NARROW, NARROW), StandingCaps()
    assert whole.or_looser(gone) == gone.or_looser(whole) == gone


def test_an_interface_that_is_not_there_has_no_cap() -> None:
    assert read_caps("ullage-none", "ullage-none") == StandingCaps()
    assert read_caps("lo", None) == StandingCaps()  # no token bucket stands on it


def test_a_claim_for_each_direction_that_has_one() -> None:
    assert cap_claims(StandingCaps(), LINK, (Trust.VERIFIER,), None) == ()
    (claim,) = cap_claims(StandingCaps(from_server=NARROW), LINK, (Trust.VERIFIER,), None)
    assert (claim.name, claim.bound, claim.evidence) == ("wire.egress_cap", Bound.UPPER, Evidence.PROVEN)
    assert claim.value == 1_010  # a second of the worst ten: 1,000 bytes, and a tenth of the burst
    (other,) = cap_claims(StandingCaps(to_server=WIDE), LINK, (), None)
    assert (other.name, other.value) == ("wire.ingress_cap", 2_005)
