"""Commands around dataset versions: push, validate, export, versions, pull, diff."""

from __future__ import annotations

import argparse
from pathlib import Path

from simforge.cli.arguments import Commands
from simforge.cli.output import say
from simforge.errors import UsageError


def add_to(commands: Commands) -> None:
    """Commands for dataset versions on the Hub or at a URL, and for comparing and exporting
    them."""
    _add_push(commands)
    _add_validate(commands)
    _add_export(commands)
    _add_versions(commands)
    _add_pull(commands)
    _add_diff(commands)


def _add_push(commands: Commands) -> None:
    push = commands.add_parser(
        "push",
        help="publish a finished run as a version, on the Hub or at a URL",
        allow_abbrev=False,
    )
    push.add_argument("run", type=Path, metavar="DIR", help="the run folder")
    push.add_argument(
        "repo",
        metavar="OWNER/NAME",
        help="the dataset's repository, created if missing; or a URL (s3://...)",
    )
    push.add_argument(
        "--version",
        required=True,
        metavar="X.Y.Z",
        help="a semantic version; becomes the tag vX.Y.Z",
    )
    push.add_argument(
        "--public",
        action="store_true",
        help="make a new repository public (default: private)",
    )
    push.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of the repository that SimForge did not write and that may be replaced; "
        "repeatable",
    )
    push.add_argument(
        "--publish-traits",
        action="store_true",
        help="also publish traits that the pack marks as sensitive (default: left out)",
    )
    push.set_defaults(command=_push)


def _add_validate(commands: Commands) -> None:
    validate = commands.add_parser(
        "validate",
        help="check files, columns, rows, keys and splits of a dataset's folder",
        allow_abbrev=False,
    )
    validate.add_argument(
        "run",
        type=Path,
        metavar="DIR",
        help="a run folder, or the folder of a pulled version",
    )
    validate.set_defaults(command=_validate)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="write a dataset in a trainer's format", allow_abbrev=False
    )
    export.add_argument("source", help="a run folder, a URL, or OWNER/NAME@X.Y.Z")
    export.add_argument(
        "--view",
        required=True,
        metavar="NAME",
        help="the format; `simforge show views` lists them",
    )
    export.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FILE",
        help="a .parquet, .jsonl or .json file",
    )
    export.add_argument(
        "--split",
        default="train",
        help="train, validation, test_personas or test_prompts",
    )
    export.add_argument(
        "--system",
        action="store_true",
        help="put the person's wish before each prompt, as a system message",
    )
    export.add_argument(
        "--where",
        metavar="CONDITION",
        help="only pairs that match this condition, such as \"label = 'judge'\"",
    )
    export.set_defaults(command=_export)


def _add_versions(commands: Commands) -> None:
    versions = commands.add_parser(
        "versions", help="list the versions of a dataset", allow_abbrev=False
    )
    versions.add_argument(
        "repo", metavar="OWNER/NAME", help="a dataset on the Hub; or a URL"
    )
    versions.set_defaults(command=_versions)


def _add_pull(commands: Commands) -> None:
    pull = commands.add_parser(
        "pull", help="download a version and check every file", allow_abbrev=False
    )
    pull.add_argument(
        "source", metavar="OWNER/NAME@X.Y.Z", help="or OWNER/NAME@latest, or URL@X.Y.Z"
    )
    pull.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="an empty or a new folder",
    )
    pull.set_defaults(command=_pull)


def _add_diff(commands: Commands) -> None:
    diff = commands.add_parser(
        "diff", help="compare two runs or versions", allow_abbrev=False
    )
    diff.add_argument(
        "old", metavar="A", help="a run folder, a URL, or OWNER/NAME@X.Y.Z"
    )
    diff.add_argument("new", metavar="B")
    diff.set_defaults(command=_diff)


