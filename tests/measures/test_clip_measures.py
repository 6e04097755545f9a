"""Generated clips against held-out ones: which sets are compared, and what is recorded."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from tests.evals.test_video_statistics import moving_pictures
from tpdiff_jax.evals.i3d_weights import I3DWeights
from tpdiff_jax.evals.video_statistics import statistics_distance, video_statistics
from tpdiff_jax.measures import clip_measures
from tpdiff_jax.measures.clip_measures import ClipMeasures, MeasureSpec


@dataclasses.dataclass
class Clips:
    """A data set of the counts and clips that a test wants."""

    counts: dict[str, int]
    num_frames: int = 8
    is_pixels: bool = True
    null_cond: bool = True
    without_caption: tuple[int, ...] = ()
    fps: float = 8.0
    frame_shape: tuple[int, int, int] = (24, 24, 3)

    def __post_init__(self):
        self.frames = {s: moving_pictures(n, len(s)) for s, n in self.counts.items() if n}

    def num_clips(self, split):
        return self.counts[split]

    def clip(self, split, seed, index):
        assert seed == 0
        video = self.frames[split][index].astype(np.float32) / 127.5 - 1
        caption = "" if index in self.without_caption else f"{split} {index}"
        return {"video": video, "caption": caption, "text": np.full(3, index)}

    @property
    def cond_shapes(self):
        return {"text": ((3,), np.dtype(np.int64))}

    def fingerprint(self):
        return {"manifest_sha256": "abc"}


def as_video(frames):
    return frames.astype(np.float32) / 127.5 - 1


@pytest.mark.parametrize(
    "counts, wanted, num_clips, real, other",
    [
        ((40, 90), 30, 30, "test, from 0", "train, from 0"),
        ((80, 0), 30, 30, "test, from 0", "test, from 30"),
        ((20, 90), 30, 20, "test, from 0", "train, from 0"),
        ((20, 10), 30, 10, "test, from 0", "test, from 10"),
        ((1, 90), 30, 30, "train, from 0", "train, from 30"),
        ((0, 25), 30, 12, "train, from 0", "train, from 12"),
    ],
)
def test_all_sets_are_equally_large_and_disjoint(counts, wanted, num_clips, real, other):
    dataset = Clips(dict(zip(("test", "train"), counts, strict=True)))
    facts = ClipMeasures(MeasureSpec(), dataset, wanted).facts()
    assert facts["clips_in_every_set"] == num_clips
    assert (facts["real_clips"], facts["other_real_clips"]) == (real, other)


@pytest.mark.parametrize("counts", [(0, 3), (1, 1), (0, 0)])
def test_too_few_clips_or_latents_cannot_be_measured(counts):
    dataset = Clips(dict(zip(("test", "train"), counts, strict=True)))
    assert not ClipMeasures(MeasureSpec(), dataset, 8).is_possible
    latents = Clips({"test": 8, "train": 8}, is_pixels=False)
    assert not ClipMeasures(MeasureSpec(), latents, 8).is_possible


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_frames": 2}, "clips have [f, h, w, c] [2, 24, 24, 3], and 3 frames of 8 pixels"),
        ({"frame_shape": (24, 7, 3)}, "clips have [f, h, w, c] [8, 24, 7, 3]"),
        ({"frame_shape": (24, 24, 1)}, "clips have [f, h, w, c] [8, 24, 24, 1]"),
        ({"num_frames": 3, "frame_shape": (8, 8, 3)}, ""),
    ],
)
def test_clips_that_statistics_do_not_take_are_not_measured(changes, told):
    measures = ClipMeasures(MeasureSpec(), Clips({"test": 60, "train": 0}, **changes), 30)
    assert measures.is_possible == (not told)
    assert len(measures.notes) == bool(told) and told in "".join(measures.notes)
    short = Clips({"test": 60, "train": 0}, is_pixels=False)
    decoded = ClipMeasures(MeasureSpec(), short, 30, lambda latents: latents[:, :2])
    assert not decoded.is_possible and "[2, 24, 24, 3]" in decoded.notes[0]


def test_one_video_is_no_set_however_many_clips_there_are():
    measures = ClipMeasures(MeasureSpec(), Clips({"test": 9, "train": 9}), 1)
    assert not measures.is_possible
    told = "nothing is measured: eval.num_videos=1, and a set needs two videos"
    assert measures.notes == [told]


def test_fvd_of_latents_that_decode_to_too_few_frames_is_left_out(networks):
    latents = Clips({"test": 60, "train": 0}, is_pixels=False)
    spec = dataclasses.replace(networks, clip_folder="")
    measures = ClipMeasures(spec, latents, 30, lambda latents: latents)
    told = "fvd is not measured: clips have 8 frames, and I3D needs 9"
    assert measures.is_possible and measures.notes == [told]
    assert set(measures(as_video(moving_pictures(30, 3)))["metrics"]) == {"statistics"}


def test_latents_are_decoded_before_they_are_measured():
    """Latents of half the size, each pixel four times: figures are those of the large frames."""

    def decode(latents):
        return latents.repeat(2, axis=2).repeat(2, axis=3)

    latents = Clips({"test": 12, "train": 12}, is_pixels=False)
    measures = ClipMeasures(MeasureSpec(), latents, 12, decode)
    generated = moving_pictures(12, 5)
    evaluation = measures(as_video(generated))
    real = video_statistics(decode(latents.frames["test"]))
    expected = statistics_distance(video_statistics(decode(generated)), real, real)
    assert evaluation["metrics"]["statistics"] == pytest.approx(expected)
    assert evaluation["measurement"]["frame_size"] == "48x48"


def test_videos_are_asked_for_what_the_real_clips_show():
    cond = ClipMeasures(MeasureSpec(), Clips({"test": 1, "train": 9}), 4).conditions()
    np.testing.assert_array_equal(cond["text"], np.repeat(np.arange(4)[:, None], 3, axis=1))


def test_the_figures_are_those_of_the_sets():
    dataset = Clips({"test": 40, "train": 40})
    measures = ClipMeasures(MeasureSpec(), dataset, 40)
    generated = moving_pictures(40, 9)
    evaluation = measures(as_video(generated))
    real = video_statistics(dataset.frames["test"])
    expected = statistics_distance(video_statistics(generated), real, real)
    assert evaluation["metrics"] == {"statistics": pytest.approx(expected)}
    ceiling = statistics_distance(video_statistics(dataset.frames["train"]), real, real)
    references = {name: row["statistics"] for name, row in evaluation["references"].items()}
    assert references["ceiling"] == pytest.approx(ceiling)
    assert references["frozen"] > 5 * ceiling and references["shuffled"] > 5 * ceiling
    assert evaluation["metric_info"]["statistics"]["direction"] == "lower"
    assert measures(as_video(dataset.frames["test"]))["metrics"]["statistics"] < 1e-6


@pytest.fixture
def networks(monkeypatch, tmp_path):
    """Stand-ins for I3D and CLIP: features and cosines that a test can work out."""
    weights = I3DWeights({}, "f" * 64, {"source": "i3d.pt", "source_sha256": "e" * 64})
    monkeypatch.setattr(clip_measures, "load_i3d", lambda path: weights)

    def features(weights, clips, *, kernel):
        assert kernel == "legacy"
        return clips.mean((2, 3)).reshape(len(clips), -1)

    def scorer(folder):
        def score(frames, caption):
            return np.full(len(frames), 0.3 if "5" in caption else 0.1)

        return SimpleNamespace(sha256="d" * 64, similarities=score)

    monkeypatch.setattr(clip_measures, "i3d_features", features)
    monkeypatch.setattr(clip_measures, "ClipScorer", scorer)
    (tmp_path / "i3d").touch()
    return MeasureSpec(
        fvd_weights=str(tmp_path / "i3d"), fvd_resize="legacy", clip_folder=str(tmp_path)
    )


def test_networks_add_their_figures_and_are_named_by_hash(networks):
    dataset = Clips({"test": 40, "train": 40}, num_frames=9)
    dataset.frames = {
        split: np.concatenate([clips, clips[:, -1:]], axis=1)
        for split, clips in dataset.frames.items()
    }
    measures = ClipMeasures(networks, dataset, 10)
    evaluation = measures(as_video(dataset.frames["test"][:10]))
    assert evaluation["metrics"]["fvd"] == pytest.approx(0.0, abs=1e-2)
    assert evaluation["references"]["ceiling"]["fvd"] > 1.0
    # Captions "test 0" to "test 9": one holds a 5.
    assert evaluation["metrics"]["clipsim"] == pytest.approx(12.0)
    assert evaluation["references"]["others"] == {"clipsim": pytest.approx(12.0)}
    facts = evaluation["measurement"]
    assert facts["fvd_resize"] == "legacy" and facts["fvd_weights"] == "f" * 64
    assert facts["fvd_source"] == "i3d.pt" and facts["clip_weights"] == "d" * 64
    assert facts["frames"] == 9 and facts["fps"] == 8.0 and facts["frame_size"] == "24x24"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"null_cond": False}, "clipsim is not measured: the run is trained without captions"),
        (
            {"without_caption": tuple(range(29))},
            "clipsim is not measured: of 30 clips 1 has a caption, and two are needed",
        ),
    ],
)
def test_without_captions_there_is_no_clipsim(networks, changes, told):
    dataset = Clips({"test": 60, "train": 0}, **changes)
    spec = dataclasses.replace(networks, fvd_weights="")
    measures = ClipMeasures(spec, dataset, 30)
    evaluation = measures(as_video(moving_pictures(30, 3)))
    assert set(evaluation["metrics"]) == {"statistics"} and measures.notes == [told]


def test_clips_without_a_caption_are_left_out_of_clipsim(networks):
    """Captions "test 4" to "test 29": of 26, three hold a 5; the rest would score 0.1."""
    dataset = Clips({"test": 60, "train": 0}, without_caption=(0, 1, 2, 3))
    spec = dataclasses.replace(networks, fvd_weights="")
    measures = ClipMeasures(spec, dataset, 30)
    assert measures.notes == ["clipsim is that of 26 clips of 30: the others have no caption"]
    evaluation = measures(as_video(moving_pictures(30, 3)))
    expected = pytest.approx(100 * (3 * 0.3 + 23 * 0.1) / 26)
    assert evaluation["metrics"]["clipsim"] == expected
    references = evaluation["references"]
    assert references["ceiling"]["clipsim"] == references["others"]["clipsim"] == expected


def test_bad_fields_are_named(networks):
    for fields, told in (
        ({"fvd_weights": "nowhere"}, "measure.fvd_weights='nowhere' is not a file"),
        ({"clip_folder": "nowhere"}, "measure.clip_folder='nowhere' is not a folder"),
        ({"fvd_resize": "cubic"}, "measure.fvd_resize is 'cubic'; allowed: 'half_pixel', 'legacy'"),
    ):
        with pytest.raises(ValueError, match=told):
            MeasureSpec(**fields)
    with pytest.raises(ValueError, match="measure.fvd_weights must be '' for clips of 8 frames"):
        ClipMeasures(networks, Clips({"test": 4, "train": 4}), 4)


def test_a_set_of_another_size_is_refused():
    measures = ClipMeasures(MeasureSpec(), Clips({"test": 12, "train": 12}), 6)
    with pytest.raises(ValueError, match="5 videos; every set that is compared has 6"):
        measures(as_video(moving_pictures(5, 3)))
