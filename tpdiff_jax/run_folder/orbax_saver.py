"""Orbax's asynchronous checkpointer, so opened and closed that a failed save ends."""

import orbax.checkpoint as ocp
from absl import logging


def open_checkpointer() -> ocp.AsyncCheckpointer:
    """Return a checkpointer that writes in the background and makes its folders before.

    A folder that cannot be made, as in a folder that is read-only, is then an error at once. Made
    in the background, it would leave orbax's threads waiting for it, for 20 minutes, and the
    process with them.
    """
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=options)


def close_checkpointer(checkpointer: ocp.AsyncCheckpointer) -> None:
    """Release it; a save that has failed was told of when it was waited for, not here again."""
    try:
        checkpointer.close()
    except Exception as error:  # of many types, as a save's
        logging.debug("closing the checkpointer: %s", error)
