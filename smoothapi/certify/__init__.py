"""Answers to votes to a certificate: pure numbers and labels, no torch and no I/O.

`bounds` and `evalue` hold the mathematics, `sequential` the tests that a run uses, `arithmetic`
what floating point costs, `labels` the vote of an answer, `planning` what a run will need.
"""

from __future__ import annotations

from smoothapi.certify.arithmetic import GRID, ceil_to, floor_to, noise_delta, rounding_radius
from smoothapi.certify.bounds import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    radius_from_p,
    required_p,
)
from smoothapi.certify.certificate import Certificate, ImageFacts, runs_of
from smoothapi.certify.evalue import log_evalue, p_lower
from smoothapi.certify.fixed import fixed_certify, fixed_predict
from smoothapi.certify.labels import LabelSpace, top1
from smoothapi.certify.planning import (
    QueryCount,
    expected_queries,
    power_curve,
    queries_needed,
    radius_reachable,
)
from smoothapi.certify.sequential import (
    Decision,
    Reason,
    SequentialCertify,
    SequentialPredict,
    Vote,
    VoteTest,
    fewest_votes,
    label_level,
    replay,
)
from smoothapi.certify.verify import verify_claims

__all__ = [
    "GRID",
    "Certificate",
    "Decision",
    "ImageFacts",
    "LabelSpace",
    "QueryCount",
    "Reason",
    "SequentialCertify",
    "SequentialPredict",
    "Vote",
    "VoteTest",
    "ceil_to",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "expected_queries",
    "fewest_votes",
    "fixed_certify",
    "fixed_predict",
    "floor_to",
    "label_level",
    "log_evalue",
    "noise_delta",
    "p_lower",
    "power_curve",
    "queries_needed",
    "radius_from_p",
    "radius_reachable",
    "replay",
    "required_p",
    "rounding_radius",
    "runs_of",
    "top1",
    "verify_claims",
]
