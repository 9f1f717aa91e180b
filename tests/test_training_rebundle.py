"""A plan of tiny recipes from generated pictures to bundled models: in order, gone on with, done again where stale."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.reports import read_pictures, read_report
from training import rebundle as module
from training.__main__ import main
from training.errors import RecipeError, RunError
from training.rebundle import Plan, list_commands, read_plan, rebundle

ROOT = Path(__file__).parents[1]


def make_step(name: str, *needs: str, **more: object) -> dict[str, Any]:
    command = f"python -m training make --out runs/{name}"
    return {"name": name, "command": command, "out": f"runs/{name}", "needs": list(needs)} | more


class Machine:
    """Stands in for the processes: every command writes a file into its folder, unless it is told to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.failing: str | None = None
        monkeypatch.setattr(module.subprocess, "run", self.run)

    def run(self, arguments: list[str], **_: object) -> Any:
        out = Path(arguments[arguments.index("--out") + 1])
        self.ran.append(out.name + ("+resume" if "--resume" in arguments else ""))
        out.mkdir(parents=True, exist_ok=True)
        failed = out.name == self.failing
        (out / ("half.txt" if failed else "whole.txt")).write_text("made")
        return type("Done", (), {"returncode": int(failed)})()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.chdir(tmp_path)
    return Machine(monkeypatch)


def make_plan(*steps: dict[str, Any], **more: object) -> Plan:
    return Plan.model_validate({"steps": list(steps)} | more)


CHAIN = (make_step("data"), make_step("run", "data", resumes=True), make_step("side"), make_step("end", "run"))


def test_steps_run_once_and_in_order(machine: Machine) -> None:
    plan = make_plan(*CHAIN)
    assert rebundle(plan) == machine.ran == ["data", "run", "side", "end"]
    assert rebundle(plan) == []
    assert list_commands(plan) == []


def test_a_failed_step_is_gone_on_with(machine: Machine) -> None:
    plan = make_plan(*CHAIN)
    machine.failing = "run"
    with pytest.raises(RunError, match="step run failed with exit code 1"):
        rebundle(plan)
    machine.failing = None
    assert list_commands(plan)[0] == "python -m training make --out runs/run --resume"
    assert rebundle(plan) == ["run", "side", "end"]
    assert machine.ran == ["data", "run", "run+resume", "side", "end"]
    assert Path("runs/run/half.txt").exists()


def test_a_step_that_cannot_go_on_starts_with_an_empty_folder(machine: Machine) -> None:
    plan = make_plan(*CHAIN)
    machine.failing = "side"
    with pytest.raises(RunError, match="step side"):
        rebundle(plan)
    machine.failing = None
    rebundle(plan)
    assert [file.name for file in Path("runs/side").iterdir()] == ["whole.txt"]


