"""The command line.

It reads arguments, calls one function of the package, and turns errors into sentences and exit statuses: 0 done; 1 a
check says no; 2 wrong usage or configuration, nothing started; 3 too many failures; 4 the budget is spent; 130
interrupted. Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import __version__
from simforge.errors import Interrupted, NotFound, RunStopped, SimForgeError, UsageError, nearest

if TYPE_CHECKING:
    from simforge.catalog import Entry
    from simforge.display import Display

KINDS = ("personas", "generators", "pipelines", "schemas")
_SUFFIX = {"": 1, "k": 10**3, "m": 10**6}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return int(options.command(options) or 0)
    except RunStopped as stopped:
        command = "uv run simforge" if "UV" in os.environ else "simforge"
        print(
            f"simforge: {stopped}\nGo on with: {command} {' '.join(map(_quoted, given))}", file=sys.stderr, flush=True
        )
        if isinstance(stopped, Interrupted) and arguments is None:
            os._exit(stopped.exit_status)  # an engine that was stopped midway complains at length when it is taken down
        return stopped.exit_status
    except SimForgeError as problem:
        print(f"simforge: {problem}", file=sys.stderr)
        return problem.exit_status
    except KeyboardInterrupt:
        print("simforge: interrupted; nothing was started.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Names an unknown option and the near ones, before it misses anything else."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is None:
            for word in args or ():
                option = word.split("=")[0]
                if option.startswith("--") and option != "--" and option not in self._option_string_actions:
                    self.error(f"there is no option {option}{nearest(option, self._option_string_actions)}")
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="simforge", description="Personalised preference data from simulated users.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"simforge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_around(commands)
    _add_personas(commands)
    _add_versions(commands)
    _add_audit(commands)
    show = commands.add_parser("show", help="list or print what the catalogue holds", allow_abbrev=False)
    show.add_argument(
        "name", nargs="?", help="a kind (personas, generators, pipelines, schemas), KIND/NAME, guards, or views"
    )
    show.set_defaults(command=_show)
    copy = commands.add_parser("copy", help="copy a file of the catalogue, to change it", allow_abbrev=False)
    copy.add_argument("name", help="KIND/NAME, for example personas/everyday")
    copy.add_argument("--to", type=Path, help="where to (default: its file name, in this folder)")
    copy.set_defaults(command=_copy)
    return parser


def _add_generate(commands: argparse._SubParsersAction[_Parser]) -> None:
    generate = commands.add_parser("generate", help="make a dataset", allow_abbrev=False)
    _add_what(generate)
    generate.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder")
    _add_execution(generate)
    generate.set_defaults(command=_generate)
    estimate = commands.add_parser("estimate", help="guess calls, tokens and money of a run", allow_abbrev=False)
    _add_what(estimate)
    estimate.set_defaults(command=_estimate)


def _add_around(commands: argparse._SubParsersAction[_Parser]) -> None:
    """What is done with a run folder."""
    retry = commands.add_parser("retry", help="play the lost dialogues of a run again", allow_abbrev=False)
    retry.add_argument("run", type=Path, metavar="DIR", help="the run folder")
    retry.set_defaults(command=_retry)
    ledger = commands.add_parser("ledger", help="what a run's ledger holds, and what it cost", allow_abbrev=False)
    ledger.add_argument("run", type=Path, metavar="DIR", help="the run folder")
    ledger.add_argument("--prices", type=Path, metavar="FILE", help="YAML: prices per million tokens, by model")
    ledger.set_defaults(command=_ledger)


def _add_what(generate: argparse.ArgumentParser) -> None:
    """What is made."""
    generate.add_argument(
        "pipeline",
        nargs="?",
        default="quickstart",
        help="name from `simforge show pipelines`, or a path (default: quickstart)",
    )
    generate.add_argument(
        "--personas", type=count, metavar="N", help="how many people: 500, 10k, 1.5M (with --cast by default all)"
    )
    generate.add_argument(
        "--seed", type=int, default=0, help="another seed makes other people and dialogues (default: 0)"
    )
    generate.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[ROLE=]REF",
        help="model for all roles, or for one of user, assistants, judge, writer; REF is "
        "local:NAME, local:PATH.gguf, local:hf/OWNER/REPO/FILE.gguf, openai:NAME@URL, vllm:NAME or scripted:; "
        "repeatable",
    )
    generate.add_argument(
        "--prompts", metavar="SOURCE", help="prompts: a .jsonl, .csv or .parquet file, or a shipped set"
    )
    generate.add_argument(
        "--cast",
        type=Path,
        metavar="FILE",
        help="play these people: a file of `personas sample --out`, or another run's folder",
    )
    generate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change the recipe, for example dialogue.turns=3; repeatable",
    )
    generate.add_argument("--prices", type=Path, metavar="FILE", help="YAML: prices per million tokens, by model")


def _add_execution(generate: argparse.ArgumentParser) -> None:
    """How it is run, which changes nothing of what comes out."""
    generate.add_argument(
        "--executor",
        choices=("local", "ray"),
        help="where dialogues are played (default: local; ray with --ray-address or inside a Ray job)",
    )
    generate.add_argument("--ray-address", metavar="A", help="address of a Ray cluster")
    generate.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="workers (default: 1; with ray one per CPU, or one per node for local models)",
    )
    generate.add_argument(
        "--runtime-env", type=Path, metavar="FILE", help="YAML: Ray's runtime environment of workers and servers"
    )
    generate.add_argument(
        "--concurrency",
        type=positive,
        metavar="N",
        help="dialogues in flight in one worker (default: 32 with an embedded model, else 256)",
    )
    generate.add_argument(
        "--max-in-flight", type=positive, metavar="N", help="most calls at once at each model, over all workers"
    )
    generate.add_argument(
        "--max-tokens-per-minute",
        type=positive,
        metavar="N",
        help="most tokens a minute of each model behind an endpoint, over all workers",
    )
    generate.add_argument(
        "--ledger",
        metavar="PLACE",
        help="keep the replies in this folder or URL (s3://bucket/run) instead of the run folder",
    )
    generate.add_argument(
        "--reuse",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="earlier run folders: what they asked is not asked again",
    )
    generate.add_argument(
        "--max-failures",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="share of dialogues that may be lost to failed calls (default: 0.05)",
    )
    generate.add_argument(
        "--budget", type=amount, metavar="MONEY", help="stop before a call that might exceed this (needs --prices)"
    )


def _add_versions(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Datasets on the Hub, and what is different between two."""
    push = commands.add_parser(
        "push", help="publish a finished run as a version, on the Hub or at a URL", allow_abbrev=False
    )
    push.add_argument("run", type=Path, metavar="DIR", help="the run folder")
    push.add_argument(
        "repo", metavar="OWNER/NAME", help="the dataset's repository, made where it is not there; or a URL (s3://...)"
    )
    push.add_argument("--version", required=True, metavar="X.Y.Z", help="a semantic version; becomes the tag vX.Y.Z")
    push.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
    push.add_argument(
        "--publish-traits", action="store_true", help="publish what the pack calls sensitive too (default: left out)"
    )
    push.set_defaults(command=_push)
    validate = commands.add_parser(
        "validate", help="check files, columns, rows, keys and splits of a dataset's folder", allow_abbrev=False
    )
    validate.add_argument("run", type=Path, metavar="DIR", help="a run folder, or what was pulled")
    validate.set_defaults(command=_validate)
    export = commands.add_parser("export", help="write a dataset in the form that a trainer reads", allow_abbrev=False)
    export.add_argument("source", help="a run folder, a URL, or OWNER/NAME@X.Y.Z")
    export.add_argument("--view", required=True, metavar="NAME", help="the form; `simforge show views` has them all")
    export.add_argument("--to", type=Path, required=True, metavar="FILE", help="a .parquet, .jsonl or .json file")
    export.add_argument("--split", default="train", help="train, validation, test_personas or test_prompts")
    export.add_argument(
        "--system", action="store_true", help="put the person's wish before each prompt as a system message"
    )
    export.add_argument("--where", metavar="SQL", help="only pairs that this holds for, such as \"label = 'judge'\"")
    export.set_defaults(command=_export)
    versions = commands.add_parser("versions", help="list the versions of a dataset", allow_abbrev=False)
    versions.add_argument("repo", metavar="OWNER/NAME", help="on the Hub; or a URL")
    versions.set_defaults(command=_versions)
    pull = commands.add_parser("pull", help="fetch a version, and check every file", allow_abbrev=False)
    pull.add_argument("source", metavar="OWNER/NAME@X.Y.Z", help="or OWNER/NAME@latest, or URL@X.Y.Z")
    pull.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or a new folder")
    pull.set_defaults(command=_pull)
    diff = commands.add_parser("diff", help="tell two runs or versions apart", allow_abbrev=False)
    diff.add_argument("old", metavar="A", help="a run folder, a URL, or OWNER/NAME@X.Y.Z")
    diff.add_argument("new", metavar="B")
    diff.set_defaults(command=_diff)


