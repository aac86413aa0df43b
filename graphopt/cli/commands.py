"""What all commands have in common: how they fail, and the example in their help."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Any

import click

from graphopt.errors import GraphoptError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""


class Commands(click.Group):
    """Turns every failure into one message and an exit code; nobody sees a traceback who does not ask for it."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _fail(context, "interrupted; nothing was written", INTERRUPTED)
        except GraphoptError as error:
            _fail(context, str(error), error.exit_code)
        except MemoryError as error:
            _fail(context, f"out of memory{f': {error}' if str(error) else ''}")
        except OSError as error:
            _fail(context, str(error))
        except Exception as error:  # noqa: BLE001 - the last resort
            _fail(
                context,
                f"{_describe(error)}\nThis is a bug of graphopt; `graphopt --traceback ...` shows where.",
            )


def _fail(context: click.Context, message: str, code: int = 2) -> None:
    if context.params.get("traceback"):
        raise  # noqa: PLE0704 - called while an exception is handled
    click.echo(f"graphopt: {message}", err=True)
    context.exit(code)


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def example(text: str) -> Callable[[click.Command], click.Command]:
    """Adds an example to a command's help."""

    def decorate(command: click.Command) -> click.Command:
        command.help = f"{cleandoc(command.help or '')}\n\n\b\nExample:\n  {text}"
        return command

    return decorate
