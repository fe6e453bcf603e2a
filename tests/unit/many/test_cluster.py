"""Tasks given out to other processes: what each is told, what must agree, and what dies.

Ray is stood in for by threads of this process, whose "processes" can be killed; the provider, the
store and all else is real. `test_on_ray.py` has the same on Ray itself.
"""

from __future__ import annotations

import pickle
import sys
import threading
import types
from concurrent.futures import Future

import numpy as np
import pytest

from smoothapi import Cluster, PhotoFetcher, Smoother, Study
from smoothapi.address import DatabaseAddress
from smoothapi.errors import (
    ClusterError,
    ImageError,
    MissingExtraError,
    ProcessesLostError,
    StoppedError,
    UsageError,
)
from smoothapi.many.cluster import connection, denoising, team
from smoothapi.many.cluster.connection import Machine, placed
from smoothapi.many.cluster.recipe import SessionRecipe, disagreements, key_here
from smoothapi.many.cluster.workplace import Workplace
from smoothapi.photos import NotHereError, carried, with_content
from tests.conftest import ScriptedAdapter, invoke
from tests.unit.dispatch.harness import until
from tests.unit.many.conftest import save
from tests.unit.many.labelling import Labelling

OPTIONS = {"sigma": 0.25, "radius": 0.1, "size": 8, "plain": False, "denoiser": "none"}


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class RayTaskError(RayError):
    pass


class Ray:
    """Ray as far as it is used, in threads."""

    exceptions = types.SimpleNamespace(
        RayError=RayError, RayActorError=RayActorError, RayTaskError=RayTaskError
    )

    def __init__(self, machines=1):
        self.actors = []
        self.machines = machines

    def is_initialized(self):
        return True

    def nodes(self):
        has = {"CPU": 2.0}
        return [{"NodeID": str(n), "Alive": True, "Resources": has} for n in range(self.machines)]

    def remote(self, **_):
        return lambda kind: _Kind(self, kind)

    def wait(self, refs, *, num_returns, timeout):
        del num_returns, timeout
        for ref in refs:
            ref.end.exception()
        return refs, []

    def get(self, ref, timeout=None):
        return ref.end.result(timeout)

    def put(self, value):
        return value

    def kill(self, actor):
        actor.kill()


class _Kind:
    def __init__(self, ray, kind):
        self._ray, self._kind = ray, kind

    def options(self, **_):
        return self

    def remote(self, *given):
        # What goes to another machine is a copy.
        self._ray.actors.append(_Actor(self._kind(*pickle.loads(pickle.dumps(given)))))
        return self._ray.actors[-1]


class _Actor:
    """A "process": killed, it says nothing more, whatever its threads still do."""

    def __init__(self, thing):
        self.thing = thing
        self.is_dead = False
        self._open = []
        self._lock = threading.Lock()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return types.SimpleNamespace(remote=lambda *given: self._call(name, given))

    def __reduce__(self):
        return _same, (id(self),)

    def _call(self, name, given):
        end = Future()
        with self._lock:
            if self.is_dead:
                end.set_exception(RayActorError("dead"))
                return _Ref(end)
            self._open.append(end)
        given = pickle.loads(pickle.dumps(given))

        def run():
            try:
                result, error = getattr(self.thing, name)(*given), None
            except Exception as failure:  # noqa: BLE001
                result, error = None, failure
            with self._lock:
                if self.is_dead:
                    return
                self._open.remove(end)
            end.set_exception(error) if error else end.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return _Ref(end)

    def kill(self):
        with self._lock:
            self.is_dead = True
            killed, self._open = self._open, []
        for end in killed:
            end.set_exception(RayActorError("killed"))


def _same(number):
    return next(one for one in _LATEST[0].actors if id(one) == number)


class _Ref:
    def __init__(self, end):
        self.end = end

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other

    def future(self):
        return self.end


_LATEST = []


@pytest.fixture
def ray(monkeypatch):
    made = Ray()
    _LATEST[:] = [made]
    monkeypatch.setattr(connection, "import_ray", lambda: made)
    monkeypatch.setattr(denoising, "import_ray", lambda: made)
    monkeypatch.setattr(team, "where", lambda _: {})
    return made


