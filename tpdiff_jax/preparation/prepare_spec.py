"""What `--mode=prepare` is asked to do: the config group `prepare`, checked."""

import dataclasses
import math
from fractions import Fraction
from typing import Any

from tpdiff_jax.checks import as_tuple, check_at_least, check_choice, check_range
from tpdiff_jax.clips.bucket import Bucket, parse_bucket
from tpdiff_jax.preparation.caption_tables import Columns
from tpdiff_jax.preparation.curation import CURATIONS
from tpdiff_jax.preparation.video_decode import ClipFormat

MISSING_FILES = ("bad", "leave_out")
MISSING_CAPTIONS = ("bad", "keep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """Fields of the config group `prepare`.

    Args:
        source: folder of the videos.
        also_allowed: further folders that the table's paths and links may lead to.
        table: file of captions and scores; "" looks for one in `source` and else takes the text
            files beside the videos, "sidecar" takes these anyway.
        path_column: column of the videos' paths, relative to `source`.
        caption_column: column of the captions.
        motion_column: column of the motion scores.
        aesthetic_column: column of the aesthetic scores.
        split_column: column that says train or test, where there is one.
        missing_files: "bad" counts rows without a file as bad, "leave_out" takes them for a part
            of a collection that was never downloaded.
        missing_captions: with a text encoder "bad" counts videos without a caption as bad, "keep"
            gives them the empty prompt.
        captions_per_video: so many captions of a video are stored, and one is drawn a step.
        curation: "everything" or "paper".
        top_both: share that both scores must reach.
        top_one: share that one of them must reach.
        max_caption_bytes: longer captions make a bad row.
        num_frames: frames per clip.
        fps: frames per second of a clip.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        buckets: shapes of clips, as in "16x96x160", in place of these three fields; every video
            goes to the one that `choose_bucket` names.
        video_encoder: "pixels", or the name of a video autoencoder.
        video_weights: folder of its weights.
        text_encoder: "none", or the name of a text encoder.
        text_weights: folder of its weights.
        text_tokens: tokens of a caption; 0 is the encoder's own number.
        clips_per_video: at most so many clips of one video, spread over it, without overlap.
        test_share: share of the videos whose split the table does not say that are held out.
        max_pixels: width x height x frames that a video may have.
        max_seconds: duration that a video may have.
        max_bad_share: the run stops when more of the rows, or of the videos, are bad.
        bad_allowed: so many bad rows, or videos, never stop it, if no more than half are.
        videos_per_shard: a shard holds the clips of so many videos; also the unit of resuming.
        num_workers: decoding processes; 0 decodes in the main process.
        host_index: this host; hosts share the output folder and take turns at the shards.
        host_count: number of hosts.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    source: str
    table: str
    path_column: str
    caption_column: str
    motion_column: str
    aesthetic_column: str
    split_column: str
    missing_files: str
    curation: str
    top_both: float
    top_one: float
    max_caption_bytes: int
    num_frames: int
    fps: float
    height: int
    width: int
    buckets: tuple[str, ...]
    video_encoder: str
    video_weights: str
    text_encoder: str
    text_weights: str
    text_tokens: int
    clips_per_video: int
    test_share: float
    max_pixels: int
    max_seconds: float
    max_bad_share: float
    videos_per_shard: int
    num_workers: int
    host_index: int
    host_count: int
    also_allowed: tuple[str, ...] = ()
    missing_captions: str = "bad"
    captions_per_video: int = 1
    bad_allowed: int = 2

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("prepare.source must name the folder of the videos")
        for name, allowed in (
            ("missing_files", MISSING_FILES),
            ("missing_captions", MISSING_CAPTIONS),
            ("curation", CURATIONS),
        ):
            check_choice(f"prepare.{name}", getattr(self, name), allowed)
        for name in (
            *("num_frames", "height", "width", "clips_per_video", "max_pixels"),
            *("max_caption_bytes", "captions_per_video", "videos_per_shard", "host_count"),
        ):
            check_at_least(f"prepare.{name}", getattr(self, name), 1)
        self._check_buckets()
        as_tuple("prepare.also_allowed", self.also_allowed, "a tuple of folders")
        for name in ("num_workers", "text_tokens", "bad_allowed"):
            check_at_least(f"prepare.{name}", getattr(self, name), 0)
        for name in ("fps", "max_seconds"):
            check_range(f"prepare.{name}", getattr(self, name), 0, math.inf, "()")
        for name in ("test_share", "max_bad_share"):
            check_range(f"prepare.{name}", getattr(self, name), 0, 1)
        for name in ("top_both", "top_one"):
            check_range(f"prepare.{name}", getattr(self, name), 0, 1, "(]")
        check_range("prepare.host_index", self.host_index, 0, self.host_count - 1)

    def _check_buckets(self) -> None:
        for text in self.buckets:
            try:
                parse_bucket(text)
            except (TypeError, ValueError) as error:
                raise ValueError(f"prepare.buckets={self.buckets!r}: {error}") from error
        if len(set(self.buckets)) < len(self.buckets):
            raise ValueError(f"prepare.buckets={self.buckets!r} names a shape twice")

    @property
    def clip_buckets(self) -> tuple[Bucket, ...]:
        """Shapes of clips, one or more."""
        given = tuple(map(parse_bucket, self.buckets))
        return given or (Bucket(self.num_frames, self.height, self.width),)

    @property
    def needs_captions(self) -> bool:
        """Whether a video without a caption is bad."""
        return self.text_encoder != "none" and self.missing_captions == "bad"

    @property
    def columns(self) -> Columns:
        """Names of the table's columns."""
        return Columns(
            path=self.path_column,
            caption=self.caption_column,
            motion=self.motion_column,
            aesthetic=self.aesthetic_column,
            split=self.split_column,
        )

    @property
    def clip_format(self) -> ClipFormat:
        """What clips are cut."""
        return ClipFormat(
            buckets=self.clip_buckets,
            fps=Fraction(str(self.fps)),
            clips_per_video=self.clips_per_video,
            max_pixels=self.max_pixels,
            max_seconds=self.max_seconds,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Fields that decide the output's bytes; where and by whom it is made does not.

        Encoders are known by their own facts, down to the hash of their weights.
        """
        free = {"source", "table", "max_bad_share", "num_workers", "host_index", "host_count"}
        free |= {"also_allowed", "bad_allowed"}
        free |= {"video_encoder", "video_weights", "text_encoder", "text_weights", "text_tokens"}
        free |= {"num_frames", "height", "width"} if self.buckets else {"buckets"}
        fields = dataclasses.asdict(self) | {"buckets": list(self.buckets)}
        return {k: v for k, v in fields.items() if k not in free}
