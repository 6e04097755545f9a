"""GIF and APNG are read with their own timing; still images are refused by that name."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.preparation.video_files import picture, read_index
from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.caption_tables import Columns, read_sources
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips

SPEC = ClipFormat(
    buckets=(Bucket(8, 64, 96),),
    fps=Fraction(8),
    clips_per_video=1,
    max_pixels=10**9,
    max_seconds=100.0,
)


def write_animation(path, durations, name=None, pictures=None):
    """Frames shown for so many milliseconds each; every picture shows its index."""
    images = [Image.fromarray(picture(i)) for i in range(len(durations))]
    images = pictures or images
    images[0].save(
        path, name, save_all=True, append_images=images[1:], duration=list(durations), loop=0
    )
    return path


def nearest(durations, num_frames=8, fps=8.0):
    times = np.concatenate([[0], np.cumsum(durations[:-1])]) / 1000
    start = max(times[-1] - (num_frames - 1) / fps, 0.0) / 2
    targets = start + np.arange(num_frames) / fps
    return [int(np.argmin(np.abs(times - target) - 1e-9 * (times < target))) for target in targets]


def indices(path):
    (clip,) = read_clips(path, SPEC)
    return [read_index(frame) for frame in clip]


def reason(path):
    with pytest.raises(BadClipError) as bad:
        read_clips(path, SPEC)
    return bad.value.reason


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.gif", "GIF"), ("a.apng", "PNG"), ("a.png", "PNG"), ("a.mp4", "GIF"), ("b.mp4", "PNG")],
)
@pytest.mark.parametrize("timing", ["constant", "variable"])
def test_animations_are_read_with_their_own_times(tmp_path, name, kind, timing):
    rng = np.random.default_rng(5)
    durations = [40] * 60 if timing == "constant" else rng.choice([20, 50, 110], 60).tolist()
    path = write_animation(tmp_path / name, durations, kind)
    assert indices(path) == nearest(durations)


def test_delays_too_short_to_be_meant_are_a_tenth_of_a_second(tmp_path):
    """As every browser shows GIFs that ask for no delay, or for one of 10 ms."""
    for delay in (0, 10):
        path = write_animation(tmp_path / f"{delay}.gif", [delay] * 20)
        assert indices(path) == nearest([100] * 20)


def test_frames_that_store_only_what_changes_are_whole(tmp_path):
    """A dot moves over a picture that only the first frame stores."""
    images = []
    for i in range(40):
        frame = picture(170)
        frame[40:44, 2 * i : 2 * i + 4] = (220, 30, 30)
        images.append(Image.fromarray(frame))
    for kind, name in (("GIF", "a.gif"), ("PNG", "a.apng")):
        path = write_animation(tmp_path / name, [50] * 40, kind, images)
        (clip,) = read_clips(path, SPEC)
        chosen = nearest([50] * 40)
        for frame, i in zip(clip, chosen, strict=True):
            exact = np.asarray(images[i].convert("RGB"))
            np.testing.assert_array_equal(frame, exact)


def test_an_apng_of_few_colours_is_refused(tmp_path):
    """FFmpeg 8 unpacks palettes of fewer than 8 bits wrongly in frames that store only a part."""
    images = []
    for i in range(40):
        indices_of_palette = np.zeros((64, 96), np.uint8)
        indices_of_palette[20:30, 2 * i : 2 * i + 5] = 3
        images.append(Image.fromarray(indices_of_palette).convert("P"))
        images[-1].putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0, 0, 0, 250])
    path = write_animation(tmp_path / "a.apng", [50] * 40, "PNG", images)
    assert reason(path) == "unreadable"


def test_transparent_parts_of_an_animation_are_black(tmp_path):
    images = []
    for i in range(30):
        frame = np.zeros((64, 96, 4), np.uint8)
        frame[16:48, i : i + 20] = (250, 200, 10, 255)
        images.append(Image.fromarray(frame))
    for kind, name in (("GIF", "a.gif"), ("PNG", "a.apng")):
        path = write_animation(tmp_path / name, [60] * 30, kind, images)
        (clip,) = read_clips(path, SPEC)
        assert (clip[:, :12] == 0).all() and (clip[:, 20:44].max((1, 2)) > 240).any()


def test_a_gif_that_is_cut_gives_a_clip_or_a_reason(tmp_path):
    whole = write_animation(tmp_path / "a.gif", [50] * 40).read_bytes()
    for share in (0.02, 0.3, 0.8):
        path = tmp_path / "b.gif"
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            assert len(read_clips(path, SPEC)) == 1
        except BadClipError as bad:
            assert bad.reason in ("too_short", "corrupt", "unreadable", "truncated", "still_image")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_still_image_is_refused_as_one(tmp_path, kind, name):
    content = io.BytesIO()
    Image.fromarray(picture(5)).save(content, kind)
    (tmp_path / name).write_bytes(content.getvalue())
    assert reason(tmp_path / name) == "still_image"


def test_an_animated_webp_is_refused_as_one_whether_or_not_its_decoder_reads_it(tmp_path):
    """A folder gives the same clips everywhere: only PyAV 19, for Python 3.12 and later, reads it.

    Before, its decoder refuses each animation.
    """
    path = write_animation(tmp_path / "a.mp4", [50] * 40, "WEBP")
    assert reason(path) == "still_image"
    reads = int(av.__version__.split(".")[0]) >= 19
    with av.open(str(path)) as container:
        if reads:
            assert len(list(container.decode(video=0))) == 40
        else:
            with pytest.raises(av.FFmpegError):
                list(container.decode(video=0))


def test_folders_of_animations_are_found(tmp_path):
    write_animation(tmp_path / "a.gif", [50] * 4)
    write_animation(tmp_path / "b.apng", [50] * 4, "PNG")
    Image.fromarray(picture(1)).save(tmp_path / "c.png")
    columns = Columns(path="", caption="", motion="", aesthetic="", split="")
    clips, left = read_sources(tmp_path, None, columns, max_caption_bytes=100)
    assert [clip.path for clip in clips] == ["a.gif", "b.apng"] and not left