def _add_audit(commands: argparse._SubParsersAction[_Parser]) -> None:
    """What a dataset is worth, whoever made it."""
    audit = commands.add_parser(
        "audit",
        help="measure how personal the preferences of a dataset are, and what else decides them",
        allow_abbrev=False,
    )
    audit.add_argument(
        "source", help="a run folder, a URL, OWNER/NAME@X.Y.Z, or anyone's .parquet, .jsonl or .csv file"
    )
    audit.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME=COLUMN",
        help="of anyone's file: prompt, chosen, rejected, persona, profile (A+B for several), wish, dimension, "
        "chosen_model, rejected_model",
    )  # fmt: skip
    audit.add_argument("--again", metavar="RUN", help="another run of the same people, to see how steady they are")
    audit.add_argument(
        "--trusted",
        type=Path,
        metavar="FILE",
        help="labels of which it is known whether they are right: .csv, .jsonl or .parquet with id and right",
    )
    audit.add_argument(
        "--benchmark", type=Path, action="append", default=[], metavar="FILE", help="prompts not to overlap with"
    )
    audit.add_argument(
        "--human",
        type=Path,
        metavar="FILE",
        help="dialogues of real people (.jsonl, .parquet), to tell users from them",
    )
    audit.add_argument(
        "--probe",
        action="store_true",
        help="ask the model that played the people how they take wrong answers (60 calls)",
    )
    audit.add_argument(
        "--scorers",
        nargs="+",
        metavar="FAMILY",
        help="text, embeddings (default: both; the latter take most of the time)",
    )
    audit.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where audit.json and report.html go (default: the run folder, or AUDIT)",
    )
    audit.set_defaults(command=_audit)


