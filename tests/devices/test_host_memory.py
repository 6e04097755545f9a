"""Large blocks are handed out again without new pages; freed memory can be given back."""

import subprocess
import sys

import pytest

PROBE = """
import ctypes, resource, sys, threading
from tpdiff_jax.devices.host_memory import release_free_memory, reuse_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

if sys.argv[1] == "reuse":
    assert reuse_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
SIZE = 200 << 20
faults = []

def take():  # in a thread, as XLA's are
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(SIZE)
        ctypes.memset(block, 1, SIZE)
        libc.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=take)
thread.start()
thread.join()
kept = resident()
assert release_free_memory()
print(max(faults[1:]), kept - resident())
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's mallopt")


def probe(how):
    command = [sys.executable, "-c", PROBE, how]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in ran.stdout.split()]


def test_a_large_block_is_handed_out_again_without_new_pages():
    assert probe("plain")[0] > 1000  # what it is about: each block is mapped and zeroed anew
    faults, given_back = probe("reuse")
    assert faults < 100
    assert given_back > 190 << 20
