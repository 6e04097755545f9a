"""Every data set by name has the members of the protocol, of the shapes that it declares."""

import inspect
import json

import numpy as np
import pytest

from tests.data.tfds_files import write_tfds_folder
from tests.preparation.video_files import write_video
from tests.test_prepare import make_spec
from tpdiff_jax.data import (
    DATASETS,
    ENDLESS,
    BucketedClips,
    ClipFacts,
    ClipShape,
    Dataset,
    MovingDigitsSpec,
    NumberedClips,
    clips_at_hand,
    to_frame_shape,
)
from tpdiff_jax.digits.digit_physics import DigitWorld
from tpdiff_jax.prepare import prepare


def moving_digits(folder):
    return {"num_frames": 4, "num_digits": 2, "frame_size": 64}


def video_records(folder):
    for i in range(3):
        write_video(folder / f"{i}.mp4", 40)
    rows = [f"{i}.mp4,{split}" for i, split in enumerate(("train", "train", "test"))]
    (folder / "table.csv").write_text("\n".join(["video,split", *rows]))
    prepare(make_spec(folder, table=str(folder / "table.csv")), folder / "out")
    return {"folder": str(folder / "out")}


def tfds_folder(folder):
    def clips(count):
        return [(np.full((4, 8, 6, 3), i, np.uint8), f"clip {i}") for i in range(count)]

    splits = {"train": clips(3), "test": clips(2)}
    return {"folder": str(write_tfds_folder(folder / "1.0.0", splits, (4, 8, 6, 3)))}


EXAMPLES = {f.__name__: f for f in (moving_digits, video_records, tfds_folder)}
"""Fields of the config group `data` of a small example of each data set."""


def members(protocol):
    """Names that a protocol and the protocols it extends declare."""
    return {
        name
        for part in protocol.__mro__[:-1]
        for name in vars(part)
        if not name.startswith("_") and part.__module__ == Dataset.__module__
    }


@pytest.fixture(scope="module", params=sorted(DATASETS))
def dataset(request, tmp_path_factory):
    fields = EXAMPLES[request.param](tmp_path_factory.mktemp(request.param))
    return DATASETS[request.param](**fields)


def test_the_protocols_are_parts_of_each_other():
    assert len(members(Dataset)) == 16
    assert members(ClipFacts) | members(NumberedClips) < members(Dataset)


def test_every_member_is_there_and_a_method_takes_the_declared_arguments(dataset):
    for name in members(Dataset):
        declared = inspect.getattr_static(Dataset, name)
        if isinstance(declared, property):
            assert not callable(getattr(dataset, name)), name
        else:
            taken = [*inspect.signature(getattr(dataset, name)).parameters]
            assert taken == [*inspect.signature(declared).parameters][1:], name


def test_facts_have_the_declared_types_and_ranges(dataset):
    assert dataset.num_frames >= 1 and isinstance(dataset.num_frames, int)
    assert len(dataset.frame_shape) == 3 and min(dataset.frame_shape) >= 1
    assert isinstance(dataset.is_pixels, bool | np.bool_)
    assert dataset.num_digits >= 0 and (dataset.num_classes > 0) == (dataset.num_digits > 0)
    assert dataset.fps > 0
    assert all(isinstance(dataset.encoders[part]["name"], str) for part in ("video", "text"))
    assert dataset.world is None or isinstance(dataset.world, DigitWorld)
    assert dataset.num_clips("train") >= 1 and dataset.num_clips("no such split") == 0
    facts = dataset.fingerprint()
    assert facts and json.loads(json.dumps(facts)) == facts == dataset.fingerprint()


def test_a_clip_has_the_declared_shapes_and_is_pure(dataset):
    for split in ("train", "test"):
        assert dataset.num_clips(split) > 0
        for index in (0, 1, 7):
            clip, again = dataset.clip(split, 3, index), dataset.clip(split, 3, index)
            assert clip["video"].shape == (dataset.num_frames, *dataset.frame_shape)
            assert clip["video"].dtype == np.float32
            assert not dataset.is_pixels or np.abs(clip["video"]).max() <= 1
            for name, (shape, dtype) in dataset.cond_shapes.items():
                assert (clip[name].shape, clip[name].dtype) == (shape, dtype)
            for name, value in clip.items():
                np.testing.assert_array_equal(value, again[name])
    assert dataset.cond_shapes["label"] == ((dataset.num_digits,), np.int32)
    assert all(label < dataset.num_classes for label in dataset.clip("train", 3, 0)["label"])