def _add_personas(commands: argparse._SubParsersAction[_Parser]) -> None:
    personas = commands.add_parser("personas", help="look at persona packs, and sample them", allow_abbrev=False)
    actions = personas.add_subparsers(required=True, metavar="ACTION")
    sample = actions.add_parser("sample", help="draw people from a pack", allow_abbrev=False)
    sample.add_argument("pack", help="name or path")
    sample.add_argument("-n", type=count, default=10, metavar="N", help="how many: 500, 10k, 1.5M (default: 10)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument(
        "--out", type=Path, metavar="FILE", help="a .parquet, .jsonl or .csv file (default: print them)"
    )
    sample.add_argument("--space", metavar="NAME", help="draw their profiles in this preference space too")
    sample.add_argument("--model", metavar="REF", help="the writer, for packs of which a model writes a part")
    sample.set_defaults(command=_sample)
    check = actions.add_parser(
        "check", help="compare what a pack asks for with what it draws; exit status 1 beyond noise", allow_abbrev=False
    )
    check.add_argument("pack", help="name or path")
    check.add_argument("-n", type=count, default=100_000, metavar="N", help="people to draw (default: 100k)")
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--json", action="store_true", help="print everything as JSON")
    check.set_defaults(command=_check)
    show = actions.add_parser("show", help="print the JSON Schema of a pack's people", allow_abbrev=False)
    show.add_argument("pack", help="name or path")
    show.set_defaults(command=_show_schema)
    grow = actions.add_parser(
        "grow", help="have a model add preferences to a space of the kind `hierarchy`", allow_abbrev=False
    )
    grow.add_argument("space", help="name or path")
    grow.add_argument("--to", type=positive, required=True, metavar="K", help="preferences in each subdimension")
    grow.add_argument("--model", required=True, metavar="REF", help="the writer")
    grow.add_argument("--out", type=Path, required=True, metavar="FILE", help="the grown space, a .yaml file")
    grow.add_argument("--seed", type=int, default=0)
    grow.set_defaults(command=_grow)


def _generate(options: argparse.Namespace) -> int:
    from simforge import pipeline
    from simforge.display import ending

    display = _shown()
    run = pipeline.generate(
        pipeline.Options(
            **_what(options),
            out=options.out,
            executor=options.executor,
            ray_address=options.ray_address,
            runtime_env=options.runtime_env,
            workers=options.workers,
            concurrency=options.concurrency,
            max_in_flight=options.max_in_flight,
            max_tokens_per_minute=options.max_tokens_per_minute,
            ledger=options.ledger,
            reuse=tuple(options.reuse),
            max_failures=options.max_failures,
            budget=options.budget,
        ),
        display,
    )
    ending(run.path, run.manifest)
    return 0


