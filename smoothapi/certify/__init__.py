"""Answers to votes to a certificate: pure numbers and labels, no torch and no I/O.

`bounds` and `evalue` hold the mathematics, `decision` the values that all tests share, `ballot` the
votes so far, `sequential` and `predict` the tests that a run uses, `fixed` that of the paper,
`arithmetic` what floating point costs, `labels` the vote of an answer, `targets` what else the same
answers can certify (`presence`, `scores`, `topk`), `planning` what a run will need.
"""

from __future__ import annotations

from smoothapi.certify.arithmetic import (
    GRID,
    ceil_to,
    floor_to,
    noise_delta,
    rounding_radius,
    share_deduction,
)
from smoothapi.certify.bounds import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    radius_from_p,
    required_p,
)
from smoothapi.certify.certificate import Certificate, ImageFacts, runs_of
from smoothapi.certify.decision import RULES, Claim, Decision, Reason, Vote, VoteTest, replay
from smoothapi.certify.evalue import log_evalue, p_lower
from smoothapi.certify.fixed import fixed_certify
from smoothapi.certify.labels import LabelSpace, top1
from smoothapi.certify.planning import (
    QueryCount,
    most_specific_queries,
    presence_queries,
    queries_needed,
    target_queries,
)
from smoothapi.certify.predict import SequentialPredict
from smoothapi.certify.radii import native_radius, rms_radius, working_radius
from smoothapi.certify.sequential import SequentialCertify, VoteTerms, joint_level, label_level
from smoothapi.certify.targets import (
    Absence,
    MostSpecific,
    Presence,
    Scores,
    Target,
    Top1,
    TopK,
    parse_target,
)
from smoothapi.certify.verify import verify_claims

__all__ = [
    "GRID",
    "RULES",
    "Absence",
    "Certificate",
    "Claim",
    "Decision",
    "ImageFacts",
    "LabelSpace",
    "MostSpecific",
    "Presence",
    "QueryCount",
    "Reason",
    "Scores",
    "SequentialCertify",
    "SequentialPredict",
    "Target",
    "Top1",
    "TopK",
    "Vote",
    "VoteTerms",
    "VoteTest",
    "ceil_to",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "fixed_certify",
    "floor_to",
    "joint_level",
    "label_level",
    "log_evalue",
    "most_specific_queries",
    "native_radius",
    "noise_delta",
    "p_lower",
    "parse_target",
    "presence_queries",
    "queries_needed",
    "radius_from_p",
    "replay",
    "required_p",
    "rms_radius",
    "rounding_radius",
    "runs_of",
    "share_deduction",
    "target_queries",
    "top1",
    "verify_claims",
    "working_radius",
]
