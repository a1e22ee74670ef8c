"""The command `audit-pipeline`. One file for each group of commands; each registers its own with `group`."""

from __future__ import annotations

import logging
import sys

import click

from ..errors import AuditError, InvalidCursor, InvalidQuery, SettingsError, UnknownAction
from . import entries, moving, operate, serving, tailing
from .options import FAILED, WRONG_USE

__all__ = ["group", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="audit-pipeline", prog_name="audit-pipeline")
def group() -> None:
    """An audit log: record, search, export and serve entries.

    Settings come from AUDIT_… environment variables; `--store` and `--spool` win over them.

    Exit status: 0 done, 1 failed, 2 wrong use, 3 done in part.
    """


for _module in (serving, entries, tailing, moving, operate):
    for _command in _module.COMMANDS:
        group.add_command(_command)


def main() -> None:
    """Run the command line, and exit with its status."""
    logging.basicConfig(format="audit-pipeline: %(message)s")
    try:
        status = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (InvalidCursor, InvalidQuery, SettingsError, UnknownAction) as error:
        _fail(error, WRONG_USE)
    except AuditError as error:
        _fail(error, FAILED)
    except BrokenPipeError:
        # The reader of a pipe left: nothing to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(OSError(f"{where}{error.strerror or error}"), FAILED)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: Exception, status: int) -> None:
    click.echo(f"audit-pipeline: {error}", err=True)
    sys.exit(status)