@pytest.fixture
def service(monkeypatch):
    made = Labelling()
    for name, value in made.settings.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path):
    """Homes of one noise key."""

    def make(name="home"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "noise.key").write_bytes(bytes(range(32)))
        (folder / "noise.key").chmod(0o600)
        return folder

    return make


@pytest.fixture
def photos(tmp_path):
    return [save(tmp_path / f"{n}.png", n) for n in range(3)]


def smoother(home, **options):
    return Smoother("http", home=home, **{**OPTIONS, **options})


def workplaces(ray):
    return [one for one in ray.actors if isinstance(one.thing, Workplace) and not one.is_dead]


def test_a_cluster_certifies_as_one_machine_does_and_sends_no_more(ray, service, home, photos):
    with smoother(home("calm")) as s:
        calm = [result.certificate for result in s.certify_many(photos)]
    sent = service.arrived
    progress = []
    with smoother(home()) as s:
        results = list(s.certify_many(photos, cluster="local", on_progress=progress.append))
        again = [r.certificate.attempts for r in s.certify_many(photos, cluster="local")]
    assert [result.certificate for result in results] == calm
    assert [result.photo for result in results] == [str(photo) for photo in photos]
    assert service.arrived == 2 * sent == 2 * sum(c.attempts for c in calm)
    assert again == [0] * len(photos)
    assert progress[-1].done == len(photos)
    assert progress[-1].queries == sent
    assert all(one.is_dead for one in ray.actors)


def test_many_are_predicted_on_a_cluster_too(ray, service, home, photos):
    with smoother(home()) as s:
        [there] = s.predict_many(photos[:1], cluster="local")
        assert there.certificate == s.predict(photos[0])


def test_a_budget_without_a_name_is_one_for_all_processes(ray, service, home, photos):
    with smoother(home(), budget="40", partial=True) as s:
        results = s.certify_many(photos, cluster=Cluster("local", workers=3), photos_at_once=2)
        with pytest.raises(Exception, match=r"The budget \(40 attempts a run\) does not"):
            list(results)
        # The threads of what was killed go on in this process: what they sent is written down soon.
        until(lambda: s.session.dispatcher.room() == 40 - service.arrived)
    assert 0 < service.arrived <= 40


def test_photos_of_a_process_that_dies_are_begun_again_and_nothing_is_bought_twice(
    ray, service, home, photos, caplog
):
    with smoother(home("calm")) as s:
        calm = [result.certificate for result in s.certify_many(photos)]
    once = service.arrived
    killed = threading.Event()

    def kill(state):
        if state.votes > 20 and not killed.is_set():
            workplaces(ray)[0].kill()
            killed.set()

    service.meet = lambda number: number < once + 60 or killed.wait(60)
    with smoother(home()) as s:
        team._LOOK, before = 0.0, team._LOOK
        try:
            results = list(s.certify_many(photos, cluster="local", on_progress=kill))
        finally:
            team._LOOK = before
    assert killed.is_set()
    assert [result.certificate for result in results] == calm
    assert "died" in caplog.text
    # The threads of the one "killed" go on in this process, and share leases with the new one.
    assert service.arrived == 2 * once


def test_a_photo_that_takes_three_processes_along_fails_alone(
    ray, service, home, photos, monkeypatch
):
    real = Workplace.do

    def die(self, number, task):
        if task.photo.place.endswith("2.png"):
            next(one for one in ray.actors if one.thing is self).kill()
        return real(self, number, task)

    monkeypatch.setattr(Workplace, "do", die)
    with smoother(home()) as s:
        results = list(s.certify_many(photos, cluster="local", photos_at_once=1))
    assert [result.outcome for result in results].count("failed") == 1
    assert isinstance(results[2].error, ProcessesLostError)
    assert "3 processes died" in str(results[2].error)


