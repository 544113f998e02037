"""One thread for torch, here and in every process a test starts: the networks of the suite are tiny, and threads that
wait for each other on busy cores take minutes for what one does in seconds. No example of hypothesis has a deadline of
its own, which a busy core misses by chance.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
