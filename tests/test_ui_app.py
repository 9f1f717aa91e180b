"""The door: arguments, refusals, and what importing it does not do."""

import subprocess
import sys
from pathlib import Path

import pytest

import app

ROOT = Path(__file__).resolve().parent.parent


def test_only_this_machine_is_let_in_unless_a_space_asks(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert app.parse_arguments([]).host == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "someone/exhibit")
    assert app.parse_arguments([]).host == "0.0.0.0"
    assert app.parse_arguments(["--host", "127.0.0.1"]).host == "127.0.0.1"


def test_nobody_is_trusted_unless_named():
    assert app.parse_arguments([]).trust == []
    assert app.parse_arguments(["--trust", "one", "--trust", "two"]).trust == ["one", "two"]


def test_door_is_short():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) <= 120


def test_importing_the_door_loads_nothing_heavy():
    code = (
        "import sys, app; sys.exit(' '.join(m for m in ('gradio', 'torch', 'transformers') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "absent.txt"], "absent.txt cannot be read"),
        (["--zoo", "absent.yaml"], "absent.yaml"),
        (["--trust", "no-such"], "no model is called 'no-such'"),
        (["--reports", "no-such"], "no-such: there is no such folder"),
    ],
)
def test_unusable_argument_ends_with_2_and_one_line(arguments, words, capsys):
    assert app.main(arguments) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_two_threads_find_nothing_left_to_import_that_imports_itself_in_a_circle():
    # Begun in the warm-up and in a first request at once, narwhals was a deadlock that Python broke by failing.
    code = (
        "import sys; from ui.services import import_shared_libraries; import_shared_libraries()\n"
        "there = {name for name in sys.modules if name.startswith('narwhals.')}\n"
        "import plotly.graph_objects, plotly.subplots, sklearn.linear_model, pytorch_grad_cam\n"
        "plotly.graph_objects.Figure(plotly.graph_objects.Scatter(x=[1], y=[1]))\n"
        "late = {name for name in sys.modules if name.startswith('narwhals.')} - there\n"
        "sys.exit(' '.join(late) or (0 if there else 'narwhals is gone: the early import serves nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shared_libraries_come_before_anything_is_served(monkeypatch):
    order = []
    monkeypatch.setattr("ui.services.import_shared_libraries", lambda: order.append("imported"))
    monkeypatch.setattr("ui.services.build_services", lambda *_: order.append("built"))

    def refuse(_: object) -> None:
        raise app.ExhibitError("stop here")

    monkeypatch.setattr("ui.build.build_app", refuse)
    assert app.main([]) == 2
    assert order == ["imported", "built"]
