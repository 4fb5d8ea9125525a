"""The command study: listings, formats, pages, and what is refused."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from costmodel.charts import Axis, LineChart, Series
from costmodel.studies import running, study
from costmodel.studies.study import Finding, Study, StudyTable

Run = Callable[..., Result]
QUICK = "end-to-end --gpu a40"


def words(text: str) -> str:
    return " ".join(text.split())


def test_list_has_every_study_with_its_question(ok: Callable[..., str], as_json: Any) -> None:
    rows = as_json("study list --format json")
    assert [row["name"] for row in rows] == study.list_studies()
    table = words(ok("study list"))
    for row in rows:
        assert row["name"] in table
        assert words(row["question"]) in table
    lines = list(csv.DictReader(io.StringIO(ok("study list --format csv"))))
    assert lines == rows


def test_terminal_has_question_method_tables_answer_and_uncertainty(
    ok: Callable[..., str], as_json: Any
) -> None:
    text = words(ok(f"study {QUICK}"))
    record = as_json(f"study {QUICK} --format json")
    for key in ("question", "method", "answer", "uncertainty"):
        assert words(record[key]) in text
    places = [
        text.index(word)
        for word in ("Method", "Time to the first token by stage", "Answer", "Uncertainty")
    ]
    assert places == sorted(places)


def test_json_and_csv_agree(ok: Callable[..., str], as_json: Any) -> None:
    record = as_json(f"study {QUICK} --format json")
    assert record["settings"]["GPUs"] == "a40"
    assert record["problem"] == ""
    (table,) = record["tables"]
    rows = list(csv.DictReader(io.StringIO(ok(f"study {QUICK} --format csv"))))
    assert list(rows[0]) == table["columns"]
    assert [float(row["ttft_ms"]) for row in rows] == [row["ttft_ms"] for row in table["rows"]]


def test_aliases_become_names_and_options_reach_the_study(as_json: Any) -> None:
    record = as_json("study end-to-end --gpu A6000 --runtime eager --format json")
    assert record["settings"]["GPUs"] == "rtx-a6000"
    assert record["settings"]["runtime"] == "eager"
    (table,) = record["tables"]
    assert {row["gpu"] for row in table["rows"]} == {"rtx-a6000"}


def test_page_needs_no_network(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert run("study", *QUICK.split(), "-o", str(target)).exit_code == 0
    page = target.read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)
    assert not re.search(r'(?:src|link[^>]*href)="', own)
    assert page.count("plotly.js v") == 1
    assert len(re.findall(r'<div id="end-to-end-\d"', page)) == 2
    assert "Uncertainty" in own
    assert "costmodel study end-to-end" in own


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_the_ending_of_a_file_picks_the_format(
    ok: Callable[..., str], tmp_path: Path, ending: str
) -> None:
    target = tmp_path / f"out.{ending}"
    ok("study", *QUICK.split(), "-o", str(target))
    text = target.read_text(encoding="utf-8")
    assert text.startswith("{" if ending == "json" else "gpu,method,kept_tokens")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("study end-to-ende", "Did you mean end-to-end?"),
        ("study nothing", "Known: clustering-overhead, "),
        ("study end-to-end --gpu nothing", "unknown gpu 'nothing'"),
        ("study end-to-end --gpu a40,A40", "gpu: 'a40,A40' is not valid; expected each GPU once"),
        ("study end-to-end --model nothing", "unknown model 'nothing'"),
        ("study end-to-end --model llama-2-7b", "llama-2-7b"),
        ("study end-to-end --runtime slow", "runtime"),
        ("study training --runtime eager", "the study training takes --model and --gpu"),
        ("study end-to-end --gpu a40 --format csv --table 7", "table: 7 is not valid"),
        ("study end-to-end --table 0", "--table"),
        ("study end-to-end -o missing/out.html", "there is no folder 'missing'"),
        ("study all", "a folder for index.html"),
    ],
)
def test_mistakes_are_one_line(run: Run, line: str, message: str) -> None:
    result = run(line)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_file_is_no_folder(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("kept")
    result = run("study", "all", "-o", str(target))
    assert result.exit_code == 2
    assert "it is a file" in result.stderr
    assert target.read_text() == "kept"


def _good(gpus: tuple[str, ...] = ("a40",)) -> Finding:
    line = Series("<line>", (1.0, 2.0), (3.0, 4.0))
    return Finding(
        "It is <3>.", "Sure.",
        (StudyTable.of("One", [{"gpu": gpus[0], "ttft_ms": 1.5}]),
         StudyTable("None", ("a", "b"), ())),
        (LineChart("Lines & more", Axis("x"), Axis("y", "ms"), (line,)),),
        {"GPUs": ", ".join(gpus)},
    )  # fmt: skip


def _bad() -> Finding:
    raise ZeroDivisionError("no tokens")


@pytest.fixture
def two_studies(monkeypatch: pytest.MonkeyPatch) -> dict[str, Study]:
    made = {
        "bad": Study("Fails", "Does it?", "By dividing.", _bad),
        "good": Study("Works", "Does it?", "By returning.", _good),
    }
    monkeypatch.setattr(study, "list_studies", lambda: list(made))
    monkeypatch.setattr(running, "load_study", made.__getitem__)
    return made


def test_all_names_what_fails_and_goes_on(
    run: Run, tmp_path: Path, two_studies: dict[str, Study]
) -> None:
    folder = tmp_path / "new" / "report"
    result = run("study", "all", "--gpu", "l4", "-o", str(folder))
    assert result.exit_code == 1
    assert result.stderr == "bad failed: ZeroDivisionError: no tokens\n"
    assert result.stdout.startswith("1 of 2 studies: ")
    page = (folder / "index.html").read_text(encoding="utf-8")
    for text in (
        "Fails", "This study failed: ZeroDivisionError: no tokens", "Works", "It is &lt;3&gt;.",
        '<a href="#good">', '<h2 id="bad">', "l4",
    ):  # fmt: skip
        assert text in page
    assert (folder / "good.csv").read_text() == "gpu,ttft_ms\nl4,1.5\n"
    assert (folder / "good-2.csv").read_text() == "a,b\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        "good-2.csv", "good.csv", "index.html"
    ]  # fmt: skip


def test_all_succeeds_where_nothing_fails(
    run: Run, tmp_path: Path, two_studies: dict[str, Study]
) -> None:
    del two_studies["bad"]
    result = run("study", "all", "-o", str(tmp_path))
    assert result.exit_code == 0
    assert result.stderr == ""
