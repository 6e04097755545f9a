"""Folders of TensorFlow Datasets as a data set: read without TensorFlow, pure, and trained from."""

import json
import pathlib
import sys

import numpy as np
import pytest

from configs import tfds_folder
from tests.data.tfds_files import write_tfds_folder
from tests.tiny import SIZES, set_field
from tpdiff_jax.clips.bad_clips import TooManyBadClipsError
from tpdiff_jax.data import TfdsFolderSpec, make_iterator
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.files.open_files import OpenFilesError
from tpdiff_jax.train import train

KNOWN = pathlib.Path(__file__).parent / "known_clips" / "1.0.0"  # written by TFDS itself
SHAPE = (4, 8, 6, 3)
NUM_TRAIN, NUM_TEST = 7, 3


def clip_of(number):
    """A clip whose pixels all say its number."""
    return np.full(SHAPE, number, np.uint8), f"clip {number}"


def number_of(clip):
    return round((float(clip["video"].flat[0]) + 1) * 127.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    splits = {
        "train": [clip_of(i) for i in range(NUM_TRAIN)],
        "test": [clip_of(100 + i) for i in range(NUM_TEST)],
    }
    return write_tfds_folder(tmp_path_factory.mktemp("tfds") / "1.0.0", splits, SHAPE)


@pytest.fixture(scope="module")
def dataset(folder):
    return TfdsFolderSpec(folder=str(folder))


def test_a_folder_that_tfds_wrote_is_read_exactly():
    """Clip k has the pixels k, k + 1, k + 2, k + 3 in its four frames."""
    known = TfdsFolderSpec(folder=str(KNOWN))
    assert (known.num_clips("train"), known.num_clips("test")) == (5, 0)
    assert known.num_frames == 4 and known.frame_shape == (4, 4, 3) and known.is_pixels
    numbers = set()
    for index in range(5):
        clip = known.clip("train", 0, index)
        number = number_of(clip)
        expected = (number + np.arange(4)) / 127.5 - 1
        np.testing.assert_allclose(clip["video"].mean((1, 2, 3)), expected, atol=1e-6)
        assert clip["caption"] == f"clip {number}" and clip["video"].dtype == np.float32
        numbers.add(number)
    assert numbers == {0, 1, 2, 3, 4}
    assert "tensorflow" not in sys.modules


def test_every_epoch_has_every_clip_once_in_an_order_of_its_own(dataset):
    epochs = [
        [number_of(dataset.clip("train", 5, e * NUM_TRAIN + i)) for i in range(NUM_TRAIN)]
        for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(NUM_TRAIN)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    test = [number_of(dataset.clip("test", 5, i)) for i in range(NUM_TEST)]
    assert sorted(test) == [100, 101, 102]


def test_clips_are_pure_and_threads_change_nothing(dataset):
    def batches(num_threads, start_step):
        return make_iterator(
            dataset,
            "train",
            3,
            lambda step: range(2 * step, 2 * step + 2),
            start_step=start_step,
            num_threads=num_threads,
        )

    whole = [next(b) for b in [batches(0, 0)] for _ in range(5)]
    resumed = [next(b) for b in [batches(2, 2)] for _ in range(3)]
    for left, right in zip(whole[2:], resumed, strict=True):
        np.testing.assert_array_equal(left["video"], right["video"])
        assert left["cond"]["label"].shape == (2, 0)


def test_flips_mirror_training_clips_only(tmp_path):
    ramp = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None], SHAPE).copy()
    splits = {"train": [(ramp, "a")] * 4, "validation": [(ramp, "b")]}
    path = write_tfds_folder(tmp_path / "1.0.0", splits, SHAPE)
    dataset = TfdsFolderSpec(folder=str(path), horizontal_flip=True)
    lefts = {
        round((dataset.clip("train", 0, i)["video"][0, 0, 0, 0] + 1) * 127.5) for i in range(8)
    }
    assert lefts == {0, 5}
    assert dataset.clip("test", 0, 0)["video"][0, 0, 0, 0] == -1  # validation serves as test