def test_what_comes_of_a_changed_recipe_is_made_again(machine: Machine, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("epochs: 1")
    changed = make_step("run", "data") | {"command": "python -m training make --recipe r.yaml --out runs/run"}
    plan = make_plan(CHAIN[0], changed, *CHAIN[2:])
    rebundle(plan)
    recipe.write_text("epochs: 2")
    machine.ran.clear()
    machine.failing = "end"
    with pytest.raises(RunError):
        rebundle(plan)
    assert machine.ran == ["run", "end"]
    # The end was made of the older run: it is not done, although it once was.
    machine.failing = None
    assert rebundle(plan) == ["end"]


def test_a_given_step_is_taken_as_it_is_with_all_that_it_needs(machine: Machine) -> None:
    plan = make_plan(*CHAIN)
    with pytest.raises(RunError, match="runs/run: given, but not there"):
        rebundle(plan, only=["end"], given=["run"])
    with pytest.raises(RunError, match="no step ran;"):
        rebundle(plan, given=["ran"])
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/theirs.txt").touch()
    assert rebundle(plan, only=["end"], given=["run"]) == machine.ran == ["end"]
    assert [file.name for file in Path("runs/run").iterdir()] == ["theirs.txt"]
    # Without it the step is to be made, and the folder in its way is not the plan's.
    with pytest.raises(RunError, match="runs/run: is there already"):
        rebundle(plan)


def test_steps_can_be_chosen_and_done_again(machine: Machine) -> None:
    plan = make_plan(*CHAIN)
    assert rebundle(plan, only=["run"]) == ["data", "run"]
    assert rebundle(plan, start="data") == ["data", "run", "side", "end"]
    assert rebundle(plan, start="run") == ["run", "end"]
    shutil.rmtree("runs/side")
    assert rebundle(plan) == ["side"]
    with pytest.raises(RunError, match="no step nothing; it has data, run, side, end"):
        rebundle(plan, only=["nothing"])


def test_a_folder_of_somebody_else_is_left_alone(machine: Machine) -> None:
    Path("runs/data").mkdir(parents=True)
    Path("runs/data/thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="was not made by this plan"):
        rebundle(make_plan(*CHAIN))
    assert Path("runs/data/thesis.txt").read_text() == "precious"
    assert machine.ran == []
    # What a command itself replaces may lie there from before.
    assert rebundle(make_plan(make_step("data", replaces=True))) == ["data"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([make_step("a"), make_step("a")], "two steps are called a"),
        ([make_step("a", "b"), make_step("b")], "needs b, which no earlier step is called"),
        ([make_step("a") | {"command": "rm -rf /"}], "command"),
        ([make_step("a") | {"command": "python -m training prepare {nowhere}"}], "nowhere"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(steps: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"steps": steps}))
    with pytest.raises(RecipeError, match=said):
        read_plan(tmp_path / "plan.yaml")


def test_the_plan_of_the_bundled_models_makes_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    plan = read_plan(ROOT / "training" / "recipes" / "bundled.yaml")
    made = {Path(step.out).name for step in plan.steps if step.out.startswith("assets/bundled/")}
    assert made == {folder.name for folder in (ROOT / "assets" / "bundled").iterdir()}
    for place, step in enumerate(plan.steps):
        assert f" {step.out}" in step.command, step.name
        for word in step.command.split():
            assert not word.endswith(".yaml") or (ROOT / word).is_file(), word
            # A folder that an earlier step makes is needed by name.
            read = Path(word.split("=")[-1])
            makers = [other.name for other in plan.steps[: place + 1] if Path(other.out) in (read, *read.parents)]
            assert set(makers) <= {step.name, *step.needs}, (step.name, word)
    assert main(["rebundle", "--plan", str(ROOT / "training/recipes/bundled.yaml"), "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["commands"]) <= len(plan.steps)


CARD = {
    "title": "Tiny",
    "summary": "Knows nothing.",
    "licence": "MIT",
    "data": ["generated pictures"],
    "commands": ["python -m training rebundle"],
    "sets": {"validation": "generated pictures"},
    "limits": ["It is at chance."],
}
RECIPE = {
    "name": "tiny",
    "labels": ["unrelated", "drug chat", "drug deal place", "drug substance"],
    "model": {
        "architecture": "resnet",
        "config": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    },
    "image": {"size": 32, "crop": 32},
    "train": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 5},
}


def run_here(arguments: list[str], **options: Any) -> Any:
    """The same command in this process, which has its libraries loaded; drawing, which needs few, in one of its own."""
    if "scenes" in arguments:
        return RUN(arguments, **options)
    return subprocess.CompletedProcess(arguments, main(arguments[3:]))


RUN = subprocess.run


def test_a_plan_for_real_from_drawing_to_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(module.subprocess, "run", run_here)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    steps = [
        {
            "name": "scenes",
            "command": "python -m training scenes --count 24 --size 64 --seed {seed} --out runs/scenes",
            "out": "runs/scenes",
        },
        {
            "name": "split",
            "command": "python -m training prepare runs/scenes/casework.parquet --split 0.5,0.25,0.25 --out runs/split",
            "out": "runs/split",
            "needs": ["scenes"],
        },
        {
            "name": "run",
            "command": "python -m training finetune --recipe tiny.yaml --data runs/split --out runs/tiny",
            "out": "runs/tiny",
            "needs": ["split"],
            "resumes": True,
        },
        {
            "name": "bundle",
            "command": "python -m training bundle runs/tiny --card card.yaml --out bundled/tiny "
            "--measure validation=runs/split/test.parquet",
            "out": "bundled/tiny",
            "needs": ["run", "split"],
            "replaces": True,
        },
    ]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"places": {"seed": "3"}, "steps": steps}))
    assert main(["rebundle", "--plan", "plan.yaml"]) == 0
    first = json.loads((tmp_path / "bundled/tiny/metrics.json").read_text())
    report = read_report(tmp_path / "bundled/tiny/reports/validation")
    assert report.generated
    assert set(read_pictures(tmp_path / "bundled/tiny/reports/validation")) == {row.sha256 for row in report.rows}
    assert first["validation"]["pictures"] == len(report.rows)
    assert "In brackets the 95 % interval" in (tmp_path / "bundled/tiny/README.md").read_text()
    # From scratch again: the same figures to the last bit.
    assert main(["rebundle", "--plan", "plan.yaml", "--from", "run"]) == 0
    assert json.loads((tmp_path / "bundled/tiny/metrics.json").read_text())["validation"] == first["validation"]
