"""The options of a Smoother are declared once; everything that takes them shows and checks them."""

import inspect
import re
from pathlib import Path

import pytest

import smoothapi
from smoothapi import Smoother, Study, wrap
from smoothapi.adapting import KnobTuning
from smoothapi.options import AskOptions, CertifyOptions, SharedOptions, SmootherOptions
from smoothapi.settings import Settings

NO_SETTINGS = {"retry", "refresh"}  # an object, and a thing of one call


@pytest.mark.parametrize(
    ("takes", "declared"),
    [
        (Smoother, SmootherOptions),
        (wrap, CertifyOptions),
        (Study, SharedOptions),
        (KnobTuning, AskOptions),
    ],
)
def test_each_option_stands_in_the_signature_and_is_explained(takes, declared):
    shown = inspect.signature(takes).parameters
    for name in declared.__annotations__:
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert re.search(rf"^ +{name}: ", inspect.getdoc(takes), re.MULTILINE), name
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in shown.values())


def test_each_option_is_a_setting_and_each_setting_of_a_run_an_option():
    of_smoother = set(SmootherOptions.__annotations__)
    assert of_smoother - NO_SETTINGS <= set(Settings.model_fields)
    of_files_only = {"provider", "attempts", "deadline", "max_failed", "prices", "providers"}
    assert set(Settings.model_fields) - of_files_only <= of_smoother


@pytest.mark.parametrize(
    "call",
    [
        lambda **bad: Smoother("mock", **bad),
        lambda **bad: wrap(object(), budget="1", **bad),
        lambda **bad: Study({}, **bad),
        lambda **bad: KnobTuning({}, **bad),
    ],
)
def test_an_unknown_option_names_the_nearest(call):
    with pytest.raises(TypeError, match=r"'concurency'.* Did you mean 'concurrency'"):
        call(concurency=3)


def test_a_smoother_shows_what_users_need_and_no_more():
    assert {name for name in dir(Smoother) if not name.startswith("_")} == {
        "certify", "predict", "certify_async", "predict_async", "plan", "session", "close",
        "certify_many", "certify_many_async", "predict_many", "look",
    }  # fmt: skip


def test_the_noise_level_has_one_truth():
    """A session beside another has a noise level of its own: nobody asks the settings for it."""
    folder = Path(smoothapi.__file__).parent
    asking = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if re.search(r"\bsettings\.sigma\b", path.read_text(encoding="utf-8"))
    ]
    without_a_session = {"cli/init.py", "doctor/denoiser.py", "gateway/config.py"}
    assert set(asking) - without_a_session == {
        "cli/output.py", "cli/plan.py", "parts.py", "study/study.py",
    }  # fmt: skip
