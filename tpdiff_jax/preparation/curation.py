"""Which clips of a scored collection to train on: the paper's rule, or everything.

    paper   motion and aesthetic score both in the top 20 %, or at least one in the top 3 %

A pure function of the scores:

- A score is in the top share p of its n values when fewer than p n of them are strictly higher.
  So ties stand or fall together, whatever the order of the rows, and the best is always in.
- A missing score (None) is in no top share and does not count into n: a clip with one score can
  only come in by the second half of the rule, one without scores never.
- Shares are exact fractions of their decimal form: 20 % of 100 is 20, not 20.000000000000004.

Source: arXiv 2503.09566, section 4.1.
"""

import bisect
from collections.abc import Sequence
from fractions import Fraction

Scores = Sequence[float | None]

CURATIONS = ("everything", "paper")


def paper_choice(
    motion: Scores, aesthetic: Scores, *, top_both: float = 0.2, top_one: float = 0.03
) -> list[bool]:
    """Say of each clip whether the paper's rule takes it.

    Args:
        motion: motion score of each clip, higher is more, or None; [n].
        aesthetic: aesthetic score of each clip, or None; [n].
        top_both: share that both scores must reach, in (0, 1].
        top_one: share that one of them must reach, in (0, 1].

    Returns:
        One bool a clip, [n].

    Raises:
        ValueError: for sequences of unequal length or shares outside (0, 1].
    """
    if len(motion) != len(aesthetic):
        raise ValueError(f"{len(motion)} motion and {len(aesthetic)} aesthetic scores; need equal")
    for name, share in (("top_both", top_both), ("top_one", top_one)):
        if not 0 < share <= 1:
            raise ValueError(f"prepare.{name}={share} must lie in (0, 1]")
    both = zip(is_in_top(motion, top_both), is_in_top(aesthetic, top_both), strict=True)
    one = zip(is_in_top(motion, top_one), is_in_top(aesthetic, top_one), strict=True)
    return [(a and b) or (c or d) for (a, b), (c, d) in zip(both, one, strict=True)]


def is_in_top(scores: Scores, share: float) -> list[bool]:
    """Say of each score whether it is in the top `share`; rules as in the module docstring."""
    present = sorted(score for score in scores if score is not None)
    limit = Fraction(str(share)) * len(present)
    return [
        score is not None and len(present) - bisect.bisect_right(present, score) < limit
        for score in scores
    ]