def test_a_cluster_that_is_lost_ends_the_work(ray, service, home, photos, monkeypatch):
    real = _Actor._call

    def lose(self, name, given):
        if name != "do" or given[0] < 2:
            return real(self, name, given)
        end = Future()
        end.set_exception(RayError("the head is gone"))
        return _Ref(end)

    monkeypatch.setattr(_Actor, "_call", lose)
    results = []
    with smoother(home()) as s, pytest.raises(ClusterError, match="The cluster is lost: the head"):
        results.extend(s.certify_many(photos, cluster="local", photos_at_once=1))
    assert all(result.certificate is not None for result in results)


def test_a_process_that_differs_when_it_is_begun_anew_ends_the_work(
    ray, service, home, photos, monkeypatch
):
    """As one that comes up on a machine that has changed meanwhile."""
    real, opened = Workplace.open, []

    def elsewhere(self, duty, denoisers):
        opened.append(self)
        facts = real(self, duty, denoisers)
        return facts if len(opened) == 1 else {**facts, "price list of http": "another"}

    def die(state):
        if state.done == 1 and len(opened) == 1:
            workplaces(ray)[0].kill()

    monkeypatch.setattr(Workplace, "open", elsewhere)
    service.latency = 0.005
    with smoother(home()) as s, pytest.raises(ClusterError, match="price list of http"):
        list(s.certify_many(photos, cluster="local", photos_at_once=1, on_progress=die))


def test_a_process_that_cannot_begin_ends_the_work_before_anything_is_sent(
    ray, service, home, photos, monkeypatch
):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'smoothapi'")

    monkeypatch.setattr(Workplace, "open", fail)
    monkeypatch.setattr(team.time, "sleep", lambda _: None)
    with smoother(home()) as s, pytest.raises(ClusterError, match="same version as here"):
        list(s.certify_many(photos, cluster="local"))
    assert service.arrived == 0


def test_a_machine_that_differs_is_refused_before_anything_is_sent(
    ray, service, home, photos, monkeypatch
):
    real = Workplace.open

    def elsewhere(self, duty, denoisers):
        return {**real(self, duty, denoisers), "price list of http": "another"}

    monkeypatch.setattr(Workplace, "open", elsewhere)
    with smoother(home()) as s, pytest.raises(UsageError, match="price list of http"):
        list(s.certify_many(photos, cluster="local"))
    assert service.arrived == 0


def test_leaving_the_loop_stops_all_machines(ray, service, home, photos):
    service.latency = 0.01
    with smoother(home()) as s:
        for _ in s.certify_many(photos, cluster="local", photos_at_once=1):
            break
    sent = service.arrived
    assert all(one.is_dead for one in ray.actors)
    with smoother(home("other")) as s:
        assert sent < sum(r.certificate.attempts for r in s.certify_many(photos))


def test_photos_without_a_file_there_are_sent_along(
    ray, service, home, photos, monkeypatch, caplog
):
    with smoother(home("calm")) as s:
        calm = [result.certificate for result in s.certify_many(photos)]
    monkeypatch.setattr("smoothapi.photos.carrying.stamp_of", lambda path: str(len(seen(path))))
    calls = []

    def seen(path):
        calls.append(path)
        return calls  # changes with each look, as it would from machine to machine

    with smoother(home()) as s:
        results = list(s.certify_many(photos, cluster="local"))
    assert [result.certificate for result in results] == calm
    assert caplog.text.count("sent there from here") == 1


def test_arrays_and_bytes_are_certified_as_they_would_be_here(ray, service, home, photos):
    given = [np.full((8, 8, 3), 90, dtype=np.uint8), photos[0].read_bytes()]
    with smoother(home()) as s:
        there = [r.certificate for r in s.certify_many(given, cluster="local")]
        assert there == [r.certificate for r in s.certify_many(given)]


