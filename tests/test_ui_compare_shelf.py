"""Where saved reports are found, which stand together, and the endpoint ``compare`` over them."""

from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from models.report_comparison import compare_reports
from models.reports import REPORT, ReportError, read_report, write_report
from tests.saved_reports import PICTURES, label_rows, make_report, save_reports
from ui.build import build_app, launch_options
from ui.compare_shelf import Shelf, find_evaluations
from ui.services import Services


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_reports(tmp_path / "reports")


@pytest.fixture
def shelf(folder, tmp_path) -> Shelf:
    return Shelf(folder, bundled=tmp_path / "bundled")


def test_reports_are_found_beside_bundled_models_and_in_the_operators_folder(folder, tmp_path):
    bundled = tmp_path / "bundled"
    write_report(make_report("small", label_rows()), bundled / "vit-deepfake" / "reports" / "faces", PICTURES)
    shelf = Shelf(folder, bundled=bundled)
    assert [each.key for each in shelf.list_saved()] == [
        "vit-deepfake/faces",
        "reports/charts",
        "reports/tuned",
        "reports/zero-shot",
    ]
    assert Shelf(folder / "tuned", bundled=tmp_path / "none").list_saved()[0].report.name == "tuned"
    with pytest.raises(ReportError, match="there is no such folder"):
        Shelf(tmp_path / "absent")


def test_report_that_changes_is_read_again_and_a_bad_one_is_named(folder, shelf):
    before = {each.key: each for each in shelf.list_saved()}
    assert shelf.list_saved()[0] is before["reports/charts"]  # not read twice
    (folder / "charts" / REPORT).write_text("{}")
    write_report(make_report("better", label_rows()), folder / "tuned", PICTURES)
    after = {each.key: each for each in shelf.list_saved()}
    assert set(after) == {"reports/tuned", "reports/zero-shot"}
    assert after["reports/tuned"].report.name == "better"
    (problem,) = shelf.list_problems()
    assert problem.startswith("reports/charts: no report that Exhibit can read")
    assert str(folder) not in problem


def test_only_reports_of_the_same_pictures_questions_and_truths_stand_together(shelf, folder):
    groups = find_evaluations(shelf.list_saved())
    assert [[each.report.name for each in group] for group in groups.values()] == [["tuned", "zero-shot"], ["charts"]]
    other = make_report("others", label_rows(labels=("real", "fake")))
    write_report(other, folder / "others", {})
    assert len(find_evaluations(shelf.list_saved())) == 3


def test_the_operators_own_reports_come_before_those_of_bundled_models_however_many(folder, tmp_path):
    for number, wrong in enumerate(((0,), (1,), (2,))):
        report = make_report(f"shipped-{number}", label_rows(wrong=wrong, labels=("real", "fake")))
        write_report(report, tmp_path / f"shipped-{number}" / "reports" / "validation", {})
    groups = find_evaluations(Shelf(folder, bundled=tmp_path).list_saved())
    assert [len(group) for group in groups.values()] == [2, 1, 3]
    assert {each.report.name for each in next(iter(groups.values()))} == {"tuned", "zero-shot"}


@pytest.fixture(scope="module")
def client(tiny_zoo_file, tmp_path_factory):
    from models.loading import ModelLoader
    from models.registry import load_zoo

    loader = ModelLoader(load_zoo(tiny_zoo_file), offline=True)
    shelf = Shelf(save_reports(tmp_path_factory.mktemp("saved")), bundled=tmp_path_factory.mktemp("bundled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        app = build_app(Services(zoo=loader.zoo, loader=loader, examples=(), reports=shelf))
        _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, _frontend=False, **launch_options())
        yield Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
        app.close()


def test_endpoint_compares_saved_and_brought_reports(client, folder):
    known = client.predict(api_name="/compare")
    assert [each["key"] for each in known["known"]] == ["reports/charts", "reports/tuned", "reports/zero-shot"]
    assert known["comparison"] is None
    found = client.predict(
        reports=["reports/tuned"], files=[handle_file(str(folder / "zero-shot" / REPORT))], api_name="/compare"
    )
    reports = [read_report(folder / name) for name in ("tuned", "zero-shot")]
    assert found["comparison"] == compare_reports(reports).model_dump(mode="json")
    assert found["comparison"]["generated"] is True
    assert [each["figures"] for each in found["reports"]] == [
        report.model_dump(mode="json")["figures"] for report in reports
    ]
    assert found["reports"][0]["confusion"]["counts"] == [[6, 0, 0], [1, 5, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        (["no-such"], "known are: reports/charts"),
        (["reports/charts", "reports/tuned"], "reports of labels and of free answers cannot be compared"),
    ],
)
def test_endpoint_refuses_in_one_line(client, reports, said):
    with pytest.raises(Exception, match=said) as caught:
        client.predict(reports=reports, api_name="/compare")
    assert "Traceback" not in str(caught.value)
