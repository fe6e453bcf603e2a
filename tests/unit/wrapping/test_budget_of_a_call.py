"""What one call may spend, on top of the budgets of the wrapped client."""

from __future__ import annotations

import itertools
import re
from contextlib import closing, suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi import Budget, BudgetExceededError, UsageError, finding_of, with_options, wrap
from smoothapi.provider import Price
from smoothapi.services import serve
from smoothapi.store import Home, Spent
from smoothapi.store.allowance import Allowance, AllowanceLedger
from smoothapi.store.blocks import Block
from tests.unit.wrapping.conftest import KITS, PIXELS, png

aws = pytest.mark.parametrize("kit", [KITS["aws"]], ids=["aws"])
google = pytest.mark.parametrize("kit", [KITS["google"]], ids=["google"])


def pictures(service):
    return sum(received.pictures for received in service.received)


@pytest.fixture
def service(kit):
    """Bus, always; Van in the photo, and in three of four copies: 90 votes or so tell."""
    copies = itertools.count()

    def undecided(pixels):
        plain = pixels.std() < 40
        van = 0.9 if plain or next(copies) % 4 else 0.1
        return [("Bus", 0.97), ("Van", van)]

    with serve(kit.service, undecided) as service:
        yield service


@aws
def test_a_call_spends_no_more_than_its_own_budget(kit, service, wrapped):
    client = wrapped(max_votes=400)
    with pytest.raises(BudgetExceededError, match="needs at least"):
        kit.label(with_options(client, budget="12", radius=0.2))
    assert pictures(service) == 0  # not even the caller's own call
    cheap = with_options(client, budget=Budget(attempts=25), otherwise="plain")
    for calls in (1, 2):  # each has its own
        finding = finding_of(kit.label(cheap))
        assert (finding.certified, finding.ended) == (False, "budget")
        assert "budget of this call (25 attempts)" in finding.why
        assert pictures(service) == 25 * calls
    assert finding_of(kit.label(with_options(cheap, budget="500"))).certified


@aws
def test_what_a_budget_cannot_pay_for_is_bought_in_part_as_the_error_says(
    kit, service, wrapped, monkeypatch
):
    options = {"max_votes": 400, "radius": 0.2}
    with pytest.raises(BudgetExceededError) as caught:
        kit.label(wrapped(budget="12", **options))
    name, value = re.search(r"(SMOOTHAPI_\w+)=(\w+)", str(caught.value)).groups()
    monkeypatch.setenv(name, value)
    with pytest.raises(BudgetExceededError, match="votes are kept"):
        kit.label(wrapped(budget="12", **options))
    assert pictures(service) == 12
    assert finding_of(kit.label(wrapped(budget="500", **options))).certified


@aws
def test_dollars_bound_a_call_too(kit, service, wrapped):
    client = with_options(wrapped(max_votes=400), budget=[Budget(dollars="0.02"), Budget()])
    for part in range(2):
        with pytest.raises(BudgetExceededError, match=r"this call \(\$0.02\)"):
            kit.label(client, png(PIXELS[:, part:]))
        assert pictures(service) == 20 * (part + 1)  # at $1.00 per 1,000


@aws
def test_the_wrapped_clients_own_budget_holds_besides(kit, service, wrapped):
    client = wrapped(budget=Budget(attempts=25), otherwise="plain", max_votes=400)
    assert not finding_of(kit.label(with_options(client, budget="500"))).certified
    assert pictures(service) <= 25


@google
def test_the_pictures_of_a_batch_share_it(kit, wrapped):
    from google.cloud import vision

    features = [{"type_": vision.Feature.Type.LABEL_DETECTION}]
    photos = [png(PIXELS[:, part:]) for part in range(3)]
    asked = [{"image": {"content": photo}, "features": features} for photo in photos]
    with serve("google", lambda _: [("Bus", 0.9)]) as service:
        client = with_options(wrapped(kit.client(service), otherwise="plain"), budget="20")
        response = client.batch_annotate_images(requests=asked)
        assert pictures(service) <= 20 + len(photos) - 1  # open: each picture's own call is made
        ends = [finding_of(response, n).ended for n in range(3)]
        client.close()
    assert ends[-1] == "budget"


@pytest.mark.parametrize(
    "bad", ["$5/day", Budget(attempts=5, name="team"), 5, "", "0", ["5"], Budget(per="month")]
)
def test_a_budget_that_outlives_a_call_or_cannot_be_read_is_refused(bad):
    import boto3

    plain = boto3.client("rekognition", region_name="us-east-1")
    client = wrap(plain, budget="$1")
    with pytest.raises(UsageError):
        with_options(client, budget=bad)
    client.close()


steps = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "release"]), st.integers(1, 9)), max_size=30
)


@settings(max_examples=30)
@given(
    steps=steps,
    attempts=st.none() | st.integers(0, 40),
    cents=st.none() | st.integers(0, 8),
    free=st.integers(0, 30),
)
def test_whatever_happens_no_more_is_out_than_allowed(steps, attempts, cents, free):
    """The price list has a free part and a step, where the price of the next attempt changes."""
    price = Price(Decimal(2), free_per_month=free, steps=((free + 20, Decimal(1)),))
    budget = Budget(attempts=attempts, dollars=None if cents is None else Decimal(cents) / 100)
    ledger = _Counting(price)
    limited = AllowanceLedger(ledger, price, Allowance([budget])).priced(price)
    open_ = []
    for step, count in steps:
        if step == "reserve":
            room = limited.room()
            with suppress(BudgetExceededError):
                open_.append((limited.reserve(count), count))
                assert room is None or count <= room
        elif open_:
            block, had = open_.pop()
            if step == "settle":
                limited.settle(block, had)
            else:
                limited.release(block, had)
        assert attempts is None or ledger.out <= attempts
        assert cents is None or ledger.dollars <= Decimal(cents) / 100
    for block, had in open_:
        limited.release(block, had)
    assert ledger.out == ledger.sent


class _Counting:
    """A ledger without limits that counts what is out, and what was paid."""

    def __init__(self, price):
        self.price, self.out, self.sent, self.dollars = price, 0, 0, Decimal(0)

    def room(self):
        return None

    def reserve(self, attempts):
        block = Block(1, 0, (self.sent, self.out), attempts, taken=attempts)
        self.out += attempts
        return block

    def settle(self, block, attempts):
        spent = Spent(attempts, self.price.of(attempts, self.sent))
        self.sent += attempts
        self.dollars += spent.dollars
        return spent

    def release(self, block, attempts):
        self.out -= attempts

    def priced(self, price):
        return self


def test_over_a_homes_own_ledger_both_count(tmp_path):
    with closing(Home(tmp_path)) as home:
        price = Price(Decimal(1))
        ledger = home.ledger([Budget(attempts=7)], "aws", price)
        limited = AllowanceLedger(ledger, price, Allowance([Budget(attempts=5)]))
        assert (ledger.room(), limited.room()) == (7, 5)
        block = limited.reserve(4)
        with pytest.raises(BudgetExceededError, match="this call"):
            limited.reserve(2)
        assert limited.settle(block, 3).dollars == Decimal("0.003")
        limited.release(block, 1)
        limited.rest()
        assert (ledger.room(), limited.room()) == (4, 2)
        limited.close()
