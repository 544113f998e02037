"""The functions of commands, as a program calls them: text for paths, and nothing printed."""

from pathlib import Path

import pytest

from ccvae_deploy.audit import audit
from ccvae_deploy.bundle import open_bundle
from ccvae_deploy.classify import classify_folder
from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.encode import encode_folder
from ccvae_deploy.errors import UsageError
from ccvae_deploy.generate import generate_folder
from ccvae_deploy.latent_store import LatentStore
from ccvae_deploy.merge import merge_folders
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.report import write_report
from ccvae_deploy.swap_folder import swap_folder
from ccvae_deploy.traverse import traverse
from ccvae_deploy.variance import variance


@pytest.fixture
def options(tiny_bundle: Path) -> dict[str, str]:
    return {"bundle": str(tiny_bundle), "provider": "cpu"}


def test_paths_may_be_text(pictures: Path, options: dict[str, str], tmp_path: Path, capfd) -> None:
    one, at = str(pictures / "a.png"), f"{tmp_path}/"
    assert edit_folder([one], set=["smiling=1"], out=f"{at}edited", **options).written == 1
    assert classify_folder([one], out=f"{at}labels.csv", **options).sources == 1
    assert encode_folder([one], out=f"{at}latents.safetensors", **options).sources == 1
    assert swap_folder([one], from_=one, labels=["smiling"], out=f"{at}swapped", **options).written == 1
    assert traverse(one, labels=["smiling"], out=f"{at}walk.png", **options).cells
    assert variance(one, samples=2, out=f"{at}maps.png", **options).maps.size
    assert generate_folder(count=1, set={"smiling": 1}, out=f"{at}generated", **options).written == 1
    assert merge_folders([f"{at}edited"], f"{at}merged").receipts == 1
    assert capfd.readouterr() == ("", "")


def test_what_is_opened_and_written_by_hand_takes_text_too(
    pictures: Path, options: dict[str, str], tmp_path: Path
) -> None:
    encode_folder([pictures / "a.png"], out=tmp_path / "latents.safetensors", **options)
    bundle = open_bundle(options["bundle"], provider="cpu")
    assert len(LatentStore.open(f"{tmp_path}/latents.safetensors", bundle)) == 1
    summary = edit_folder([pictures / "a.png"], set=["smiling=1"], out=tmp_path / "edited", **options)
    page = write_report(str(tmp_path), bundle.manifest.labels, (), summary, {})
    assert page == tmp_path / "report.html"
    for call in (open_bundle, lambda path: LatentStore.open(path, bundle)):
        for url in ("s3://b/o", Path("s3://b/o")):
            with pytest.raises(UsageError, match=r"^s3://b/o: a URL"):
                call(url)


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_may_stand_alone(kind, pictures: Path, options: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    imgs = kind(pictures.name)
    assert dry_run(imgs, set=["smiling=1"], **options).sources == 9
    assert edit_folder(imgs, set=["smiling=1"], out="edited", **options).written == 9
    assert classify_folder(imgs, out="labels.csv", **options).sources == 9
    assert encode_folder(imgs, out="latents.safetensors", **options).sources == 9
    assert swap_folder(imgs, from_=imgs, labels=["smiling"], out="swapped", **options).written == 9
    assert merge_folders(kind("edited")).receipts == 9


@pytest.mark.parametrize(
    "call",
    [
        lambda one, **options: edit_folder([one], set=["smiling=1"], **options),
        lambda one, **options: classify_folder([one], **options),
        lambda one, **options: encode_folder([one], **options),
        lambda one, **options: swap_folder([one], from_=one, labels=["smiling"], **options),
        lambda one, **options: traverse(one, labels=["smiling"], **options),
        lambda one, **options: variance(one, **options),
        lambda _, **options: generate_folder(count=1, **options),
        lambda one, out, **_: merge_folders([one], out),
        lambda one, bundle, **options: audit(bundle, model="theirs.onnx", images=[one], **options),
    ],
)
def test_a_path_without_text_is_no_folder(call, pictures: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="a path is empty"):
        call(str(pictures), out="", **options)


@pytest.mark.parametrize(("imgs", "out"), [("a\0b", "o"), ("imgs", "a\0b")])
def test_a_path_with_a_zero_byte_is_refused(imgs, out, pictures: Path, options, monkeypatch) -> None:
    monkeypatch.chdir(pictures.parent)
    with pytest.raises(UsageError, match=r"^a b: a path with a zero byte; give one without$"):
        edit_folder(imgs, set=["smiling=1"], out=out, **options)


def test_a_url_is_for_edit_alone(pictures: Path, options: dict[str, str]) -> None:
    with pytest.raises(
        UsageError, match=r"s3://b/o: a URL, which only images and --out of `edit` may be; give a path of this machine"
    ):
        swap_folder([str(pictures)], from_=str(pictures), labels=["smiling"], out="s3://b/o", **options)
    with pytest.raises(UsageError, match=r"^s3://b/o: a URL"):
        edit_folder([str(pictures)], plan=Path("s3://b/o"), **options)
    with pytest.raises(UsageError, match=r"^s3://b/o: a URL"):
        audit(options["bundle"], model=Path("s3://b/o"), images=[pictures])
