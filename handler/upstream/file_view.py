"""A second view of an open file, with a position of its own.

A call that was given up may read on in its thread while the same recording is read for a job, and may do so when the
file has been closed for everybody else.
"""

import io
import os
from typing import Any, BinaryIO


class FileView(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._number = os.dup(file.fileno())
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def readinto(self, buffer: Any) -> int:
        read = os.preadv(self._number, [buffer], self._place)
        self._place += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._place,
            os.SEEK_END: os.fstat(self._number).st_size,
        }
        self._place = begin[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        if not self.closed:
            os.close(self._number)
        super().close()