def _push(options: argparse.Namespace) -> int:
    from simforge.hub import huggingface, urls

    if "://" in options.repo:
        if options.public:
            raise UsageError(
                f"--public works on the Hub only: set who may read {options.repo} in its own store."
            )
        result = urls.push(
            options.run, options.repo, options.version, options.publish_traits
        )
    else:
        result = huggingface.push(
            options.run,
            options.repo,
            options.version,
            options.public,
            options.publish_traits,
            tuple(options.replace),
        )
    published = result.published
    status = "is there" if result.committed else "was there already, byte for byte"
    location = (
        published.commit
        if "://" in published.repo
        else f"commit {published.commit[:10]}, tag {published.version.tag}"
    )
    say(f"{published.repo}@{published.version} {status}: {location}.")
    withheld = [
        column
        for columns in published.manifest.get("withheld", {}).values()
        for column in columns
    ]
    if withheld:
        say(
            f"Left out as sensitive: {', '.join(withheld)} (--publish-traits publishes them)."
        )
    for change in result.changes:
        say(f"  {change}")
    if "://" in published.repo:
        say(f'  load it     simforge.load("{published.repo}@{published.version}")')
    else:
        say(
            f'  load it     datasets.load_dataset("{published.repo}", '
            f'revision="{published.version.tag}")'
        )
    return 0


def _validate(options: argparse.Namespace) -> int:
    from simforge.dataset import validation

    problems = validation.problems(options.run)
    for problem in problems:
        say(problem)
    say(
        f"{options.run}: {len(problems)} problem{'s' if len(problems) > 1 else ''}."
        if problems
        else f"{options.run} is valid."
    )
    return int(bool(problems))


def _export(options: argparse.Namespace) -> int:
    from simforge import views
    from simforge.dataset.manifest import use_of
    from simforge.hub import loading

    with loading.read_errors(options.source), use_of(options.source):
        exported = views.export(
            options.source,
            options.view,
            options.to,
            options.split,
            options.system,
            options.where,
        )
        pairs = sum(loading.manifest(options.source)["counts"]["preferences"].values())
    say(
        f"{exported.rows:,} rows are in {options.to}, as {options.view} ({options.source} has "
        f"{pairs:,} pairs in all splits)."
    )
    for note in exported.notes:
        say(f"  left out: {note}")
    return 0


def _versions(options: argparse.Namespace) -> int:
    from simforge.hub import huggingface, urls

    releases = (
        urls.versions(options.repo)
        if "://" in options.repo
        else huggingface.versions(options.repo)
    )
    for release in releases:
        pairs = sum(release.manifest.get("counts", {}).get("preferences", {}).values())
        commit = "" if "://" in release.repo else release.commit[:10]
        say(
            f"{release.version!s:<10} {commit:<10}  {pairs:>10,} pairs  digest "
            f"{release.manifest.get('digest', '?')}"
        )
    if not releases:
        say(
            f"{options.repo} has no versions yet: simforge push DIR {options.repo} --version 0.1.0"
        )
    return 0


def _pull(options: argparse.Namespace) -> int:
    from simforge.hub import huggingface, urls

    place = urls if "://" in options.source else huggingface
    folder = place.pull(options.source, options.out)
    say(f"{options.source} is in {folder}, and every file matches its manifest.")
    return 0


def _diff(options: argparse.Namespace) -> int:
    from simforge.dataset import diff
    from simforge.dataset.manifest import use_of
    from simforge.hub import loading

    sources = options.old, options.new
    with loading.read_errors(*sources), use_of(" or ".join(sources)):
        lines = diff.compare_manifests(
            *map(loading.manifest, sources)
        ) + diff.compare_audits(*map(loading.audit, sources))
        people = diff.compare_people(
            *(loading.scan(source, "personas") for source in sources)
        )
        labels = diff.compare_labels(*(loading.scan(source) for source in sources))
    for line in lines or ["same settings, same files"]:
        say(line)
    say(
        f"people: {people['shared']} in both, {people['only_old']} only in A, "
        f"{people['only_new']} only in B"
    )
    say(
        f"pairs: {labels['shared']} in both, {labels['flipped']} of them with chosen "
        f"and rejected swapped; {labels['only_old']} only in A, "
        f"{labels['only_new']} only in B"
    )
    return 0
