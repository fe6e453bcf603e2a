"""The files to deploy name what there is, end as they are told to, and let no secret into an image."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from smoothapi.address import DatabaseAddress, parse_home
from smoothapi.settings import Settings

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "examples" / "several_machines" / "compose.yaml"
PAGE = ROOT / "docs" / "how-to" / "several_machines.md"


def test_the_compose_file_gives_each_worker_home_key_and_password():
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    environment = services["worker"]["environment"]
    given = {
        name.removeprefix("SMOOTHAPI_").lower() for name in environment if "SMOOTHAPI_" in name
    }
    assert given <= set(Settings.model_fields)
    home = parse_home(environment["SMOOTHAPI_HOME"])
    assert isinstance(home, DatabaseAddress)
    assert not home.secrets
    assert "PGPASSWORD" in environment
    assert "@postgres/" in home.url  # the other service's name
    assert environment["SMOOTHAPI_NOISE_KEY_FILE"] == "/run/secrets/noise_key"
    assert services["worker"]["secrets"] == ["noise_key"]


def test_the_page_names_only_settings_that_there_are():
    text = PAGE.read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"SMOOTHAPI_([A-Z_]+)", text)}
    assert named <= set(Settings.model_fields)
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    spec = yaml.safe_load(block)["spec"]["template"]["spec"]
    assert spec["volumes"][0]["secret"]["defaultMode"] & 0o007 == 0


def documents():
    """Yield (name, content) of each file of Compose and Kubernetes, and of those in the pages."""
    for folder in ("deploy", "examples"):
        for file in sorted((ROOT / folder).rglob("*.yaml")):
            for each in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                yield file.name, each
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for each in yaml.safe_load_all(block):
                yield page.name, each


def words(given):
    return shlex.split(given) if isinstance(given, str) else list(map(str, given or ()))


def commands(node):
    """Yield what the containers in a document run, as words."""
    if isinstance(node, dict):
        if {"command", "args", "entrypoint"} & node.keys():
            yield [
                word for name in ("entrypoint", "command", "args") for word in words(node.get(name))
            ]
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from commands(each)


def hides_its_program(command):
    """Whether a shell stays between the program and the signals that end it."""
    if not command or Path(command[0]).name not in ("sh", "bash", "ash", "dash"):
        return False
    script = command[command.index("-c") + 1]
    return not re.split(r"&&|;|\n", script.strip())[-1].strip().startswith("exec ")


def test_no_shell_stands_between_a_container_and_the_signals_that_end_it():
    assert hides_its_program(words("sh -c 'smoothapi certify /photos/*'"))
    assert not hides_its_program(words("sh -c 'cd /x && exec smoothapi certify /photos/*'"))
    found = [(name, each) for name, node in documents() for each in commands(node)]
    assert {"compose.yaml", "kubernetes.yaml"} <= {name for name, _ in found}
    assert [each for each in found if hides_its_program(each[1])] == []
    container = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    run = re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", container, re.MULTILINE)
    assert len(run) == 2
    assert all(each.startswith("[") for each in run)


def test_a_database_that_is_being_set_up_does_not_count_as_ready():
    """The first server of its image, which sets it up, is on a socket alone."""
    checks = [
        service["healthcheck"]["test"][1]
        for _, node in documents()
        for service in (node or {}).get("services", {}).values()
        if service.get("image", "").startswith("postgres")
    ]
    assert len(checks) >= 2
    assert all("-h 127.0.0.1" in check for check in checks)


def test_the_image_is_built_of_what_the_wheel_needs_and_of_nothing_else():
    """Its context is the checkout, into which the pages have people put keys."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *(package.partition("/")[0] for package in wheel),
        project["tool"]["hatch"]["version"]["path"].partition("/")[0],
    }
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"  # all is kept out, but for
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert set(let_in) == needed
    assert all((ROOT / each).exists() for each in let_in)
    # What comes last holds: whatever key strays into a package stays out.
    after = lines[1 + len(let_in) :]
    assert {"**/*.key", "**/*.pem", "**/*.env", "**/.env"} <= set(after)
    assert not any(line.startswith("!") for line in after)


def test_git_ignores_what_the_pages_have_people_put_here():
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for folder in ("deploy", "examples/several_machines"):
        text = (ROOT / folder / "compose.yaml").read_text(encoding="utf-8")
        compose = yaml.safe_load(text)
        services = compose["services"].values()
        put = {secret["file"] for secret in compose["secrets"].values()}
        put |= {file for service in services for file in service.get("env_file", ())}
        put |= {
            volume.partition(":")[0]
            for service in services
            for volume in service.get("volumes", ())
            if volume.startswith("./")
        }
        for name in sorted(name.removeprefix("./") for name in put):
            if (ROOT / folder / name).exists() and name.endswith((".toml", ".conf")):
                continue  # it ships
            patterns = (
                f"/{folder}/{name}",
                f"/{folder}/{name}/",
                f"/{folder}/*{Path(name).suffix}",
            )
            assert set(patterns) & set(ignored), name
    assert ".env" in ignored
