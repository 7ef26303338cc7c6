"""The claims that the paper's text makes, each decided by the numbers of Scores.

A claim is a row of CLAIMS: its text, where the paper makes it, and what it compares. A sentence is found by section,
paragraph and sentence, counted without footnotes and captions.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from nnlite.paper import contrasts
from nnlite.paper.comparisons import CLOSE, FAILS, HOLDS, UNTESTED, Comparison, compare
from nnlite.paper.contrasts import MT, MULTI_DG, SINGLE_DG, Contrasts
from nnlite.paper.scores import SQUARED, Scores, paper_scores


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: its text, where the paper makes it, and what it compares in the scores at hand.

    beyond: whether rows that the paper's tables lack take part.
    """

    text: str
    where_in_paper: str
    contrasts: Contrasts
    beyond: bool = False


@dataclass(frozen=True)
class Decision:
    """A claim, its number from 1, the verdict of some scores on it, and their evidence in words.

    count: how many comparisons hold, fail and are open, such as 22 / 1 / 1, and of how many where some are missing.
    """

    number: int
    claim: Claim
    verdict: str
    count: str
    evidence: str


def decide_claims(scores: Scores) -> list[Decision]:
    """Return a decision on each of CLAIMS.

    A claim of several comparisons holds if all of them do, and does not hold if one clearly does not, at 5 % for all of
    them together, see `compare`; else it is too close to call. The evidence names the worst comparison, which decides.
    """
    own = scores.in_paper()
    return [_decide(number, claim, scores if claim.beyond else own) for number, claim in enumerate(CLAIMS, 1)]


def _decide(number: int, claim: Claim, scores: Scores) -> Decision:
    found = compare(scores, claim.contrasts(scores))
    if not found:
        return Decision(number, claim, UNTESTED, "", "the models or attacks that it needs are not among the scores")
    counts = {name: sum(one.verdict == name for one in found) for name in (HOLDS, FAILS, CLOSE)}
    possible = _possible()[number - 1]
    missing = len(found) < possible
    count = " / ".join(map(str, counts.values())) + (f" of {possible}" if missing else "")
    worst = _worst(found)
    if len(found) == 1 and not missing:
        return Decision(number, claim, worst.verdict, count, str(worst))
    whole = f" ({possible} with all models and tables)" if missing else ""
    text = f"comparisons{whole}: {counts[HOLDS]} hold, {counts[FAILS]} fail, {counts[CLOSE]} are open; the worst"
    return Decision(number, claim, worst.verdict, count, f"{text}: {worst}")


@functools.cache
def _possible() -> list[int]:
    """Return how many comparisons each claim has in the paper's own tables."""
    return [len(claim.contrasts(paper_scores())) for claim in CLAIMS]


def _worst(found: Sequence[Comparison]) -> Comparison:
    severity = (FAILS, CLOSE, HOLDS)
    return min(found, key=lambda one: (severity.index(one.verdict), one.margin.difference))


_ALWAYS = "whichever model attacks (R1, φ = 0.1; best row of each family)"
_ALONE = "when each attacks itself (R1, φ = 0.1)"
_SYMBOLS = {"lam": "λ", "phi": "φ"}
_OUTPERFORMS = "section 3, paragraph 7, sentence 1 (Figures 1 to 3)"
_ABSTRACT = "abstract, sentence 4"
_CLEAN = "section 3, paragraph 8, sentence 5"
_HIGHER = "appendix A, paragraph 2, sentence 1"
_MT_WORST = "section 3, paragraph 7, sentence 3"