@pytest.mark.parametrize("name", ["val", "Valid", "dev", "holdout"])
def test_a_held_out_split_goes_by_every_name_that_preparation_knows(tmp_path, name):
    splits = {"training": [clip_of(0)], name: [clip_of(1)], "other": [clip_of(2)]}
    dataset = TfdsFolderSpec(folder=str(write_tfds_folder(tmp_path / "1.0.0", splits, SHAPE)))
    assert (dataset.num_clips("train"), dataset.num_clips("test")) == (1, 1)
    assert number_of(dataset.clip("test", 0, 0)) == 1
    splits = {name: [clip_of(1)], "train": [clip_of(0)], "test": [clip_of(3)]}
    both = TfdsFolderSpec(folder=str(write_tfds_folder(tmp_path / "2.0.0", splits, SHAPE)))
    assert number_of(both.clip("test", 0, 0)) == 3  # the one that is called so


def test_floats_are_taken_as_they_are(tmp_path):
    latents = [(np.full((4, 2, 2, 5), 3.5, np.float32), "x")] * 2
    path = write_tfds_folder(tmp_path / "1.0.0", {"train": latents}, (4, 2, 2, 5), np.float32)
    dataset = TfdsFolderSpec(folder=str(path))
    assert not dataset.is_pixels and dataset.num_clips("test") == 0
    assert (dataset.clip("train", 0, 0)["video"] == 3.5).all()
    with pytest.raises(ValueError, match="data.horizontal_flip must be False"):
        TfdsFolderSpec(folder=str(path), horizontal_flip=True)


def test_a_damaged_record_is_replaced_by_the_next_of_the_order(folder, tmp_path, dataset):
    copy = tmp_path / "1.0.0"
    copy.mkdir()
    for path in folder.iterdir():
        content = bytearray(path.read_bytes())
        if "train" in path.name:
            content[content.index(b"clip 2") + 3] ^= 1
        (copy / path.name).write_bytes(content)
    lenient = TfdsFolderSpec(folder=str(copy), max_bad_share=0.5)
    order = [number_of(dataset.clip("train", 1, i)) for i in range(NUM_TRAIN)]
    found = [number_of(lenient.clip("train", 1, i)) for i in range(NUM_TRAIN)]
    place = order.index(2)
    assert found == [*order[:place], order[(place + 1) % NUM_TRAIN], *order[place + 1 :]]
    strict = TfdsFolderSpec(folder=str(copy))
    with pytest.raises(TooManyBadClipsError, match="1 of 7 records of split train"):
        for i in range(NUM_TRAIN):
            strict.clip("train", 1, i)


def test_the_fingerprint_follows_the_files(folder, tmp_path, dataset):
    copy = tmp_path / "1.0.0"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert TfdsFolderSpec(folder=str(copy)).fingerprint() == dataset.fingerprint()
    shard = next(path for path in copy.iterdir() if "test" in path.name)
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert TfdsFolderSpec(folder=str(copy)).fingerprint() != dataset.fingerprint()


def changed(folder, target, name, change):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    content = json.loads((target / name).read_text())
    change(content)
    (target / name).write_text(json.dumps(content))
    return str(target)


