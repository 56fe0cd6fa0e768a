"""The decision: all 20,160 inputs against the table and its invariants."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from matrix_pypi_bot.core.decide import REASONS, Rule, Ruling, decide
from matrix_pypi_bot.core.evidence import Absence, Doubt, Evidence, Level, Live, Mode, Proves, Terms
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import FileDecision

A, B = Sha256("a" * 64), Sha256("b" * 64)
LEVELS = (Level.MINORITY, Level.QUORUM, Level.ACKED)
Attested = tuple[tuple[Sha256, Level], ...]

# None, one or two digests. Of two, one has at most a minority unless both stand at the same level.
ATTESTED: Final[list[Attested]] = [
    (),
    *(((digest, level),) for digest in (A, B) for level in LEVELS),
    *(((A, a), (B, b)) for a, b in itertools.product(LEVELS, LEVELS) if a is b or Level.MINORITY in (a, b)),
]
INPUTS: Final = [
    (
        Evidence(
            upstream=upstream,
            accepted=accepted,
            attested=dict(attested),
            provenance=provenance,
            cooling=cooling,
            denied=denied,
        ),
        Terms(mode, keep),
    )
    for denied, upstream, accepted, attested, provenance, cooling, mode, keep in itertools.product(
        (False, True),
        (Live(A), *Absence),
        (None, A, B),
        ATTESTED,
        (None, Proves(A), Proves(B), *Doubt),
        (False, True),
        Mode,
        (False, True),
    )
]
Row = tuple[Rule, Callable[[Evidence, Terms], bool]]


def live(e: Evidence) -> bool:
    return isinstance(e.upstream, Live)


def named(e: Evidence) -> Sha256:
    return e.upstream.sha256 if isinstance(e.upstream, Live) else Sha256("")


def bad_for(e: Evidence, digest: Sha256 | None) -> bool:
    return e.provenance is Doubt.INVALID or e.provenance in {Proves(A), Proves(B)} - {Proves(digest or Sha256(""))}


def overruled(e: Evidence, digest: Sha256) -> bool:
    others = [level for other, level in e.attested.items() if other != digest]
    own = e.attested.get(digest, 0)
    return max(others, default=0) >= 2 and own < 2 and e.provenance != Proves(digest)


def lone(e: Evidence) -> Sha256:
    return next(iter(e.attested))


def known(e: Evidence) -> bool:
    return e.accepted is not None


TABLE: Final[list[Row]] = [
    (Rule.R1, lambda e, _: e.denied),
    (Rule.R2, lambda e, _: e.upstream is Absence.QUARANTINED),
    (Rule.R3, lambda e, _: live(e) and known(e) and e.accepted != named(e)),
    (Rule.R4, lambda e, _: live(e) and bad_for(e, named(e))),
    (Rule.R5, lambda e, _: live(e) and not known(e) and overruled(e, named(e))),
    (Rule.R6, lambda e, _: live(e) and e.provenance is Doubt.PUBLISHER_CHANGED),
    (Rule.R7, lambda e, _: live(e) and e.cooling),
    (Rule.R8, lambda e, _: live(e)),
    (
        Rule.R9,
        lambda e, t: (
            e.upstream is Absence.GONE
            and known(e)
            and t.keep_removed
            and set(e.attested) <= {e.accepted}
            and not bad_for(e, e.accepted)
        ),
    ),
    (Rule.R10, lambda e, _: e.upstream is Absence.GONE),
    (Rule.R11, lambda e, _: known(e) and bad_for(e, e.accepted)),
    (Rule.R12, lambda e, t: e.accepted is not None and t.mode is not Mode.SELF and overruled(e, e.accepted)),
    (Rule.R13, lambda e, _: known(e)),
    (Rule.R14, lambda e, _: not e.attested),
    (Rule.R15, lambda e, _: len(e.attested) == 2),
    (Rule.R16, lambda e, _: bad_for(e, lone(e))),
    (Rule.R6, lambda e, _: e.provenance is Doubt.PUBLISHER_CHANGED),
    (Rule.R17, lambda _, t: t.mode is Mode.SELF),
    (Rule.R18, lambda e, t: e.attested[lone(e)] < (3 if t.mode is Mode.ACKED else 2)),
    (Rule.R7, lambda e, _: e.cooling),
    (Rule.R19, lambda *_: True),
]
ACTIONS: Final = {
    **dict.fromkeys((Rule.R1, Rule.R2, Rule.R7), ("refuse", 403)),
    **dict.fromkeys((Rule.R3, Rule.R4, Rule.R5, Rule.R6, Rule.R11, Rule.R12, Rule.R16), ("quarantine", 403)),
    **dict.fromkeys((Rule.R14, Rule.R17, Rule.R18), ("unavailable", 503)),
    **dict.fromkeys((Rule.R9, Rule.R13, Rule.R19), ("serve", 200)),
    Rule.R8: ("serve+attest", 200),
    Rule.R10: ("refuse", 404),
    Rule.R15: ("contested", 503),
}


def expected(e: Evidence, t: Terms) -> Ruling:
    """The first row of the table that matches."""
    number, rule = next((n, rule) for n, (rule, matches) in enumerate(TABLE) if matches(e, t))
    action, http = ACTIONS[rule]
    chosen = {Rule.R8: named(e), Rule.R9: e.accepted, Rule.R13: e.accepted}.get(rule)
    if rule is Rule.R19:
        chosen = lone(e)
    judged = named(e) if rule in (Rule.R7, Rule.R8) and live(e) else e.accepted if rule is Rule.R13 else None
    refute = frozenset(e.attested) - {judged} if judged else frozenset[Sha256]()
    assert number < len(TABLE)
    return Ruling(action=action, rule=rule, http=http, sha256=chosen, refute=refute)  # type: ignore[arg-type]


def test_there_are_20160_inputs_with_14_sets_of_attestations() -> None:
    assert (len(INPUTS), len(ATTESTED)) == (20_160, 14)


def test_every_input_gets_the_first_rule_of_the_table_and_every_rule_is_reached() -> None:
    differing = [(e, t) for e, t in INPUTS if decide(e, t) != expected(e, t)]
    assert differing == []
    assert {decide(e, t).rule for e, t in INPUTS} == set(Rule)
    told = {(r.rule, r.action, r.http, live(e)) for e, t in INPUTS if (r := decide(e, t)).rule in (Rule.R6, Rule.R7)}
    assert len(told) == 4  # both rules stand in the table twice


RULED: Final = [(e, t, decide(e, t)) for e, t in INPUTS]
SERVED: Final = [(e, t, r) for e, t, r in RULED if r.serves]


def test_i1_while_upstream_is_live_only_its_digest_is_served() -> None:
    assert all(r.sha256 == named(e) for e, _, r in SERVED if live(e))


def test_i2_nothing_is_served_against_the_own_memory() -> None:
    assert all(e.accepted in (None, r.sha256) for e, _, r in SERVED)


def test_i3_nothing_denied_or_quarantined_is_served() -> None:
    assert not any(e.denied or e.upstream is Absence.QUARANTINED for e, _, _ in SERVED)


def test_i4_i5_nothing_is_served_with_invalid_or_contradicting_provenance() -> None:
    assert all(e.provenance in (None, Proves(r.sha256), Doubt.PUBLISHER_CHANGED) for e, _, r in SERVED if r.sha256)


def test_i6_i7_offline_nothing_is_served_below_the_bar_of_the_mode() -> None:
    bars = {Mode.ACKED: Level.ACKED, Mode.KOFN: Level.QUORUM}
    blind = [(e, t, r) for e, t, r in SERVED if e.upstream is Absence.DOWN and e.accepted is None]
    assert blind
    assert all(r.sha256 and e.attested == {r.sha256: e.attested[r.sha256]} for e, _, r in blind)
    assert all(r.sha256 and t.mode in bars and e.attested[r.sha256] >= bars[t.mode] for e, t, r in blind)


def test_i8_only_what_upstream_names_now_is_attested() -> None:
    assert all(r.sha256 == named(e) and live(e) for e, _, r in RULED if r.attest)


def test_i9_one_minority_liar_turns_no_serve_into_a_refusal() -> None:
    for e, t, r in SERVED:
        if live(e) or (e.upstream is Absence.DOWN and e.accepted is not None):
            for liar in {A, B} - set(e.attested):
                lied_to = decide(replace(e, attested={**e.attested, liar: Level.MINORITY}), t)
                assert (lied_to.action, lied_to.sha256) == (r.action, r.sha256)


def test_i10_a_refuted_digest_is_never_served() -> None:
    assert not any(r.sha256 in r.refute for _, _, r in RULED)


def test_i11_what_self_serves_acked_serves_and_what_acked_serves_kofn_serves() -> None:
    for e, t, r in SERVED:
        if e.accepted is None:
            wider = {Mode.SELF: (Mode.ACKED, Mode.KOFN), Mode.ACKED: (Mode.KOFN,), Mode.KOFN: ()}[t.mode]
            assert all(decide(e, replace(t, mode=mode)) == r for mode in wider)


def test_i12_what_was_verified_here_cannot_be_griefed_away() -> None:
    for e, t, r in SERVED:
        safe = (live(e) and e.accepted is not None) or (
            e.upstream is Absence.DOWN and e.accepted and t.mode is Mode.SELF
        )
        if safe:
            for attested in ATTESTED:
                griefed = decide(replace(e, attested=dict(attested)), t)
                assert (griefed.action, griefed.sha256) == (r.action, r.sha256)


def test_i13_a_quorum_against_upstream_changes_nothing_where_another_stands_with_it() -> None:
    for e, t, r in RULED:
        if live(e) and e.attested.get(named(e), 0) >= Level.QUORUM:
            alone = decide(replace(e, attested={named(e): e.attested[named(e)]}), t)
            assert (alone.rule, alone.sha256) == (r.rule, r.sha256)


# ---- the first digest ever seen ---------------------------------------------------------------------------------------

SEEN = Evidence(upstream=Live(A), first_seen=B)


def test_a_digest_that_changes_before_the_first_download_is_quarantined() -> None:
    assert decide(SEEN, Terms()).rule is Rule.R3


def test_the_first_digest_seen_does_not_hide_that_a_quorum_contradicts_it() -> None:
    seen = Evidence(upstream=Live(A), first_seen=A, attested={B: Level.QUORUM})
    assert decide(seen, Terms()).rule is Rule.R5


@pytest.mark.parametrize("upstream", Absence)
def test_a_digest_merely_seen_serves_nothing_later(upstream: Absence) -> None:
    assert not decide(replace(SEEN, upstream=upstream), Terms(keep_removed=True)).serves


def test_what_was_accepted_outweighs_what_was_seen_first() -> None:
    approved = replace(SEEN, accepted=A)
    assert decide(approved, Terms()) == Ruling(action="serve+attest", rule=Rule.R8, http=200, sha256=A)


# ---- what people read -------------------------------------------------------------------------------------------------


def test_an_ordinary_serve_needs_no_words() -> None:
    assert decide(Evidence(upstream=Live(A)), Terms()).told() == FileDecision(
        action="serve+attest", http=200, rule="R8"
    )


def test_a_refusal_says_rule_reason_and_who_in_one_clean_line() -> None:
    ruling = decide(Evidence(upstream=Live(A), attested={B: Level.QUORUM}), Terms())
    assert ruling.told("orgb, \u202eorgc\r\nX-Evil: 1") == FileDecision(
        action="quarantine",
        http=403,
        rule="R5",
        reason="matrix-pypi: R5 a quorum contradicts upstream (orgb, orgc X-Evil: 1)",
    )
    assert ruling.told().reason == "matrix-pypi: R5 a quorum contradicts upstream"


def test_everything_but_an_ordinary_serve_has_a_reason() -> None:
    assert set(Rule) - set(REASONS) == {Rule.R8, Rule.R13, Rule.R19}
