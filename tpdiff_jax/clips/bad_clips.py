"""Why a table row or a clip is left out: one exception, one table of reasons.

Preparation never stops for a single bad clip: it is skipped, counted under one of these names and
listed in `skipped.jsonl`.
"""

REASONS = {
    # table rows
    "malformed_row": "the row cannot be read, or its path or caption is no text",
    "empty_path": "the row names no file",
    "absolute_path": "the path is absolute and outside prepare.source and prepare.also_allowed",
    "address": "the path is the address of something elsewhere, such as https://",
    "parent_folder": "the path holds `..`",
    "backslash": "the path holds a backslash",
    "nul_byte": "the path holds a NUL byte",
    "outside_root": "a link leads out of prepare.source and prepare.also_allowed",
    "missing_file": "no such file",
    "not_a_file": "a folder, a pipe or a device, no regular file",
    "caption_too_long": "the caption has more bytes than prepare.max_caption_bytes",
    "no_caption": "no caption, or only blanks, and prepare.text_encoder needs one",
    "wrong_encoding": "bytes that are no text in the file's encoding",
    "unknown_split": "the split is none of the names that are known",
    "duplicate": "an earlier row has the same path",
    # videos
    "empty_file": "zero bytes",
    "unreadable": "no container format that is read here, or its header is damaged or cut off",
    "no_video_stream": "only sound, subtitles or cover art",
    "still_image": "one picture, or an animation in a format that is not read, such as WebP",
    "no_timestamps": "the stream does not say when its frames are shown, or not truthfully",
    "too_long": "longer than prepare.max_seconds",
    "too_large": "more pixels than prepare.max_pixels, over all frames",
    "too_short": "shorter than prepare.num_frames at prepare.fps",
    "rate_too_low": "in every clip frames would repeat: the video's own rate is too low for "
    "prepare.fps, or its pictures stand still",
    "truncated": "the file ends before the duration that its header states",
    "corrupt": "a frame that is needed cannot be decoded without errors, expected ones or others",
    "unknown_colours": "its matrix, primaries or transfer curve cannot be converted",
    "interlaced_fields": "each picture is one field, as in interlaced HEVC",
    "size_changes": "the frame size changes within the video",
    "crashed": "the decoder brought its process down",
}


class TooManyBadClipsError(Exception):
    """More of the data is bad than `max_bad_share` allows."""


class BadClipError(Exception):
    """A row or a video that is to be skipped.

    Args:
        reason: a key of `REASONS`.
        detail: what was found, for the list of skipped clips.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in REASONS:
            raise KeyError(reason)
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
