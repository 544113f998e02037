"""`encode`: what the file holds, what is found again, and what is refused of a stranger's file."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from ccvae_deploy import images
from ccvae_deploy.classify import classify_folder
from ccvae_deploy.cli import app
from ccvae_deploy.composer import Composer
from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.encode import encode_folder
from ccvae_deploy.errors import BundleError, CCVAEError, UsageError
from ccvae_deploy.folder import in_shard, scan
from ccvae_deploy.inspection import inspect
from ccvae_deploy.latent_store import LatentStore, encoded_rows
from ccvae_deploy.merge import merge_folders
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.pipeline import edit_folder


@pytest.fixture
def latents(pictures, tiny_bundle, tmp_path) -> Path:
    """The nine pictures, encoded."""
    encode_folder([pictures], bundle=tiny_bundle, out=tmp_path / "latents.safetensors", batch_size=4)
    return tmp_path / "latents.safetensors"


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_a_row_is_what_the_composer_says(pictures, latents, composer: Composer) -> None:
    store = LatentStore.open(latents, composer.bundle)
    assert len(store) == 9
    sources = scan([pictures]).sources
    assert [row.source for row in store] == [source.relative for source in sources]
    seen = [
        images.network_input(decode(source.path.read_bytes()), composer.bundle.manifest.image) for source in sources
    ]
    encoded = composer.encode(np.stack(seen))
    for i, source in enumerate(sources):
        row = store.row(source.relative)
        assert row is not None
        np.testing.assert_array_equal(row.z_loc, encoded.z[i])
        np.testing.assert_allclose(row.z_scale, 0.1, atol=1e-7)
        np.testing.assert_array_equal(row.before, encoded.before[i])
        assert row.control == pytest.approx(float(encoded.control[i]), rel=1e-6)
    again = encoded_rows(composer, list(store))
    np.testing.assert_array_equal(again.z, encoded.z)
    np.testing.assert_array_equal(again.decoded, encoded.decoded)
    np.testing.assert_array_equal(again.control, encoded.control)


def test_the_file_is_plain_safetensors_of_the_same_bytes_for_any_batch(
    pictures, tiny_bundle, latents, composer
) -> None:
    tensors = load_file(latents)
    assert tensors["sha256"].shape == (9, 32)
    assert bytes(tensors["paths"][: tensors["path_ends"][0]]) == b"a.png"
    assert metadata_of(latents) == {"format": "ccvae-latents", "schema_version": "2", "bundle": composer.bundle.digest}
    other = latents.with_name("other.safetensors")
    encode_folder([pictures], bundle=tiny_bundle, out=other, batch_size=16)
    assert other.read_bytes() == latents.read_bytes()
    assert {path.name for path in latents.parent.iterdir() if path.is_file()} == {
        *(latents.name, "latents.failures.jsonl", other.name, "other.failures.jsonl")
    }


def test_inspect_says_what_the_file_is_for(latents: Path) -> None:
    with pytest.raises(BundleError, match=r"holds latents that `encode` has made.*`edit --latents`"):
        inspect(latents)


def test_what_is_not_there_is_none(latents, composer: Composer) -> None:
    store = LatentStore.open(latents, composer.bundle)
    assert store.row("deep/e.jpg") is not None
    for name in ("", "a", "a.pn", "a.png2", "deep", "zzz", "\udcff"):
        assert store.row(name) is None


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
def test_any_name_survives(pictures, tiny_bundle, composer: Composer, tmp_path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"caf\xe9.png", "ümlaut.png".encode(), b"new\nline.png", b"x" * 250 + b".png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes((pictures / "a.png").read_bytes())
    encode_folder([folder], bundle=tiny_bundle, out=tmp_path / "odd.safetensors")
    store = LatentStore.open(tmp_path / "odd.safetensors", composer.bundle)
    assert [os.fsencode(row.source) for row in store] == sorted(names)
    assert all(store.row(os.fsdecode(name)) is not None for name in names)


def test_a_bad_file_is_recorded_and_ends_with_1(pictures, tiny_bundle, composer: Composer, tmp_path) -> None:
    (pictures / "bad.png").write_text("no image")
    (pictures / "notes.txt").write_text("no image either")
    out = tmp_path / "l.safetensors"
    result = CliRunner().invoke(app, ["encode", str(pictures), "--bundle", str(tiny_bundle), "--out", str(out)])
    assert result.exit_code == 1, result.output
    assert "latents of 9 images" in result.stdout
    assert "1 other file passed over" in result.stdout
    (failure,) = map(json.loads, (tmp_path / "l.failures.jsonl").read_text("ascii").splitlines())
    assert failure["source"] == "bad.png"
    assert LatentStore.open(out, composer.bundle).row("bad.png") is None
    only = tmp_path / "only.safetensors"
    with pytest.raises(UsageError, match=r"no image could be read; the first is bad\.png"):
        encode_folder([pictures / "bad.png"], bundle=tiny_bundle, out=only)
    assert not only.exists()


def test_a_file_that_is_there_is_replaced_when_asked(pictures, tiny_bundle, latents) -> None:
    before = latents.read_bytes()
    with pytest.raises(UsageError, match="is there; add --overwrite"):
        encode_folder([pictures], bundle=tiny_bundle, out=latents)
    assert latents.read_bytes() == before
    latents.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        encode_folder([pictures], bundle=tiny_bundle, out=latents.with_suffix(".npz"))
    encode_folder([pictures], bundle=tiny_bundle, out=latents, overwrite=True)
    assert latents.read_bytes() == before


def test_a_folder_is_no_name_for_latents(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"safetensors"):
        encode_folder([pictures], bundle=tiny_bundle, out=Path())


def test_a_scale_that_is_none_is_refused_before_it_is_stored(
    pictures, composer: Composer, monkeypatch, tmp_path
) -> None:
    encoder = composer.bundle.graphs["encoder"]
    graphs = composer.bundle.graphs | {"encoder": lambda image: (encoder(image)[0], 0 * encoder(image)[1])}
    strange = Composer(replace(composer.bundle, graphs=graphs))
    monkeypatch.setattr(Composer, "open", lambda *_, **__: strange)
    with pytest.raises(BundleError, match="gives a scale of 0, expected one above 0"):
        encode_folder([pictures], bundle=tmp_path, out=tmp_path / "l.safetensors")
    assert not (tmp_path / "l.safetensors").exists()


def test_names_as_long_as_the_file_system_takes(pictures, tiny_bundle, tmp_path) -> None:
    given = {"bundle": tiny_bundle, "out": tmp_path / ("x" * 241 + ".safetensors")}
    with pytest.raises(UsageError, match="would be too long a name"):
        encode_folder([pictures], **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imgs"]
    out = tmp_path / ("\u6587" * 83 + ".csv")
    classify_folder([pictures], bundle=tiny_bundle, out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["imgs", out.name])


def test_latents_of_another_bundle_are_refused(latents, composer: Composer) -> None:
    with pytest.raises(UsageError, match="another bundle"):
        LatentStore.open(latents, replace(composer.bundle, digest="0" * 64))
    for name, out in (("absent.safetensors", latents.with_name("absent.safetensors")), ("", "latents.safetensors")):
        with pytest.raises(UsageError, match=f"no latents at .*; make them with .* --out {out}`$"):
            LatentStore.open(latents.parent / name, composer.bundle)


def changed(name: str, change):
    def alter(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = change(tensors[name].copy())

    return alter


def put(index, value):
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (changed("z_loc", put((3, 2), np.nan)), "z_loc has values that are not finite"),
        (changed("z_scale", put((8, 0), 0)), "not positive"),
        (changed("before", put((0, 0), 1.5)), "no probabilities"),
        (changed("control", put(1, np.inf)), "control has values"),
        (changed("z_loc", lambda a: a[:, :7]), "other shapes or types"),
        (changed("z_loc", lambda a: a.astype(np.float64)), "other shapes or types"),
        (changed("size", put((2, 1), 0)), "size has values that no picture has"),
        (changed("size", put(4, 60_000)), "size has values"),
        (changed("kind", put((1, 0), 2)), "kind has values that no picture has"),
        (changed("kind", put((1, 1), 5)), "kind has values"),
        (changed("sha256", lambda a: a[:8]), "other shapes or types"),
        (changed("path_ends", put(0, 2**62)), "outside the paths"),
        (changed("path_ends", put(1, 5)), "1 to 4,096 bytes"),
        (changed("paths", put(0, ord("z"))), "not relative or not in order"),
        (changed("paths", put(0, ord("/"))), "not relative or not in order"),
        (changed("paths", lambda a: np.append(a, a)), "belong to no row"),
        (lambda tensors: tensors.pop("control"), "no latents of"),
        (lambda tensors: tensors.update(extra=np.zeros(1)), "no latents of"),
    ],
)
def test_a_strangers_tensors_are_refused(alter, message, latents, composer: Composer, tmp_path) -> None:
    tensors = load_file(latents)
    alter(tensors)
    save_file(tensors, tmp_path / "s.safetensors", metadata_of(latents))
    with pytest.raises(UsageError, match=message):
        LatentStore.open(tmp_path / "s.safetensors", composer.bundle)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 3000), byte=st.integers(0, 255), cut=st.booleans())
def test_any_byte_opens_or_is_refused(at, byte, cut, latents, composer: Composer) -> None:
    data = bytearray(latents.read_bytes())
    at %= len(data)
    data[at] = byte
    broken = latents.with_name("broken.safetensors")
    broken.write_bytes(data[:at] if cut else data)
    # anything but one of our errors fails the test
    with suppress(CCVAEError):
        assert len(list(LatentStore.open(broken, composer.bundle))) == 9


def test_edits_from_latents_are_the_same_bytes(pictures, tiny_bundle, latents, tmp_path, monkeypatch) -> None:
    given = {"bundle": tiny_bundle, "set": ["smiling=1"], "samples": 2}
    edit_folder([pictures], out=tmp_path / "plain", **given)
    with monkeypatch.context() as patched:
        patched.setattr(Composer, "encode", lambda *_: pytest.fail("the encoder ran for sources"))
        edit_folder([pictures], out=tmp_path / "stored", latents=latents, **given)
    names = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*") if path.is_file())
    assert len(names) == 18 + 5
    for name in names:
        assert (tmp_path / "stored" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_latents_of_version_1_are_refused_in_one_line(latents, composer: Composer, tmp_path) -> None:
    tensors = {name: array for name, array in load_file(latents).items() if name not in ("size", "kind")}
    save_file(tensors, tmp_path / "old.safetensors", metadata_of(latents) | {"schema_version": "1"})
    with pytest.raises(UsageError, match=r"old\.safetensors has another schema version than 2; encode again"):
        LatentStore.open(tmp_path / "old.safetensors", composer.bundle)


def test_a_frame_survives(tmp_path, tiny_bundle, composer: Composer) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.new("L", (30, 50), 90).save(folder / "grey.png")
    Image.new("RGB", (7, 9), "red").save(folder / "lossless.webp", lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(folder / "turned.jpg", exif=exif)
    encode_folder([folder], bundle=tiny_bundle, out=tmp_path / "f.safetensors")
    frames = [row.frame for row in LatentStore.open(tmp_path / "f.safetensors", composer.bundle)]
    assert [one.size for one in frames] == [(30, 50), (7, 9), (20, 40)]
    assert [one.pixels.ndim for one in frames] == [2, 3, 3]
    assert [(one.format, one.lossless) for one in frames] == [("png", False), ("webp", True), ("jpeg", False)]
    assert not any(one.read for one in frames)


@pytest.fixture
def unread(pictures, tiny_bundle, latents, tmp_path, receipts) -> dict:
    """Options of a run that decodes from latents, the sources gone; a run that read them is in `read`."""
    given = {"bundle": tiny_bundle, "set": ["smiling=1"], "samples": 2, "compose": "decode"}
    edit_folder([pictures], out=tmp_path / "read", **given)
    shutil.rmtree(pictures)
    return given | {"latents": latents}


def test_decoding_from_latents_reads_no_source(unread, tmp_path, receipts, monkeypatch) -> None:
    out = tmp_path / "unread"
    with monkeypatch.context() as patched:
        patched.setattr(Composer, "encode", lambda *_: pytest.fail("the encoder ran for sources"))
        summary = edit_folder([], out=out, report=True, **unread)
    assert (summary.sources, summary.written, summary.failed, summary.pixel_change) == (9, 18, 0, None)
    found, expected = receipts(out), receipts(tmp_path / "read")
    assert {row.pop("pixel_change") for row in found} == {None}
    assert len({row.pop("settings") for row in found} | {row.pop("settings") for row in expected}) == 2
    assert all(row.pop("pixel_change") > 0 for row in expected)
    # output_sha256 is among what is left
    assert found == expected
    assert all((out / row["output"]).read_bytes() == (tmp_path / "read" / row["output"]).read_bytes() for row in found)
    assert (out / "sheet.png").exists()
    page = (out / "report.html").read_text()
    assert "not compared: the sources were not read" in page
    assert "source not read" in page
    assert edit_folder([], out=out, **unread).skipped == 9


def test_decoding_from_latents_in_shards_and_forecast(unread, tmp_path, tree, receipts) -> None:
    for index in range(2):
        edit_folder([], out=tmp_path / "parts", shard=f"{index}/2", sheet=False, **unread)
    merge_folders([tmp_path / "parts"])
    forecast = dry_run([], out=tmp_path / "parts", **unread)
    assert (forecast.sources, forecast.units["done"], forecast.outputs) == (9, 9, 0)
    assert dry_run([], out=tmp_path / "new", **unread).examples[0] == "a__smiling=1__00.png"
    edit_folder([], out=tmp_path / "whole", sheet=False, **unread)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    limited = edit_folder([], out=tmp_path / "small", sheet=False, max_pixels=3000, **unread)
    assert 0 < limited.failed < 9


def test_read_and_unread_are_other_settings(unread, tmp_path, tiny_bundle) -> None:
    with pytest.raises(UsageError, match="made with other settings"):
        edit_folder([], out=tmp_path / "read", **unread)
    (entry,) = json.loads((tmp_path / "read/settings.json").read_text()).values()
    # as versions wrote it that always read
    assert "read" not in entry
    edit_folder([], out=tmp_path / "read", overwrite=True, **unread)
    entries = json.loads((tmp_path / "read/settings.json").read_text()).values()
    assert [entry.get("read", True) for entry in entries].count(False) == 1
    with pytest.raises(UsageError, match="no images are given"):
        edit_folder([], out=tmp_path / "new", **(unread | {"compose": "residual"}))


def test_a_source_that_is_not_that_of_its_latents_fails(pictures, tiny_bundle, latents, tmp_path) -> None:
    (pictures / "new.png").write_bytes((pictures / "a.png").read_bytes())
    (pictures / "g.png").write_bytes((pictures / "a.png").read_bytes())
    summary = edit_folder(
        [pictures], bundle=tiny_bundle, set=["smiling=1"], latents=latents, out=tmp_path / "o", sheet=False
    )
    assert (summary.written, summary.failed) == (8, 2)
    failures = map(json.loads, (tmp_path / "o" / "failures.jsonl").read_text("ascii").splitlines())
    assert {row["source"]: row["reason"].split(";")[0] for row in failures} == {
        "g.png": "changed since it was encoded",
        "new.png": "not among the latents",
    }


def test_a_part_without_images_is_told(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    alone = pictures / "a.png"
    parts = [index for index in range(8) if not in_shard("a.png", index, 8)]
    with pytest.raises(UsageError, match=f"--shard {parts[0]}/8 holds none of these images"):
        encode_folder([alone], bundle=tiny_bundle, out=tmp_path / "l.safetensors", shard=f"{parts[0]}/8")
    assert not (tmp_path / "l.safetensors").exists()
