"""All bundled models made anew from scratch, by the steps of one plan; a stopped one goes on at its first open step.

A step is done when its command has ended well, its recipes have not changed since, and no step that it needs was done
again later. What is done stands in a record beside the runs, so that a fresh checkout, which has bundled models but no
runs, does everything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from pydantic import Field, model_validator

from training.errors import RunError
from training.recipe import Strict, read_strict

logger = logging.getLogger(__name__)

PYTHON = "python"
MEASURED = "metrics.json"


class Step(Strict):
    """One command and the folder that it makes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    command: str = Field(pattern=r"^python -m training")
    """``{place}`` stands for a path of ``places``."""
    out: str
    """The folder that the command makes."""
    needs: tuple[str, ...] = ()
    """Earlier steps whose folders it reads."""
    resumes: bool = False
    """Whether the command goes on where it was stopped when it is given ``--resume``."""
    replaces: bool = False
    """Whether the command itself takes the place of what it made before, once it has ended well."""


class Plan(Strict):
    """Steps in their order; paths are relative to the folder from which the plan is run."""

    places: dict[str, str] = Field(default_factory=dict)
    """Paths of data that no step makes, by name."""
    record: str = "runs/rebundle.json"
    steps: tuple[Step, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_in_order(self) -> Plan:
        known: set[str] = set()
        for step in self.steps:
            if step.name in known:
                raise ValueError(f"two steps are called {step.name}")
            unknown = [name for name in step.needs if name not in known]
            if unknown:
                raise ValueError(f"step {step.name} needs {', '.join(unknown)}, which no earlier step is called")
            try:
                step.command.format(**self.places)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"step {step.name}: its command names a place that is not there ({error})") from error
            known.add(step.name)
        return self


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        RecipeError: if the file cannot be read or an entry is wrong.
    """
    return read_strict(Plan, path)


def list_commands(
    plan: Plan, *, only: Collection[str] = (), start: str | None = None, given: Collection[str] = ()
) -> list[str]:
    """The command lines that ``rebundle`` would run, in order; arguments and errors as there."""
    return [shlex.join([PYTHON, *_arguments(step, plan)]) for step in _list_open(plan, only, start, given)]


def rebundle(
    plan: Plan, *, only: Collection[str] = (), start: str | None = None, given: Collection[str] = ()
) -> list[str]:
    """Run every step that is not done yet.

    Args:
        plan: the steps.
        only: these steps and all they need, directly or not; all when empty.
        start: a step to do again even if it is done, with all that needs it.
        given: steps whose folders are taken as they are, such as a bundled model that a chosen step starts from; what
            only they need is not made.

    Returns:
        Names of the steps that were run.

    Raises:
        RunError: if there is no such step, a given one has no folder, a command fails, or a folder is in the way that
            no step has made.
    """
    done: list[str] = []
    for step in _list_open(plan, only, start, given):
        before = _read_accuracy(Path(step.out))
        _clear(step, plan)
        _remember(plan, step, finished=False)
        arguments = _arguments(step, plan)
        logger.info("%s: %s", step.name, shlex.join([PYTHON, *arguments]))
        code = subprocess.run([sys.executable, *arguments], check=False, stdout=sys.stderr).returncode  # noqa: S603 - commands of this room
        if code:
            raise RunError(f"step {step.name} failed with exit code {code}; put it right and run rebundle again.")
        _remember(plan, step, finished=True)
        after = _read_accuracy(Path(step.out))
        if before is not None and after is not None:
            logger.info("%s: validation accuracy %.4f, before %.4f", step.name, after, before)
        done.append(step.name)
    return done


def _list_open(plan: Plan, only: Collection[str], start: str | None, given: Collection[str]) -> Iterator[Step]:
    """Steps to be run, in order."""
    names = [step.name for step in plan.steps]
    unknown = [name for name in (*only, *([start] if start else []), *given) if name not in names]
    if unknown:
        raise RunError(f"the plan has no step {', '.join(unknown)}; it has {', '.join(names)}.")
    missing = [step.out for step in plan.steps if step.name in given and not _is_there(step)]
    if missing:
        raise RunError(f"{', '.join(missing)}: given, but not there; leave out --given for it to be made.")
    wanted = _with_needs(plan, only or names, given)
    record = _read_record(plan)
    again: set[str] = set()
    for step in plan.steps:
        if step.name in given:
            continue
        kept = record.get(step.name, {})
        is_done = (
            kept.get("finished") == "yes" and kept.get("fingerprint") == _fingerprint(step, plan) and _is_there(step)
        )
        if not is_done or step.name == start or again.intersection(step.needs):
            again.add(step.name)
            if step.name in wanted:
                yield step


def _with_needs(plan: Plan, only: Collection[str], given: Collection[str]) -> set[str]:
    wanted = set(only)
    for step in reversed(plan.steps):
        if step.name in wanted and step.name not in given:
            wanted.update(step.needs)
    return wanted


def _arguments(step: Step, plan: Plan) -> list[str]:
    """The command without its interpreter; with ``--resume`` where it was stopped."""
    arguments = shlex.split(step.command.format(**plan.places))[1:]
    return [*arguments, "--resume"] if _can_resume(step, plan) else arguments


def _can_resume(step: Step, plan: Plan) -> bool:
    kept = _read_record(plan).get(step.name, {})
    begun = kept.get("finished") == "no" and kept.get("fingerprint") == _fingerprint(step, plan)
    return step.resumes and begun and _is_there(step) and not (Path(step.out) / MEASURED).exists()


def _is_there(step: Step) -> bool:
    folder = Path(step.out)
    return folder.is_dir() and any(folder.iterdir())


def _clear(step: Step, plan: Plan) -> None:
    """Remove what an earlier turn of the step has left, unless it can be gone on with.

    Raises:
        RunError: if the folder is not of this plan's making.
    """
    folder = Path(step.out)
    if step.replaces or not _is_there(step) or _can_resume(step, plan):
        return
    if step.name not in _read_record(plan):
        raise RunError(
            f"{folder}: is there already and was not made by this plan; move it away, then run rebundle again."
        )
    shutil.rmtree(folder)


def _fingerprint(step: Step, plan: Plan) -> str:
    """Hex SHA-256 of the command and of the recipes and cards it names."""
    arguments = shlex.split(step.command.format(**plan.places))
    digest = hashlib.sha256(json.dumps(arguments).encode())
    for argument in arguments:
        if argument.endswith(".yaml") and Path(argument).is_file():
            digest.update(Path(argument).read_bytes())
    return digest.hexdigest()


def _read_record(plan: Plan) -> dict[str, dict[str, str]]:
    file = Path(plan.record)
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file}: is not JSON ({error}); remove it, and the folders of the plan with it.") from error
    return {str(name): dict(entry) for name, entry in content.items()}


def _remember(plan: Plan, step: Step, *, finished: bool) -> None:
    record = _read_record(plan)
    record[step.name] = {"finished": "yes" if finished else "no", "fingerprint": _fingerprint(step, plan)}
    stale = {step.name}
    for later in plan.steps:
        if stale.intersection(later.needs) and later.name in record:
            stale.add(later.name)
            record[later.name] = {"finished": "no", "fingerprint": ""}  # neither done nor to be gone on with
    file = Path(plan.record)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)


def _read_accuracy(folder: Path) -> float | None:
    """Accuracy that a bundled model states on its main set."""
    file = folder / MEASURED
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    accuracy = (content.get("validation") or {}).get("accuracy")
    return float(accuracy) if isinstance(accuracy, (int, float)) else None
