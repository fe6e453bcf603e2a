"""How all adapters read options and endpoints, and how far they read an answer."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from smoothapi.errors import UsageError
from smoothapi_adapters._common import options
from smoothapi_adapters._common.endpoints import is_exposed, origin, read_endpoint, split_url

EXAMPLE = "https://vision.example"


@pytest.mark.parametrize(
    ("read", "given", "value"),
    [
        (lambda v: options.number("x", v, 0, 100), "55.5", 55.5),
        (lambda v: options.whole("x", v, 1, 1000), "50", 50),
        (lambda v: options.whole("x", v, 1, 1000), 50.0, 50),
        (lambda v: options.count("x", v), "3", 3),
        (lambda v: options.integer("x", v), str(2**60 + 1), 2**60 + 1),
        (lambda v: options.share("x", v), "1", 1.0),
        (lambda v: options.above_zero("x", v), "0.5", 0.5),
        (lambda v: options.seconds("x", v), "0", 0.0),
        (options.timeout, "3600", 3600.0),
        (options.timeout, 0.0001, 0.0001),
        (lambda v: options.switch("x", v), "Yes", True),
        (lambda v: options.switch("x", v), False, False),
        (lambda v: options.one_of("x", v, ("a", "b")), "b", "b"),
        (options.formats, "jpeg, png", ("jpeg", "png")),
        (lambda v: options.secret("x", v), " s3cret\n", "s3cret"),
        (lambda v: options.secret("x", v), None, ""),
    ],
)
def test_options_are_read_from_python_and_from_text(read, given, value):
    found = read(given)
    assert (found, type(found)) == (value, type(value))


BAD = ["", "many", None, "nan", "inf", -1, "1e999"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "read",
    [
        lambda v: options.number("x", v, 0, 100),
        lambda v: options.whole("x", v, 1, 1000),
        lambda v: options.count("x", v),
        lambda v: options.share("x", v),
        lambda v: options.above_zero("x", v),
        lambda v: options.seconds("x", v),
        options.timeout,
        lambda v: options.switch("x", v),
        lambda v: options.one_of("x", v, ("a", "b")),
    ],
)
def test_what_cannot_be_read_is_named_with_its_value(read, bad):
    with pytest.raises(UsageError, match=r"^(x|timeout)=.*: (give|write|choose)"):
        read(bad)


def test_bounds_of_numbers():
    for bad in (0, 1001, 1.5):
        with pytest.raises(UsageError, match="a whole number from 1 to 1,000"):
            options.whole("x", bad, 1, 1000)
    for bad in (0, 3600.1, math.inf):
        with pytest.raises(UsageError, match="above 0, up to 3,600"):
            options.timeout(bad)
    with pytest.raises(UsageError, match="give a whole number"):
        options.integer("x", "1.5")


@pytest.mark.parametrize("bad", ["s3 cret", "s3\ncret", "s3crét"])
def test_a_key_that_cannot_be_one_is_not_shown(bad):
    with pytest.raises(UsageError, match="Copy it again") as caught:
        options.secret("key", bad)
    assert bad not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]:99"])
def test_a_key_goes_to_this_machine_without_tls(host):
    assert not is_exposed(f"http://{host}")
    assert read_endpoint(f"http://{host}/", EXAMPLE) == f"http://{host}"


@pytest.mark.parametrize(
    "url",
    [
        "vision.example",
        "ftp://vision.example",
        "http://",
        "https://user:pw@vision.example",
        "http://vision.example",
        "http://127.0.0.1.example",
        "https://vision.example:port",
        "https://vision.example/a b",
        "https://[vision",
    ],
)
def test_an_endpoint_that_cannot_be_called_or_would_tell_the_key(url):
    with pytest.raises(UsageError, match="endpoint") as caught:
        read_endpoint(url, EXAMPLE)
    assert "pw" not in str(caught.value)


def test_requests_that_are_signed_need_no_tls():
    assert (
        read_endpoint("http://me:pw@emulator:99/", EXAMPLE, signed=True)
        == "http://me:pw@emulator:99"
    )
    assert read_endpoint("", EXAMPLE) == read_endpoint(None, EXAMPLE) == ""


def test_a_url_is_parted_from_its_query():
    assert split_url("url", "https://h:8/a?x=1&x=&y") == (
        "https://h:8/a",
        (("x", "1"), ("x", ""), ("y", "")),
    )
    assert origin("https://me:pw@[::1]:8/a?x=1") == "https://[::1]:8"


def test_the_package_loads_no_sdk_and_google_and_azure_only_when_asked():
    script = (
        "import sys, smoothapi_adapters;"
        "sdks = {'boto3', 'requests', 'google.cloud', 'google.auth', 'azure.core', 'msrest', 'torch'};"
        "assert not sdks & set(sys.modules);"
        "import smoothapi_adapters.google, smoothapi_adapters.azure, smoothapi_adapters.mock;"
        "assert not sdks & set(sys.modules), sdks & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