def test_bad_folders_and_fields_are_named(folder, tmp_path):
    def other_format(info):
        info["fileFormat"] = "tfrecord"

    def foreign_class(features):
        features["featuresDict"]["features"]["video"]["pythonClassName"] = "antigravity.Video"

    def outside(info):
        info["splits"][0]["filepathTemplate"] = "../{DATASET}-{SPLIT}"

    info, features = "dataset_info.json", "features.json"
    cases = [
        (changed(folder, tmp_path / "a", info, other_format), "in the format 'tfrecord'"),
        (changed(folder, tmp_path / "b", features, foreign_class), "'antigravity.Video' is no"),
        (changed(folder, tmp_path / "c", info, outside), "leads out of the folder"),
        (str(tmp_path), "dataset_info.json is not a readable JSON file"),
    ]
    for path, told in cases:
        with pytest.raises(ValueError, match=told):
            TfdsFolderSpec(folder=path)
    assert "antigravity" not in sys.modules
    for fields, told in (
        ({"video_key": "clip"}, "data.video_key='clip' is no feature; there are caption, video"),
        ({"caption_key": "text"}, "data.caption_key='text' is no feature"),
        ({"fps": 0.0}, "data.fps=0.0 must be positive"),
        ({"max_bad_share": 2.0}, r"data.max_bad_share=2.0 must lie in \[0, 1\]"),
        ({"video_key": "caption"}, r"holds arrays of shape \(\); allowed"),
        ({"caption_key": "video"}, r"data.caption_key='video' holds ndarray; allowed: one text"),
    ):
        with pytest.raises(ValueError, match=told):
            TfdsFolderSpec(folder=str(folder), **fields)


def test_whole_numbers_that_are_no_pixels_are_refused(tmp_path):
    clips = [(np.zeros((2, 4, 4, 3), np.int32), "a cat")]
    path = write_tfds_folder(tmp_path / "1.0.0", {"train": clips}, (2, 4, 4, 3), np.int32)
    with pytest.raises(ValueError, match=r"data.video_key='video' holds int32; allowed: uint8"):
        TfdsFolderSpec(folder=str(path))


