"""A stand-in for the part of CuPy that the staged chain calls, on NumPy arrays.

Work on streams is put off until somebody waits for it, as late as CUDA may do it: an array that is
used again too early, or a missing event, gives wrong numbers. ``make(eager=True)`` does everything
at once instead.
"""

import types
import weakref

import numpy as np


class OutOfMemoryError(MemoryError):
    """The device is full."""


class Array(np.ndarray):
    """An array on the device."""

    def set(self, values, stream):
        assert values.dtype == self.dtype
        assert values.shape == self.shape
        stream.add(lambda: np.copyto(self, values))

    def get(self, stream=None, out=None, blocking=True):
        if stream is None:
            return np.array(self)
        assert not blocking
        stream.add(lambda: np.copyto(out, self))
        return out


class Event:
    """A place in the order of a stream."""

    def __init__(self, disable_timing=False):
        self.stream, self.is_reached = None, False

    def record(self, stream):
        self.stream = stream

        def reach():
            self.is_reached = True

        stream.add(reach)

    def synchronize(self):
        while not self.is_reached:
            self.stream.work.pop(0)()


def make(*, eager=False, memory=10**9):
    """Return a module like CuPy with `memory` bytes on its device."""
    current = []
    used = [0]

    class Stream:
        """Work in order; a context manager that makes it the current stream."""

        ptr = 0

        def __init__(self, non_blocking=False):
            self.work = []

        def add(self, action):
            self.work.append(action)
            if eager:
                self.synchronize()

        def record(self):
            event = Event()
            event.record(self)
            return event

        def wait_event(self, event):
            self.add(event.synchronize)

        def synchronize(self):
            while self.work:
                self.work.pop(0)()

        def __enter__(self):
            current.append(self)
            return self

        def __exit__(self, *_):
            current.pop()

    default = Stream()

    def empty(shape, dtype=np.float64):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if used[0] + size > memory:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        made = np.full(shape, 77, dtype=dtype).view(Array)  # no zeros that one could rely on
        used[0] += size

        def free():
            used[0] -= size

        weakref.finalize(made, free)
        return made

    module = types.ModuleType("cupy")
    module.empty = empty
    module.zeros = lambda shape, dtype: np.zeros(shape, dtype=dtype).view(Array)
    module.asarray = lambda values: np.asarray(values)
    module.ascontiguousarray = np.ascontiguousarray
    module.asnumpy = np.asarray
    module.int32 = np.int32
    module.get_default_memory_pool = lambda: types.SimpleNamespace(
        free_all_blocks=lambda: None, free_bytes=lambda: 0
    )
    module.cuda = types.SimpleNamespace(
        Stream=Stream,
        Event=Event,
        get_current_stream=lambda: current[-1] if current else default,
        alloc_pinned_memory=bytearray,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            memGetInfo=lambda: (memory - used[0], memory),
            CUDARuntimeError=RuntimeError,
        ),
        Device=lambda: types.SimpleNamespace(attributes={"MultiProcessorCount": 1}),
    )
    module.used = used
    return module
