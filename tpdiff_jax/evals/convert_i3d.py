"""Convert published I3D weights once, offline, to a file of plain numbers.

    python -m tpdiff_jax.evals.convert_i3d i3d_torchscript.pt i3d.safetensors

Reads a TorchScript module or a file of tensors by name (PyTorch, loaded without running code; or
NumPy's .npz), prints the SHA-256 of that file and of the tensors
written. Needs PyTorch for the first two; nothing else in
the package does. FVD of different weights is not comparable: the TorchScript file that goes round
is TF-hub's Kinetics-400 graph, `rgb_imagenet.pt` holds others.

Exit codes: 0 done; 2 bad input; 6 the file could not be written.
"""

import pathlib
import sys
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from tpdiff_jax.command_line.exit_codes import ExitCode
from tpdiff_jax.evals.i3d_weights import params_from_tensors, save_i3d
from tpdiff_jax.files.durable import WriteError, sha256_of_file
from tpdiff_jax.weights.weight_hash import hash_tensors


def main(argv: Sequence[str] | None = None) -> int:
    """Convert; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 2 or any(word.startswith("-") for word in arguments):
        print(__doc__, file=sys.stderr)
        return ExitCode.BAD_INPUT
    source, target = map(pathlib.Path, arguments)
    try:
        convert(source, target)
    except ValueError as error:
        print(f"convert_i3d: error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except WriteError as error:
        print(f"convert_i3d: error: {error}", file=sys.stderr)
        return ExitCode.SAVE_FAILED
    return 0


def convert(source: pathlib.Path, target: pathlib.Path, width: float = 1.0) -> None:
    """Write the weights of `source` to `target`.

    Args:
        source: TorchScript module, PyTorch state dictionary or NumPy file.
        target: safetensors file to write.
        width: factor on the published channels; below 1 in tests.

    Raises:
        ValueError: when the source cannot be read or is no I3D, or the target exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists already")
    if not source.is_file():
        raise ValueError(f"{source} is not a file")
    params = params_from_tensors(read_tensors(source), width)
    origin = {"source": source.name, "source_sha256": sha256_of_file(source)}
    save_i3d(target, params, origin)
    print(f"{source}: SHA-256 {origin['source_sha256']}")
    print(f"{target}: SHA-256 of its tensors {hash_tensors([target])}")


def read_tensors(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    """Return the tensors of a file by name.

    Raises:
        ValueError: for a file that is neither kind, or a missing PyTorch.
    """
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no NumPy file of plain arrays") from error
    try:
        import torch
    except ImportError as error:
        raise ValueError("converting needs PyTorch: pip install torch") from error
    try:
        tensors = torch.jit.load(str(path), map_location="cpu").state_dict()
    except RuntimeError:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of many types, for a file that is no such file
            raise ValueError(  # PyTorch's own words say how to run what the file holds
                f"{path} is neither TorchScript nor a PyTorch file of tensors alone; objects, as "
                "of a whole pickled module, are not read"
            ) from error
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise ValueError(f"{path} must hold tensors by name")
    # NumPy lacks bfloat16 and smaller types.
    return {n: (t.float() if t.is_floating_point() else t).numpy() for n, t in tensors.items()}


if __name__ == "__main__":
    sys.exit(main())