def _shown() -> Display:
    """The progress of a run, with the log between its lines. SIGTERM stops it as Ctrl-C does, through asyncio: an
    exception raised wherever the process happens to be is lost in a finalizer, and asyncio runs one for each task."""
    from simforge.display import Display

    display = Display()
    logging.basicConfig(handlers=[display.log()], level=logging.WARNING)
    logging.getLogger("simforge").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    return display


def _what(options: argparse.Namespace) -> dict[str, Any]:
    """What is made, as `pipeline.Options` names it."""
    return {
        "personas": options.personas,
        "pipeline": options.pipeline,
        "seed": options.seed,
        "models": tuple(options.model),
        "prompts": options.prompts,
        "cast": options.cast,
        "overrides": tuple(options.overrides),
        "prices": options.prices,
    }


def _estimate(options: argparse.Namespace) -> int:
    from simforge import pipeline

    found = pipeline.estimate(pipeline.Options(**_what(options), out=Path()))
    print(f"{found.dialogues} dialogues, about:")
    for role, used in found.usage.items():
        cost = found.cost[role]
        said = f"{used.calls:>12,} calls {used.prompt_tokens:>15,} tokens read {used.completion_tokens:>14,} written"
        priced = f" {cost:>12,.2f}" if cost is not None else ""
        print(f"  {role:<11}{said}{priced}  {found.references[role]}")
    if found.pairs:
        calls = sum(used.calls for used in found.usage.values()) / found.pairs
        tokens = sum(used.prompt_tokens + used.completion_tokens for used in found.usage.values()) / found.pairs
        print(f"  at most {found.pairs:,} pairs: {calls:.2g} calls and {tokens:,.0f} tokens for each")
    known = [cost for cost in found.cost.values() if cost is not None]
    if known:
        unpriced = "" if len(known) == len(found.cost) else ", and what has no price"
        print(f"  together {sum(known):,.2f}{unpriced}")
    return 0


def _retry(options: argparse.Namespace) -> int:
    from simforge import pipeline
    from simforge.display import ending

    display = _shown()
    run, lost = pipeline.retry(options.run, display)
    if not lost:
        print(f"{options.run} has lost no dialogue: there was nothing to play again.")
        return 0
    ending(run.path, run.manifest)
    return 0


def _push(options: argparse.Namespace) -> int:
    from simforge import hub, stores

    if "://" in options.repo:
        if options.public:
            raise UsageError(f"--public is of the Hub: who may read {options.repo} is said there.")
        done = stores.push(options.run, options.repo, options.version, options.publish_traits)
    else:
        done = hub.push(options.run, options.repo, options.version, options.public, options.publish_traits)
    made = done.published
    what = "is there" if done.committed else "was there already, byte for byte"
    where = made.commit if "://" in made.repo else f"commit {made.commit[:10]}, tag {made.version.tag}"
    print(f"{made.repo}@{made.version} {what}: {where}.")
    withheld = [column for columns in made.manifest.get("withheld", {}).values() for column in columns]
    if withheld:
        print(f"Left out as sensitive: {', '.join(withheld)} (--publish-traits publishes them).")
    for change in done.changes:
        print(f"  {change}")
    if "://" in made.repo:
        print(f'  load it     simforge.load("{made.repo}@{made.version}")')
    else:
        print(f'  load it     datasets.load_dataset("{made.repo}", revision="{made.version.tag}")')
    return 0


def _validate(options: argparse.Namespace) -> int:
    from simforge import validation

    found = validation.problems(options.run)
    for problem in found:
        print(problem)
    print(f"{options.run}: {len(found)} problems." if found else f"{options.run} is sound.")
    return int(bool(found))


