"""The command: ``python -m fldet.losses.conformance MODULE:NAME [MODULE:NAME ...]``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from fldet.losses.conformance import CHECKS, judged_of, results_of
from fldet.losses.conformance.tables import as_data, as_markdown, as_text, check_list


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what came out, and returns 1 where a loss fails a check, 2 where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m fldet.losses.conformance",
        description="Checks focal losses against a published list; exits with 1 if one fails.",
    )
    parser.add_argument(
        "losses",
        nargs="*",
        metavar="MODULE:NAME",
        help="a function called as torchvision's or a class made so; MODULE:NAME@softmax: as "
        "torch's cross entropy, with gamma",
    )
    parser.add_argument(
        "--call",
        metavar="MODULE:NAME",
        help="a function (loss, *, alpha, gamma, reduction) that returns the loss as a function "
        "of logits and targets, for losses that are called in another way",
    )
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="these checks alone")
    parser.add_argument("--no-measures", action="store_true", help="neither memory nor time")
    parser.add_argument("--list", action="store_true", help="print the checks, with what is right")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a table of checks by losses")
    form.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)

    checks = [check for check in CHECKS if not (args.no_measures and check.measures)]
    if args.only:
        unknown = set(args.only) - {check.name for check in CHECKS}
        if unknown:
            parser.error(f"no such check: {', '.join(sorted(unknown))} (see --list)")
        checks = [check for check in checks if check.name in args.only]
    if args.list:
        print(check_list(checks, args.markdown))
        return 0
    if not args.losses:
        parser.error("which losses? torchvision.ops:sigmoid_focal_loss, for example")
    try:
        judged = [judged_of(name, args.call) for name in args.losses]
    except ValueError as error:
        parser.error(str(error))
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks
    rows = [(one, results_of(one, checks)) for one in judged]
    if args.json:
        print(json.dumps(as_data(rows)))
    else:
        print(as_markdown(rows) if args.markdown else as_text(rows))
    return int(any(result.verdict == "fails" for _, results in rows for result in results))


if __name__ == "__main__":
    sys.exit(main())
