"""What every notebook has in common, so that a reader of one finds the way in all."""

import ast
import re
import statistics
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat import NotebookNode

from brats_utils.commands.run import NOTEBOOKS

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))

LINK = re.compile(r"\]\(([^)\s]+)|(?:src|href)=\"([^\"]+)\"")
ABSOLUTE_PATH = re.compile(r"(?<![\w.~:/})\]-])/(?:home|root|Users|work|opt|tmp|mnt|usr|var|content)\b|\b[A-Z]:\\")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode, tag: str = "") -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and (not tag or tag in tags(cell))]


def markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def opening(notebook: NotebookNode) -> str:
    """The prose before the first code cell."""
    first_code = notebook.cells.index(code_cells(notebook)[0])
    return "\n\n".join(cell.source for cell in notebook.cells[:first_code])


def imports_only(cell: NotebookNode) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(cell.source).body)


def first_line(cell: NotebookNode) -> str:
    return cell.source.partition("\n")[0]


def test_the_runner_knows_all_notebooks() -> None:
    assert [path.stem for path in PATHS] == sorted(NOTEBOOKS)


def test_the_bootstrap_cell_is_the_same_in_all() -> None:
    cells = [code_cells(nbformat.read(path, as_version=4), "bootstrap") for path in PATHS]
    assert [len(found) for found in cells] == [1] * len(PATHS)
    assert len({cell.source for (cell,) in cells}) == 1


def test_the_bootstrap_cell_is_short() -> None:
    (cell,) = code_cells(nbformat.read(PATHS[0], as_version=4), "bootstrap")
    assert len([line for line in cell.source.splitlines() if line.strip()]) <= 7


@pytest.mark.parametrize("name", ["04_inference", "05_evaluation"])
def test_predictions_are_written_and_viewed_in_the_convention_of_the_data(name: str) -> None:
    tree = ast.parse("\n".join(cell.source for cell in code_cells(nbformat.read(FOLDER / f"{name}.ipynb", 4))))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    used = {ast.unparse(k.value) for call in calls for k in call.keywords if k.arg == "schema"}
    assert used == {"schema"} | ({"SCHEMAS.get(real_schema)"} if name == "05_evaluation" else set())
    read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "schema"}
    assert read == {"project.schema"}


def test_03_records_the_label_convention_of_the_data_and_not_auto() -> None:
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(FOLDER / "03_train.ipynb", 4)))
    assert 'recorded = cfg.model_dump(mode="json") | {"label_schema": schema.name}' in source


def test_is_valid_and_has_cell_ids(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "cell ids came with 4.5"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_runs_on_the_kernel_python3(notebook: NotebookNode) -> None:
    assert notebook.metadata.kernelspec.name == "python3"


def test_is_committed_without_outputs(notebook: NotebookNode) -> None:
    kept = [cell.id for cell in code_cells(notebook) if cell.outputs or cell.execution_count is not None]
    assert not kept, "run `make format`"


def test_opens_with_title_and_badge(notebook: NotebookNode, path: Path) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    badge = rf"\(https://colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[\w./-]+/notebooks/{path.name}\)"
    assert re.search(badge, first.source), "no Colab badge that opens this notebook"
    kaggle = rf"\(https://kaggle\.com/kernels/welcome\?src=https://github\.com/[\w./-]+/notebooks/{path.name}\)"
    assert re.search(kaggle, first.source), "no Kaggle badge that opens this notebook"


@pytest.mark.parametrize("hint", ["**You will do**", "**You will learn**", "**You need**", "**Time**"])
def test_opening_says_what_to_expect(notebook: NotebookNode, hint: str) -> None:
    assert hint in opening(notebook)


def test_shows_where_the_reader_is(notebook: NotebookNode) -> None:
    assert "you are here" in markdown(notebook).lower()


@pytest.mark.parametrize("heading", ["## Recap", "## On your own", "## Next"])
def test_closes_with_recap_and_next_steps(notebook: NotebookNode, heading: str) -> None:
    last = notebook.cells[-1]
    assert last.cell_type == "markdown"
    assert heading in [line.strip() for line in last.source.splitlines()]


def test_bootstrap_comes_before_any_import(notebook: NotebookNode) -> None:
    assert "bootstrap" in tags(code_cells(notebook)[0])


def test_has_one_parameters_cell_of_at_most_eight_typed_assignments(notebook: NotebookNode) -> None:
    (cell,) = code_cells(notebook, "parameters")
    statements = ast.parse(cell.source).body
    assert 1 <= len(statements) <= 8
    assert all(isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) for node in statements)
    for node in statements:
        ast.literal_eval(node.value)  # a plain value, which a reader and papermill can replace