def _audit(options: argparse.Namespace) -> int:
    from simforge import audit, loading, report, versions

    columns = dict(one.split("=", 1) for one in options.columns if "=" in one)
    if len(columns) < len(options.columns):
        raise UsageError("--columns takes NAME=COLUMN, for example --columns persona=user_id chosen=better.")
    more = audit.Options(
        columns,
        options.again,
        options.trusted,
        tuple(options.benchmark),
        options.human,
        options.probe,
        tuple(options.scorers) if options.scorers else audit.FAMILIES,
    )
    with loading.readable(options.source):
        found = audit.audit(options.source, more)
        shown = report.sample(options.source, columns)
    run = Path(options.source)
    if (run / "manifest.json").is_file() and options.out is None:
        where = versions.audited(run, found)
    else:
        where = versions.aside(options.out or Path("AUDIT"), found)
    page = report.write(where.parent, found, shown)
    for one in found["verdict"]:
        print(f"{one['weight']:5}  {one['says']}")
    for option, given, figure in (
        ("--human", options.human, found["dialogues"]["realism"]),
        ("--probe", options.probe, found["push_back"]["wrong"]),
        ("--trusted", options.trusted, found["certified"]["coverage"]),
        ("--again", options.again, found["consistency"]["same"]),
    ):
        reason = figure.get("not_measured") or figure.get("characters", {}).get("not_measured")
        if given and reason:
            print(f"none   {option} gave nothing: {reason}.")
    print(f"To read: {page}. All figures are in {where}.")
    return 0


def _export(options: argparse.Namespace) -> int:
    from simforge import loading, views

    with loading.readable(options.source):
        count = views.export(options.source, options.view, options.to, options.split, options.system, options.where)
    pairs = sum(loading.manifest(options.source)["counts"]["preferences"].values())
    print(
        f"{count:,} rows are in {options.to}, as {options.view} ({options.source} has {pairs:,} pairs in all splits)."
    )
    return 0


def _versions(options: argparse.Namespace) -> int:
    from simforge import hub, stores

    found = stores.versions(options.repo) if "://" in options.repo else hub.versions(options.repo)
    for one in found:
        pairs = sum(one.manifest.get("counts", {}).get("preferences", {}).values())
        where = "" if "://" in one.repo else one.commit[:10]
        print(f"{one.version!s:<10} {where:<10}  {pairs:>10,} pairs  digest {one.manifest.get('digest', '?')}")
    if not found:
        print(f"{options.repo} has no versions yet: simforge push DIR {options.repo} --version 0.1.0")
    return 0


def _pull(options: argparse.Namespace) -> int:
    from simforge import hub, stores

    folder = (stores if "://" in options.source else hub).pull(options.source, options.out)
    print(f"{options.source} is in {folder}, and every file is what its manifest says.")
    return 0


def _diff(options: argparse.Namespace) -> int:
    from simforge import comparing, loading

    both = options.old, options.new
    with loading.readable(*both):
        lines = comparing.manifests(*map(loading.manifest, both)) + comparing.audits(*map(loading.audit, both))
        people = comparing.people(*(loading.scan(one, "personas") for one in both))
        labels = comparing.labels(*(loading.scan(one) for one in both))
    for line in lines or ["made alike, with the same files"]:
        print(line)
    print(f"people: {people['shared']} in both, {people['only_old']} before only, {people['only_new']} now only")
    print(
        f"pairs: {labels['shared']} in both, of which {labels['flipped']} are the other way round now; "
        f"{labels['only_old']} before only, {labels['only_new']} now only"
    )
    return 0


def _ledger(options: argparse.Namespace) -> int:
    from simforge import ledger, money, versions

    folder = versions.ledger_of(options.run)
    if isinstance(folder, Path) and not folder.is_dir():
        raise UsageError(f"{options.run} is no run folder: there is no work/ledger in it.")
    prices = money.load(options.prices)
    found = ledger.totals(folder)
    print(f"{sum(used.calls for used in found.values()):,} replies in {folder}")
    for model, used in sorted(found.items()):
        price = money.price_of(model, prices)
        priced = f"  {price.of(used):,.2f}" if price is not None else ""
        said = f"{used.calls:,} replies, {used.prompt_tokens:,} tokens read, {used.completion_tokens:,} written"
        print(f"  {model}: {said}{priced}")
    return 0


