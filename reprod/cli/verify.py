"""``reprod verify``: are the files what a version or a manifest says? Reads every byte unless told otherwise.

Also what ``reprod manifest PATH --validate F`` answers with: ``check`` is the same comparison, screen and exit code.
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from reprod.cli import codes, render, run_verify
from reprod.cli.flags import depth_of
from reprod.cli.history import unscanned
from reprod.cli.place import Place, locate
from reprod.cli.run_server import with_server
from reprod.cli.screen import ProgressLine, Screen
from reprod.cli.verify_view import show_chain, tell
from reprod.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from reprod.ops.sample import Mode, Sample


def run(args: argparse.Namespace) -> int:
    """Verify; return 0 if nothing differs, 1 if something does, 5 if something could not be checked, 65 if damaged."""
    from reprod.ops.manifest_file import is_manifest_file

    if "" in {args.path, args.root}:
        raise UsageError("the PATH is empty", hint="give a path, or leave it out to verify a whole dataset")
    if args.ref.startswith("run:") and args.root is not None:
        return run_verify.run(args, args.root)
    if args.root is not None or is_manifest_file(args.ref):
        return _check_file(args)
    from reprod.ops import verify

    place = locate(args)
    place.close()
    if args.chain:
        return _chain(args, place)
    mode, sample = depth_of(args)
    config, dataset = place.config(), args.dataset
    try:
        with ProgressLine(render.safe(args.ref)) as progress:
            answer = verify.verify(
                place.state, config, args.ref, args.path, mode, _no_checkpoint, progress.show, sample, dataset
            )
    except NotFoundError as error:
        if args.ref.startswith("run:") and with_server(place).mlflow.tracking_uri:
            return run_verify.run(args, args.path)
        raise unscanned(config, args.ref, error) from error
    return tell(answer, as_json=args.json)


def check(
    manifest: str, root: str, *, mode: "Mode" = "full", sample: "Sample | None" = None, as_json: bool = False
) -> int:
    """Compare the files below ``root`` with the manifest in a file, say the result, and return the exit code.

    :raises ReprodError: the manifest is damaged or hostile (65), or there is nothing at ``root`` (6).
    """
    from reprod.ops.manifest_file import read_claims
    from reprod.ops.verify import validate

    with ProgressLine(render.safe(os.path.basename(manifest))) as progress:
        reading = {"phase": "reading the manifest"}
        claims = read_claims(
            manifest, lambda done, size: progress.show({**reading, "bytes": done, "total_bytes": size})
        )
        answer = validate(claims, os.path.abspath(root), mode=mode, sample=sample, ref=manifest, progress=progress.show)
    return tell(answer, as_json=as_json)


def _check_file(args: argparse.Namespace) -> int:
    if args.chain:
        raise UsageError("--chain is of a dataset, a manifest has none", hint="reprod verify NAME --chain")
    if args.dataset is not None:
        raise UsageError(
            "a manifest is of one set, and knows no --dataset", hint="it picks one of the datasets of a run:ID"
        )
    if args.root is not None and args.path is not None:
        raise UsageError("both PATH and --root say where the files are", hint="give one of them")
    root = args.root if args.root is not None else args.path
    if root is None:
        raise UsageError(f"where are the files that {args.ref} lists?", hint=f"reprod verify {args.ref} FOLDER")
    mode, sample = depth_of(args)
    return check(args.ref, root, mode=mode, sample=sample, as_json=args.json)


def _chain(args: argparse.Namespace, place: Place) -> int:
    """Recompute the hash chain over a dataset's version records, with --full also every version's digest.

    Of a run it is that of its dataset, of several the one that --dataset names.

    Returns 65 if something is not what was sealed, 5 if something that once was is lost, else 0.
    """
    from reprod.ops.history import verify_chain
    from reprod.ops.reference import resolve

    if args.path is not None or args.sample is not None or args.seed is not None or args.mode not in {None, "full"}:
        raise UsageError("--chain is about the records, no file is looked at", hint=f"reprod verify {args.ref} --chain")
    try:
        name = resolve(place.state, args.ref, name=args.dataset).name
        with ProgressLine(render.safe(name)) as progress:
            answer = verify_chain(place.state, name, contents=args.mode == "full", progress=progress.show)
    except NotFoundError as error:
        if args.ref.startswith("run:"):
            hint = "a chain is of a dataset's history on this host: reprod verify NAME --chain"
            raise NotFoundError(error.message, hint=hint) from error
        raise unscanned(place.config(), args.ref, error) from error
    if args.json:
        print(render.to_json("verify-chain", answer))
    else:
        show_chain(Screen(sys.stdout), answer)
    complete = answer.get("complete", True)
    return codes.worst(codes.FINE if answer["valid"] else codes.DAMAGED, codes.FINE if complete else codes.INCOMPLETE)


def _no_checkpoint() -> None:
    """Do nothing: on the command line Ctrl-C already interrupts wherever it comes."""