def test_papermill_can_explain_every_parameter(notebook: NotebookNode, path: Path) -> None:
    (cell,) = code_cells(notebook, "parameters")
    found = papermill.inspect_notebook(str(path))
    assert list(found) == [node.target.id for node in ast.parse(cell.source).body]
    unclear = [name for name, entry in found.items() if not (entry["help"] and entry["inferred_type_name"] != "None")]
    assert not unclear, "write `name: type = value  # what it does`"


def test_reduced_values_for_ci_are_parameters_and_stay_in_runs(notebook: NotebookNode, path: Path) -> None:
    (cell,) = code_cells(notebook, "parameters")
    mock = cell.metadata["nbmake"]["mock"]
    assert set(mock) <= set(papermill.inspect_notebook(str(path)))
    assert mock["output_dir"].startswith("runs/nbmake")


def test_nbmake_checks_what_the_notebook_made(notebook: NotebookNode) -> None:
    checks = [
        line for cell in code_cells(notebook) for line in cell.metadata.get("nbmake", {}).get("post_cell_execute", ())
    ]
    assert any(line.startswith("assert ") for line in checks)


def test_code_parses(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        ast.parse(cell.source)  # plain Python: no magics, so that linters and readers agree


def test_prose_stands_before_each_code_cell(notebook: NotebookNode) -> None:
    bare = [
        first_line(cell)
        for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False)
        if before.cell_type == cell.cell_type == "code"
        and not {"bootstrap", "imports", "parameters"} & set(tags(cell))
        and not imports_only(cell)
    ]
    assert not bare, "code follows code without a word between"


def test_code_cells_are_short(notebook: NotebookNode) -> None:
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    assert lengths[-1] <= 30
    assert lengths[min(len(lengths) * 9 // 10, len(lengths) - 1)] <= 20
    assert statistics.median(lengths) <= 8


def test_has_18_to_26_cells(notebook: NotebookNode) -> None:
    assert 18 <= len(notebook.cells) <= 26


def test_has_at_most_15_lines_of_imports(notebook: NotebookNode) -> None:
    lines = [len(cell.source.splitlines()) for cell in code_cells(notebook) if imports_only(cell)]
    assert sum(lines) <= 16, "15 and the blank lines between them"


def test_has_no_trick_that_a_learner_would_stumble_over(notebook: NotebookNode) -> None:
    loops = (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.NamedExpr), ":="
            assert not (isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr)), "|="
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                assert len(node.targets[0].elts) < 4, "an assignment of four values"
            if isinstance(node, loops):
                inner = [part for part in ast.walk(node) if isinstance(part, loops) and part is not node]
                assert not inner, "a loop inside a loop"


def test_questions_have_answers_that_fold_open(notebook: NotebookNode) -> None:
    last = notebook.cells[-1].source
    questions = last.partition("## Questions")[2].partition("## On your own")[0]
    assert questions.count("<details><summary>") >= 2
    assert last.count("<details>") == last.count("</details>")


def test_defines_nothing_but_the_lesson(notebook: NotebookNode) -> None:
    definitions = [
        node.name
        for cell in code_cells(notebook)
        if "lesson" not in tags(cell)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert not definitions, "move it to brats_utils, or tag the cell `lesson`"


def test_names_no_absolute_path(notebook: NotebookNode) -> None:
    # the bootstrap cell may name /content, Colab's own folder
    cells = [cell for cell in notebook.cells if "bootstrap" not in tags(cell)]
    assert not [match[0] for cell in cells for match in ABSOLUTE_PATH.finditer(cell.source)]


def test_relative_links_resolve(notebook: NotebookNode) -> None:
    targets = [link or source for link, source in LINK.findall(markdown(notebook))]
    relative = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert not [target for target in relative if not (FOLDER / target).exists()]


def test_report_cell_counts(notebook: NotebookNode, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints, for whoever edits a notebook; style has targets, not limits, for these."""
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    prose = sum(cell.cell_type == "markdown" for cell in notebook.cells)
    p90 = lengths[min(len(lengths) * 9 // 10, len(lengths) - 1)]
    with capsys.disabled():
        print(
            f"\n{path.stem}: {len(notebook.cells)} cells, markdown : code {prose / len(lengths):.1f}, "
            f"code lines median {statistics.median(lengths):.0f}, p90 {p90}"
        )