def _sample(options: argparse.Namespace) -> int:
    from simforge import casting, personas

    if options.out is not None and options.out.suffix not in personas.FORMATS:
        raise UsageError(f"--out {options.out}: people are written as {', '.join(personas.FORMATS)}.")
    cast = casting.people(options.pack, options.n, options.seed, options.space, options.model, options.out)
    passed = cast.passed
    if passed.impossible or passed.full:
        said = f"{passed.impossible} fail a condition of `where`, {passed.full} found their quota full"
        print(
            f"{passed.impossible + passed.full} of {passed.tried} candidates were passed over: {said}", file=sys.stderr
        )
    if passed.incomplete:
        print(f"{passed.incomplete} rows of the people's file lack a value and are left out", file=sys.stderr)
    if passed.unwritten:
        print(f"{passed.unwritten} people could not be written and are left out", file=sys.stderr)
    if options.out is None:
        for index in range(min(len(cast), 50)):
            print(cast.text(index))
        if len(cast) > 50:
            print(f"… and {len(cast) - 50} more; --out FILE.parquet writes them all")
        return 0
    try:
        personas.write_cast(cast, options.out)
    except OSError as problem:
        raise UsageError(f"--out {options.out} cannot be written: {problem.strerror or problem}.") from None
    print(f"{len(cast)} people are in {options.out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from simforge import personas
    from simforge.personas import proof

    found = proof.prove(personas.load(options.pack), options.n, options.seed)
    if options.json:
        import json
        from dataclasses import asdict

        print(json.dumps({**asdict(found), "holds": found.holds}, indent=2, ensure_ascii=False))
    else:
        print(proof.told(found, options.pack))
    return 0 if found.holds else 1


def _grow(options: argparse.Namespace) -> int:
    from simforge import casting

    if options.out.exists():
        raise UsageError(f"{options.out} exists: choose another place with --out.")
    added = casting.grow(options.space, options.to, options.model, options.seed, options.out)
    print(f"{added} preferences were added; the space is in {options.out}")
    return 0


def _show_schema(options: argparse.Namespace) -> int:
    import json

    from simforge import personas

    print(json.dumps(personas.load(options.pack).json_schema(), indent=2, ensure_ascii=False))
    return 0


def _show(options: argparse.Namespace) -> int:
    from simforge import catalog

    if options.name == "guards":
        return _show_guards()
    if options.name == "views":
        return _show_views()
    if options.name in (None, *KINDS):
        for kind in KINDS if options.name is None else (options.name,):
            for name in catalog.names(kind):
                print(f"{kind}/{name}")
        return 0
    print(_entry(options.name).text, end="")
    return 0


def _show_views() -> int:
    from simforge import views

    wide = max(map(len, views.names()))
    for name in views.names():
        about = re.split(r":\s|, what | \(|\.\s", " ".join(views.view(name).__doc__.split()))[0]
        print(f"{name:{wide}}  {about}")
    return 0


def _show_guards() -> int:
    from simforge.guards import GUARDS

    wide = max(map(len, GUARDS))
    for name, guard in GUARDS.items():
        print(f"{name:{wide}}  {guard.policy:7}  {guard.about}")
    print("\nThe second column is what follows by default; --set dialogue.guards.NAME=POLICY changes it: repair (ask")
    print("once more with a hint, else end the dialogue), nudge (ask once more, else keep it flagged), flag (keep it")
    print("flagged), cut (end the dialogue), discard (the dialogue makes no pairs), off.")
    return 0


def _copy(options: argparse.Namespace) -> int:
    found = _entry(options.name)
    target = options.to or Path(Path(found.label).name)
    if target.is_dir():
        target = target / Path(found.label).name
    if target.exists():
        raise UsageError(f"{target} exists: choose another place with --to.")
    try:
        target.write_text(found.text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{target} cannot be written: {problem.strerror or problem}.") from None
    print(
        f"{found.label} is copied to {target}; refer to it as ./{target}"
        if not target.is_absolute()
        else f"{found.label} is copied to {target}"
    )
    return 0


def _entry(name: str) -> Entry:
    from simforge import catalog

    kind, _, rest = name.partition("/")
    if kind not in KINDS or not rest:
        every = [f"{kind}/{each}" for kind in KINDS for each in catalog.names(kind)]
        raise NotFound("entry of the catalogue", name, every, "See `simforge show`.")
    return catalog.entry(kind, rest.removesuffix(catalog.SUFFIXES[kind]))


def count(text: str) -> int:
    """A number of people: `500`, `10k`, `1.5M`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip().replace("_", ""))
    number = Decimal(match[1]) * _SUFFIX[match[2].lower()] if match else Decimal(0)
    if number < 1 or number != int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of people; write 500, 10k or 1.5M")
    return int(number)


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def amount(text: str) -> float:
    """Money: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount above 0")
    return number


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return number


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
