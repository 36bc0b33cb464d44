"""`python -m nbray.dashboard FD FD`, from driver/dashboard.py: settings come on the first pipe, readiness goes to the second."""

from __future__ import annotations

import os
import sys

import msgspec

from nbray.dashboard import process
from nbray.driver.dashboard import Place, Settings


def main() -> None:
    settings_fd, ready_fd = (int(each) for each in sys.argv[1:3])
    with open(settings_fd, "rb") as file:
        settings = msgspec.json.decode(file.read(), type=Settings)

    def ready(place: Place, _token: str) -> None:
        os.write(ready_fd, msgspec.json.encode({"port": place.port}))
        os.close(ready_fd)

    try:
        process.run(settings, ready)
    except OSError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
