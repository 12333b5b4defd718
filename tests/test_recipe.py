"""Recipes: the shipped one reads, a slip of the pen is told by name, options of the command win."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from mora_lite.dataset import Split
from mora_lite.errors import InputError, MoraLiteError
from mora_lite.recipe import MORA, PRETRAIN, Recipe, TaskRecipe, read_recipe
from mora_lite.scorer import AdapterSizes
from mora_lite.train import FitSettings

QM9 = Path(__file__).resolve().parents[1] / "examples" / "qm9.toml"
TASK = '[[task]]\nname = "logS"\n'


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
    assert recipe.mora.encoder_lr_scale < 1
    assert all(task.prompt.endswith("Answer:") and task.unit and task.description for task in recipe.tasks)


def test_everything_but_a_task_may_be_left_out(read) -> None:
    recipe = read(TASK)
    assert recipe == Recipe("mine", (TaskRecipe("logS"),))
    assert (recipe.pretrain, recipe.mora, recipe.adapter) == (PRETRAIN, MORA, AdapterSizes())
    assert recipe.split_of(1000) == Split(0, 800, 100)
    task = recipe.tasks[0]
    assert (task.column, task.unit, task.weight) == ("logS", "", 1.0)
    assert task.prompt == "Question: What is the logS of the molecule? Answer:"
    assert TaskRecipe("logS", unit="mol/L").prompt == "Question: What is the logS of the molecule in mol/L? Answer:"
    assert TaskRecipe("{odd}").prompt == "Question: What is the {odd} of the molecule? Answer:"


def test_one_seed_reaches_every_part(read) -> None:
    recipe = read("seed = 7\n[split]\ntrain = 8\nvalid = 1\n[mora]\nseed = 9\n" + TASK)
    assert (recipe.seed, recipe.pretrain.seed, recipe.mora.seed) == (7, 7, 9)
    assert recipe.split == Split(7, 8, 1)
    assert read("seed = 7\n" + TASK).split_of(100).seed == 7


def test_whole_numbers_do_where_numbers_are_expected(read) -> None:
    recipe = read("[adapter]\nalpha = 8\n" + TASK + "weight = 2")
    assert recipe.adapter.alpha == 8
    assert recipe.tasks[0].weight == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed = 1\n" + TASK, r"mine\.toml: unknown entry 'sed': did you mean seed"),
        ('[[tasks]]\nname = "logS"\n', "unknown entry 'tasks': did you mean task"),
        ("[adaptor]\nrank = 4\n" + TASK, "unknown entry 'adaptor': did you mean adapter"),
        ("[adapter]\nranks = 4\n" + TASK, "unknown entry 'ranks': did you mean rank"),
        ("[mora]\nepoch = 4\n" + TASK, "unknown entry 'epoch': did you mean epochs"),
        (TASK + 'units = "Ha"', "unknown entry 'units': did you mean unit"),
        ("[split]\ntrain = 4\n" + TASK, "Split: .*valid"),
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
        ("[pretrain]\nbatch_size = 0\n" + TASK, "batch_size: got 0, expected 1 or more"),
        ("[pretrain]\npeak_lr = '1e-3'\n" + TASK, "peak_lr: got '1e-3', expected a number"),
        ("[adapter]\nrank = '8'\n" + TASK, "rank: got '8', expected a whole number"),
        ("[adapter]\nrank = 0\n" + TASK, "rank: got 0, expected a number above 0"),
        ("[split]\ntrain = '1'\nvalid = 1\n" + TASK, "train: got '1', expected a whole number"),
        ("adapter = 3\n" + TASK, r"adapter: got 3, expected a table \[adapter\]"),
        ("split = [1, 2]\n" + TASK, r"split: got \[1, 2\], expected a table"),
        (TASK + "weight = '2'", "weight: got '2', expected a number"),
        (TASK + "weight = 0", "'logS': got weight 0, expected a name and a weight above 0"),
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


def test_files_that_are_not_recipes(read, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe"):
        read_recipe(tmp_path / "no.toml")
    with pytest.raises(InputError, match="is not TOML"):
        read("name: qm9")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(InputError, match="is not TOML"):
        read_recipe(tmp_path / "latin.toml")


def test_a_recipe_is_plain_numbers_and_text_for_json() -> None:
    held = read_recipe(QM9).as_dict()
    assert set(held) == {field.name for field in fields(Recipe)}
    assert TaskRecipe(**held["tasks"][0]) == read_recipe(QM9).tasks[0]
    assert FitSettings(**held["mora"]) == read_recipe(QM9).mora


# --- the command's options


@pytest.fixture
def trained_by(monkeypatch: pytest.MonkeyPatch, run):
    """Runs `mora-lite train` without training; returns exit code, error text and the recipe it would train by."""
    from mora_lite import training

    def trained_by(*arguments: object) -> tuple[int, str, Recipe | None]:
        recipes: list[Recipe] = []

        def train_pack(recipe, *_args, **_options):
            recipes.append(recipe)
            return SimpleNamespace(provenance={"test": {}})

        monkeypatch.setattr(training, "train_pack", train_pack)
        code, _, err = run("train", *arguments, "--data", "data.csv", "-o", "out")
        return code, err, recipes[0] if recipes else None

    return trained_by


def test_without_options_the_recipe_is_followed(trained_by) -> None:
    assert trained_by(QM9) == (0, "", read_recipe(QM9))


def test_options_win_over_the_recipe(trained_by) -> None:
    options = [
        "--smiles-column",
        "S",
        "--base",
        "models/llama",
        "--pretrain-epochs",
        "2",
        "--epochs",
        "3",
        "--batch-size",
        "4",
        "--seed",
        "5",
    ]
    _, _, recipe = trained_by(QM9, *options)
    assert (recipe.smiles, recipe.base, recipe.seed) == ("S", "models/llama", 5)
    assert (recipe.pretrain.epochs, recipe.mora.epochs) == (2, 3)
    assert recipe.pretrain.batch_size == recipe.mora.batch_size == 4
    assert recipe.pretrain.seed == recipe.mora.seed == recipe.split.seed == 5
    assert recipe.split.train == 110_000
    assert recipe.mora.encoder_lr_scale == read_recipe(QM9).mora.encoder_lr_scale
    assert recipe.tasks == read_recipe(QM9).tasks


def test_targets_make_a_recipe(trained_by) -> None:
    _, _, recipe = trained_by("--target", "logS:mol/L", "--target", "logD", "--epochs", "2")
    assert recipe.name == "out"
    assert [(task.name, task.unit) for task in recipe.tasks] == [("logS", "mol/L"), ("logD", "")]
    assert (recipe.mora.epochs, recipe.pretrain) == (2, PRETRAIN)


def test_a_recipe_or_targets_but_not_both(trained_by) -> None:
    code, err, _ = trained_by()
    assert code == 2
    assert "at least one --target" in err
    code, err, _ = trained_by(QM9, "--target", "logS")
    assert code == 2
    assert "leave --target out" in err
