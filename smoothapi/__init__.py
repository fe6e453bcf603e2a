"""Certified labels from the vision API calls you already make.

    from smoothapi import Smoother, Budget

    with Smoother("mock", sigma=0.25, budget=Budget(attempts=500)) as smoother:
        certificate = smoother.certify("photo.jpg", radius=0.25)
    print(certificate)

Public names are loaded when they are first used, so that importing smoothapi loads neither torch
nor a cloud SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi._lazy import lazy_names
from smoothapi._version import __version__

if TYPE_CHECKING:
    from smoothapi.advice import Advice, advise
    from smoothapi.answer import Answer, Label
    from smoothapi.certificates import verify
    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.labels import LabelSpace
    from smoothapi.certify.targets import Absence, MostSpecific, Presence, Scores, TopK
    from smoothapi.dispatch import Retry
    from smoothapi.errors import (
        BudgetExceededError,
        CertificateError,
        ClusterError,
        DenoiserError,
        FatalError,
        ImageError,
        MissingExtraError,
        ModelChangedError,
        PermanentError,
        ProcessesLostError,
        ProviderError,
        SigningKeyError,
        SmoothAPIError,
        StoppedError,
        StoreError,
        ThrottledError,
        TooManyFailuresError,
        TransientError,
        UnknownLabelError,
        UnknownProviderError,
        UnreachableRadiusError,
        UnreadableCertificateError,
        UntrustedCertificateError,
        UsageError,
    )
    from smoothapi.image import WorkingImage, load_image
    from smoothapi.look import Look
    from smoothapi.many import ManyProgress, PhotoResult
    from smoothapi.many.cluster import Cluster
    from smoothapi.photos import FetchLimits, PhotoFetcher
    from smoothapi.plan import Plan
    from smoothapi.progress_bar import ProgressBar
    from smoothapi.provider import Adapter, Limits, Price
    from smoothapi.session import Progress
    from smoothapi.signing import PublicKey, SignedCertificate, SigningKey
    from smoothapi.smoother import Smoother
    from smoothapi.store import Budget
    from smoothapi.study import Study, StudyResult
    from smoothapi.wrapping import certificate_of, finding_of, with_options, wrap

_HOMES = {
    "smoothapi.advice": ("Advice", "advise"),
    "smoothapi.answer": ("Answer", "Label"),
    "smoothapi.certificates": ("verify",),
    "smoothapi.certify.certificate": ("Certificate",),
    "smoothapi.certify.labels": ("LabelSpace",),
    "smoothapi.certify.targets": ("Absence", "MostSpecific", "Presence", "Scores", "TopK"),
    "smoothapi.dispatch": ("Retry",),
    "smoothapi.provider": ("Adapter", "Limits", "Price"),
    "smoothapi.store": ("Budget",),
    "smoothapi.errors": (
        "BudgetExceededError",
        "CertificateError",
        "ClusterError",
        "DenoiserError",
        "FatalError",
        "ImageError",
        "MissingExtraError",
        "ModelChangedError",
        "PermanentError",
        "ProcessesLostError",
        "ProviderError",
        "SigningKeyError",
        "SmoothAPIError",
        "StoppedError",
        "StoreError",
        "ThrottledError",
        "TooManyFailuresError",
        "TransientError",
        "UnknownLabelError",
        "UnknownProviderError",
        "UnreachableRadiusError",
        "UnreadableCertificateError",
        "UntrustedCertificateError",
        "UsageError",
    ),
    "smoothapi.image": ("WorkingImage", "load_image"),
    "smoothapi.study": ("Study", "StudyResult"),
    "smoothapi.signing": ("PublicKey", "SignedCertificate", "SigningKey"),
    "smoothapi.many": ("ManyProgress", "PhotoResult"),
    "smoothapi.many.cluster": ("Cluster",),
    "smoothapi.photos": ("FetchLimits", "PhotoFetcher"),
    "smoothapi.look": ("Look",),
    "smoothapi.progress_bar": ("ProgressBar",),
    "smoothapi.plan": ("Plan",),
    "smoothapi.session": ("Progress",),
    "smoothapi.smoother": ("Smoother",),
    "smoothapi.wrapping": ("certificate_of", "finding_of", "with_options", "wrap"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Absence",
    "Adapter",
    "Advice",
    "Answer",
    "Budget",
    "BudgetExceededError",
    "Certificate",
    "CertificateError",
    "Cluster",
    "ClusterError",
    "DenoiserError",
    "FatalError",
    "FetchLimits",
    "ImageError",
    "Label",
    "LabelSpace",
    "Limits",
    "Look",
    "ManyProgress",
    "MissingExtraError",
    "ModelChangedError",
    "MostSpecific",
    "PermanentError",
    "PhotoFetcher",
    "PhotoResult",
    "Plan",
    "Presence",
    "Price",
    "ProcessesLostError",
    "Progress",
    "ProgressBar",
    "ProviderError",
    "PublicKey",
    "Retry",
    "Scores",
    "SignedCertificate",
    "SigningKey",
    "SigningKeyError",
    "SmoothAPIError",
    "Smoother",
    "StoppedError",
    "StoreError",
    "Study",
    "StudyResult",
    "ThrottledError",
    "TooManyFailuresError",
    "TopK",
    "TransientError",
    "UnknownLabelError",
    "UnknownProviderError",
    "UnreachableRadiusError",
    "UnreadableCertificateError",
    "UntrustedCertificateError",
    "UsageError",
    "WorkingImage",
    "__version__",
    "advise",
    "certificate_of",
    "finding_of",
    "load_image",
    "verify",
    "with_options",
    "wrap",
]
