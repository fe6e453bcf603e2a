"""The `smoothapi` command: arguments in, exit code out.

Exit codes: 0 certified (or done), 1 abstained, 2 usage, 3 budget, 4 provider, 5 a certificate that
cannot be read, 6 one that does not hold, 7 one that no trusted key has signed, 70 internal error,
130 interrupted (143 by SIGTERM, 129 by SIGHUP).
"""

from __future__ import annotations

import gc
import io
import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from smoothapi._version import __version__
from smoothapi.cli.errors import report, to_json
from smoothapi.cli.group import Group
from smoothapi.cli.options import options
from smoothapi.cli.signals import EndingSignal, Stopped, as_ctrl_c
from smoothapi.cli.terminal import echo
from smoothapi.errors import SmoothAPIError, UsageError
from smoothapi.text import printable, printable_lines

INTERRUPTED = 130
BROKEN = 70

# Loaded when asked for: `smoothapi --version` should not wait for numpy.
_COMMANDS = {
    "init": ("smoothapi.cli.init", "init", "Write a smoothapi.toml for this folder."),
    "doctor": ("smoothapi.cli.doctor", "doctor", "Say whether a run would work here."),
    "certify": ("smoothapi.cli.certify", "certify", "Certify the label of photos."),
    "predict": ("smoothapi.cli.certify", "predict", "Give the majority label, with no radius."),
    "plan": ("smoothapi.cli.plan", "plan", "Say what many photos would send and cost."),
    "study": ("smoothapi.cli.study", "study", "Study what a budget buys, over many photos."),
    "verify": ("smoothapi.cli.verify", "verify", "Check a certificate again."),
    "key": ("smoothapi.cli.key", "key", "Make and show the keys of signatures and of the noise."),
    "providers": ("smoothapi.cli.providers", "providers", "List the providers; `check` asks one."),
    "budget": ("smoothapi.cli.budget", "budget", "Show what budgets have spent and left."),
    "runs": ("smoothapi.cli.runs", "runs", "Show what was run: when, by whom, at what cost."),
    "cache": ("smoothapi.cli.cache", "cache", "Look after the stored answers."),
    "config": ("smoothapi.cli.config", "show", "Show each setting and where it comes from."),
    "emulate": ("smoothapi.cli.emulate", "emulate", "Speak a provider's protocol on this machine."),
    "serve": ("smoothapi.cli.serve", "serve", "Certified labels in the providers' protocols."),
    "denoiser": ("smoothapi.cli.denoiser", "denoiser", "Train and measure denoisers."),
}


class _Commands(Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="smoothapi")
@options(
    "home",
    home="Folder of key, answers, ledger, or postgresql://...; may stand after the command, too.",
)
def app(home: str | None) -> None:
    """Certified labels from the vision API calls you already make.

    Exit codes: 0 certified, 1 abstained, 2 usage, 3 budget, 4 provider.

    \b
    Completion of commands and options, in the start file of your shell:
    bash: eval "$(_SMOOTHAPI_COMPLETE=bash_source smoothapi)"
    zsh: eval "$(_SMOOTHAPI_COMPLETE=zsh_source smoothapi)"
    fish: _SMOOTHAPI_COMPLETE=fish_source smoothapi | source
    """  # noqa: D301  click means the character, not a backslash and a b
    del home  # kept by the option itself, for the command that follows


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    # Collecting while modules load is an eighth of a short command.
    gc.set_threshold(100_000, 20, 20)
    # For plugins of its own pydantic reads the metadata of all that is installed, as long as it
    # takes to load itself.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without "●" is no reason to fail
            stream.reconfigure(errors="replace")
    _log_to_stderr()
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    with as_ctrl_c() as ended:
        return _run(arguments, ended, as_json=as_json)


def _run(  # noqa: PLR0911  one for each way to end
    arguments: list[str] | None, ended: EndingSignal, *, as_json: bool
) -> int:
    try:
        code: Any = app.main(args=arguments, prog_name="smoothapi", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.option_name == "--home":
            error = click.UsageError(
                "This command keeps nothing, so it has no --home: leave it out.", error.ctx
            )
        if as_json:
            echo(to_json(UsageError(error.format_message())))
        shown = io.StringIO()
        error.show(shown)
        echo(shown.getvalue().rstrip("\n"), err=True)
        return UsageError.exit_code
    except SmoothAPIError as error:
        report(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        why = stop.__cause__ if isinstance(stop, click.Abort) else stop
        said = ["Stopped.", printable(str(why))] if isinstance(why, Stopped) else ["Stopped."]
        echo(f"\n{' '.join(said)}", err=True)
        return ended.exit_code
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN
    except Exception as error:  # what nobody foresaw must not look like an abstention (exit 1)
        if os.environ.get("SMOOTHAPI_DEBUG") == "1":
            raise
        echo(
            f"smoothapi: internal error: {type(error).__name__}: {printable(str(error))}\n"
            "Answers are kept. SMOOTHAPI_DEBUG=1 shows where it happened; please report it.",
            err=True,
        )
        return BROKEN
    return code if isinstance(code, int) else 0


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _log_to_stderr() -> None:
    """Log to stderr: warnings always, every event with SMOOTHAPI_DEBUG=1."""
    log = logging.getLogger("smoothapi")
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("smoothapi: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if os.environ.get("SMOOTHAPI_DEBUG") == "1" else logging.WARNING)