def test_the_empty_prompt_has_the_shapes_of_the_condition(dataset):
    shapes = {name: array.shape for name, array in dataset.null_cond.items()}
    assert shapes.items() <= {n: shape for n, (shape, _) in dataset.cond_shapes.items()}.items()


@pytest.mark.parametrize("count", [1, 5])
def test_requests_have_the_declared_shapes(dataset, count):
    requests = dataset.requests(count)
    assert requests.num_videos == count and len(requests.captions) in (0, count)
    assert set(requests.cond) == set(dataset.cond_shapes)
    for name, (shape, dtype) in dataset.cond_shapes.items():
        array = requests.cond[name]
        assert (array.shape, array.dtype) == ((count, *shape), dtype)


def test_captions_become_labels_or_are_refused(dataset):
    if dataset.num_digits:
        words = " and ".join(["digit 3"] * dataset.num_digits)
        labels = dataset.captions_to_labels([words, words])
        np.testing.assert_array_equal(labels, np.full((2, dataset.num_digits), 3, np.int32))
    with pytest.raises(ValueError, match="caption"):
        dataset.captions_to_labels(["nothing that has a label"])


@pytest.mark.parametrize("number", [("dev", 0, 0), ("train", -1, 0), ("train", 0, -1)])
def test_a_wrong_clip_number_is_refused_by_name(dataset, number):
    with pytest.raises(ValueError, match="split is 'dev'" if number[0] == "dev" else "seed and"):
        dataset.clip(*number)


def test_clips_that_are_drawn_on_demand_have_no_end():
    assert MovingDigitsSpec().num_clips("train") == MovingDigitsSpec().num_clips("test") == ENDLESS
    held_out = MovingDigitsSpec(speed_stratum="held_out")
    assert (held_out.num_clips("train"), held_out.num_clips("test")) == (0, ENDLESS)
    MovingDigitsSpec(num_frames=1).clip("test", 0, ENDLESS)


def test_a_shape_has_the_facts_of_clips_and_buckets_the_clips():
    shape = ClipShape(num_frames=8, frame_shape=(6, 4, 3), num_digits=2, num_classes=10)
    assert all(hasattr(shape, name) for name in members(ClipFacts))
    assert shape.cond_shapes == {"label": ((2,), np.dtype(np.int32))}
    digits = MovingDigitsSpec(num_frames=2)
    buckets = BucketedClips(buckets={"a": digits, "b": MovingDigitsSpec(num_frames=3)})
    assert all(hasattr(buckets, name) for name in members(NumberedClips))
    assert [len(buckets.clip("test", 0, i)["video"]) for i in range(4)] == [2, 3, 2, 3]
    np.testing.assert_array_equal(
        buckets.clip("test", 0, 2)["video"], digits.clip("test", 0, 1)["video"]
    )
    assert buckets.fingerprint()["b.num_frames"] == 3


def test_a_shape_alone_has_no_clips():
    digits = MovingDigitsSpec()
    assert clips_at_hand(digits) is digits
    with pytest.raises(ValueError, match="no clips: --frame_shape only compiles"):
        clips_at_hand(ClipShape(num_frames=8, frame_shape=(6, 4, 3)))


@pytest.mark.parametrize("numbers", [(), (6, 4), (6, 4, 3, 1), (6, 0, 3)])
def test_a_frame_shape_is_three_positive_numbers(numbers):
    with pytest.raises(ValueError, match="--frame_shape=.* must be height, width and channels"):
        to_frame_shape(numbers)
    with pytest.raises(ValueError, match="--frame_shape=.* must be height, width and channels"):
        ClipShape(num_frames=8, frame_shape=numbers)
    with pytest.raises(ValueError, match="--frame_shape: the number of frames is 0"):
        ClipShape(num_frames=0, frame_shape=(6, 4, 3))
    assert to_frame_shape([6, 4, 3]) == (6, 4, 3)