def test_a_broken_photo_is_a_result_and_the_rest_go_on(ray, service, home, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no photo")
    with smoother(home()) as s:
        results = list(s.certify_many([tmp_path / "broken.png", *photos], cluster="local"))
    assert isinstance(results[0].error, ImageError)
    assert [result.outcome for result in results[1:]].count("failed") == 0


def test_warnings_of_machines_are_heard_once(ray, service, home, photos, monkeypatch, caplog):
    real = Workplace.do

    def warn(self, number, task):
        self._said.emit(types.SimpleNamespace(levelno=30, getMessage=lambda: "odd labels"))
        return real(self, number, task)

    monkeypatch.setattr(Workplace, "do", warn)
    with smoother(home()) as s:
        list(s.certify_many(photos, cluster="local"))
    assert caplog.text.count("odd labels") == 1


def test_a_study_on_a_cluster_is_that_of_one_machine(ray, service, home, photos, tmp_path):
    def study(where, **options):
        return Study(
            photos, provider="http", denoisers="none", sigmas=(0.12, 0.25), radii=(0.1,),
            max_votes=(50,), size=8, home=home(where), gallery=1, **options
        ).run()  # fmt: skip

    calm = study("calm")
    there = study("there", cluster=Cluster("local", workers=2), photos_at_once=2)
    sent = service.arrived
    again = study("there")
    assert [(cell.photo, cell.votes, cell.outcomes) for cell in there.cells] == [
        (cell.photo, cell.votes, cell.outcomes) for cell in calm.cells
    ]
    assert there.photos == calm.photos
    assert len(there.pictures) == 1
    assert [cell.votes for cell in again.cells] == [cell.votes for cell in there.cells]
    assert service.arrived == sent


def test_a_plan_begins_one_denoiser_and_loads_none(ray, service, home, photos, tmp_path):
    from tests.unit.denoise import harness

    file = harness.save(harness.random_unet(), tmp_path / "tiny.safetensors")
    ray.machines = 3
    where = home()

    def plan(**options):
        return Study(
            photos, provider="http", denoisers=file, sigmas=(0.25,), radii=(0.1,),
            max_votes=(50,), size=8, home=where, **options
        ).plan()  # fmt: skip

    there = plan(cluster="local")
    places = [one.thing for one in ray.actors if isinstance(one.thing, denoising.DenoisingPlace)]
    assert [[r.loaded for r in place._runtimes.values()] for place in places] == [[False]]
    assert there == plan()
    assert service.arrived == 0


def test_a_denoiser_works_elsewhere_bit_by_bit_and_another_is_asked_where_one_dies(
    ray, service, home, photos, tmp_path
):
    from tests.unit.denoise import harness

    file = harness.save(harness.random_unet(), tmp_path / "tiny.safetensors")
    ray.machines = 2
    few = {"denoiser": file, "max_votes": 16, "radius": "largest"}
    with smoother(home("calm"), **few) as s:
        calm = [result.certificate for result in s.certify_many(photos[:1])]

    def kill(_):
        places = [one for one in ray.actors if isinstance(one.thing, denoising.DenoisingPlace)]
        if len(places) == 2 and not places[0].is_dead:
            places[0].kill()

    with smoother(home(), **few) as s:
        results = list(s.certify_many(photos[:1], cluster="local", on_progress=kill))
    assert calm[0] is not None
    assert [result.certificate for result in results] == calm


def test_denoisers_of_other_bits_are_refused():
    def found(fingerprint, device):
        return {"": denoising.DenoiserHere("default", fingerprint, None, device, "fp32")}

    with pytest.raises(Exception, match="rounds otherwise on cuda:0"):
        denoising.agreed([found("a", "cpu"), found("b", "cuda:0")])


@pytest.mark.parametrize(
    ("provider", "options", "why"),
    [
        (ScriptedAdapter(), {}, "a provider is named"),
        ("http", {"denoiser": lambda noisy, sigma: noisy}, "not an object"),
        ("http", {"record": "answers.jsonl"}, "recording is of one process"),
    ],
)
def test_what_other_machines_cannot_be_told_of_is_refused(
    ray, service, home, photos, tmp_path, monkeypatch, provider, options, why
):
    monkeypatch.chdir(tmp_path)
    if callable(given := options.get("denoiser")):
        given.fingerprint = "mine"
    with Smoother(provider, home=home(), **{**OPTIONS, **options}) as s:
        with pytest.raises(UsageError, match=why):
            list(s.certify_many(photos, cluster="local"))
    assert ray.actors == []


def test_another_noise_key_is_refused(home):
    recipe = SessionRecipe(("mock",), {"": "none"}, "cpu", str(home()), None, "0" * 16)
    with pytest.raises(UsageError, match="SMOOTHAPI_NOISE_KEY_FILE"):
        key_here(recipe)


def test_a_folder_is_no_home_of_two_machines():
    assert "PostgreSQL" in disagreements({"home": "/h of a (1)"}, {"home": "/h of b (2)"})
    assert disagreements({"home": "/h of a (1)"}, {"home": "/h of a (1)"}) == ""


@pytest.mark.parametrize("address", ["ray://head", "ray://head:10001", "ray://[::1]:7", "auto"])
def test_addresses_of_clusters(address):
    assert Cluster.of(address) == Cluster(address)


@pytest.mark.parametrize("address", ["", "head:10001", "ray://", "ray://a b", "http://head"])
def test_other_addresses_are_refused(address):
    with pytest.raises(UsageError, match="ray://HOST"):
        Cluster(address)


def test_the_port_of_rays_clients_is_the_default():
    assert Cluster("ray://head").url == "ray://head:10001"
    assert Cluster("ray://head:7/").url == "ray://head:7"


def test_without_ray_the_extra_is_named(home, photos, monkeypatch, service):
    monkeypatch.setitem(sys.modules, "ray", None)
    with smoother(home()) as s, pytest.raises(MissingExtraError, match=r"smoothapi-vision\[ray\]"):
        list(s.certify_many(photos, cluster="local"))


def test_the_command_takes_a_cluster(ray, service, home, photos):
    options = ["--provider", "http", "--denoiser", "none", "--size", "8", "--home", str(home())]
    one = ["certify", str(photos[0]), "--radius", "0.1", *options, "--cluster", "local"]
    result = invoke(*one)
    assert result.exit_code == 0, result.stderr
    assert ray.actors
    study = ["study", *map(str, photos[:2]), "--max-votes", "50", "--gallery", "0", *options]
    assert invoke(*study, "--cluster", "local").exit_code == 0
    assert "ray://HOST" in invoke(*one[:-1], "nowhere").stderr


def test_machines_with_cards_denoise_and_all_ask():
    asking, denoisers = placed([Machine("a", 16.0, 2), Machine("b", 4.0, 0)], None, denoises=True)
    assert [place.node for place in asking] == ["a"] * 4 + ["b"]
    assert [(place.node, place.gpus) for place in denoisers] == [("a", 1), ("a", 1)]


@pytest.mark.parametrize("cores", [1.0, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("workers", [None, 1, 2, 5])
def test_no_machine_is_asked_for_more_cores_than_it_has(cores, workers):
    machines = [Machine("a", cores, 0), Machine("b", 1.0, 0)]
    asking, denoisers = placed(machines, workers, denoises=True)
    assert len(asking) == workers or workers is None
    for machine in machines:
        taken = sum(p.cpus for p in [*asking, *denoisers] if p.node == machine.node)
        assert taken <= machine.cpus + 1e-9
    assert {place.node for place in denoisers} == {"a", "b"}


def test_a_file_of_the_same_path_and_another_content_is_not_taken(photos):
    sent = carried(photos[0], 8)
    photos[0].write_bytes(photos[1].read_bytes() + b"\0")
    with pytest.raises(NotHereError):
        sent.open(PhotoFetcher())
    assert with_content(sent, 8).open(PhotoFetcher()).read() == photos[0].read_bytes()


def test_addresses_of_homes_travel_without_what_is_secret():
    given = "postgresql://me:s%40cret@db:5/x?sslmode=require&password=abc&pass%77ord=d"
    assert DatabaseAddress(given).without_secrets.url == "postgresql://me@db:5/x?sslmode=require"
    plain = "postgresql://me@db/x"
    assert DatabaseAddress(plain).without_secrets.url == plain


def test_a_fetcher_travels_by_its_arguments():
    fetcher = pickle.loads(pickle.dumps(PhotoFetcher(private=True)))
    assert fetcher._given == PhotoFetcher(private=True)._given


def test_stopped_processes_take_no_task():
    workplace = Workplace()
    workplace._hands = object()
    workplace.stop("enough")
    assert isinstance(workplace.do(0, None).error, StoppedError)
