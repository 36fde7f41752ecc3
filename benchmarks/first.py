"""The first figures: calls/s through Envoy and straight to a worker, everything on, beside a bare grpc.aio echo.

python -m benchmarks.first                      two minutes, and no other server is installed for it
python -m benchmarks.first --seconds 2 --rounds 3
"""

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["tiny", "--no-peers", *sys.argv[1:]]))
