"""Recipes: the shipped one reads, a slip of the pen is told by name, options of the command win."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mora_lite.errors import InputError, MoraLiteError
from mora_lite.training.dataset import Dataset
from mora_lite.training.loop import TrainConfig
from mora_lite.training.recipe import (
    DEFAULT_SIZES,
    ENCODER,
    MORA,
    Recipe,
    TaskRecipe,
    choose_recipe,
    read_recipe,
    with_whole_names,
)
from mora_lite.training.splits import Split

QM9 = Path(__file__).resolve().parents[2] / "examples" / "qm9.toml"
TASK = '[[task]]\nname = "logS"\n'


def table_of(n_rows: int, readable: int | None = None) -> Dataset:
    """As much of a table as a split needs."""
    n = n_rows if readable is None else readable
    return Dataset(["C"] * n, None, np.zeros((n, 1), np.float32), np.arange(n), n_rows, "")


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str) -> Recipe:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(path)

    return read


def test_the_shipped_recipe_reads() -> None:
    recipe = read_recipe(QM9)
    assert (recipe.name, recipe.base, recipe.smiles, recipe.seed) == ("qm9", "smollm2-135m", "smiles", 0)
    assert [task.name for task in recipe.tasks] == ["homo", "lumo", "gap", "mu", "alpha", "r2", "zpve", "cv"]
    assert [task.weight for task in recipe.tasks] == [2.0] * 3 + [1.0] * 5
    assert recipe.split == Split(0, 110_000, 10_000)
    assert not recipe.mora.keep_start, "or the pack might be without its language model"
    assert recipe.start == "random", "no encoder that has seen other molecules than the training ones"
    assert all(task.prompt.endswith("Answer:") and task.unit and task.description for task in recipe.tasks)


def test_everything_but_a_task_may_be_left_out(read) -> None:
    recipe = read(TASK)
    assert recipe == Recipe("mine", (TaskRecipe("logS"),))
    assert (recipe.encoder, recipe.mora, recipe.adapter) == (ENCODER, MORA, DEFAULT_SIZES)
    assert recipe.start == "endpoints"
    assert recipe.split_of(table_of(1000)) == Split(0, 800, 100)
    task = recipe.tasks[0]
    assert (task.column, task.unit, task.kind, task.weight) == ("logS", "", "", 1.0)


def test_a_task_without_a_prompt_gets_one_for_its_kind() -> None:
    def prompt(task: TaskRecipe, kind: str = "value") -> str:
        return task.with_kind(kind).prompt

    assert prompt(TaskRecipe("logS")) == "Question: What is the logS of the molecule? Answer:"
    assert prompt(TaskRecipe("logS", unit="mol/L")) == "Question: What is the logS of the molecule in mol/L? Answer:"
    assert prompt(TaskRecipe("{odd}")) == "Question: What is the {odd} of the molecule? Answer:"
    assert prompt(TaskRecipe("toxic"), "class") == "Question: Is the molecule toxic? Answer:"
    assert prompt(TaskRecipe("{odd}"), "class") == "Question: Is the molecule {odd}? Answer:"
    assert prompt(TaskRecipe("toxic", prompt="Does it kill?"), "class") == "Does it kill?"
    assert TaskRecipe("toxic").with_kind("class").kind == "class"


def test_a_task_may_name_the_scale_that_it_is_learnt_on(read) -> None:
    assert read(TASK).tasks[0].scale == "", "chosen by the values"
    assert read(TASK + 'scale = "log"\n').tasks[0].scale == "log"
    with pytest.raises(InputError, match="task 'logS': got scale 'ln', expected linear, log, logit of a value"):
        read(TASK + 'scale = "ln"\n')
    with pytest.raises(InputError, match="got scale 'log', expected linear, log, logit of a value"):
        read(TASK + 'kind = "class"\nscale = "log"\n')


def test_shares_of_the_table_are_split_where_the_recipe_has_no_numbers(read) -> None:
    scaffold = read('seed = 3\n[split]\nkind = "scaffold"\n' + TASK)
    assert scaffold.split_of(table_of(1000, readable=500)) == Split(3, 400, 50, "scaffold"), "of what can be read"
    random = read('[split]\nkind = "random"\n' + TASK)
    assert random.split_of(table_of(1000, readable=500)) == Split(0, 800, 100), "of all rows"
    given = read('[split]\nkind = "given"\ncolumn = "part"\n' + TASK)
    assert given.split_of(table_of(1000)) == Split(0, kind="given", column="part")


@pytest.mark.parametrize("entry", ["train = 4", "valid = 4"])
def test_half_a_split_is_told(read, entry: str) -> None:
    with pytest.raises(InputError, match=r"split: got \d training and \d validation rows of 100"):
        read(f"[split]\n{entry}\n" + TASK).split_of(table_of(100)).rows(100)


def test_one_seed_reaches_every_part(read) -> None:
    recipe = read("seed = 7\n[split]\ntrain = 8\nvalid = 1\n[mora]\nseed = 9\n" + TASK)
    assert (recipe.seed, recipe.encoder.seed, recipe.mora.seed) == (7, 7, 9)
    assert recipe.split == Split(7, 8, 1)
    assert read("seed = 7\n" + TASK).split_of(table_of(100)).seed == 7


def test_whole_numbers_do_where_numbers_are_expected(read) -> None:
    recipe = read("[adapter]\nalpha = 8\n" + TASK + "weight = 2")
    assert recipe.adapter.alpha == 8
    assert recipe.tasks[0].weight == 2


def test_the_direct_readout_is_as_wide_as_the_encoders_head(read) -> None:
    assert read("[adapter]\nrank = 4\n" + TASK).adapter.direct_width == DEFAULT_SIZES.direct_width == 512
    assert read("[adapter]\nencoder_width = 32\n" + TASK).adapter.direct_width == 64
    assert read("[adapter]\nencoder_width = 32\ndirect_width = 0\n" + TASK).adapter.direct_width == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed = 1\n" + TASK, r"mine\.toml: unknown entry 'sed': did you mean seed"),
        ('[[tasks]]\nname = "logS"\n', "unknown entry 'tasks': did you mean task"),
        ("[adaptor]\nrank = 4\n" + TASK, "unknown entry 'adaptor': did you mean adapter"),
        ("[adapter]\nranks = 4\n" + TASK, "unknown entry 'ranks': did you mean rank"),
        ("[mora]\nepoch = 4\n" + TASK, "unknown entry 'epoch': did you mean epochs"),
        (TASK + 'units = "Ha"', "unknown entry 'units': did you mean unit"),
        ("[pretrain]\nepochs = 4\n" + TASK, "unknown entry 'pretrain'"),
        ("[split]\nsize = 4\n" + TASK, "unknown entry 'size'"),
        ("[[task]]\nunit = 'Ha'\n", "TaskRecipe: .*name"),
    ],
)
def test_unknown_and_missing_entries_are_named(read, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 3\n" + TASK, "name: got 3, expected text"),
        ("seed = 'x'\n" + TASK, "seed: got 'x', expected a whole number"),
        ("seed = -1\n" + TASK, "seed: got -1, expected 0 or more"),
        ("[mora]\nepochs = 'many'\n" + TASK, "epochs: got 'many', expected a whole number"),
        ("[mora]\nepochs = 1.5\n" + TASK, "epochs: got 1.5, expected a whole number"),
        ("[mora]\nepochs = true\n" + TASK, "epochs: got True, expected a whole number"),
        ("[mora]\nepochs = 0\n" + TASK, "epochs: got 0, expected 1 or more"),
        ("[encoder]\nbatch_size = 0\n" + TASK, "batch_size: got 0, expected 1 or more"),
        ("[encoder]\npeak_lr = '1e-3'\n" + TASK, "peak_lr: got '1e-3', expected a number"),
        ("[adapter]\nrank = '8'\n" + TASK, "rank: got '8', expected a whole number"),
        ("[adapter]\nrank = 0\n" + TASK, "rank: got 0, expected a finite number above 0"),
        ("[encoder]\ndropout = 1.5\n" + TASK, "dropout: got 1.5, expected a number below 1"),
        ("[encoder]\npeak_lr = nan\n" + TASK, "peak_lr: got nan, expected a number below inf"),
        ("[mora]\nema_decay = 2.0\n" + TASK, "ema_decay: got 2.0, expected a number below 1"),
        ("[mora]\npatience = -1\n" + TASK, "patience: got -1, expected 0 or more"),
        ("rare_sizes = -0.1\n" + TASK, "rare_sizes: got -0.1, expected 0 or more"),
        ("rare_sizes = 1e9\n" + TASK, "rare_sizes: got 1000000000.0, expected a number below 1"),
        ("[split]\nseed = -1\n" + TASK, "split: seed: got -1, expected 0 or more"),
        ("[split]\nkind = 'scafold'\n" + TASK, "split: unknown kind 'scafold': did you mean scaffold"),
        ("[split]\nkind = 'given'\n" + TASK, "got kind 'given' and column '', expected a column with kind 'given'"),
        ("start = 3\n" + TASK, "start: got 3, expected text"),
        (TASK + "kind = 'number'", "'logS': got kind 'number', expected value or class"),
        (TASK + "kind = 'class'\nunit = 'nM'", "'logS': got unit 'nM', but a class has none"),
        ("[split]\ntrain = '1'\nvalid = 1\n" + TASK, "train: got '1', expected a whole number"),
        ("adapter = 3\n" + TASK, r"adapter: got 3, expected a table \[adapter\]"),
        ("split = [1, 2]\n" + TASK, r"split: got \[1, 2\], expected a table"),
        (TASK + "weight = '2'", "weight: got '2', expected a number"),
        (TASK + "weight = 0", "'logS': got weight 0, expected a name and a weight above 0"),
        (TASK + "weight = inf", "'logS': weight: got inf, expected a number below inf"),
        ("members = 2\n" + TASK + "own_epochs = -1", "'logS': own_epochs: got -1, expected 0 or more"),
        ("[[task]]\nname = ''", "expected a name and a weight above 0"),
        ("[task]\nname = 'logS'", "double brackets"),
        ("task = 'logS'", "double brackets"),
        ("task = ['logS']", "double brackets"),
    ],
)
def test_wrong_kinds_and_values_are_told(read, text: str, words: str) -> None:
    with pytest.raises(MoraLiteError, match=words) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_tasks_are_unique_and_there_is_one(read) -> None:
    with pytest.raises(InputError, match=r"got tasks \['logS', 'logS'\], expected at least one, each name once"):
        read(TASK + TASK)
    with pytest.raises(InputError, match=r"got tasks \[\]"):
        read("seed = 1")


def test_a_task_called_like_a_column_of_the_predictions_is_refused(read, trained_by) -> None:
    code, err, _ = trained_by("-t", "logS", "-t", "similarity")
    assert code == 2
    assert "task 'similarity': got a name that another column of the predictions has" in err
    assert 'in a recipe give it a name of its own beside column = "similarity"' in err
    renamed = read(TASK + '[[task]]\nname = "likeness"\ncolumn = "similarity"\n')
    assert renamed.tasks[1].column == "similarity"
    assert len(read(TASK + '[[task]]\nname = "logS_lo"\nauxiliary = true\n').tasks) == 2, "it has no column"


def test_files_that_are_not_recipes(read, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe"):
        read_recipe(tmp_path / "no.toml")
    with pytest.raises(InputError, match=f"cannot read {re.escape(str(tmp_path))}: "):
        read_recipe(tmp_path)
    with pytest.raises(InputError, match="is not TOML"):
        read("name: qm9")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(InputError, match="is not TOML"):
        read_recipe(tmp_path / "latin.toml")


def test_a_recipe_is_plain_numbers_and_text_for_json() -> None:
    held = read_recipe(QM9).as_dict()
    assert set(held) == {field.name for field in fields(Recipe)}
    assert TaskRecipe(**held["tasks"][0]) == read_recipe(QM9).tasks[0]
    assert TrainConfig(**held["mora"]) == read_recipe(QM9).mora


# --- the command's options


@pytest.fixture
def trained_by(monkeypatch: pytest.MonkeyPatch, run):
    """Runs `mora-lite train` without training; returns exit code, error text and the recipe it would train by."""
    from mora_lite.training import pipeline

    def trained_by(*arguments: object) -> tuple[int, str, Recipe | None]:
        recipes: list[Recipe] = []

        pack = SimpleNamespace(path=Path("out"), provenance={"test": {}}, name="out", nbytes=0)

        def prepare(recipe, *_args):
            recipes.append(recipe)
            return (Path("base"), None), None

        monkeypatch.setattr(pipeline, "_prepare", prepare)
        monkeypatch.setattr(pipeline, "lock", nullcontext)
        for name in ("_train", "evaluate", "record_metrics", "install_pack", "copy_file"):
            monkeypatch.setattr(pipeline, name, lambda *_args, **_options: pack)
        code, _, err = run("train", "data.csv", *arguments, "-o", "out")
        return code, err, recipes[0] if recipes else None

    return trained_by


def test_without_options_the_recipe_is_followed(trained_by) -> None:
    code, err, recipe = trained_by("--recipe", QM9)
    assert (code, recipe) == (0, read_recipe(QM9))
    written = [line.split(":")[0] for line in err.splitlines()]
    assert written == ["out", "out.report.html", "out.run", "next"], "the paths and the next command alone"


def test_options_win_over_the_recipe(trained_by) -> None:
    options = [
        "--smiles-column",
        "S",
        "--base",
        "models/llama",
        "--encoder-epochs",
        "2",
        "--epochs",
        "3",
        "--batch-size",
        "4",
        "--seed",
        "5",
        "--patience",
        "6",
        "--start",
        "structures",
        "--unquantized",
    ]
    assert read_recipe(QM9).four_bit
    _, _, recipe = trained_by("-r", QM9, *options)
    assert (recipe.smiles, recipe.base, recipe.seed) == ("S", "models/llama", 5)
    assert (recipe.encoder.epochs, recipe.mora.epochs) == (2, 3)
    assert recipe.encoder.batch_size == recipe.mora.batch_size == 4
    assert recipe.encoder.patience == recipe.mora.patience == 6
    assert recipe.encoder.seed == recipe.mora.seed == recipe.split.seed == 5
    assert (recipe.start, recipe.four_bit) == ("structures", False)
    assert recipe.split.train == 110_000
    assert recipe.mora.encoder_lr_scale == read_recipe(QM9).mora.encoder_lr_scale
    assert recipe.tasks == read_recipe(QM9).tasks


@pytest.mark.parametrize(
    ("n_train", "epochs"),
    [(0, (30, 12)), (8, (30, 12)), (1000, (30, 12)), (1500, (20, 8)), (2000, (15, 6)), (10**6, (15, 6))],
)
def test_larger_tables_get_fewer_epochs(n_train: int, epochs: tuple[int, int]) -> None:
    recipe = Recipe("r", (TaskRecipe("a"),))
    chosen = recipe.with_epochs(n_train)
    assert (chosen.encoder.epochs, chosen.mora.epochs) == epochs
    own = replace(recipe, encoder=replace(ENCODER, epochs=99), mora=replace(MORA, epochs=1))
    assert own.with_epochs(n_train) == own, "what a recipe says stays"


def test_a_seed_that_is_a_date_and_a_time_is_one_line(trained_by) -> None:
    code, err, _ = trained_by("-t", "logS", "--seed", "20250131123000")
    assert (code, err) == (2, "error: seed: got 20250131123000, expected a number below 4294967296\n")


def test_a_seed_of_the_split_alone_is_kept(trained_by, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("seed = 1\n[split]\nseed = 7\ntrain = 8\nvalid = 1\n" + TASK)
    _, _, recipe = trained_by("--recipe", tmp_path / "mine.toml")
    assert (recipe.seed, recipe.split) == (1, Split(7, 8, 1))


def test_targets_make_a_recipe(trained_by) -> None:
    _, _, recipe = trained_by("--target", "logS:mol/L", "-t", "logD", "--epochs", "2")
    assert recipe.name == "out"
    assert [(task.name, task.unit, task.kind) for task in recipe.tasks] == [("logS", "mol/L", ""), ("logD", "", "")]
    assert (recipe.mora.epochs, recipe.encoder) == (2, ENCODER)
    assert recipe.split is None


def test_one_target_is_one_text() -> None:
    """In Python, where it would otherwise be taken letter by letter."""
    assert [task.name for task in choose_recipe(None, "logS:mol/L", "mine").tasks] == ["logS"]


def test_a_target_may_say_its_kind(trained_by) -> None:
    _, _, recipe = trained_by("-t", "active: class", "-t", "count :value", "-t", "a:b:class", "-t", "c:d: nM")
    found = [(task.name, task.unit, task.kind) for task in recipe.tasks]
    assert found == [("active", "", "class"), ("count", "", "value"), ("a:b", "", "class"), ("c:d", "nM", "")]
    assert recipe.tasks[1].column == "count ", "as a table may have it"


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ("random", Split(4, 0, 0, "random")),
        ("scaffold", Split(4, 0, 0, "scaffold")),
        ("part", Split(4, 0, 0, "given", "part")),
        ("given", Split(4, 0, 0, "given", "given")),
    ],
)
def test_the_split_is_by_chance_by_scaffold_or_by_a_column(trained_by, kind: str, split: Split) -> None:
    assert trained_by("-t", "logS", "--split", kind, "--seed", "4")[2].split == split
    assert trained_by("-r", QM9, "--split", kind, "--seed", "4")[2].split == split, "not with the recipe's numbers"


def test_a_recipe_or_targets_but_not_both(trained_by) -> None:
    code, err, _ = trained_by()
    assert code == 2
    assert "name at least one column" in err
    code, err, _ = trained_by("--recipe", QM9, "--target", "logS")
    assert code == 2
    assert "leave --target out" in err


def test_a_column_whose_name_has_a_colon_is_found_whole() -> None:
    recipe = choose_recipe(None, ["Sol (mg/mL): pH 7", "a:b:nM", "c:class", "d:class"], "x")
    columns = ["smiles", "Sol (mg/mL): pH 7", "Sol (mg/mL)", "a:b", "c : Class", "d"]
    tasks = with_whole_names(recipe, columns).tasks
    assert [(task.name, task.column, task.unit, task.kind) for task in tasks] == [
        ("Sol (mg/mL): pH 7", "Sol (mg/mL): pH 7", "", ""),
        ("a:b", "a:b", "nM", ""),
        ("c : Class", "c : Class", "", ""),
        ("d", "d", "", "class"),
    ]


def test_a_recipe_that_names_column_and_unit_is_followed(read) -> None:
    recipe = read('[[task]]\nname = "a"\nunit = "b"\nprompt = "Question: a?"\n')
    assert with_whole_names(recipe, ["a", "a:b"]) == recipe