CLAIMS = (
    Claim(
        f"DataGrad-L1 is more robust than Rect, L1 and L2, {_ALWAYS}",
        _OUTPERFORMS,
        contrasts.beats(["DGL1"], ["Rect", "L1", "L2"]),
    ),
    Claim(
        f"DataGrad-L2 is more robust than Rect, L1 and L2, {_ALWAYS}",
        _OUTPERFORMS,
        contrasts.beats(["DGL2"], ["Rect", "L1", "L2"]),
    ),
    Claim(f"DataGrad-L1 is more robust than MT, {_ALWAYS}", _ABSTRACT, contrasts.beats(["DGL1"], ["MT"])),
    Claim(f"DataGrad-L2 is more robust than MT, {_ALWAYS}", _ABSTRACT, contrasts.beats(["DGL2"], ["MT"])),
    Claim(
        f"DataGrad's L1 form is more robust than its L2 form, single-task, {_ALWAYS}",
        _HIGHER,
        contrasts.beats(["DGL1"], ["DGL2"]),
    ),
    Claim(
        f"DataGrad's L1 form is more robust than its L2 form, multi-task, {_ALWAYS}",
        "section 3, paragraph 7, sentence 6",
        contrasts.beats(["MT-DGL1"], ["MT-DGL2"]),
    ),
    *(
        Claim(
            f"{family} with a higher {_SYMBOLS[one]} is more robust (highest against lowest at the same "
            f"{_SYMBOLS[other]}, each table)",
            _HIGHER,
            contrasts.rises(family, one),
        )
        for family in (*SINGLE_DG, *MULTI_DG)
        for one, other in (("lam", "phi"), ("phi", "lam"))
    ),
    Claim(
        f"DataGrad, single-task and multi-task, keeps more than Rect, L1, L2 and MT {_ALONE}",
        f"{_OUTPERFORMS}, Figure 1 (a)",
        contrasts.alone_beats([*SINGLE_DG, *MULTI_DG], ["Rect", "L1", "L2", "MT"]),
    ),
    Claim(
        "The lead of DataGrad over Rect grows with φ (each step from 0.005 to 0.1; best rows, each table)",
        "section 3, paragraph 8, sentence 2",
        contrasts.gain_grows(*SINGLE_DG),
    ),
    Claim(
        "The lead of DGL1 over Rect and L1 grows with φ, each attacking itself (each step from 0.005 to 0.1)",
        "section 3, paragraph 8, sentence 2, and Figure 3",
        contrasts.gain_grows_in_figure_3,
    ),
    Claim(
        f"L1 and L2 soften the damage: both are more robust than Rect, {_ALWAYS}",
        "section 3, paragraph 8, sentence 1",
        contrasts.beats(["L1", "L2"], ["Rect"]),
    ),
    Claim(
        "The robustness of L1 and L2 is modest: the better of them wins back less than half of the points that DGL1 "
        "wins back from Rect (R1, φ = 0.1; best rows, each table)",
        "section 3, paragraph 8, sentence 1",
        contrasts.modest("L1", "L2"),
    ),
    Claim(f"MT alone is the most fragile model {_ALONE}", f"{_MT_WORST}, Figure 1", contrasts.alone_last(MT)),
    Claim(
        "MT alone is the most fragile victim of MT's attack (R1, φ = 0.1)",
        f"{_MT_WORST}, Figure 2 (b)",
        contrasts.last_in_its_own_table(MT),
    ),
    Claim(f"MT alone is worse than Rect {_ALONE}", f"{_MT_WORST}, Figure 1", contrasts.alone_beats(["Rect"], ["MT"])),
    Claim(
        "MT alone is worse than Rect in Figure 2, under Rect's attack and under MT's (R1, φ = 0.1)",
        f"{_MT_WORST}, Figure 2",
        contrasts.worse_in_figure_2,
    ),
    Claim(
        "MT under its own attack falls to nearly 1 %: below 2 % (R1, φ = 0.1)",
        "section 3, paragraph 7, sentence 4, Figure 2 (b)",
        contrasts.falls_below(2, MT),
    ),
    Claim(
        "Multi-task plus DataGrad has nearly no loss: noise of φ = 0.1 takes less than 5 points from the best rows of "
        "MT-DGL1 and MT-DGL2, whichever model attacks",
        "section 3, paragraph 7, sentence 5",
        contrasts.keeps(5, *MULTI_DG),
    ),
    Claim(
        "Multi-task plus DataGrad is the most robust of all rows, whichever model attacks (R1, φ = 0.1)",
        "abstract, sentence 5; appendix A, paragraph 2, sentences 2 and 3",
        contrasts.most_robust(*MULTI_DG),
    ),
    Claim(
        "The second task adds to DataGrad-L1: the multi-task row is more robust than the single-task row of the same λ "
        "and φ (R1, φ = 0.1; each pair of rows, each table)",
        "appendix A, paragraph 2, sentence 2",
        contrasts.tasks_at_equal_settings("DGL1"),
        beyond=True,
    ),
    Claim(
        "The second task adds to DataGrad-L2: the multi-task row is more robust than the single-task row of the same λ "
        "and φ (R1, φ = 0.1; each pair of rows, each table)",
        "abstract, sentence 5",
        contrasts.tasks_at_equal_settings("DGL2"),
        beyond=True,
    ),
    Claim(
        "The paper's best row, MT-DGL1 with λ = φ = 0.1, is more robust than single-task DGL1 with λ = φ = 0.1, which "
        "the paper does not print (R1, φ = 0.1; each table)",
        "abstract, sentence 5",
        contrasts.tasks_at_equal_settings("DGL1", lam=0.1, phi=0.1),
        beyond=True,
    ),
    Claim(
        "DataGrad improves the clean accuracy over Rect (best row of DGL1 and of DGL2)",
        f"{_CLEAN}; conclusion, paragraph 1, sentence 3",
        contrasts.cleaner(SINGLE_DG, ["Rect"]),
    ),
    Claim(
        "Multi-task DataGrad improves the clean accuracy over Rect (best row of MT-DGL1 and of MT-DGL2)",
        _CLEAN,
        contrasts.cleaner(MULTI_DG, ["Rect"]),
    ),
    Claim(
        "DataGrad has a higher clean accuracy than L1, L2 and MT (best rows of DGL1 and of DGL2)",
        _ABSTRACT,
        contrasts.cleaner(SINGLE_DG, ["L1", "L2", "MT"]),
    ),
    Claim(
        "DGL1 and MT-DGL1 have the highest clean accuracy of all (each against the best row of each other family)",
        _CLEAN,
        contrasts.cleaner(["DGL1", "MT-DGL1"], contrasts.others("DGL1", "MT-DGL1")),
    ),
    Claim(
        "R2 noise of a model's own never drops it below 92 %",
        "section 3, paragraph 7, sentence 2, Figure 1 (b)",
        contrasts.own_noise_stays_above(92),
    ),
    Claim(
        "R2 noise does less damage than R1 noise, to every model from itself (φ = 0.1)",
        "section 3, paragraph 7, sentence 2",
        contrasts.r2_is_weaker,
    ),
    Claim(
        "Under its own R2 noise DGL2 keeps more than every other single-task family and MT (φ = 0.1)",
        "footnote 5, Figure 1 (b)",
        contrasts.alone_beats(["DGL2"], ["Rect", "L1", "L2", "DGL1", "MT"], SQUARED),
    ),
    Claim(
        "Under its own R2 noise DGL1 comes next: it keeps more than Rect, L1, L2 and MT (φ = 0.1)",
        "footnote 5, Figure 1 (b)",
        contrasts.alone_beats(["DGL1"], ["Rect", "L1", "L2", "MT"], SQUARED),
    ),
)