@pytest.mark.parametrize(
    "template",
    ["{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", "{SPLIT}_{SHARD_INDEX}-{NUM_SHARDS}.rec", ""],
)
def test_shards_are_found_by_the_names_that_the_folder_states(folder, dataset, tmp_path, template):
    """As TFDS names them on request; without a template by its own."""

    def renamed(info):
        for split in info["splits"]:
            split["filepathTemplate"] = template

    path = pathlib.Path(changed(folder, tmp_path / "1.0.0", "dataset_info.json", renamed))
    names = {"FILEFORMAT": "array_record", "SHARD_X_OF_Y": "00000-of-00001"}
    names |= {"SHARD_INDEX": "00000", "NUM_SHARDS": "00001"}
    for split in ("train", "test") if template else ():
        shard = path / f"clips-{split}.array_record-00000-of-00001"
        shard.rename(path / template.format(SPLIT=split, **names))
    again = TfdsFolderSpec(folder=str(path))
    assert again.num_clips("test") == NUM_TEST
    for index in range(NUM_TRAIN):
        assert number_of(again.clip("train", 0, index)) == number_of(
            dataset.clip("train", 0, index)
        )
    shard = next(path.glob("*test*"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    changed_one = TfdsFolderSpec(folder=str(path)).fingerprint()
    assert changed_one != again.fingerprint(), "every shard is part of it"


def test_shards_that_are_not_there_are_named(folder, tmp_path):
    def renamed(info):
        info["splits"][0]["filepathTemplate"] = "{SPLIT}-of-mine"

    path = changed(folder, tmp_path / "1.0.0", "dataset_info.json", renamed)
    with pytest.raises(ValueError, match=r"lacks the shards \{SPLIT\}-of-mine of train"):
        TfdsFolderSpec(folder=path)


def test_unknown_splits_and_negative_numbers_are_refused(dataset):
    for split, seed, index, told in (
        ("validation", 0, 0, "split is 'validation'"),
        ("train", -1, 0, "seed and index"),
        ("train", 0, -1, "seed and index"),
    ):
        with pytest.raises(ValueError, match=told):
            dataset.clip(split, seed, index)
    with pytest.raises(ValueError, match="--caption"):
        dataset.captions_to_labels(["a cat"])


@pytest.mark.slow
def test_training_runs_on_a_folder_and_is_measured(tmp_path):
    rng = np.random.default_rng(0)
    splits = {
        split: [(rng.integers(0, 256, (8, 16, 16, 3), np.uint8), f"{i}") for i in range(n)]
        for split, n in (("train", 8), ("test", 4))
    }
    folder = write_tfds_folder(tmp_path / "1.0.0", splits, (8, 16, 16, 3))
    config = tfds_folder.get_config()
    sizes = {name: value for name, value in SIZES.items() if not name.startswith("data.")}
    small = {"train.batch_size": 4, "alignment.group_size": 4, "train.num_steps": 2}
    small |= {"data.folder": str(folder), "pyramid.frame_strides": (2, 1), "sample.num_steps": 2}
    for name, value in (sizes | small).items():
        set_field(config, name, value)
    train(build_experiment(config), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["counts"]["steps"] == 2 and results["metrics"]["statistics"] > 0
    assert results["measurement"]["clips_in_every_set"] == 4


def test_exchanged_or_replaced_shards_of_the_same_size_are_another_data_set(tmp_path):
    def clips(first):
        return [(np.full((2, 4, 4, 3), first + i, np.uint8), "a cat") for i in range(3)]

    def write(name, train, test):
        return write_tfds_folder(tmp_path / name, {"train": train, "test": test}, (2, 4, 4, 3))

    def exchange(folder):
        train, test = sorted(folder.glob("*.array_record*"), reverse=True)
        assert train.stat().st_size == test.stat().st_size, "else the sizes would tell"
        content = train.read_bytes()
        train.write_bytes(test.read_bytes())
        test.write_bytes(content)

    def copy_over(folder):
        train, test = sorted(folder.glob("*.array_record*"), reverse=True)
        train.write_bytes(test.read_bytes())

    prints = {"intact": TfdsFolderSpec(folder=str(write("a", clips(0), clips(50)))).fingerprint()}
    prints["again"] = TfdsFolderSpec(folder=str(write("b", clips(0), clips(50)))).fingerprint()
    for name, change in (("exchanged", exchange), ("copied", copy_over)):
        folder = write(name, clips(0), clips(50))
        change(folder)
        prints[name] = TfdsFolderSpec(folder=str(folder)).fingerprint()
    others = write("others", clips(100), clips(50))
    prints["replaced"] = TfdsFolderSpec(folder=str(others)).fingerprint()
    assert prints["intact"] == prints.pop("again")
    assert len({json.dumps(facts) for facts in prints.values()}) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(splits="train"),
        lambda info: info.update(splits=[3]),
        lambda info: info["splits"][0].pop("name"),
        lambda info: info["splits"][0].update(name="../train"),
        lambda info: info["splits"][0].update(name="tr*n"),
        lambda info: info["splits"][0].update(shardLengths="3"),
        lambda info: info["splits"][0].update(shardLengths=["three"]),
        lambda info: info["splits"][0].update(shardLengths=[-3]),
        lambda info: info["splits"][0].update(shardLengths=["1" + "0" * 17]),
        lambda info: info["splits"][0].update(shardLengths=[10**40]),
    ],
)
def test_odd_facts_of_a_folder_are_one_line(change, tmp_path):
    video = np.zeros((2, 4, 4, 3), np.uint8)
    folder = write_tfds_folder(tmp_path / "a", {"train": [(video, "a cat")]}, video.shape)
    info = json.loads((folder / "dataset_info.json").read_text())
    change(info)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"data\.folder") as error:
        TfdsFolderSpec(folder=str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_the_limit_of_open_files_is_no_damage(folder, dataset, monkeypatch):
    """As ArrayRecord words it, when the first record is read and later."""

    class Full:
        def __len__(self):
            return NUM_TRAIN

        def __getitem__(self, place):
            raise RuntimeError("open() failed: Too many open files; opening a.array_record")

    monkeypatch.setattr("tpdiff_jax.data.tfds_folder.open_split", lambda *_: Full())
    for read in (
        lambda: dataset.clip("train", 0, 0),
        lambda: TfdsFolderSpec(folder=str(folder), max_bad_share=1.0),
    ):
        with pytest.raises(OpenFilesError, match=r"has 2 shards, .* \(ulimit -n\)"):
            read()
