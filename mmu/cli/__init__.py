"""The command line. Light until a run begins: help and wrong arguments import nothing heavy.

An error is one line on standard error and exit status 2; an interrupt is exit status 130. Files
are written whole, after the run, and whether they can be written is looked at before it.
"""

import errno
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper

import click

from mmu import units
from mmu.cli import processors, run, schedule, trace, translate, walk
from mmu.cli.arguments import Nearest
from mmu.errors import MmuError

FAILED, USAGE, INTERRUPTED = 1, 2, 130
STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2


@click.group(
    cls=Nearest,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mmu", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Emulate virtual address translation under a hypervisor, on real traces."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (
    run.compare,
    run.replay,
    run.demo,
    trace.trace,
    schedule.schedule,
    walk.walk,
    translate.translate,
    processors.group,
):
    cli.add_command(command)


def message(error: click.ClickException) -> str:
    """Return what is wrong with the arguments, without the usage that click puts before it."""
    if isinstance(error, click.NoSuchOption):
        known = [] if error.ctx is None else error.ctx.command.params
        options = [name for param in known for name in param.opts if name.startswith("--")]
        hint = units.nearest(error.option_name, [*options, "--help"])
        return f"no option {units.shown(error.option_name)}{hint}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        accepted = error.param.make_metavar(error.ctx) if error.ctx else "a value"
        return f"{_name_of(error.param)}: found nothing; accepted: {accepted}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_name_of(error.param)}: {error.message}"
    return error.format_message()


def _name_of(parameter: click.Parameter) -> str:
    long = [name for name in parameter.opts if name.startswith("--")]
    return long[0] if long else parameter.human_readable_name.upper()


def fail(text: str, status: int) -> int:
    """Say on one line what is wrong, and return the exit status."""
    click.echo(f"mmu: error: {' '.join(text.split())}", err=True)
    return status


def open_streams() -> None:
    """Give a process that was started without standard streams empty ones.

    Else Python has none, and a file that is to be written gets the number of one.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(STANDARD_INPUT, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(STANDARD_OUTPUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(STANDARD_ERROR, "w", closefd=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    open_streams()
    with suppress(ValueError):  # not in the main thread, which signals come to
        for terminating in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(terminating, stop)  # else what is half written would stay
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be printable
    try:
        status = cli.main(arguments, prog_name="mmu", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return fail(message(error), USAGE)
    except MmuError as error:
        return fail(str(error), USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mmu: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno == errno.ENOSPC:
            with suppress(
                OSError, ValueError
            ):  # what is buffered cannot be written at the end either
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return fail(f"cannot write: {error.strerror}; make room, or write elsewhere", FAILED)
        return unexpected(error)
    except MemoryError:
        return fail("this system has no memory left for the run; choose fewer traces", FAILED)
    except Exception as error:
        return unexpected(error)
    return status if isinstance(status, int) else 0


def unexpected(error: Exception) -> int:
    """Say in one line that mmu itself is at fault, or show where if the user asks for it."""
    if os.environ.get("MMU_TRACEBACK"):
        raise error
    hint = "a fault of mmu itself; MMU_TRACEBACK=1 shows where"
    return fail(f"{type(error).__name__}: {error} ({hint})", FAILED)


def stop(number: int, _: object) -> None:
    """End as a signal asks, but by way of every clean-up."""
    sys.exit(128 + number)
