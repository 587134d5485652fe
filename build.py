#!/usr/bin/env python3
"""Terrane's command line: sets the machine up, then hands over to pipeline/. Standard library only.

    python3 build.py run        builds the signed image, boots it, and verifies the closed box
    python3 build.py --help     the other verbs

Exit status: 0 done or verified, 1 refused or not verified, 2 wrong use or a machine that is not set up.
"""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 9):
    sys.stderr.write(f"build.py: expected Python 3.9 or newer, found {sys.version.split()[0]}\n")
    sys.exit(2)

from pipeline import arguments, doctor, setup
from pipeline.errors import REFUSED, USAGE, PipelineError


def main(argv: list[str]) -> int:
    """Run one verb; returns the exit status."""
    options = arguments.parser().parse_args(argv)
    try:
        if options.verb == "doctor":
            return doctor.report(as_json=options.json)
        groups = arguments.groups_of(options)
        setup.ensure(groups, again=options.verb == "setup")
        if options.verb == "setup":
            return 0
        setup.enter_environment(groups, argv)
        from pipeline import cli

        return cli.perform(options)
    except PipelineError as error:
        sys.stderr.write(f"build.py {options.verb}: {error}\n")
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that what is still buffered hurts nobody
        return REFUSED
    except OSError as error:  # a disk that is full, a folder that cannot be written: the machine's fault, and no bug
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"build.py {options.verb}: {place}expected to read or write it, found: {error.strerror}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write(f"build.py {options.verb}: interrupted\n")
        return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
