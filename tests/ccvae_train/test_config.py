"""Settings and recipes: what is taken, and the one line for what is not."""

from pathlib import Path

import pytest

from ccvae_deploy.errors import CCVAEError, UsageError
from ccvae_deploy.schema import Label, LabelSet
from ccvae_train.config import make_config, read_recipe, with_label_dims
from ccvae_train.datasets.mnist import FASHION_MNIST, MNIST
from ccvae_train.datasets.source import open_dataset, settled

RECIPES = Path(__file__).resolve().parents[2] / "train" / "recipes"
LABEL_OF = {which.kind: which.label for which in (MNIST, FASHION_MNIST)}


def test_the_mark_before_utf_8_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbfepochs = 3\n")
    assert read_recipe(tmp_path / "r.toml") == {"epochs": 3}


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_valid_run(recipe: Path) -> None:
    kind = next(kind for kind in ("celeba", "chexpert", "mnist", "fashion-mnist") if recipe.stem.startswith(kind))
    with pytest.raises(CCVAEError, match=f"{kind}:DIR"):
        open_dataset(make_config(read_recipe(recipe)).data)
    config = settled(make_config(read_recipe(recipe) | {"data": f"{kind}:x"}))
    assert f"--recipe {recipe.stem} --data {kind}:DIR" in recipe.read_text()
    if "mnist" in kind:
        _, layout = with_label_dims(LabelSet(labels=(LABEL_OF[kind],)), config)
        assert layout.blocks == (10,)


def test_a_recipe_goes_by_its_name_even_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "celeba").mkdir()
    assert read_recipe(Path("celeba")) == read_recipe(RECIPES / "celeba.toml")
    with pytest.raises(UsageError, match=r"no recipe celebs, and no such file of settings; did you mean celeba\?"):
        read_recipe(Path("celebs"))
    (tmp_path / "celebs").write_text("epochs = 3")
    assert read_recipe(Path("celebs")) == {"epochs": 3}


@pytest.mark.parametrize("kind", ["celeba", "chexpert", "mnist", "fashion-mnist"])
def test_every_data_set_of_the_paper_has_its_setting(kind: str) -> None:
    paper = read_recipe(RECIPES / f"{kind}-paper.toml")
    assert (paper["estimator"], paper["epochs"], paper["batch_size"]) == ("paper", 100, 200)
    assert make_config(paper).learning_rate == 1e-4
    assert make_config(paper).supervision == 1
    assert make_config(read_recipe(RECIPES / f"{kind}.toml")).estimator == "exact"
    baselines = read_recipe(RECIPES / f"{kind}-paper-baselines.toml")
    theirs, its_own = (settled(make_config(recipe | {"data": f"{kind}:x"})) for recipe in (baselines, paper))
    for one in ("epochs", "batch_size", "learning_rate", "weight_decay", "decoder_optimiser", "likelihood_scale"):
        assert getattr(theirs, one) == getattr(its_own, one), one
    assert (theirs.class_balance, theirs.labelled_passes) == (0, 0)


def test_estimators_have_weights_of_their_own() -> None:
    """What docs/training.md states."""

    def weights(**settings: object) -> tuple[float, ...]:
        config = settled(make_config(settings))
        own = (config.labelled_passes, config.class_balance, config.weight_decay, config.likelihood_scale)
        return config.label_weight, config.agreement_weight, *own

    assert weights() == (2000, 200, 5, 0.5, 0.5, 0.15)
    assert weights(supervision=0.2) == weights(supervision=0.5) == (4000, 200, 5, 0.5, 0.5, 0.15)
    assert weights(supervision=0.004)[:3] == (4000, 200, 30)
    assert weights(image_size=32, channels=1)[:2] == pytest.approx((2000 / 12, 200 / 12))
    assert weights(estimator="paper") == (0, 0, 0, 0, 0, 1)
    assert weights(model="diva")[:2] == (2000, 0)
    assert weights(label_weight=5.0, likelihood_scale=0.5) == (5, 200, 5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [("epochs =", "cannot be read"), ("epoch = 3", "did you mean epochs"), ("\xff", "cannot be read")],
)
def test_recipes_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "r.toml")


def test_latents_are_shared_out() -> None:
    labels = LabelSet(labels=(Label(name="a"), Label(name="Left_Bar")))
    sized, layout = with_label_dims(labels, make_config({"latents": 10, "label_dims": {"left bar": 3}}))
    assert [label.dims for label in sized.labels] == [1, 3]
    assert (layout.blocks, layout.residual) == ((1, 3), 6)
    with pytest.raises(UsageError, match="2 labels need 12 latents, 10 given"):
        with_label_dims(labels, make_config({"latents": 10, "label_dims": {"LEFT_BAR": 11}}))
    with pytest.raises(UsageError, match="label_dims: 'a' and 'A' are one label; give it once"):
        with_label_dims(labels, make_config({"latents": 10, "label_dims": {"a": 2, "A": 3}}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"estimator": "paper", "class_balance": 0.5}, "leave out --class-balance$"),
        ({"estimator": "paper", "likelihood_scale": 0.15}, "leave out --likelihood-scale$"),
        ({"estimator": "paper", "unlabelled": "jensen"}, "leave out --unlabelled$"),
        ({"data": "mnist:x", "likelihood_scale": 0.1}, "bernoulli has none"),
        ({"likelihood": "bernoulli", "likelihood_scale": 0.1}, "bernoulli has none"),
        ({"model": "m2", "agreement_weight": 1.0}, "leave out --agreement-weight"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(settings, said) -> None:
    with pytest.raises(UsageError, match=said):
        settled(make_config(settings))


def test_settled_settings_can_be_settled_again() -> None:
    for settings in ({"data": "mnist:x"}, {"estimator": "paper"}, {"model": "diva"}):
        once = settled(make_config(settings))
        assert settled(make_config(once.model_dump())) == once
