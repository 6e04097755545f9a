"""Folders in the format of TensorFlow Datasets, written without TensorFlow."""

import json
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2


def write_tfds_folder(folder: pathlib.Path, splits, shape, dtype=np.uint8, name="clips"):
    """Write clips {split: [(video, caption), ...]} as array_record, one shard a split."""
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "video": tfds.features.Tensor(shape=shape, dtype=dtype),
            "caption": tfds.features.Text(),
        }
    )
    features.save_config(folder)
    rows = []
    for split, clips in splits.items():
        path = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for video, caption in clips:
            writer.write(_example(video, caption))
        writer.close()
        rows.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(path.stat().st_size),
                "shardLengths": [str(len(clips))],
            }
        )
    info = {"fileFormat": "array_record", "name": name, "splits": rows, "version": "1.0.0"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def _example(video: np.ndarray, caption: str) -> bytes:
    example = tf_example_pb2.Example()
    entries = example.features.feature
    if np.issubdtype(video.dtype, np.integer):
        entries["video"].int64_list.value.extend(video.ravel().tolist())
    else:
        entries["video"].float_list.value.extend(video.ravel().tolist())
    entries["caption"].bytes_list.value.append(caption.encode())
    return example.SerializeToString()
