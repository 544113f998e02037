"""What a data set sets for itself, and that a run remembers it."""

from pathlib import Path

import pytest

from ccvae_deploy.errors import DataError, UsageError
from ccvae_train.checkpoint import load_run
from ccvae_train.config import SettledConfig, TrainConfig, make_config
from ccvae_train.datasets.source import KINDS, open_dataset, settled
from ccvae_train.datasets.writer import write_portraits
from ccvae_train.training import train

from .test_chexpert import layout


@pytest.mark.parametrize(
    ("source", "size", "channels", "uncertain"),
    [
        ("portraits", 64, 3, None),
        ("celeba:x", 64, 3, None),
        ("table:x", 64, 3, None),
        ("chexpert:x", 64, 1, "ignore"),
        ("mnist:x", 32, 1, None),
        ("fashion-mnist:x", 32, 1, None),
    ],
)
def test_defaults_follow_the_data_set(source: str, size: int, channels: int, uncertain: str | None) -> None:
    config = settled(make_config({"data": source}))
    assert (config.image_size, config.channels, config.uncertain) == (size, channels, uncertain)
    assert config.likelihood == ("bernoulli" if "mnist" in source else "laplace")
    assert settled(config) == config
    assert SettledConfig.model_validate_json(config.model_dump_json()) == config
    assert source.partition(":")[0] in KINDS


def test_what_is_given_stays() -> None:
    given = {"data": "chexpert:x", "image_size": 128, "channels": 3, "uncertain": "ones", "likelihood": "laplace"}
    given |= {"label_weight": 3.0, "class_balance": 0.0, "labelled_passes": 4.0, "weight_decay": 0.0}
    given |= {"likelihood_scale": 0.4, "agreement_weight": 7.0}
    given |= {"encoder_optimiser": "adamw", "decoder_optimiser": "adamw"}
    assert settled(make_config(given)).model_dump() == make_config(given).model_dump()


@pytest.mark.parametrize(("supervision", "weight"), [(1.0, 2000), (0.5, 4000), (0.06, 4000), (0.8, 2500)])
def test_a_run_stores_what_its_estimator_takes(supervision: float, weight: float) -> None:
    config = settled(make_config({"data": "celeba:x", "supervision": supervision}))
    found = (config.label_weight, config.class_balance, config.labelled_passes, config.weight_decay)
    assert found == (weight, 0.5, 5, 0.5)
    assert config.likelihood_scale == 0.15
    grey = settled(make_config({"data": "mnist:x", "supervision": supervision}))
    assert (config.agreement_weight, settled(make_config({"data": "celeba:x", "model": "diva"})).agreement_weight) == (
        200,
        0,
    )
    assert (grey.label_weight, grey.agreement_weight) == pytest.approx((weight / 12, 200 / 12))
    assert grey.likelihood_scale == 1
    paper = settled(make_config({"data": "celeba:x", "estimator": "paper"}))
    assert (paper.label_weight, paper.class_balance, paper.labelled_passes, paper.weight_decay) == (0, 0, 0, 0)
    assert paper.likelihood_scale == 1
    for one, optimiser in ((config, "muon"), (grey, "muon"), (paper, "adamw")):
        assert (one.encoder_optimiser, one.decoder_optimiser) == (optimiser, optimiser)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "table:x", "uncertain": "ones"}, "--uncertain ones: table has no uncertain labels"),
        ({"data": "chexpert:x", "uncertain": "maybe"}, "--uncertain 'maybe': input should be 'zeros', 'ones' or"),
        ({"data": "mnist:x", "image_size": 28}, "--image-size 28: input should be 32, 64 or 128"),
        ({"data": "mnist"}, "--data 'mnist': expected mnist:DIR"),
        ({"data": "fashionmnist:x"}, "did you mean fashion-mnist:DIR"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        settled(make_config(settings))
    assert "\n" not in str(caught.value)


def test_settings_of_an_older_run_are_read() -> None:
    """They had a size and channels always, and no `uncertain`."""
    written = '{"data": "celeba:x", "image_size": 64, "channels": 3, "label_dims": {}}'
    config = TrainConfig.model_validate_json(written)
    assert settled(config).data == config.data
    assert (settled(config).image_size, settled(config).channels) == (64, 3)


def test_a_run_remembers_what_its_data_set_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = f"chexpert:{layout(tmp_path / 'data')}"
    small = {"data": source, "labels": ("cardiomegaly",), "latents": 4, "batch_size": 2, "device": "cpu"}
    run = train(small | {"epochs": 1}).run
    config = load_run(run).state.config
    assert (config.image_size, config.channels, config.uncertain) == (64, 1, "ignore")
    assert load_run(run).image.channels == 1
    assert train({"image_size": 64, "uncertain": "ignore"}, resume=True).finished
    with pytest.raises(UsageError, match="uncertain is 'ignore' there, not 'ones'"):
        train({"uncertain": "ones"}, resume=True)


def test_a_home_stands_behind_a_colon_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_portraits(tmp_path / "faces", 24, seed=0, size=32)
    found = open_dataset("table:~/faces", size=32)
    assert len(found.train) + len(found.valid) == 24
    with pytest.raises(DataError, match=f"--data table:~/absent: {tmp_path}/absent is no folder"):
        open_dataset("table:~/absent")
